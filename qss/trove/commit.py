"""Group commit: one fdatasync for all records that wait, then one transaction of the index, then the replies.

    appended ──► waiting ──(sync, in a thread)──► indexed ──► acknowledged
While one batch syncs, the next one gathers; so the size of the batches follows the load by itself.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import Enum

from qss.errors import QssError, Retryable
from qss.trove.facts import Fact, apply
from qss.trove.index import Index
from qss.trove.slots import Volume
from qss.trove.volumes import VolumeSet


class SyncMode(Enum):
    GROUP = "group"
    """One fdatasync for all that wait. Acknowledged means: survives a power cut."""
    EACH = "each"
    """One fdatasync for each. For measuring what grouping gives."""
    OS = "os"
    """None: acknowledged means: survives the death of the process, not a power cut."""


@dataclass(slots=True, eq=False)
class _Waiting:
    volume: Volume
    fact: Fact
    done: asyncio.Future[None]


class Committer:
    """Owns the index's writing transactions of normal running."""

    def __init__(self, volumes: VolumeSet, index: Index, mode: SyncMode, executor: Executor) -> None:
        self._volumes = volumes
        self._index = index
        self._mode = mode
        self._executor = executor
        self._queue: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None
        self._pending: dict[bytes, asyncio.Future[None]] = {}
        self.syncs = 0
        self.commits = 0

    def submit(self, volume: Volume, fact: Fact) -> asyncio.Future[None]:
        """Queue a whole record. The future is done when it may be acknowledged; it fails with Retryable."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.add_done_callback(_seen)
        self._queue.append(_Waiting(volume, fact, done))
        self._pending[fact.key] = done
        if self._task is None:
            self._task = asyncio.create_task(self._drain(), name="trove-commit")
        return done

    async def quiet(self, *keys: bytes) -> None:
        """Wait until no commit of these keys is under way. Nothing else runs before the caller's next line."""
        while waiting := [self._pending[key] for key in keys if key in self._pending]:
            await asyncio.wait(waiting)

    async def through(self) -> None:
        """Wait until what is under way now is through, whatever comes meanwhile."""
        if self._pending:
            await asyncio.wait(list(self._pending.values()))

    async def idle(self) -> None:
        """Wait until nothing at all is under way."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _drain(self) -> None:
        try:
            while self._queue:
                count = 1 if self._mode is SyncMode.EACH else len(self._queue)
                batch, self._queue = self._queue[:count], self._queue[count:]
                await self._commit(batch)
        finally:
            self._task = None

    async def _commit(self, batch: list[_Waiting]) -> None:
        """One batch. A volume that cannot be synced takes its own records down with it, not those of others."""
        if self._mode is not SyncMode.OS:
            self.syncs += 1
            volumes = list(dict.fromkeys(one.volume for one in batch))
            loop = asyncio.get_running_loop()
            try:
                await loop.run_in_executor(self._executor, self._volumes.sync, volumes)
            except QssError as failure:
                lost = [one for one in batch if one.volume.failed]
                batch = [one for one in batch if not one.volume.failed]
                self._settle(lost, failure)
        error: QssError | None = None
        try:
            if batch:
                self._apply(batch)
        except QssError as failure:
            error = failure
        except Exception as failure:
            error = Retryable(f"the index did not take the change: {failure}")
        self._settle(batch, error)

    def _settle(self, batch: list[_Waiting], error: QssError | None) -> None:
        """Tell those that wait."""
        for one in batch:
            if self._pending.get(one.fact.key) is one.done:
                del self._pending[one.fact.key]
            if one.done.cancelled():
                continue
            if error is None:
                one.done.set_result(None)
            else:
                one.done.set_exception(type(error)(str(error)))

    def _apply(self, batch: list[_Waiting]) -> None:
        settled = {(one.volume.number, one.fact.place.position) for one in batch}
        with self._index.write() as tables:
            for one in batch:
                apply(tables, one.fact)
            for volume in {one.volume for one in batch}:
                rest = (at for at in volume.unsettled if (volume.number, at) not in settled)
                tables.set_low(volume.number, next(rest, volume.end))
        for one in batch:
            self._volumes.settle(one.volume, one.fact.place.position)
        self.commits += len(batch)


def _seen(done: asyncio.Future[None]) -> None:
    """A waiter that went away must not leave "exception was never retrieved" behind."""
    if not done.cancelled():
        done.exception()
