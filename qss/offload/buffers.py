"""Memory for coded segments: reused buffers under one budget, first come first served.

A segment leases all its buffers at once, so two half-served ones cannot wait for each other. One that is larger than
the whole budget gets a file without a name instead of memory, so that a bound holds whatever the segment size.
"""

from __future__ import annotations

import mmap
import tempfile
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio


class Buffers:
    """Owner of the budget. Lives on one trio thread."""

    def __init__(self, budget_bytes: int, spill: Path) -> None:
        """`spill`: a directory for the nameless files of segments larger than the budget."""
        self._budget = budget_bytes
        self._spill = spill
        self._leased = 0
        self._waiting: deque[tuple[int, trio.Event]] = deque()
        self._free: dict[int, list[bytearray]] = defaultdict(list)
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
        buffers: list[bytearray] = []
        try:
            buffers = [self._take(size) for size in sizes]
            yield [memoryview(buffer) for buffer in buffers]
        finally:
            for buffer in buffers:
                self._free[len(buffer)].append(buffer)
                self._free_bytes += len(buffer)
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

    def _take(self, size: int) -> bytearray:
        if self._free[size]:
            self._free_bytes -= size
            return self._free[size].pop()
        for kept in [length for length, spare in self._free.items() if spare]:
            while self._free[kept] and self.held_bytes > self._budget:
                self._free_bytes -= len(self._free[kept].pop())
        return bytearray(size)

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
