"""What the marker says was synced is damage when it does not verify, and nothing else is."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.errors import Damaged, FsError, NoSpace
from qss.formats.record import SEGMENT_HEADER_BYTES
from qss.formats.tables import ExtentRow, Table, pair_key, u64_key
from qss.host import Host
from qss.ids import Ino
from tests.harness.crash_disk import CrashDisk, FixedClock

OPTIONS = CacheOptions(index_map_bytes=1 << 26, free_bytes_hard=0, free_bytes_soft=1, fetch_deadline_s=0.1)


async def opened(root: Path, disk: CrashDisk, boot: str = "boot-1") -> SegmentCache:
    return await SegmentCache.open(root, Host(disk, FixedClock(boot)), OPTIONS, None)


def note(cache: SegmentCache, number: int) -> None:
    change = cache.begin()
    change.put(Table.XATTRS, u64_key(number) + b"user.x", b"value")
    cache.commit(change)


def write(cache: SegmentCache, ino: int, data: bytes) -> ExtentRow:
    change = cache.begin()
    ((at, extent),) = cache.append(Ino(ino), 0, data)
    change.put(Table.EXTENTS, pair_key(ino, at), extent.pack())
    cache.commit(change)
    return extent


def notes(cache: SegmentCache) -> list[int]:
    return [int.from_bytes(key[:8], "big") for key, _ in cache.scan(Table.XATTRS, b"")]


def only(disk: CrashDisk, folder: Path) -> Path:
    (name,) = disk.listdir(folder)
    return folder / name


async def test_a_rotten_frame_that_was_synced_stops_the_start_and_nothing_is_cut(tmp_path: Path) -> None:
    """In a journal that was never sealed: no row says that it was whole."""
    disk = CrashDisk()
    cache = await opened(tmp_path, disk)
    for number in range(1, 5):
        note(cache, number)
    await cache.checkpoint()
    note(cache, 5)
    cache._let_go()
    journal = only(disk, tmp_path / "journal")
    disk.flip(journal, 60)
    shutil.rmtree(tmp_path / "index")
    content = disk.files()[journal]
    with pytest.raises(Damaged, match="is damaged behind byte"):
        await opened(tmp_path, disk, "boot-2")
    assert disk.files()[journal] == content
    disk.flip(journal, 60)
    cache = await opened(tmp_path, disk, "boot-2")
    assert notes(cache) == [1, 2, 3, 4, 5]
    await cache.close()


async def test_rotten_content_that_was_synced_is_no_reason_to_cut_the_journal(tmp_path: Path) -> None:
    disk = CrashDisk()
    cache = await opened(tmp_path, disk)
    extents = [write(cache, ino, bytes([ino]) * 500) for ino in range(2, 6)]
    await cache.checkpoint()
    cache._let_go()
    disk.flip(only(disk, tmp_path / "data"), extents[1].record_position + 100)
    shutil.rmtree(tmp_path / "index")
    cache = await opened(tmp_path, disk, "boot-2")
    for number, extent in enumerate(extents):
        if number == 1:
            with pytest.raises(FsError) as failure:
                await cache.read(extent, 0, 500)
            assert failure.value.errno == errno.EIO
        else:
            assert await cache.read(extent, 0, 500) == bytes([number + 2]) * 500
    await cache.close()


async def test_a_journal_with_nothing_but_its_head_is_not_missed(tmp_path: Path) -> None:
    """The disk was full when its first frame was to be written, and the index was lost afterwards."""
    disk = CrashDisk()
    cache = await opened(tmp_path, disk)

    def full(verb: str, path: Path, _number: int) -> Exception | None:
        has_head = len(disk.files().get(path, b"")) > 0
        return NoSpace("injected") if verb == "pwrite" and path.parent.name == "journal" and has_head else None

    disk.fail = full
    with pytest.raises(NoSpace):
        note(cache, 1)
    disk.fail = None
    assert len(disk.files()[only(disk, tmp_path / "journal")]) == SEGMENT_HEADER_BYTES
    await cache._durability.mark_closed()
    cache._let_go()
    shutil.rmtree(tmp_path / "index")
    cache = await opened(tmp_path, disk)
    assert notes(cache) == []
    await cache.close()
