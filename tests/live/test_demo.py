"""The demo and qssctl on real nodes: what each command says, what is refused, what survives a kill. Small and quick;
test_acceptance.py does the large ones."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qss.app.exits import Exit
from qss.app.mountpoint import is_dead
from qss.app.running import is_alive
from tests.harness.demo import QSSCTL, WAIT_S_MAX, Demo, running_demo, wait_until
from tests.harness.elsewhere import Elsewhere

pytestmark = pytest.mark.live

MIB = 1 << 20


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with running_demo(tmp_path / "demo", k=2, m=1) as started:
        yield started


def test_a_working_day(demo: Demo) -> None:
    demo.start_again_with("cache", seal_after="1h")  # nothing is safe before it is told to be
    content = os.urandom(5 * MIB)
    (demo.mnt / "file").write_bytes(content)
    assert demo.status()["at_risk_bytes"] >= len(content)
    lines = [json.loads(line) for line in demo.qssctl("sync", "--json").stdout.splitlines()]
    assert lines[-1]["cut_ns"] > 0
    status = demo.status()
    assert status["at_risk_bytes"] == 0
    assert [each["name"] for each in status["locations"]] == ["trove-1", "trove-2", "trove-3"]
    assert all(each["up"] for each in status["locations"])
    assert status["offload"]["pid"] == demo.pid("offload")
    for command in (["status"], ["retention", "show"], ["location", "list"], ["location", "test"]):
        assert demo.qssctl(*command).stdout

    assert json.loads(demo.qssctl("retention", "run", "--all", "--dry-run", "--json").stdout)["bytes"] >= len(content)
    assert demo.local_segment_bytes() >= len(content)
    demo.evict_all()
    assert demo.local_segment_bytes() == 0
    demo.qssctl("retention", "set", "--max-size", "1G", "--max-age", "7d")
    shown = json.loads(demo.qssctl("retention", "show", "--json").stdout)
    assert (shown["size_bytes_max"], shown["age_s_max"]) == (1 << 30, 604_800)

    demo.stop()
    assert list((demo.root / "run").glob("*.pid")) == []
    demo.start()
    assert (demo.mnt / "file").read_bytes() == content
    assert json.loads(demo.qssctl("retention", "show", "--json").stdout)["size_bytes_max"] == 1 << 30


def test_kills_lose_nothing(demo: Demo) -> None:
    (demo.mnt / "one").write_bytes(b"1" * MIB)
    demo.kill("offload")
    demo.sync()  # by the offload process that came after
    (demo.mnt / "two").write_bytes(b"2" * MIB)
    offload = demo.pid("offload")
    demo.kill("mount")
    wait_until("offload leaves with the mount process", lambda: not is_alive(offload))
    assert is_dead(demo.mnt)
    demo.start()
    assert (demo.mnt / "two").read_bytes() == b"2" * MIB
    demo.sync()
    demo.evict_all()
    assert (demo.mnt / "one").read_bytes() == b"1" * MIB


def test_recover_from_k_nodes_without_the_configuration(demo: Demo, tmp_path: Path) -> None:
    (demo.mnt / "file").write_bytes(b"precious" * 1000)
    demo.sync()
    there = Elsewhere(demo, tmp_path / "elsewhere", ("trove-1", "trove-3"))
    demo.lose_machine()
    demo.kill("trove-2")
    report = there.recovered()
    assert report["lost_segments"] == []
    assert (report["answered"], report["locations"]) == (2, 3)
    with there.mounted() as mnt:
        assert (mnt / "file").read_bytes() == b"precious" * 1000


def test_mounted_again_right_after_umount_of_the_system(demo: Demo) -> None:
    """umount(8) does not wait for what the mount process still does; the next mount does."""
    written = os.urandom(16 * MIB)
    (demo.mnt / "file").write_bytes(written)
    former = demo.pid("mount")
    subprocess.run(["umount", demo.mnt], check=True, timeout=WAIT_S_MAX)
    said = demo.qssctl("mount").stderr
    assert not is_alive(former)
    assert not said or "waiting" in said
    assert (demo.mnt / "file").read_bytes() == written


def test_refusals_of_a_running_file_system(demo: Demo, tmp_path: Path) -> None:
    def refused(*arguments: str) -> str:
        done = demo.qssctl(*arguments, check=False)
        assert done.returncode == Exit.REFUSED, done
        assert done.stderr.count("\n") == 1
        return done.stderr

    (tmp_path / "mnt2").mkdir()
    assert "mounted already" in refused("mount", str(tmp_path / "mnt2"))
    assert list((tmp_path / "mnt2").iterdir()) == []
    with (demo.mnt / "open").open("w"):
        assert "in use" in refused("umount")
    assert os.path.ismount(demo.mnt)

    port = json.loads((demo.root / "ports.json").read_text())["trove-1"]
    wrong = tmp_path / "wrong"
    wrong.write_text("not the secret")
    wrong.chmod(0o600)
    url = f"http://127.0.0.1:{port}/other?access_key=demo&secret_key_file={wrong}"
    command = [str(QSSCTL), "--config", str(tmp_path / "new.toml"), "init", "--location", url, "--k", "1", "--m", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S_MAX, check=False, cwd=tmp_path)
    assert done.returncode == Exit.REFUSED
    assert "refuses the credentials" in done.stderr
    assert not (tmp_path / "new.toml").exists()
    assert not (tmp_path / "state").exists()
