"""Large payloads are written by a thread, and nothing that matters changes by it."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from qss.cache.appender import BULK_BYTES
from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.errors import NoSpace
from qss.formats.tables import ExtentRow, Table, pair_key, u64_key
from qss.fs.attrs import SetAttributes, User
from qss.fs.filesystem import FileSystem
from qss.host import Host
from qss.host.disk import Handle
from qss.ids import ROOT_INO, Ino
from qss.limits import KIB, MIB
from tests.harness.crash_disk import CrashDisk, Fate, FixedClock
from tests.harness.waiting import until

OPTIONS = CacheOptions(segment_bytes=2 * MIB, index_map_bytes=64 * MIB, free_bytes_soft=0, free_bytes_hard=0)
LARGE = random.Random(1).randbytes(BULK_BYTES)


class SlowDisk(CrashDisk):
    """Its large writes wait until they are let go on; they must not wait on the thread of the cache."""

    def __init__(self) -> None:
        super().__init__()
        self.here = threading.get_ident()
        self.permits = threading.Semaphore(0)
        self.writing = 0
        self.full = False

    def pwrite(self, handle: Handle, parts: list[bytes | memoryview], position: int) -> int:
        if sum(map(len, parts)) > 256 * KIB:
            assert threading.get_ident() != self.here
            self.writing += 1
            assert self.permits.acquire(timeout=60)
            if self.full:
                super().pwrite(handle, [bytes(parts[-1][:1000])], position)
                raise NoSpace("full")
        return super().pwrite(handle, parts, position)


@pytest.fixture
async def disk() -> SlowDisk:
    return SlowDisk()


@pytest.fixture
async def cache(tmp_path: Path, disk: SlowDisk) -> SegmentCache:
    return await SegmentCache.open(tmp_path, Host(disk, FixedClock()), OPTIONS, None)


async def write(cache: SegmentCache, ino: int, payload: bytes) -> None:
    placed = await cache.append_in_turn(Ino(ino), 0, payload)
    change = cache.begin()
    for at, extent in placed:
        change.put(Table.EXTENTS, pair_key(ino, at), extent.pack())
    cache.commit(change)


def content(cache: SegmentCache, ino: int) -> bytes:
    parts = []
    for _, packed in cache.scan(Table.EXTENTS, pair_key(ino, 0), pair_key(ino + 1, 0)):
        extent = ExtentRow.unpack(packed)
        data = cache.read_now(extent, 0, extent.length)
        assert data is not None
        parts.append(bytes(data))
    return b"".join(parts)


async def test_rows_are_read_and_changed_while_a_thread_writes(cache: SegmentCache, disk: SlowDisk) -> None:
    ended: list[str] = []

    async def small() -> None:
        await write(cache, 3, b"small")
        ended.append("small")

    async def cut() -> None:
        await cache.cut()
        ended.append("cut")

    async def snapshot() -> None:
        await cache.snapshots.create("one")
        ended.append("snapshot")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, cache, 2, LARGE)
        await until(lambda: disk.writing)
        for each in (small, cut, snapshot):
            nursery.start_soon(each)
        await trio.testing.wait_all_tasks_blocked()
        change = cache.begin()
        change.put(Table.META, b"name", b"value")
        cache.commit(change)
        assert cache.get(Table.META, b"name") == b"value"
        assert ended == []
        disk.permits.release()
    assert sorted(ended) == ["cut", "small", "snapshot"]
    assert (content(cache, 2), content(cache, 3)) == (LARGE, b"small")
    await cache.close()


async def test_logs_that_are_due_end_with_the_commit_that_follows(cache: SegmentCache, disk: SlowDisk) -> None:
    await write(cache, 3, b"small")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, cache, 2, LARGE)
        await until(lambda: disk.writing)
        cache._cuts.try_to_end()
        assert cache._data.open is not None
        disk.permits.release()
    assert cache._data.open is None
    assert (content(cache, 2), content(cache, 3)) == (LARGE, b"small")
    await cache.close()


async def test_a_segment_filled_by_a_write_that_goes_on_is_not_dead(cache: SegmentCache, disk: SlowDisk) -> None:
    """What has no name yet would be condemned and unlinked, and named afterwards."""
    large = random.Random(2).randbytes(5 * MIB)  # over three segments
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, cache, 2, large)
        for records in range(1, 4):
            await until(lambda records=records: disk.writing == records)
            await cache._durability.settle()
            cache._cuts.condemn(at_once=True)  # as when writers wait for room
            await cache._space.unlink()
            disk.permits.release()
    await cache.reclaim()
    assert content(cache, 2) == large
    assert len({ExtentRow.unpack(packed).segment for _, packed in cache.scan(Table.EXTENTS, u64_key(2))}) > 1
    await cache.close()


async def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, cache: SegmentCache, disk: SlowDisk) -> None:
    disk.permits.release(3)
    await write(cache, 2, LARGE)
    before = cache._data.reach
    disk.full = True
    with pytest.raises(NoSpace):
        await write(cache, 3, LARGE)
    assert cache._data.reach == before
    disk.full = False
    await write(cache, 3, LARGE[::-1])
    await cache.sync_local()
    cache._let_go()
    found = disk.after_cut(Fate.LOST, random.Random(0))
    cache = await SegmentCache.open(tmp_path, Host(found, FixedClock()), OPTIONS, None)
    assert (content(cache, 2), content(cache, 3)) == (LARGE, LARGE[::-1])
    await cache.close()


async def test_content_goes_to_the_end_of_the_file_as_it_is_then(cache: SegmentCache, disk: SlowDisk) -> None:
    fs = FileSystem(cache, FixedClock())
    ino = fs.create(ROOT_INO, b"file", 0o644, User()).ino
    handle = await fs.open(ino, 0o2001)  # O_WRONLY | O_APPEND
    await fs.write(handle, 0, b"x" * 1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fs.write, handle, 0, LARGE)
        await until(lambda: disk.writing)
        await fs.setattr(ino, SetAttributes(size=10))
        disk.permits.release(2)  # it is written once more, at the new end
    assert fs.getattr(ino).size == 10 + len(LARGE)
    assert content(cache, ino) == b"x" * 10 + LARGE
    await cache.close()
