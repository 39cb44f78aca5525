"""How often the event loop gets a turn: not for each request of the kernel, but every two milliseconds under load.

pyfuse3's session loop (internal.pxi, 3.5.0) takes a trio.Lock and calls trio.lowlevel.wait_readable for every request:
two turns of the loop, two epoll_wait and an epoll_ctl, which cost more than answering a lookup. `Turns` stands in the
place of `trio` in that module, and only there. After an answer it waits a moment for the next request right away; the
next one of a program that works on files comes within microseconds. docs/adr/0013.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import pyfuse3
import trio

from qss.fuse.handshake import Handshake

LINGER_S: Final = 50e-6
"""How long the thread sleeps for the next request. The kernel's timers add up to as much again."""
TURN_S_MAX: Final = 2e-3
"""Then everybody else in the process gets a turn: timers, fetches, syncs that have ended."""
_SELECT_FD_MAX: Final = 1023  # select(2) takes no higher ones


class Turns:
    """What the session loop sees as `trio`."""

    def __init__(self, handshake: Handshake | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`handshake`: the way the first request takes. `clock`: seconds; not trio's, which costs four times as much
        and would be asked twice for each request."""
        self.lowlevel = _LowLevel(handshake, clock)
        self.Lock = ReadingLock

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)

    def install(self) -> None:
        """From now on, for the session loop of this process."""
        pyfuse3.trio = self  # type: ignore[attr-defined]


class _LowLevel:
    def __init__(self, handshake: Handshake | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._turn_ends = 0.0
        self._handshake = handshake

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name)

    async def wait_readable(self, fd: int) -> None:
        """Return when there is a request. Not always a checkpoint."""
        if self._handshake is not None:
            if not self._handshake.begun:
                await trio.lowlevel.wait_readable(fd)
                self._handshake.begin(fd)
                return
            self._handshake.end(fd)  # libfuse has answered the first request
            self._handshake = None
        if self._clock() < self._turn_ends and fd <= _SELECT_FD_MAX and select.select([fd], [], [], LINGER_S)[0]:
            return
        await trio.lowlevel.wait_readable(fd)
        self._turn_ends = self._clock() + TURN_S_MAX


class ReadingLock:
    """Who reads the next request. Unlike trio.Lock no checkpoint when free, and whoever let go may take it again:
    the task that has just answered goes on, and the others are there for when it has to wait."""

    def __init__(self) -> None:
        self._held = False
        self._lot = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> None:
        while self._held:
            await self._lot.park()
        self._held = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held = False
        if self._lot:  # whom we woke before has had no turn yet
            self._lot.unpark()
