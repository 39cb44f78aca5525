"""Segments with too few shards keep nothing up, are not waited for, and come back."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from qss.cache.options import CacheOptions
from qss.cache.segment_log import log_path
from qss.cache.store import SegmentCache
from qss.errors import FsError
from qss.formats.tables import ExtentRow, SegmentState, Table, pair_key, u64_key
from qss.host import Host
from qss.ids import LocationId, SegmentId
from qss.limits import MIB
from qss.segments import Receipt, SealedSegment, SegmentKind
from tests.harness.locations import Locations
from tests.harness.rows import delete, write

OPTIONS = CacheOptions(segment_bytes=8 * MIB, index_map_bytes=64 * MIB, fetch_deadline_s=3600.0)


def extent_of(cache: SegmentCache, ino: int) -> ExtentRow:
    packed = cache.get(Table.EXTENTS, pair_key(ino, 0))
    assert packed is not None
    return ExtentRow.unpack(packed)


@pytest.fixture
async def recovered(tmp_path: Path):
    """On a new machine, where one of two segments is not to be had: (cache, locations, lost segment, its bytes)."""
    locations = Locations()
    old = await SegmentCache.open(tmp_path / "old", Host(), OPTIONS, locations)
    for ino in (10, 11):
        write(old, ino, bytes([ino]) * 5000)
        await old.cut()
    await locations.carry(old)
    await locations.publish(old)
    lost = extent_of(old, 10).segment
    await old.close()
    held = locations.segments.pop(lost)

    point, root = locations.roots[-1], tmp_path / "new"
    paths = [log_path(root, SegmentKind.JOURNAL, journal) for journal in point.journals]
    for path, journal in zip(paths, point.journals, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(locations.segments[journal])
    made = await SegmentCache.rebuild(root, Host(), OPTIONS, paths, point.next_segment)
    assert lost in made.unplaced
    cache = await SegmentCache.open(root, Host(), OPTIONS, locations)
    yield cache, locations, lost, held
    await cache.close()


async def test_roots_go_on_and_reads_fail_at_once_until_it_is_back(recovered) -> None:
    cache, locations, lost, held = recovered
    cache.lost.adopt([lost], (4, 2), 77)
    row = cache.lost._shelf.rows[lost]
    assert (row.state, row.k, row.m, row.placed, row.length) == (SegmentState.OFFLOADED, 4, 2, 0, len(held))
    cache.lost.why[lost] = "1 shards found, more are needed"
    other = extent_of(cache, 11)
    with pytest.raises(FsError, match="1 shards found") as failure:  # the deadline is an hour
        await cache.read(extent_of(cache, 10), 0, 10)
    assert failure.value.errno == errno.EIO
    made_safe(cache)
    write(cache, 12, b"new")
    await cache.cut()
    await locations.carry(cache)
    before = len(locations.roots)
    await locations.publish(cache)
    assert len(locations.roots) == before + 1, "a lost segment does not keep roots from being published"
    assert other.segment != lost

    locations.segments[lost] = held
    assert await cache.readable(extent_of(cache, 10), 0, 10)
    assert not cache.lost.why
    assert bytes(await cache.read(extent_of(cache, 10), 0, 10)) == bytes([10]) * 10


def made_safe(cache: SegmentCache) -> list[SegmentId]:
    """The other segments, as a recovery adopts them."""
    others = [s for s, row in cache.lost._shelf.rows.items() if row.state is SegmentState.SEALED]
    others += [s for s in cache.live_all() if s not in cache.lost._shelf.rows]
    cache.lost.adopt(others, (4, 2), 77)
    return others


async def test_deleting_its_files_gives_it_up(recovered) -> None:
    cache, locations, lost, _ = recovered
    cache.lost.adopt([lost], (4, 2), 77)
    made_safe(cache)
    delete(cache, 10)
    assert cache.get(Table.SEGMENTS, u64_key(lost)) is not None
    for turn in range(4):
        write(cache, 12, bytes([turn]) * 10)
        await locations.settle(cache)
    assert lost in locations.deleted


async def test_what_is_no_content_is_not_taken_for_stored(recovered) -> None:
    cache, _, lost, _ = recovered
    journals = [s for s, row in cache.lost._shelf.rows.items() if row.kind is SegmentKind.JOURNAL]
    before = {s: cache.lost._shelf.rows[s] for s in journals}
    cache.lost.adopt([lost, *journals], (4, 2), 77)
    assert {s: cache.lost._shelf.rows[s] for s in journals} == before


async def test_after_a_recovery_no_restore_point_is_behind_the_one_that_was_restored(recovered) -> None:
    """Some shards of the newest journal are not there yet: roots must not go back to the one before it."""
    cache, locations, _lost, _held = recovered
    point = locations.roots[-1]
    homes = tuple(LocationId(f"at-{number}") for number in range(3))
    for segment, row in sorted(cache.lost._shelf.rows.items()):
        placed = (*homes[:2], None) if segment == point.journals[-1] else homes
        sealed = SealedSegment(segment, row.kind, row.length, row.sealed_ns, row.needs_upto)
        await cache.adopt(sealed, Receipt(segment, bytes(16), 2, 1, placed, 1000))
    before = await cache.restore_point()
    assert before is not None
    assert before.journals[-1] < point.journals[-1]
    await cache.mark_published(point)
    assert await cache.restore_point() is None
