"""Content that could not be read: which segment and stripe, which files, since when, and whether it can be had again.

A reader that gets EIO leaves a note here. In the background the files are found by looking at every extent (only after
a new note), and each noted place is tried again now and then; it leaves the list when it can be read, or when nothing
points to it any more. docs/adr/0098.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from qss.cache.store import SegmentCache
from qss.errors import QssError
from qss.formats.tables import ExtentRow
from qss.fs import tree
from qss.host.clock import Clock
from qss.ids import SegmentId, StripeNo
from qss.limits import STRIPE_BYTES

PLACES_MAX: Final = 1_000
"""Stripes remembered; what comes on top is found by the next read of it."""
SPOTS_MAX: Final = 16
"""Records of one stripe that are tried again."""
PATHS_MAX: Final = 100
"""Paths named for one stripe."""
AGAIN_EVERY_S: Final = 30.0

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Place:
    """A stripe with content that could not be read."""

    segment: SegmentId
    stripe: StripeNo
    reason: str  # of the last failure
    since_ns: int  # wall clock
    spots: dict[int, tuple[ExtentRow, int, int]] = field(default_factory=dict)  # by record: extent, start, stop
    inos: frozenset[int] = frozenset()
    paths: tuple[str, ...] | None = None  # None: not looked for yet


class Unreadable:
    """Lives on the file system's trio thread."""

    def __init__(self, cache: SegmentCache, clock: Clock, on_found: Callable[[Place], None]) -> None:
        """`on_found` hears of each new place once, when its paths are known."""
        self._cache = cache
        self._clock = clock
        self._on_found = on_found
        self._places: dict[tuple[SegmentId, int], Place] = {}
        self._news = trio.Event()

    @property
    def places(self) -> list[Place]:
        """What cannot be read now, as far as it is known."""
        return sorted(self._places.values(), key=lambda place: (place.segment, place.stripe))

    def note(self, extent: ExtentRow, start: int, stop: int, reason: str) -> None:
        """A reader got EIO for bytes [start, stop) of this extent."""
        key = (extent.segment, extent.record_position // STRIPE_BYTES)
        place = self._places.get(key)
        if place is None:
            if len(self._places) >= PLACES_MAX:
                return
            place = Place(extent.segment, StripeNo(key[1]), reason, self._clock.now_ns())
            self._places[key] = place
            self._news.set()
        place.reason = reason
        if len(place.spots) < SPOTS_MAX:
            place.spots[extent.record_position] = (extent, start, stop)

    async def run(self) -> None:
        """For as long as the file system is in use."""
        while True:
            if self._places:
                with trio.move_on_after(AGAIN_EVERY_S):
                    await self._news.wait()
            else:
                await self._news.wait()
            fresh = self._news.is_set()
            self._news = trio.Event()
            try:
                await (self._name() if fresh else self.try_again())
            except (QssError, OSError):  # whatever is wrong, looking for it ends nothing
                _log.exception("the files of what cannot be read could not be found")
                await trio.sleep(AGAIN_EVERY_S)

    async def try_again(self) -> None:
        """Whatever can be read now, or belongs to nobody any more, leaves the list."""
        for key, place in list(self._places.items()):
            if not await self._points_there(place):
                self._places.pop(key, None)
                continue
            for position, (extent, start, stop) in list(place.spots.items()):
                if not await self._cache.readable(extent, start, stop):
                    break
                place.spots.pop(position, None)
            if not place.spots:
                self._places.pop(key, None)

    async def _name(self) -> None:
        """Find the files of new places, and tell."""
        fresh = {key: place for key, place in self._places.items() if place.paths is None}
        for place in fresh.values():
            place.inos = frozenset(await tree.inodes_in(self._cache, _within(place), _give_way))
        every = frozenset().union(*(place.inos for place in fresh.values()))
        paths = await tree.paths_of(self._cache, every, _give_way)
        for key, place in fresh.items():
            found = [os.fsdecode(path) for ino in sorted(place.inos) for path in paths[ino]]
            place.paths = tuple(found[:PATHS_MAX])
            if place.inos:
                self._on_found(place)
            else:  # compaction was quicker, or it is deleted
                self._places.pop(key, None)

    async def _points_there(self, place: Place) -> bool:
        if place.paths is None:
            return True
        inside = _within(place)
        for ino in place.inos:
            async for extent in tree.extents_of(self._cache, ino, _give_way):
                if inside(extent):
                    return True
        return False


def _within(place: Place) -> Callable[[ExtentRow], bool]:
    return lambda row: (row.segment, row.record_position // STRIPE_BYTES) == (place.segment, place.stripe)


async def _give_way() -> None:
    await trio.lowlevel.checkpoint()
