"""Deleting gives the space back, on this machine and at real nodes, and what is left survives everything else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qss.app.mountpoint import unmount
from tests.harness.demo import QSSCTL, Demo, running_demo, wait_until

pytestmark = pytest.mark.live

MIB = 1 << 20
FILES, FILE_BYTES = 400, MIB // 2
LOCAL_SLACK = 20 * MIB  # 16 MiB of dead bytes are not worth compacting
REMOTE_SLACK = 6 * 20 * MIB  # the same at each node


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with running_demo(tmp_path / "demo", k=4, m=2) as started:
        yield started


def remote_bytes(demo: Demo) -> int:
    return sum(path.stat().st_size for path in demo.root.rglob("*.tvol"))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.blake2b(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_deleting_most_of_it_gives_the_space_back_and_the_rest_survives_nodes_and_machine(
    demo: Demo, tmp_path: Path
) -> None:
    folder = demo.mnt / "d"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number:04}").write_bytes(os.urandom(FILE_BYTES))
    demo.sync()
    assert remote_bytes(demo) > 1.4 * FILES * FILE_BYTES
    for number in range(FILES):
        if number % 10:
            (folder / f"{number:04}").unlink()
    rest = digests(folder)
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    demo.sync()
    live = len(rest) * FILE_BYTES
    wait_until("local bytes go", lambda: demo.local_segment_bytes() < 1.3 * live + LOCAL_SLACK)
    wait_until("remote bytes go", lambda: remote_bytes(demo) < 1.3 * 1.5 * live + REMOTE_SLACK)
    wait_until("nothing waits any more", lambda: demo.status()["cache"]["segments_condemned"] == 0)
    demo.qssctl("fsck", "--remote")  # what is gone is not missed, what is kept is whole
    status = demo.status()
    assert status["cache"]["live_bytes"] == live
    assert status["cache"]["moved_bytes"] > 0
    assert status["offload"]["deleted_segments"] > 0
    assert status["errors"] == []
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == times

    demo.sync()
    for name in ("trove-2", "trove-5"):
        demo.kill(name)
    demo.evict_all()
    assert digests(folder) == rest

    key = tmp_path / "key"
    shutil.copy(demo.state / "key", key)
    ports = json.loads((demo.root / "ports.json").read_text())
    demo.kill("mount")
    unmount(demo.mnt, lazy=True)
    shutil.rmtree(demo.state)
    assert recovered(ports, demo.root / "credentials", key, tmp_path / "elsewhere") == rest


def recovered(ports: dict[str, int], credentials: Path, key: Path, fresh: Path) -> dict[str, str]:
    """What is in the directory after recovery on a new machine from four nodes."""
    fresh.mkdir()
    qssctl = [str(QSSCTL), "--config", str(fresh / "qss.toml")]
    recover = [*qssctl, "recover", "--key", str(key), "--json"]
    for name in ("trove-1", "trove-3", "trove-4", "trove-6"):
        url = f"http://127.0.0.1:{ports[name]}/qss?access_key=demo&secret_key_file={credentials}"
        recover += ["--location", url]
    done = subprocess.run(recover, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["lost_segments"] == []
    subprocess.run([*qssctl, "mount", str(fresh / "mnt")], check=True, timeout=60, capture_output=True)
    try:
        return digests(fresh / "mnt" / "d")
    finally:
        subprocess.run([*qssctl, "umount", "--drain", "1s"], timeout=60, check=False, capture_output=True)
