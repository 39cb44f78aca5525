"""With a history every root of that time can be restored whole; without one, what they needed goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from qss.cache.options import CacheOptions
from qss.cache.space import cut_before
from qss.cache.store import SegmentCache
from qss.formats.tables import SegmentRow, SegmentState
from qss.host import Host
from qss.ids import SegmentId
from qss.limits import KIB, MIB
from qss.segments import SegmentKind
from tests.harness.crash_disk import FixedClock
from tests.harness.locations import Locations
from tests.harness.rows import delete, write

HOUR = 3600 * 10**9


class At(FixedClock):
    """A clock that stands where it was put."""

    def now_ns(self) -> int:
        return self.ns


@pytest.mark.parametrize("hours", [0, 3])
async def test_what_can_be_had_of_each_moment(tmp_path: Path, hours: int) -> None:
    clock = At(ns=1_700_000_000 * 10**9)
    host = Host(Host().disk, clock, Host().entropy)
    options = CacheOptions(index_map_bytes=64 * MIB, segment_bytes=8 * MIB, history_s=hours * 3600.0)
    locations = Locations()
    cache = await SegmentCache.open(tmp_path / "cache", host, options, locations)
    moments = []
    for number in range(6):
        delete(cache, 10 + number - 1)
        write(cache, 10 + number, bytes([number]) * KIB)
        await locations.settle(cache)
        moments.append(locations.roots[-1])
        clock.ns += HOUR
    live = len(cache.live_all())
    assert live == 1
    for number, point in enumerate(moments):
        if point.cut_ns >= clock.ns - hours * HOUR:
            contents = await locations.restored(point, tmp_path / f"new-{number}", host, options)
            assert contents == {(10 + number, 0): bytes([number]) * KIB}
    gone = [segment for segment in locations.deleted if segment in locations.stored]
    assert len(gone) >= (4 if hours == 0 else 1)
    clock.ns += 10 * HOUR  # nobody writes, and the time is over all the same
    for _ in range(3):
        await locations.dispose(cache)
    assert cut_before(cache.lost._shelf.rows, clock.ns) > 0
    assert not await cache.condemned()
    await cache.close()


def test_the_newest_journal_closed_by_then() -> None:
    def row(kind: SegmentKind, sealed_ns: int) -> SegmentRow:
        return SegmentRow(kind, SegmentState.OFFLOADED, 2, 1, 3, 1, sealed_ns, SegmentId(0), 1, bytes(16))

    rows = {
        SegmentId(1): row(SegmentKind.JOURNAL, 10), SegmentId(2): row(SegmentKind.DATA, 15),
        SegmentId(3): row(SegmentKind.JOURNAL, 20), SegmentId(4): row(SegmentKind.JOURNAL, 30),
    }  # fmt: skip
    assert [cut_before(rows, at) for at in (9, 10, 19, 20, 99)] == [0, 1, 1, 3, 4]
