"""Deleting gives the space back, on this machine and at real nodes, and what is left survives everything else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.demo import Demo, bytes_of, running_demo, wait_until
from tests.harness.elsewhere import Elsewhere

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
    return bytes_of((demo.root / "nodes").rglob("*.tvol"))


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
    wait_until("nothing is wrong, or not any more", lambda: demo.status()["errors"] == [])
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == times

    demo.sync()
    for name in ("trove-2", "trove-5"):
        demo.kill(name)
    demo.evict_all()
    assert digests(folder) == rest

    there = Elsewhere(demo, tmp_path / "elsewhere", ("trove-1", "trove-3", "trove-4", "trove-6"))
    demo.lose_machine()
    assert there.recovered()["lost_segments"] == []
    with there.mounted() as mnt:
        assert digests(mnt / "d") == rest
