"""Back-pressure: how many more bytes writers may put on the disk, and how long they wait for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from qss.errors import NoSpace
from qss.limits import MIB

SAMPLE_EVERY_S: Final = 0.1
SAMPLE_EVERY_BYTES: Final = 16 * MIB
_SLOW_S_MAX: Final = 0.05  # for each write, just above the hard limit
_RETRY_S: Final = 0.25


class Admission:
    """Above the soft limit free passage; below it slower and slower; below the hard limit writers wait, then ENOSPC.
    What lies below the hard limit is the reserve of the journal, so that deleting goes on working."""

    def __init__(
        self, free_bytes: Callable[[], int], make_room: Callable[[], Awaitable[object]],
        soft: int, hard: int, deadline_s: float,
    ) -> None:  # fmt: skip
        self._free_bytes = free_bytes
        self._make_room = make_room
        self._slack = max(soft - hard, 1)
        self._hard = hard
        self._deadline_s = deadline_s
        self._left = 0  # bytes above the hard limit, an estimate between samples
        self._spent = 0
        self._sampled_s = float("-inf")
        self.waiting = 0

    def spend(self, count: int) -> None:
        """`count` bytes of content are about to be written. Raises NoSpace below the hard limit; never waits."""
        self._left -= count
        self._spent += count
        if self._left < 0 or self._spent > SAMPLE_EVERY_BYTES:
            self._sample()
            if self._left < count:
                raise NoSpace("the cache disk is at its limit")
            self._left -= count

    async def admit(self, count: int) -> None:
        """Wait for room. Raises NoSpace after the deadline."""
        if self._left - count > self._slack:
            if trio.current_time() - self._sampled_s < SAMPLE_EVERY_S:
                return
            self._sample()
            if self._left - count > self._slack:
                return
        self.waiting += 1
        try:
            await self._wait(count)
        finally:
            self.waiting -= 1

    async def _wait(self, count: int) -> None:
        deadline = trio.current_time() + self._deadline_s
        while True:
            self._sample()
            if self._left - count > self._slack:
                return
            await self._make_room()
            self._sample()
            spare = self._left - count
            if spare > 0:
                await trio.sleep(_SLOW_S_MAX * max(0.0, 1 - spare / self._slack))
                return
            if trio.current_time() >= deadline:
                raise NoSpace("the cache disk is at its limit and nothing can be evicted")
            await trio.sleep(_RETRY_S)

    def _sample(self) -> None:
        self._left = self._free_bytes() - self._hard
        self._spent = 0
        self._sampled_s = trio.current_time()
