"""Roots kept for a time, so that recovery can go back to a moment. ADR 0123.

Without it the newest HISTORY_KEPT generations stay, and what they need may be gone. With a history, generations that
are younger stay too, thinned to one in each of `SLOTS` parts of that time, and the cache lets the shards of dead
segments be deleted only when they have been dead for that long (`CacheOptions.history_s`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from qss.host import Clock, Host
from qss.ids import LocationId
from qss.offload.keys import FsKeys
from qss.offload.roots import RootBook
from qss.s3.store import ObjectStore

SLOTS: Final = 256
READS_A_ROUND_MAX: Final = 16
"""Generations asked for at a time, to know how old they are; the others wait for the next round."""


def kept(cuts: Mapping[int, int], now_ns: int, history_s: float) -> set[int]:
    """Of these generations, with the moments they are of (wall clock), those that stay. Pure."""
    step_ns = max(1, int(history_s * 1e9) // SLOTS)
    slots: dict[int, int] = {}
    for generation, cut_ns in sorted(cuts.items()):
        if cut_ns >= now_ns - history_s * 1e9:
            slots.setdefault(cut_ns // step_ns, generation)  # the first stays, so that it stays
    return set(slots.values())


class HistoryBook(RootBook):
    """A RootBook that puts the deletion of roots off until nobody can want them."""

    def __init__(self, nodes: Mapping[LocationId, ObjectStore], keys: FsKeys, host: Host, history_s: float) -> None:
        super().__init__(nodes, keys, host)
        self._clock: Clock = host.clock
        self._history_s = history_s
        self._cuts: dict[int, int] = {}  # generation → the moment it is of; of those that are overdue by number

    async def drop(self, overdue: Mapping[LocationId, set[int]]) -> None:
        """As RootBook.drop; what is kept for its age stays in `overdue`."""
        wanted = set().union(*overdue.values())
        self._cuts = {generation: cut for generation, cut in self._cuts.items() if generation in wanted}
        unknown = sorted(wanted - self._cuts.keys())
        for generation in unknown[:READS_A_ROUND_MAX]:
            roots = await self.read(generation)
            self._cuts[generation] = max((root.point.cut_ns for root in roots), default=0)
        stay = kept(self._cuts, self._clock.now_ns(), self._history_s) | set(unknown[READS_A_ROUND_MAX:])
        due = {location: generations - stay for location, generations in overdue.items()}
        left = {location: set(generations) for location, generations in due.items()}
        await super().drop(left)
        for location, generations in due.items():
            overdue[location].difference_update(generations - left[location])
