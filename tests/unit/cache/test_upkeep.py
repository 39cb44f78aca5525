"""Upkeep on a full disk: no step holds up another, a checkpoint is not begun without room, and all is well again."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import trio
import trio.testing

from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.cache.upkeep import CHECKPOINT_RETRY_S
from qss.formats.tables import Table, pair_key
from qss.host import Host
from qss.ids import Ino
from qss.limits import MIB
from tests.harness.crash_disk import CrashDisk, FixedClock
from tests.harness.locations import Locations
from tests.harness.waiting import until

OPTIONS = CacheOptions(
    segment_bytes=8 * MIB, index_map_bytes=64 * MIB, free_bytes_soft=0, free_bytes_hard=0, seal_after_s=5.0
)  # fmt: skip


class OnDisk(Locations):
    """Locations that read the segments from a disk in memory."""

    def __init__(self, disk: CrashDisk) -> None:
        super().__init__()
        self._disk = disk

    def read_file(self, path: Path) -> bytes:
        handle = self._disk.open(path)
        return self._disk.pread(handle, self._disk.size(handle), 0)


def write(cache: SegmentCache, ino: int, payload: bytes) -> None:
    change = cache.begin()
    for at, extent in cache.append(Ino(ino), 0, payload):
        change.put(Table.EXTENTS, pair_key(ino, at), extent.pack())
    cache.commit(change)


def delete(cache: SegmentCache, ino: int) -> None:
    change = cache.begin()
    for key, _ in list(cache.scan(Table.EXTENTS, pair_key(ino, 0), pair_key(ino + 1, 0))):
        change.delete(Table.EXTENTS, key)
    cache.commit(change)


async def test_a_checkpoint_waits_for_room_and_dead_segments_go_meanwhile(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    disk = CrashDisk()
    locations = OnDisk(disk)
    cache = await SegmentCache.open(tmp_path, Host(disk, FixedClock()), OPTIONS, locations)
    write(cache, 2, b"x" * MIB)
    write(cache, 3, b"y" * MIB)
    await cache.cut()
    await locations.carry(cache)
    await cache.checkpoint()
    local = cache.facts().data_local_bytes
    for ino in (2, 3):
        delete(cache, ino)
    disk.free = 3000  # enough for the journal, not for the index
    before = cache._durability._unnoted, cache._ledger.index.txnid
    with caplog.at_level(logging.ERROR):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.run)
            await trio.sleep(4 * CHECKPOINT_RETRY_S)
            await until(lambda: cache.facts().data_local_bytes < local)  # what is dead is gone, by a thread
            assert (cache._durability._unnoted, cache._ledger.index.txnid) == before
            assert cache.get(Table.EXTENTS, pair_key(2, 0)) is None, "the index answers"
            disk.free = 1 << 30
            await until(lambda: cache._ledger.index.txnid > before[1])
            nursery.cancel_scope.cancel()
    assert "no room to write the index" in caplog.text
    assert caplog.text.count("Traceback") <= 8, "the log does not fill up with it"
    await cache.close()


async def test_a_seal_that_finds_no_room_holds_up_nothing(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    disk = CrashDisk()
    cache = await SegmentCache.open(tmp_path, Host(disk, FixedClock()), OPTIONS, None)
    write(cache, 2, b"x" * MIB)
    await cache.cut()
    delete(cache, 2)
    cache._cuts.condemn()
    write(cache, 3, b"y" * 1000)
    disk.free = 10
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        await trio.sleep(60)
        await until(lambda: cache.facts().data_local_bytes < MIB)  # though nothing can be sealed
        disk.free = 1 << 30
        await until(lambda: not cache.facts().unsealed_bytes)
        assert [sealed.kind.name for sealed in await cache.unsafe_segments()] != []
        nursery.cancel_scope.cancel()
    await cache.close()
