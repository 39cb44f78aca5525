"""A dropped copy loses its name at once and its blocks in a thread: freeing 64 MiB must not hold up an `ls`."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from qss.cache.read_cache import WHOLE, ReadCache
from qss.host import PosixDisk
from qss.host.disk import Handle
from qss.ids import SegmentId

KEY = (SegmentId(7), WHOLE)


class WatchedDisk(PosixDisk):
    """Knows which handles are open, and which threads closed some."""

    def __init__(self) -> None:
        self.held: set[Handle] = set()
        self.closers: set[int] = set()

    def open(self, path: Path, *, write: bool = False) -> Handle:
        handle = super().open(path, write=write)
        self.held.add(handle)
        return handle

    def close(self, handle: Handle) -> None:
        self.held.remove(handle)
        self.closers.add(threading.get_ident())
        super().close(handle)


@pytest.fixture
def disk() -> WatchedDisk:
    return WatchedDisk()


@pytest.fixture
def reads(disk: WatchedDisk, tmp_path: Path) -> ReadCache:
    return ReadCache(disk, tmp_path, None, 1.0, lambda segment: None)


async def test_the_last_descriptor_of_a_removed_file_is_closed_by_a_thread(
    disk: WatchedDisk, reads: ReadCache, tmp_path: Path
) -> None:
    path = tmp_path / "7.log"
    path.write_bytes(b"content")
    reads.add_segment(KEY[0], path, 7, 0.0)
    assert reads.drop(KEY) == 7
    assert not path.exists()
    assert len(disk.held) == 1  # the blocks are still there
    await reads.free_dropped()
    assert disk.held == set()
    assert disk.closers
    assert threading.get_ident() not in disk.closers


async def test_a_file_somebody_removed_is_dropped_too(disk: WatchedDisk, reads: ReadCache, tmp_path: Path) -> None:
    reads.add_segment(KEY[0], tmp_path / "gone.log", 7, 0.0)
    assert reads.drop(KEY) == 7
    assert reads.drop(KEY) == 0
    await reads.free_dropped()
    assert reads.files == {}
    assert disk.held == set()


async def test_what_was_dropped_and_not_free_dropped_is_closed_in_the_end(
    disk: WatchedDisk, reads: ReadCache, tmp_path: Path
) -> None:
    path = tmp_path / "7.log"
    path.write_bytes(b"content")
    reads.add_segment(KEY[0], path, 7, 0.0)
    reads.drop(KEY)
    reads.close()
    assert disk.held == set()
