"""Background work of a cache: seals by time, rows of closed segments, dead segments, checkpoints; room for writers.

Each step is tried by itself: on a full disk a step that needs space must not hold up the one that gives space back.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import trio

from qss.cache.admission import Admission
from qss.cache.cuts import Cuts
from qss.cache.durability import Durability
from qss.cache.eviction import Eviction
from qss.cache.ledger import Ledger
from qss.cache.options import CacheOptions
from qss.cache.space import Space
from qss.errors import NoSpace, QssError
from qss.host import Host
from qss.limits import KIB, MIB

TICK_S: Final = 1.0
ROOM_BYTES: Final = 256 * MIB
"""Freed beyond the soft limit at a time, but never more than a sixteenth of the disk."""
CHECKPOINT_RETRY_S: Final = 30.0
"""After a checkpoint for which the disk had no room: trying costs a replay of the journal's tail."""
_PAGE_BYTES_A_CHANGE: Final = 8 * KIB  # LMDB writes a leaf and its share of the branches again
_CHECKPOINT_ROOM_BYTES_MAX: Final = 16 * MIB  # it uses its own free pages first

_log = logging.getLogger("qss.cache")


class Upkeep:
    """Lives on the cache's trio thread."""

    def __init__(
        self,
        cuts: Cuts,
        root: Path,
        host: Host,
        options: CacheOptions,
        ledger: Ledger,
        durability: Durability,
        space: Space,
        eviction: Eviction,
    ) -> None:
        self._cuts = cuts
        cuts.wake = self.wake
        self._root = root
        self._host = host
        self._options = options
        self._ledger = ledger
        self._durability = durability
        self._space = space
        self._eviction = eviction
        self._wake = trio.Event()
        self._troubles: dict[str, str] = {}
        self._checkpoint_s = trio.current_time()  # not before
        self._no_room = False  # for the last checkpoint
        self.admission: Admission | None = None

    def wake(self) -> None:
        """There is something to do now."""
        self._wake.set()

    async def run(self) -> None:
        """For as long as the cache is in use."""
        self._checkpoint_s = trio.current_time() + self._options.checkpoint_every_s
        while True:
            with trio.move_on_after(TICK_S):
                await self._wake.wait()
            self._wake = trio.Event()
            dirty_since = self._cuts.dirty_since_s
            if dirty_since is not None and trio.current_time() - dirty_since >= self._options.seal_after_s:
                self._cuts.try_to_end()
            went_well = await self._try("seal", self._durability.settle)
            went_well &= await self._try("reclaim", self.reclaim)
            went_well &= await self._try("checkpoint", self._checkpoint)
            if not went_well:
                await trio.sleep(TICK_S)

    async def reclaim(self) -> int:
        """Condemn what is dead and unlink its local copies; the bytes that gives back here. Raises NoSpace, FsError."""
        self._cuts.condemn()
        if self._space.trim():
            self._cuts.mark_dirty()
        return await self._space.unlink()

    async def make_room(self) -> None:
        """Writers are waiting: free what is dead, then what is safe, in the order of retention. What is not sealed
        cannot be brought away, so it is sealed now."""
        dirty_since = self._cuts.dirty_since_s
        waiting = self.admission is not None and self.admission.waiting
        if waiting and dirty_since is not None and trio.current_time() - dirty_since >= TICK_S:
            self._cuts.try_to_end()
        self._cuts.condemn(at_once=True)
        await self._space.unlink()
        await self._eviction.refresh()
        await self._eviction.evict(self._eviction.plan())
        _, total = self._host.disk.free_bytes(self._root)
        enough = self._options.free_bytes_soft + min(ROOM_BYTES, total // 16)
        await self._eviction.evict(self._eviction.plan(free_bytes_min=enough))

    async def _checkpoint(self) -> None:
        now, changes = trio.current_time(), self._ledger.index.changes
        if now < self._checkpoint_s and (self._no_room or changes < self._options.checkpoint_changes_max):
            return
        self._no_room = False
        self._checkpoint_s = now + self._options.checkpoint_every_s
        try:
            room = min(changes * _PAGE_BYTES_A_CHANGE, _CHECKPOINT_ROOM_BYTES_MAX)
            if self._host.disk.free_bytes(self._root)[0] < room:
                raise NoSpace("no room to write the index")
            await self._durability.checkpoint()
        except NoSpace:
            self._no_room = True
            self._checkpoint_s = now + CHECKPOINT_RETRY_S
            raise

    async def _try(self, name: str, step: Callable[[], Awaitable[object]]) -> bool:
        """Whether it went well. The log hears of the same trouble in a row once."""
        try:
            await step()
        except (QssError, OSError) as error:
            if self._troubles.get(name) != str(error):
                _log.exception("%s: trying again", name)
            self._troubles[name] = str(error)
            return False
        self._troubles.pop(name, None)
        return True
