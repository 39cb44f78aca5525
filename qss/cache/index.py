"""The index: a materialised view of the journal in LMDB. The only module of the cache that knows LMDB.

One write transaction stays open for as long as the cache does; all reads and writes go through it, so they see each
other at once and cost a memory access. `checkpoint` commits it and opens the next. Nothing here is synced: `sync` is
called from a thread, after the logs are synced, and the caller must not checkpoint again before it has returned
(qss.cache.recovery says why that is enough to trust the index after a power cut).

LIVE (bytes of files that point into each segment) is not journaled: it follows from EXTENTS, change by change.
"""

from __future__ import annotations

import contextlib
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Self, cast

import lmdb

from qss.errors import CorruptData, Damaged, NoSpace
from qss.formats.journal import Op, PackedOp
from qss.formats.tables import Table, u64_key, u64_of_key
from qss.ids import SegmentId

_LIVE: Final = struct.Struct("<Q")
_EXTENT_PART: Final = struct.Struct("<Q12xI")  # ExtentRow: segment … length
_EXTENTS: Final = Table.EXTENTS
_APPLIED: Final = b"index.applied"  # in META, the one row that is not journaled
READERS_MAX: Final = 16
"""Read transactions at one time, in all processes together."""


class Index:
    """Named databases, one for each Table. Keys and values are bytes; iterators die with the next checkpoint.

    LMDB's lock file is for readers in other processes (`Committed`): pages they look at are not used again meanwhile.
    It also has the mutex of the writer, which belongs to the thread that took it: opened, written and closed on one.
    """

    def __init__(self, path: Path, map_bytes: int) -> None:
        """Open or create. Raises Damaged when LMDB cannot read what is there."""
        self._thread = threading.get_ident()
        _close_abandoned(self._thread)
        try:
            self._env = lmdb.open(
                str(path), map_size=map_bytes, max_dbs=len(Table), mode=0o600, sync=False, metasync=False,
                lock=True, max_readers=READERS_MAX, writemap=False, readahead=True, meminit=False,
            )  # fmt: skip
            self._env.reader_check()  # of processes that are no more
            self._dbs = [self._env.open_db(table.name.encode()) for table in Table]
            self._txn = self._env.begin(write=True)
            self._read_live()
        except (lmdb.Error, struct.error) as error:
            raise Damaged(f"the index cannot be opened: {error}") from error
        self.changes = 0  # rows changed since the last checkpoint

    def _read_live(self) -> None:
        self._live: dict[SegmentId, int] = {
            SegmentId(u64_of_key(key)): _LIVE.unpack(value)[0] for key, value in self.scan(Table.LIVE, b"")
        }
        self._live_changed: set[SegmentId] = set()
        self.live_total = sum(self._live.values())
        """Bytes of files that point into any segment."""
        self.broken = False  # LMDB has failed: it must be built anew

    # -- rows

    def get(self, table: Table, key: bytes) -> bytes | None:
        """Raises Damaged, as everything that reads."""
        try:
            return self._txn.get(key, None, self._dbs[table])
        except lmdb.Error as error:
            raise self._broken(error) from error

    def scan(self, table: Table, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Rows with start <= key < stop, in key order."""
        try:
            with self._txn.cursor(self._dbs[table]) as cursor:
                if not cursor.set_range(start):
                    return
                if stop is None:
                    yield from cursor
                    return
                for key, value in cursor:
                    if key >= stop:
                        return
                    yield key, value
        except lmdb.Error as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> Damaged:
        self.broken = True
        return Damaged(f"the index cannot be read: {error}")

    def floor(self, table: Table, key: bytes) -> tuple[bytes, bytes] | None:
        """The row with the greatest key <= `key`."""
        try:
            with self._txn.cursor(self._dbs[table]) as cursor:
                if cursor.set_range(key):
                    if cursor.key() == key:
                        return key, cursor.value()
                    return cursor.item() if cursor.prev() else None
                return cursor.item() if cursor.last() else None
        except lmdb.Error as error:
            raise self._broken(error) from error

    def below(self, table: Table, key: bytes) -> tuple[bytes, bytes] | None:
        """The row with the greatest key < `key`."""
        try:
            with self._txn.cursor(self._dbs[table]) as cursor:
                if cursor.set_range(key):
                    return cursor.item() if cursor.prev() else None
                return cursor.item() if cursor.last() else None
        except lmdb.Error as error:
            raise self._broken(error) from error

    def count(self, table: Table) -> int:
        """Number of rows."""
        return int(self._txn.stat(self._dbs[table])["entries"])

    def apply(self, ops: Sequence[Op]) -> None:
        """Make the rows what the ops say. Raises Damaged when LMDB fails; then the transaction is lost (`reset`)."""
        put, delete, dbs = self._txn.put, self._txn.delete, self._dbs
        try:
            for table, key, before, after in ops:
                if table is _EXTENTS:
                    self._count(before, after)
                if after is not None:
                    put(key, after, True, True, False, dbs[table])
                else:
                    delete(key, b"", dbs[table])
            self.changes += len(ops)
        except lmdb.Error as error:
            raise Damaged(f"the index cannot be written: {error}") from error

    def replay(self, ops: Iterable[PackedOp]) -> None:
        """As `apply`, of changes as they stand in the journal. Raises CorruptData for one that does not fit its row."""
        txn, delete, dbs = self._txn, b"", self._dbs
        try:
            for op in ops:
                table, key = op.table, op.key
                before = txn.get(key, None, dbs[table]) if op.is_patch or table is Table.EXTENTS else None
                after = op.after(before)
                if table is Table.EXTENTS:
                    self._count(before, after)
                if after is None:
                    txn.delete(key, delete, dbs[table])
                else:
                    txn.put(key, after, True, True, False, dbs[table])
                self.changes += 1
        except lmdb.Error as error:
            raise Damaged(f"the index cannot be written: {error}") from error

    def load(self, table: Table, rows: list[tuple[bytes, bytes]]) -> None:
        """Add rows of a checkpoint behind all there are of this table, in key order.

        Raises CorruptData when they are not in order, Damaged when LMDB fails.
        """
        try:
            with self._txn.cursor(self._dbs[table]) as cursor:
                cursor.putmulti(rows, append=True)
            if table is Table.EXTENTS:
                for _, value in rows:
                    self._count(None, value)
        except (lmdb.KeyExistsError, lmdb.BadValsizeError, struct.error) as error:
            raise CorruptData("rows of a checkpoint are not in order") from error
        except lmdb.Error as error:
            raise Damaged(f"the index cannot be written: {error}") from error
        self.changes += len(rows)

    def live_bytes(self, segment: SegmentId) -> int:
        """Bytes of files that point into this segment."""
        return self._live.get(segment, 0)

    def live_all(self) -> dict[SegmentId, int]:
        """Every segment with live bytes. A copy."""
        return dict(self._live)

    def _count(self, before: bytes | None, after: bytes | None) -> None:
        live, changed = self._live, self._live_changed
        if before is not None:
            segment, length = _EXTENT_PART.unpack(before)
            self.live_total -= length
            rest = live.get(segment, 0) - length
            if rest > 0:
                live[segment] = rest
            else:
                live.pop(segment, None)
            changed.add(segment)
        if after is not None:
            segment, length = _EXTENT_PART.unpack(after)
            self.live_total += length
            live[segment] = live.get(segment, 0) + length
            changed.add(segment)

    # -- durability

    def committed(self) -> Committed:
        """What the last `checkpoint` has left, as it stays while others go on."""
        return Committed(self._env.begin(), self._dbs)

    @property
    def applied(self) -> bytes | None:
        """The mark given to the checkpoint this index was opened at."""
        return self.get(Table.META, _APPLIED)

    @property
    def txnid(self) -> int:
        """Number of the last committed transaction, as the file shows it."""
        return int(self._env.info()["last_txnid"])

    def checkpoint(self, applied: bytes) -> int:
        """Commit everything so far under this mark; returns the txnid. Raises NoSpace, Damaged; then `reset`."""
        try:
            for segment in self._live_changed:
                live = self._live.get(segment)
                if live is None:
                    self._txn.delete(u64_key(segment), db=self._dbs[Table.LIVE])
                else:
                    self._txn.put(u64_key(segment), _LIVE.pack(live), db=self._dbs[Table.LIVE])
            self._txn.put(_APPLIED, applied, db=self._dbs[Table.META])
            self._txn.commit()
            self._txn = self._env.begin(write=True)
        except lmdb.Error as error:
            if "No space" in str(error):
                raise NoSpace("the index cannot be written") from error
            raise Damaged(f"the index cannot be written: {error}") from error
        self._live_changed.clear()
        self.changes = 0
        return self.txnid

    def sync(self) -> None:
        """What was committed survives a power cut. Called from a thread. Raises Damaged."""
        try:
            self._env.sync(True)
        except lmdb.Error as error:
            raise Damaged(f"the index cannot be synced: {error}") from error

    def forget(self) -> None:
        """Take back everything since the last `checkpoint`."""
        self._txn.abort()
        self._txn = self._env.begin(write=True)
        self._read_live()
        self.changes = 0

    def close(self) -> None:
        """Close without committing."""
        self._txn.abort()
        self._env.close()
        self._thread = 0

    def __del__(self) -> None:
        """Without `close`, after an error or in a test: another thread that happens to collect the garbage must not
        free a mutex that ours holds (glibc's list of robust mutexes would be damaged)."""
        if self._thread not in (0, threading.get_ident()) and hasattr(self, "_txn"):
            _abandoned.append((self._thread, self._txn, self._env))


_abandoned: list[tuple[int, lmdb.Transaction, lmdb.Environment]] = []


def _close_abandoned(thread: int) -> None:
    for entry in [each for each in _abandoned if each[0] == thread]:
        _abandoned.remove(entry)
        _, txn, env = entry
        txn.abort()
        env.close()


class Committed:
    """One committed state of the index, in a read transaction: it keeps its pages from being used again, so close it
    soon."""

    def __init__(self, txn: lmdb.Transaction, dbs: list[lmdb._Database]) -> None:
        """Use `Index.committed`, or `opened` in another process."""
        self._txn = txn
        self._dbs = dbs

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path, map_bytes: int) -> Iterator[Self]:
        """Beside the process that writes it. Raises Damaged when LMDB cannot read what is there."""
        try:
            env = lmdb.open(
                str(path), map_size=map_bytes, max_dbs=len(Table), readonly=True, create=False, max_readers=READERS_MAX
            )
        except lmdb.Error as error:
            raise Damaged(f"the index cannot be opened: {error}") from error
        try:
            with env.begin() as txn:
                yield cls(txn, [env.open_db(table.name.encode(), txn, create=False) for table in Table])
        finally:
            env.close()

    @property
    def applied(self) -> bytes | None:
        """The mark of that `checkpoint`."""
        found = self._txn.get(_APPLIED, db=self._dbs[Table.META])
        return None if found is None else bytes(found)

    def rows(self, table: Table) -> Iterator[tuple[bytes, bytes]]:
        """All journaled rows of a table, in key order."""
        with self._txn.cursor(self._dbs[table]) as cursor:
            if table is not Table.META:
                yield from cast("Iterator[tuple[bytes, bytes]]", cursor)
                return
            for key, value in cast("Iterator[tuple[bytes, bytes]]", cursor):
                if key != _APPLIED:
                    yield key, value

    def close(self) -> None:
        self._txn.abort()
