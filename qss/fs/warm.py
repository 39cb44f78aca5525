"""Bringing content back before it is asked for: files and trees, a stripe at a time, within the cache's limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

import trio

from qss.cache.store import SegmentCache
from qss.formats.tables import ExtentRow
from qss.fs import tree
from qss.ids import SegmentId, StripeNo
from qss.limits import STRIPE_BYTES

STRIPES_AT_ONCE: Final = 8

_Stripe = tuple[SegmentId, StripeNo]


@dataclass(slots=True)
class Warmth:
    """Bytes of content of the files asked for."""

    files: int = 0
    total_bytes: int = 0
    local_bytes: int = 0  # here already, or brought back
    left_bytes: int = 0  # not brought back: no room within the limits
    failed_bytes: int = 0  # cannot be had now

    @property
    def done_bytes(self) -> int:
        return self.local_bytes + self.left_bytes + self.failed_bytes


def room_for(cache: SegmentCache) -> int:
    """Bytes of fetched copies that can stay here together: what the limits leave beside copies that have to."""
    facts, limits = cache.facts(), cache.eviction.retention
    order, pinned = cache.eviction.order()
    evictable = sum(copy.size for copy in order)
    local = facts.data_local_bytes + facts.stripe_bytes
    fixed = max(0, local - evictable - sum(copy.size for copy in pinned))
    by_size = limits.size_bytes_max - fixed - sum(copy.size for copy in pinned)
    by_disk = facts.disk_free_bytes + evictable - limits.free_bytes_min
    return max(0, min(by_size, by_disk))


async def warm(
    cache: SegmentCache, inodes: Iterable[int], room_bytes: int, report: Callable[[Warmth], Awaitable[None]]
) -> Warmth:
    """Make everything below these inodes readable without a fetch, as far as there is room; `report` hears of it.

    Copies that are here count against the room as well: else what is brought back would push them out.
    """
    found = Warmth()
    wanted: dict[_Stripe, tuple[ExtentRow, int]] = {}  # one extent in it, and bytes of content
    here: set[_Stripe] = set()
    seen: set[int] = set()
    for root in inodes:
        async for ino in tree.files_below(cache, root, (), trio.lowlevel.checkpoint):
            if ino in seen:
                continue
            seen.add(ino)
            found.files += 1
            async for extent in tree.extents_of(cache, ino, trio.lowlevel.checkpoint):
                key = (extent.segment, StripeNo(extent.record_position // STRIPE_BYTES))
                found.total_bytes += extent.length
                if cache.holds(extent.segment, extent.record_position):
                    found.local_bytes += extent.length
                    here.add(key)
                else:
                    wanted[key] = (extent, wanted[key][1] + extent.length if key in wanted else extent.length)
    room = room_bytes - len(here) * STRIPE_BYTES
    slots = trio.CapacityLimiter(STRIPES_AT_ONCE)

    async def bring(extent: ExtentRow, count: int) -> None:
        async with slots:
            if await cache.readable(extent, 0, min(1, extent.length)):
                found.local_bytes += count
            else:
                found.failed_bytes += count
            await report(found)

    async with trio.open_nursery() as nursery:
        for extent, count in wanted.values():
            room -= STRIPE_BYTES
            if room < 0:
                found.left_bytes += count
            else:
                nursery.start_soon(bring, extent, count)
    await report(found)
    return found
