"""The end of an inode: when its rows go, and who removes the rows of a big file without holding up others.

    last name gone ─┬─ small and not open ─→ rows deleted in the same transaction
                    └─ open, or many rows ─→ row in ORPHANS ─(last close, forget)→ queue ─→ collected in slices
A crash leaves the row in ORPHANS; `adopt` puts all of them in the queue at the next start.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import islice
from typing import Final

import trio

from qss.errors import NoSpace
from qss.formats.tables import InodeRow, Table, pair_key, u64_key, u64_of_key
from qss.fs.handles import Handles
from qss.fs.inodes import Inodes, Transaction

ROWS_AT_ONCE_MAX: Final = 64  # extents and attributes deleted together with the last name
COLLECT_ROWS_MAX: Final = 1_000  # rows of one slice of the collector: a few milliseconds

RETRY_S: Final = 1.0


class Orphans:
    def __init__(self, inodes: Inodes, handles: Handles) -> None:
        self._inodes = inodes
        self._handles = handles
        self._queue: deque[int] = deque()
        self._waiting: set[int] = set()  # in ORPHANS, and somebody still knows them
        self._wake = trio.Event()

    def adopt(self) -> None:
        """At start nobody has anything open: queue what a crash or the last unmount left."""
        for key, _ in self._inodes.cache.scan(Table.ORPHANS, b""):
            self._queue.append(u64_of_key(key))
        self._wake.set()

    def let_go(self, tx: Transaction, ino: int, row: InodeRow) -> None:
        """The last name of `row` goes in this transaction; nlink is 0 already."""
        if not self._handles.is_open(ino) and self._erase(tx, ino, row, ROWS_AT_ONCE_MAX):
            tx.drop_inode(ino, replace(row, size=0, allocated=0) if self._handles.is_known(ino) else None)
            return
        tx.put_inode(ino, row)
        tx.put(Table.ORPHANS, u64_key(ino), b"")
        # Should the transaction fail, the row in ORPHANS is not there, and nothing is collected.
        if self._handles.is_known(ino):
            self._waiting.add(ino)
        else:
            self._queue.append(ino)
            self._wake.set()

    def unused(self, ino: int) -> None:
        """Called after a close or a forget: if nobody knows the inode any more, what is left of it goes."""
        if self._handles.is_known(ino):
            return
        self._inodes.ghosts.pop(ino, None)
        if ino in self._waiting:
            self._waiting.discard(ino)
            self._queue.append(ino)
            self._wake.set()

    def all_unused(self) -> None:
        """The mount has ended."""
        self._inodes.ghosts.clear()
        self._queue.extend(self._waiting)
        self._waiting.clear()
        self._wake.set()

    @property
    def count(self) -> int:
        """Waiting for the last close, or to be collected."""
        return len(self._waiting) + len(self._queue)

    def collect(self, rows_max: int = COLLECT_ROWS_MAX) -> bool:
        """Remove up to about `rows_max` rows of queued inodes in one transaction; False: nothing is left to do."""
        if not self._queue:
            return False
        done = []
        with Transaction(self._inodes) as tx:
            left = rows_max
            for ino in self._queue:
                if tx.change.get(Table.ORPHANS, u64_key(ino)) is not None:
                    used = self._erase_part(tx, ino, left)
                    left -= used
                    if left <= 0:
                        break
                    tx.delete(Table.ORPHANS, u64_key(ino))
                    tx.drop_inode(ino, None)
                    left -= 2
                done.append(ino)
                if left <= 0:
                    break
        for _ in done:
            self._queue.popleft()
        return bool(self._queue)

    async def run(self) -> None:
        """Collect for as long as the mount lives, a slice at a time, others between."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            more = True
            while more:
                try:
                    more = self.collect()
                except NoSpace:  # not even for deleting: eviction may make room
                    await trio.sleep(RETRY_S)
                else:
                    await trio.lowlevel.checkpoint()

    def _erase(self, tx: Transaction, ino: int, row: InodeRow, rows_max: int) -> bool:
        """Delete everything that hangs on the inode, if that is at most `rows_max` rows."""
        cache = self._inodes.cache
        extents = []
        if row.allocated:
            extents = list(islice(cache.scan(Table.EXTENTS, pair_key(ino, 0), pair_key(ino + 1, 0)), rows_max + 1))
        xattrs = list(islice(cache.scan(Table.XATTRS, u64_key(ino), u64_key(ino + 1)), rows_max + 1))
        if len(extents) + len(xattrs) > rows_max:
            return False
        for key, _ in extents:
            tx.delete(Table.EXTENTS, key)
        for key, _ in xattrs:
            tx.delete(Table.XATTRS, key)
        if row.mode & 0o170000 == 0o120000:
            tx.delete(Table.SYMLINKS, u64_key(ino))
        return True

    def _erase_part(self, tx: Transaction, ino: int, rows_max: int) -> int:
        """Delete up to `rows_max` rows that hang on the inode; how many were there (equal: there may be more)."""
        cache = self._inodes.cache
        used = 0
        for key, _ in islice(cache.scan(Table.EXTENTS, pair_key(ino, 0), pair_key(ino + 1, 0)), rows_max):
            tx.delete(Table.EXTENTS, key)
            used += 1
        for key, _ in islice(cache.scan(Table.XATTRS, u64_key(ino), u64_key(ino + 1)), rows_max - used):
            tx.delete(Table.XATTRS, key)
            used += 1
        tx.delete(Table.SYMLINKS, u64_key(ino))
        return used
