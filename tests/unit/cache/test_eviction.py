"""Eviction on a real directory: what is remembered over a restart, who is asked, what may go at all."""

from __future__ import annotations

from pathlib import Path

import trio
import trio.testing

from qss.cache.access import VISIT_S, WHOLE
from qss.cache.eviction import ACCESS, EVICT_EVERY_S
from qss.cache.options import CacheOptions, RetentionOptions
from qss.cache.retention import EvictionReport, Protection, Reason
from qss.cache.store import SegmentCache
from qss.formats.tables import ExtentRow, Table, pair_key
from qss.host import Host
from qss.ids import Ino, LocationId, SegmentId, StripeNo
from qss.limits import MIB
from qss.segments import Receipt
from tests.harness.locations import PLACES, Locations

OPTIONS = CacheOptions(segment_bytes=8 * MIB, index_map_bytes=64 * MIB, fetch_deadline_s=2.0)


class Pinned:
    """A guard that was told what to keep."""

    def __init__(self, *stripes: tuple[SegmentId, int]) -> None:
        self.stripes = [(segment, StripeNo(stripe)) for segment, stripe in stripes]
        self.refreshed = 0

    async def refresh(self) -> None:
        self.refreshed += 1
        await trio.lowlevel.checkpoint()

    def protection(self, segment: SegmentId, stripe: StripeNo | None) -> Protection:
        hit = any(segment == one and stripe in (None, other) for one, other in self.stripes)
        return Protection("/pinned" if hit else None)

    def wanted(self) -> list[tuple[SegmentId, StripeNo]]:
        return self.stripes


async def opened(root: Path, locations: Locations, retention: RetentionOptions | None = None) -> SegmentCache:
    cache = await SegmentCache.open(root, Host(), OPTIONS, locations)
    cache.eviction.set_retention(retention or RetentionOptions(free_bytes_min=0))
    return cache


def write(cache: SegmentCache, ino: int, payload: bytes) -> ExtentRow:
    change = cache.begin()
    extents = cache.append(Ino(ino), 0, payload)
    for at, extent in extents:
        change.put(Table.EXTENTS, pair_key(ino, at), extent.pack())
    cache.commit(change)
    return extents[0][1]


async def segments_of(cache: SegmentCache, locations: Locations, count: int) -> list[ExtentRow]:
    found = []
    for ino in range(2, 2 + count):
        found.append(write(cache, ino, bytes([ino]) * MIB))
        await cache.cut()
    await locations.carry(cache)
    return found


def here(cache: SegmentCache, extent: ExtentRow) -> bool:
    return cache.holds(extent.segment, extent.record_position)


async def test_what_was_used_again_is_known_after_a_restart(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    locations = Locations()
    cache = await opened(tmp_path, locations)
    extents = await segments_of(cache, locations, 4)
    for _ in range(2):
        assert cache.read_now(extents[0], 0, 10) is not None
        await trio.sleep(VISIT_S)
    for extent in extents[1:]:
        assert cache.read_now(extent, 0, 10) is not None
        await trio.sleep(1)
    await cache.close()
    assert (tmp_path / ACCESS).exists()

    cache = await opened(tmp_path, locations, RetentionOptions(size_bytes_max=2 * MIB + MIB // 2, free_bytes_min=0))
    order = [copy.segment for copy in cache.eviction.order()[0]]
    assert order == [extents[n].segment for n in (1, 2, 3, 0)]
    await cache.evict()
    assert [here(cache, extent) for extent in extents] == [True, False, False, True]
    await cache.close()


async def test_a_damaged_note_of_access_times_is_no_trouble(tmp_path: Path) -> None:
    locations = Locations()
    cache = await opened(tmp_path, locations)
    (extent,) = await segments_of(cache, locations, 1)
    assert cache.read_now(extent, 0, 10) is not None
    await cache.close()
    (tmp_path / ACCESS).write_bytes(b"QSA1 nonsense")
    cache = await opened(tmp_path, locations)
    assert here(cache, extent)
    await cache.close()


async def test_a_stripe_that_comes_back_counts_as_used_again(tmp_path: Path) -> None:
    locations = Locations()
    cache = await opened(tmp_path, locations)
    first, second = await segments_of(cache, locations, 2)
    assert cache.read_now(first, 0, 10) is not None  # the other was only written
    await cache.evict(all_=True)
    for extent in (first, second):
        await cache.read(extent, 0, 10)
    assert {copy.segment: copy.again for copy in cache.eviction.order()[0]} == {
        first.segment: True,
        second.segment: False,
    }
    await cache.close()


async def test_pinned_copies_stay_and_come_back(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    locations = Locations()
    cache = await opened(tmp_path, locations)
    kept, other = await segments_of(cache, locations, 2)
    cache.eviction.guard = guard = Pinned((kept.segment, 0))
    reports: list[EvictionReport] = []
    cache.eviction.on_evicted = reports.append
    report = await cache.evict(all_=True)
    assert guard.refreshed == 1
    assert [here(cache, kept), here(cache, other)] == [True, False]
    assert reports == [report] == [EvictionReport(1, 0, report.freed_bytes, (Reason.ASKED,))]
    assert [copy.segment for copy in cache.eviction.order()[1]] == [kept.segment]

    cache.eviction.guard = guard = Pinned((other.segment, 0))
    await cache.evict(all_=True)
    assert not here(cache, kept)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        await trio.sleep(3 * EVICT_EVERY_S)
        nursery.cancel_scope.cancel()
    assert here(cache, other)
    await cache.close()


async def test_only_what_has_all_its_shards_goes_unless_told_otherwise(tmp_path: Path) -> None:
    locations = Locations()
    cache = await opened(tmp_path, locations, RetentionOptions(size_bytes_max=0, free_bytes_min=0))
    extent = write(cache, 2, b"x" * MIB)
    await cache.cut()
    five: tuple[LocationId | None, ...] = (*PLACES[:5], None)
    for sealed in await cache.unsafe_segments():
        await cache.mark_offloaded(Receipt(sealed.id, b"s" * 16, 4, 2, five, sealed.length))
    assert (await cache.evict()).segments == 0
    assert (await cache.evict(all_=True)).segments == 0
    cache.eviction.set_retention(RetentionOptions(size_bytes_max=0, free_bytes_min=0, missing_max=1))
    assert (await cache.evict()).segments == 1
    assert (extent.segment, WHOLE) not in cache._reads.files
    owed = [sealed.id for sealed in await cache.unsafe_segments()]
    assert extent.segment in owed, "the last shard is still to be placed"
    await cache.close()
