"""Content into the data log, one after the other: small payloads at once, large ones by a thread. ADR 0087."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from qss.cache.segment_log import SegmentLog
from qss.formats.tables import ExtentRow
from qss.ids import Ino
from qss.limits import KIB

BULK_BYTES: Final = 512 * KIB
"""Payloads of this size are worth a thread: 1 MiB takes 1 to 20 ms, as the page cache finds memory."""
_LOG_OVERHEAD_BYTES: Final = 4096  # head and table of one write, for back-pressure

Placed = list[tuple[int, ExtentRow]]


def cost(count: int) -> int:
    """What so many bytes of payload take from the budget of the disk."""
    return count + _LOG_OVERHEAD_BYTES


class Appender:
    """Of one cache. Whoever appends or closes the data log does it through here, or holds `turn`."""

    def __init__(
        self,
        log: SegmentLog,
        segment_bytes: int,
        spend: Callable[[int], None],
        appended: Callable[[Placed], None],
    ) -> None:
        """`spend` takes room from the budget of the disk, or raises NoSpace. `appended` hears of every record."""
        self._log = log
        self._segment_bytes = segment_bytes
        self._spend_room = spend
        self._tell = appended
        self.turn = trio.Lock()
        """Held by who appends and waits meanwhile, and by who closes the log and can wait."""
        self.in_thread = False
        """A thread writes to the open segment: nobody else may append to it or close it."""
        self.uncut_bytes = 0
        """Content since the last cut."""

    def append(self, ino: Ino, offset: int, payload: bytes | memoryview) -> Placed:
        """The caller has `turn`, or has seen it free and not waited since. Raises NoSpace, OSError."""
        assert not self.in_thread
        self._spend(len(payload))
        placed = self._log.append_record(ino, offset, payload, self._segment_bytes)
        self._tell(placed)
        return placed

    async def append_in_turn(self, ino: Ino, offset: int, payload: bytes | memoryview) -> Placed:
        """After those who append now. Raises NoSpace, OSError."""
        if len(payload) < BULK_BYTES and not self.turn.locked():
            return self.append(ino, offset, payload)
        async with self.turn:
            if len(payload) < BULK_BYTES:
                return self.append(ino, offset, payload)
            self._spend(len(payload))
            self.in_thread = True
            try:
                placed = await self._log.append_record_in_thread(ino, offset, payload, self._segment_bytes)
            finally:
                self.in_thread = False
            self._tell(placed)
            return placed

    def _spend(self, count: int) -> None:
        self._spend_room(cost(count))
        self.uncut_bytes += count
