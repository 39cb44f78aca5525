"""Back-pressure: how many more bytes writers may put on the disk, and how long they wait for it. docs/adr/0097.

    free space   soft ────── hard ────── hard/2 ────── 0
    writers       free │ slower │   wait, then ENOSPC
    new names                   free      │ ENOSPC
    deletes, renames, attributes, reads of what is here: always

What to do is decided by `decide`, which is pure; `Admission` looks at the disk, waits, and has room made.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import trio

from qss.errors import NoSpace
from qss.limits import MIB

SAMPLE_EVERY_S: Final = 0.1
SAMPLE_EVERY_BYTES: Final = 16 * MIB
SLOW_S_MAX: Final = 0.05
"""The pause before each write just above the hard limit."""
RETRY_S: Final = 0.25
"""Between two looks of those who wait, and between two rounds of making room."""


class Pressure(enum.StrEnum):
    """What writers meet at the moment."""

    OK = "ok"
    SLOW = "slow"  # below the soft limit
    WAITING = "waiting"  # somebody waits below the hard limit
    FULL = "full"  # somebody has got ENOSPC, and there has been no room since


@dataclass(frozen=True, slots=True)
class Limits:
    """Free bytes of the disk below which writers are slowed, and stopped; how long they wait then."""

    soft: int
    hard: int
    deadline_s: float

    @property
    def slack(self) -> int:
        return max(self.soft - self.hard, 1)

    @property
    def names(self) -> int:
        """Free bytes that only deleting and changing may use."""
        return self.hard // 2


def decide(spare: int, limits: Limits) -> float | None:
    """Seconds to pause before a write that leaves `spare` bytes above the hard limit; None: it must wait. Pure."""
    if spare >= limits.slack:
        return 0.0
    if spare <= 0:
        return None
    return SLOW_S_MAX * (1 - spare / limits.slack)


class Admission:
    """Of one cache. Lives on its trio thread."""

    def __init__(
        self, free_bytes: Callable[[], int], make_room: Callable[[], Awaitable[object]], limits: Limits
    ) -> None:
        self._free_bytes = free_bytes
        self._make_room = make_room
        self._limits = limits
        self._slack = limits.slack
        self._left = 0  # bytes above the hard limit, an estimate between samples
        self._spent = 0
        self._sampled_s = float("-inf")
        self._full_for = 0  # bytes of the last write that got ENOSPC; 0: one went through since
        self._making: trio.Event | None = None
        self._made_s = float("-inf")
        self.waiting = 0
        self.slowed = 0  # writers in a pause now
        self.refused = 0  # writes that got ENOSPC, since start

    @property
    def pressure(self) -> Pressure:
        self._sample()
        if self._full_for and self._left <= self._full_for:
            return Pressure.FULL
        if self.waiting:
            return Pressure.WAITING
        return Pressure.SLOW if self.slowed or self._left < self._slack else Pressure.OK

    def spend(self, count: int) -> None:
        """`count` bytes of content are about to be written. Raises NoSpace below the hard limit; never waits."""
        self._left -= count
        self._spent += count
        if self._left < 0 or self._spent > SAMPLE_EVERY_BYTES:
            self._sample()
            if self._left < count:
                raise NoSpace("the cache disk is at its limit")
            self._left -= count

    def check_names(self) -> None:
        """Something is about to be made that takes a little space for good. Raises NoSpace when only the reserve is
        left in which things are deleted."""
        least = self._limits.names - self._limits.hard
        if self._left < least or trio.current_time() - self._sampled_s >= SAMPLE_EVERY_S:
            self._sample()  # nobody is refused for what was so a moment ago
        if self._left < least:
            raise NoSpace("the cache disk is at its limit: only deleting goes on")

    async def admit(self, count: int) -> None:
        """Wait for room for `count` bytes. Raises NoSpace after the deadline."""
        if self._left - count > self._slack:
            if trio.current_time() - self._sampled_s < SAMPLE_EVERY_S:
                return
            self._sample()
            if self._left - count > self._slack:
                self._full_for = 0
                return
        await self._pressed(count)

    async def room_for_fetch(self, count: int) -> None:
        """Before something is fetched to be read: it may use the reserve of new names, not that of deleting.
        Raises NoSpace."""
        if self._free_bytes() - count >= self._limits.hard:
            return
        await self._room()
        if self._free_bytes() - count < self._limits.names:
            raise NoSpace("the cache disk is at its limit, and nothing on it can be evicted")

    async def _pressed(self, count: int) -> None:
        deadline = trio.current_time() + self._limits.deadline_s
        paused = False
        while True:
            self._sample()
            pause_s = decide(self._left - count, self._limits)
            if pause_s == 0.0 or (paused and pause_s is not None):
                self._full_for = 0
                return  # nobody else runs before the caller spends it
            if pause_s is not None:
                await self._wait_slowed(pause_s)
                paused = True
                continue
            if trio.current_time() >= deadline:
                self._full_for = count
                self.refused += 1
                raise NoSpace("the cache disk is at its limit and nothing can be evicted")
            self.waiting += 1
            try:
                await self._room()
                self._sample()
                if decide(self._left - count, self._limits) is None:
                    await trio.sleep(RETRY_S)
            finally:
                self.waiting -= 1

    async def _wait_slowed(self, pause_s: float) -> None:
        self.slowed += 1
        try:
            began = trio.current_time()
            await self._room()
            await trio.sleep(max(pause_s - (trio.current_time() - began), 0.0))
        finally:
            self.slowed -= 1

    async def _room(self) -> None:
        """Have room made; whoever comes while it is being made waits for that, and nobody too soon after."""
        if self._making is not None:
            await self._making.wait()
        elif trio.current_time() - self._made_s >= RETRY_S:
            self._making = done = trio.Event()
            try:
                await self._make_room()
            finally:
                self._making = None
                self._made_s = trio.current_time()
                done.set()

    def _sample(self) -> None:
        self._left = self._free_bytes() - self._limits.hard
        self._spent = 0
        self._sampled_s = trio.current_time()
