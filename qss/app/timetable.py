"""Snapshots by schedule: a task of the mount process. When and which is qss.cache.schedule's to say."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from qss.cache.schedule import Schedule, Taken, name_at
from qss.cache.store import SegmentCache
from qss.errors import QssError
from qss.host import Clock

LOOK_EVERY_S: Final = 20.0
"""The finest period is an hour."""
COMMENT: Final = "by schedule"

log = logging.getLogger(__name__)


class Timetable:
    """Makes what is due and deletes what is surplus; touches nothing that was made by hand."""

    def __init__(
        self, cache: SegmentCache, clock: Clock, schedule: Callable[[], Schedule], in_use: Callable[[int], bool]
    ) -> None:
        """`schedule`: the one in force now. `in_use`: whether the snapshot of this number is mounted."""
        self._snapshots = cache.snapshots
        self._clock = clock
        self._schedule = schedule
        self._in_use = in_use

    async def run(self) -> None:
        """Never returns."""
        while True:
            try:
                await self.look()
            except (QssError, OSError) as error:  # a full disk: the next look tries again
                log.warning("no snapshot by schedule now: %s", error)
            await trio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """One look at the clock. Raises NoSpace, FsError, OSError, Refused."""
        schedule, now_ns = self._schedule(), self._clock.now_ns()
        if schedule.is_due(self._taken(), now_ns):
            made = await self._snapshots.create(self._free_name(now_ns), COMMENT, automatic=True)
            log.info("snapshot %s is made", made.name)
        names = {row.number: name for name, row in self._snapshots.rows.items()}
        for each in schedule.surplus(self._taken()):
            if not self._in_use(each.number):
                await self._snapshots.delete(names[each.number])
                log.info("snapshot %s is deleted", names[each.number])

    def _taken(self) -> list[Taken]:
        return [Taken(row.number, row.created_ns) for row in self._snapshots.rows.values() if row.automatic]

    def _free_name(self, at_ns: int) -> str:
        name = wanted = name_at(at_ns)
        again = 1
        while name in self._snapshots.rows:  # somebody made one of that name by hand
            again += 1
            name = f"{wanted}.{again}"
        return name
