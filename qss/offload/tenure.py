"""Whether this machine may change anything at the locations now: the one gate in front of uploads, repairs, moves,
deletions and roots. ADR 0119, 0121.

Three things must hold: the fence is down (nobody has taken over, for good), the lease runs (a majority of locations has
lately been seen to carry our hold and no other, qss.offload.hold), and a root of ours has been committed since the
lease began, so that whoever else began at the same time has lost (qss.offload.courier). When one of them ends, what is
under way is cancelled at its next await.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from qss.offload.fence import Fence


class Tenure:
    """Lives on the courier's thread."""

    def __init__(self, fence: Fence) -> None:
        """Until a holder needs the lease, it does not end: then nobody else is reckoned with."""
        self.fence = fence
        self.period = 0  # counted up with each lease
        self._until_s = math.inf  # on trio's clock
        self._claimed = False
        self._at_work: set[trio.CancelScope] = set()
        self._changed = trio.Event()
        fence.tell(self._on_fence)

    @property
    def may_change(self) -> bool:
        """Shards may be put, replaced, moved, deleted."""
        return self._claimed and self.leased

    @property
    def leased(self) -> bool:
        """Nobody else holds the file system, as far as a majority of locations shows: a root may be published."""
        return not self.fence.up and trio.current_time() < self._until_s

    @property
    def fenced(self) -> bool:
        return self.fence.up

    @property
    def until_s(self) -> float:
        """When the lease ends, on trio's clock."""
        return self._until_s

    # -- the lease, for the holder
    def need_lease(self) -> None:
        """From now on there is a lease, and it has ended."""
        self._until_s = -math.inf
        self._end()

    def lease(self, until_s: float) -> None:
        """It goes on until then; or begins, and then a root must be claimed before anything else."""
        if self.fence.up:
            return
        if not self.leased:
            self.lapse()
            self.period += 1
        self._until_s = max(self._until_s, until_s)
        self._tell()

    def lapse(self) -> None:
        """The lease is over if its time is: all that is under way ends."""
        if not self.leased:
            self._end()

    def lose(self, reason: str) -> None:
        """Another machine writes: for good."""
        self.fence.put_up(reason)

    # -- the claim, for the publisher
    @property
    def claimed(self) -> bool:
        return self._claimed

    def claim(self, period: int) -> None:
        """A root of ours has been committed, and all of it happened in this period."""
        if period == self.period and self.leased:
            self._claimed = True
            self._tell()

    # -- for whoever works
    @contextmanager
    def work(self, allowed: Callable[[], bool] | None = None) -> Iterator[trio.CancelScope]:
        """What is done in it is cancelled when it may not be done any more, at once if it may not now. `allowed`: by
        default `may_change`."""
        with trio.CancelScope() as scope:
            self._at_work.add(scope)
            if not (self.may_change if allowed is None else allowed()):
                scope.cancel()
            try:
                yield scope
            finally:
                self._at_work.discard(scope)

    async def change(self) -> None:
        """Return when something is otherwise than before."""
        await self._changed.wait()

    async def granted(self, allowed: Callable[[], bool]) -> bool:
        """Return when `allowed()` holds; False: the fence is up, and it never will."""
        while not self.fence.up:
            if allowed():
                return True
            await self._changed.wait()
        return False

    def _on_fence(self, _reason: str) -> None:
        self._end()

    def _end(self) -> None:
        self._claimed = False
        for scope in self._at_work:
            scope.cancel()
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
