"""Journals are trimmed here and at real nodes while files come and go; what is left gives everything back."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from qss.app.mountpoint import unmount
from tests.harness.demo import Demo, running_demo, wait_until
from tests.harness.elsewhere import Elsewhere

pytestmark = pytest.mark.live

Tree = dict[str, tuple[int, int, bytes]]
"""path → mode, mtime, content"""


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """Journals of 64 KiB, a checkpoint after 512 KiB of them."""
    with running_demo(tmp_path / "demo", k=2, m=1) as started:
        started.start_again_with("cache", journal_size="64K", trim_after="512K", seal_after="1s")
        yield started


def tree(folder: Path) -> Tree:
    found: Tree = {}
    for path in sorted(folder.rglob("*")):
        about = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (about.st_mode, about.st_mtime_ns, content)
    return found


def numbers_in(folder: Path) -> list[int]:
    return sorted(int(path.stem, 16) for path in folder.glob("*.log"))


def live_a_little(folder: Path, rng: random.Random, files: int) -> None:
    folder.mkdir()
    for number in range(files):
        path = folder / f"file {number:05} of many, with a name that takes some bytes"
        path.write_bytes(rng.randbytes(rng.randrange(200)))
        if number % 7 == 0:
            path.rename(folder / f"renamed {number}")
        elif number % 5 == 0:
            path.unlink()


def test_journals_are_trimmed_and_everything_comes_back_without_them(demo: Demo, tmp_path: Path) -> None:
    rng, cache = random.Random(4), demo.state / "cache"
    live_a_little(demo.mnt / "a", rng, 2000)
    demo.sync()
    wait_until("a checkpoint is made", lambda: numbers_in(cache / "checkpoint"))
    live_a_little(demo.mnt / "b", rng, 2000)
    demo.sync()
    wait_until("the first journals go", lambda: numbers_in(cache / "journal")[0] > 5)
    wait_until("nothing waits any more", lambda: demo.status()["cache"]["segments_condemned"] == 0)
    assert demo.status()["offload"]["deleted_segments"] > 4
    demo.qssctl("fsck", "--remote")
    before = tree(demo.mnt)

    demo.kill("mount")  # and the index is lost with it
    unmount(demo.mnt, lazy=True)
    shutil.rmtree(cache / "index")
    demo.start()
    assert tree(demo.mnt) == before
    assert demo.status()["cache"]["replayed_batches"] < 12_000
    (demo.mnt / "after").write_bytes(b"it goes on")
    demo.sync()
    demo.qssctl("fsck")
    before = tree(demo.mnt)

    there = Elsewhere(demo, tmp_path / "elsewhere", ("trove-1", "trove-3"))
    demo.lose_machine()
    demo.kill("trove-2")
    report = there.recovered()
    assert report["lost_segments"] == []
    assert report["point"]["checkpoint"]
    assert report["point"]["journals"][0] > 5
    assert numbers_in(there.state / "cache" / "checkpoint") == report["point"]["checkpoint"]
    with there.mounted() as mnt:
        assert tree(mnt) == before
    there.qssctl("fsck")
