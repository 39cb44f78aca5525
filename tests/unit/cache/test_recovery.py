"""What replay makes of logs with something missing in the middle, each case by itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.errors import Damaged, NoSpace
from qss.formats.journal import scan_frames
from qss.formats.record import SEGMENT_HEADER_BYTES
from qss.formats.tables import ExtentRow, Table, pair_key, u64_key
from qss.host import Host
from qss.ids import Ino
from qss.limits import KIB, MIB, STRIPE_BYTES
from tests.harness.crash_disk import CrashDisk, FixedClock

OPTIONS = CacheOptions(
    segment_bytes=8 * MIB, journal_bytes=32 * MIB, index_map_bytes=64 * MIB, free_bytes_hard=0, free_bytes_soft=1
)


async def opened(root: Path, disk: CrashDisk, boot: str = "boot-1", options: CacheOptions = OPTIONS) -> SegmentCache:
    return await SegmentCache.open(root, Host(disk, FixedClock(boot)), options, None)


async def after_power_cut(root: Path, disk: CrashDisk, options: CacheOptions = OPTIONS) -> SegmentCache:
    """Everything written is on the disk but for what the test took away, and LMDB is gone."""
    shutil.rmtree(root / "index")
    return await opened(root, disk, "boot-2", options)


def note(cache: SegmentCache, number: int, value: bytes) -> None:
    change = cache.begin()
    change.put(Table.XATTRS, u64_key(number) + b"user.x", value)
    cache.commit(change)


def notes(cache: SegmentCache) -> list[int]:
    return [int.from_bytes(key[:8], "big") for key, _ in cache.scan(Table.XATTRS, b"")]


def write(cache: SegmentCache, offset: int, payload: bytes) -> list[ExtentRow]:
    change = cache.begin()
    extents = cache.append(Ino(2), offset, payload)
    for at, extent in extents:
        change.put(Table.EXTENTS, pair_key(2, at), extent.pack())
    cache.commit(change)
    return [extent for _, extent in extents]


def written(cache: SegmentCache) -> list[int]:
    return [int.from_bytes(key[8:], "big") for key, _ in cache.scan(Table.EXTENTS, b"")]


async def test_a_frame_lost_at_the_end_of_a_stripe_is_not_taken_for_padding(tmp_path: Path) -> None:
    disk = CrashDisk()
    cache = await opened(tmp_path, disk)
    for number in range(1, 101):
        note(cache, number, bytes([number]) * 60_000)
    journal = next(tmp_path / "journal" / name for name in disk.listdir(tmp_path / "journal"))
    handle = disk.open(journal, write=True)
    assert disk.size(handle) > STRIPE_BYTES
    *_, (last, _, _) = scan_frames(disk.pread(handle, STRIPE_BYTES, 0), SEGMENT_HEADER_BYTES)
    disk.pwrite(handle, [bytes(STRIPE_BYTES - last)], last)
    cache = await after_power_cut(tmp_path, disk)
    found = notes(cache)
    assert found == list(range(1, len(found) + 1))
    assert 60 < len(found) < 70
    note(cache, 200, b"on")
    await cache.close()
    assert notes(await after_power_cut(tmp_path, disk)) == [*found, 200]


async def test_a_record_lost_at_the_end_of_a_stripe_ends_the_prefix(tmp_path: Path) -> None:
    disk = CrashDisk()
    cache = await opened(tmp_path, disk)
    extents = [extent for n in range(100) for extent in write(cache, n * 60_000, bytes([n + 1]) * 60_000)]
    last = max(n for n, extent in enumerate(extents) if extent.record_position < STRIPE_BYTES)
    assert last < 90
    path = tmp_path / "data" / f"{extents[0].segment:016x}.log"
    handle = disk.open(path, write=True)
    disk.pwrite(handle, [bytes(STRIPE_BYTES - extents[last].record_position)], extents[last].record_position)
    cache = await after_power_cut(tmp_path, disk)
    assert written(cache) == [n * 60_000 for n in range(last)]
    await cache.close()


async def test_a_later_segment_does_not_count_without_the_one_before_it(tmp_path: Path) -> None:
    disk = CrashDisk()
    options = CacheOptions(segment_bytes=256 * KIB, index_map_bytes=64 * MIB, free_bytes_hard=0, free_bytes_soft=1)
    cache = await opened(tmp_path, disk, options=options)
    (whole,) = write(cache, 0, b"1" * 150_000)
    split, rest = write(cache, 150_000, b"2" * 150_000)  # the journal says only how far its second part reaches
    assert split.segment == whole.segment < rest.segment
    handle = disk.open(tmp_path / "data" / f"{split.segment:016x}.log", write=True)
    disk.truncate(handle, split.record_position)
    cache = await after_power_cut(tmp_path, disk, options)
    assert written(cache) == [0]
    await cache.close()


async def test_half_a_frame_left_by_a_full_disk_is_cleared_away(tmp_path: Path) -> None:
    disk = CrashDisk()
    cache = await opened(tmp_path, disk)
    note(cache, 1, b"one")
    disk.free = 1000
    with pytest.raises(NoSpace):
        note(cache, 2, b"x" * 5000)
    disk.free = 1 << 30
    note(cache, 3, b"three")
    await cache.cut()
    note(cache, 4, b"four")
    await cache.cut()
    assert notes(await after_power_cut(tmp_path, disk)) == [1, 3, 4]


async def test_damage_inside_a_sealed_journal_is_said_and_nothing_is_cut(tmp_path: Path) -> None:
    disk = CrashDisk()
    cache = await opened(tmp_path, disk)
    for number in range(1, 4):
        note(cache, number, b"x")
        await cache.cut()
    files = sorted(disk.listdir(tmp_path / "journal"))
    disk.flip(tmp_path / "journal" / files[1], 60)
    with pytest.raises(Damaged):
        await after_power_cut(tmp_path, disk)
    assert sorted(disk.listdir(tmp_path / "journal")) == files
    disk.flip(tmp_path / "journal" / files[1], 60)
    assert notes(await after_power_cut(tmp_path, disk)) == [1, 2, 3]


async def test_a_missing_first_journal_is_said_and_nothing_is_cut(tmp_path: Path) -> None:
    disk = CrashDisk()
    cache = await opened(tmp_path, disk)
    for number in range(1, 4):
        note(cache, number, b"x")
        await cache.cut()
    files = sorted(disk.listdir(tmp_path / "journal"))
    disk.lose(tmp_path / "journal" / files[0])
    with pytest.raises(Damaged):
        await after_power_cut(tmp_path, disk)
    assert sorted(disk.listdir(tmp_path / "journal")) == files[1:]


async def test_when_lmdb_loses_its_transaction_the_journal_gives_every_row_back(tmp_path: Path) -> None:
    disk = CrashDisk()
    cache = await opened(tmp_path, disk)
    note(cache, 1, b"one")
    await cache.checkpoint()
    note(cache, 2, b"two")
    write(cache, 0, b"content")
    live = cache._ledger.index.live_all()
    cache._ledger.index._txn.abort()  # as a commit does that fails on a full disk
    with pytest.raises(Damaged):
        await cache.checkpoint()
    assert (notes(cache), written(cache), cache._ledger.index.live_all()) == ([1, 2], [0], live)
    note(cache, 3, b"three")
    await cache.checkpoint()
    await cache.close()
    assert notes(await opened(tmp_path, disk)) == [1, 2, 3]
