"""Memory for coded segments: reused buffers under one budget, first come first served.

A segment leases all its buffers at once, so two half-served ones cannot wait for each other. One that is larger than
the whole budget gets a file without a name instead of memory, so that a bound holds whatever the segment size.
"""

from __future__ import annotations

import contextlib
import mmap
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from qss.limits import MIB

HUGE_BYTES: Final = 2 * MIB
"""From this length on a buffer asks for huge pages: filling fresh memory 4 KiB at a time costs as much as all that is
done with the bytes afterwards."""

Buffer = bytearray | mmap.mmap


def buffer_of(size: int) -> Buffer:
    """Private memory of `size` bytes, with anything in it."""
    if size < HUGE_BYTES:
        return bytearray(size)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError, AttributeError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class Buffers:
    """Owner of the budget. Lives on one trio thread."""

    def __init__(self, budget_bytes: int, spill: Path) -> None:
        """`spill`: a directory for the nameless files of segments larger than the budget."""
        self._budget = budget_bytes
        self._spill = spill
        self._leased = 0
        self._waiting: deque[tuple[int, trio.Event]] = deque()
        self._free: list[Buffer] = []  # longest unused first
        self._free_bytes = 0

    @property
    def leased_bytes(self) -> int:
        return self._leased

    @property
    def held_bytes(self) -> int:
        """Memory held: leased or kept for the next."""
        return self._leased + self._free_bytes

    @asynccontextmanager
    async def lease(self, sizes: Sequence[int]) -> AsyncIterator[list[memoryview]]:
        """Buffers of these sizes in bytes, with anything in them; waits for its turn."""
        total = sum(sizes)
        if total > self._budget:
            yield _cut(memoryview(self._file(total)), sizes)  # unmapped when the last view of it goes
            return
        await self._admit(total)
        buffers: list[Buffer] = []
        try:
            buffers = [self._take(size) for size in sizes]
            yield [memoryview(buffer) for buffer in buffers]
        finally:
            self._free += buffers
            self._free_bytes += sum(map(len, buffers))
            self._leased -= total
            self._wake()

    def trim(self) -> None:
        """Give back what nobody leases."""
        self._free.clear()
        self._free_bytes = 0

    async def _admit(self, total: int) -> None:
        if self._waiting or self._leased + total > self._budget:
            turn = trio.Event()
            entry = (total, turn)
            self._waiting.append(entry)
            try:
                await turn.wait()
            except BaseException:
                if turn.is_set():
                    self._leased -= total
                else:
                    self._waiting.remove(entry)
                self._wake()
                raise
        else:
            self._leased += total

    def _wake(self) -> None:
        while self._waiting and self._leased + self._waiting[0][0] <= self._budget:
            total, turn = self._waiting.popleft()
            self._leased += total  # on behalf of the waiter, so that nobody slips in between
            turn.set()

    def _take(self, size: int) -> Buffer:
        for at, buffer in enumerate(self._free):
            if len(buffer) == size:
                self._free_bytes -= size
                return self._free.pop(at)
        while self._free and self.held_bytes > self._budget:
            self._free_bytes -= len(self._free.pop(0))
        return buffer_of(size)

    def _file(self, total: int) -> mmap.mmap:
        self._spill.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self._spill) as file:
            file.truncate(total)
            return mmap.mmap(file.fileno(), total)


def _cut(view: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    views, position = [], 0
    for size in sizes:
        views.append(view[position : position + size])
        position += size
    return views
