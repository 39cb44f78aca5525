"""Cuts: both logs end together at one moment, and a root can say so. Who asks for one: a full log, time, `sync`,
a snapshot, back-pressure. Lives on the cache's trio thread."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import trio

from qss.cache.appender import Appender
from qss.cache.ledger import Ledger
from qss.cache.options import CacheOptions
from qss.cache.space import Space


class Cuts:
    def __init__(self, ledger: Ledger, space: Space, appender: Appender, options: CacheOptions) -> None:
        self._ledger = ledger
        self._space = space
        self._appender = appender
        self._options = options
        self._due = False  # while a thread wrote
        self.dirty_since_s: float | None = None
        """Trio's clock; None: nothing to cut."""
        self.wake: Callable[[], None] = lambda: None
        """Upkeep has something to do."""

    def mark_dirty(self) -> None:
        """Something was written that is worth a root."""
        if self.dirty_since_s is None:
            self.dirty_since_s = trio.current_time()
        if self._ledger.index.changes >= self._options.checkpoint_changes_max:
            self.wake()

    def committed(self) -> None:
        """After each commit: the logs may be long enough."""
        long = self._ledger.journal.reach[1] >= self._options.journal_bytes
        if self._due or long or self._appender.uncut_bytes >= self._options.seal_bytes:
            self.try_to_end()

    def try_to_end(self) -> None:
        """Where nobody waits for it: when the disk fails the logs grow on until they can be closed. Not under the hands
        of a thread: the commit of what it writes does it then."""
        self._due = self._appender.in_thread
        if not self._due:
            with contextlib.suppress(OSError):
                self._end()

    async def end(self) -> None:
        """If anything was written. The caller goes on at that very moment. Raises OSError."""
        async with self._appender.turn:
            self.condemn()  # what is dead belongs to no later cut
            if self.dirty_since_s is not None:
                self._end()

    def condemn(self, at_once: bool = False) -> None:
        """What is dead. `at_once`: also what would better be stored first."""
        # What a thread has written has no name yet and looks dead.
        if not self._appender.in_thread and self._space.condemn(at_once=at_once):
            self.mark_dirty()

    def _end(self) -> None:
        """`settle` does the slow part."""
        data, journal = self._ledger.data, self._ledger.journal
        if data.open is not None and data.open.count:
            data.close_open()
        file = journal.close_open()
        if file is not None:
            file.needs_upto = data.last[0]
            self._space.note_cut(file.segment)
        self.dirty_since_s = None
        self._appender.uncut_bytes = 0
        self.wake()
