"""Without the demo: key new, init, mount, umount; two Troves and somebody else's S3 server as the third location."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from qss.trove.testing import TroveServer
from tests.harness.boto import boto_client
from tests.harness.demo import QSSCTL, WAIT_S_MAX, forget_pages
from tests.harness.moto_server import moto_server

pytestmark = pytest.mark.live

MIB = 1 << 20


def test_a_file_system_over_two_troves_and_a_foreign_server(tmp_path: Path) -> None:
    config, key, mnt = tmp_path / "qss.toml", tmp_path / "key", tmp_path / "mnt"

    def qssctl(*arguments: str) -> str:
        command = [str(QSSCTL), "--config", str(config), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S_MAX, check=False)
        assert done.returncode == 0, f"{arguments} → {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    with (
        TroveServer(data=tmp_path / "one") as one,
        TroveServer(data=tmp_path / "two") as two,
        moto_server() as moto_endpoint,
    ):
        locations = []
        for server in (one, two):
            secret = server_secret(tmp_path, server)
            locations.append(f"{server.endpoint}/qss?access_key={server.access_key}&secret_key_file={secret}")
        foreign = tmp_path / "moto-secret"
        foreign.write_text("anything")
        foreign.chmod(0o600)
        locations.append(f"{moto_endpoint}/somebody-elses?access_key=anybody&secret_key_file={foreign}")

        qssctl("key", "new", "--out", str(key))
        assert key.stat().st_mode & 0o777 == 0o600
        chosen = [part for location in locations for part in ("--location", location)]
        state = tmp_path / "state"
        qssctl(
            "init", *chosen, "--k", "2", "--m", "1", "--key", str(key), "--state", str(state), "--mountpoint", str(mnt)
        )
        qssctl("mount", str(mnt))
        try:
            content = random.Random(5).randbytes(9 * MIB)
            (mnt / "file").write_bytes(content)
            qssctl("sync")
            stored = _stored_at(moto_endpoint)
            assert sum(stored.values()) > len(content) / 2, "the foreign server holds its shard"
            qssctl("retention", "run", "--all")
            forget_pages(mnt)
            one.kill()  # now the foreign server's shard is needed
            assert (mnt / "file").read_bytes() == content
            one.start()  # all locations are back: nothing stays at risk when it is unmounted
        finally:
            if os.path.ismount(mnt):
                qssctl("umount", str(mnt))
        assert not os.path.ismount(mnt)
    shutil.rmtree(tmp_path / "state")


def server_secret(tmp_path: Path, server: TroveServer) -> Path:
    """The secret in a file of its own, as it should never stand in a command line."""
    path = tmp_path / f"secret-{server.pid}"
    path.write_text(server.secret_key)
    path.chmod(0o600)
    return path


def _stored_at(endpoint: str) -> dict[str, int]:
    listed = boto_client(endpoint, "x", "y").list_objects_v2(Bucket="somebody-elses")
    return {entry["Key"]: entry["Size"] for entry in listed.get("Contents", [])}
