"""Reading the index: synchronous, memory-mapped, a few microseconds. Iterators must be used up before any await.

Should LMDB fail (its file was damaged under it), the index is built anew from the journals, at once and in place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from qss.cache.change import Change
from qss.cache.index import Index
from qss.cache.ledger import Ledger, Observer
from qss.errors import Damaged
from qss.formats.tables import Table
from qss.ids import SegmentId


class IndexRows:
    """The part of SegmentCache that reads rows."""

    _ledger: Ledger

    def get(self, table: Table, key: bytes) -> bytes | None:
        try:
            return self._ledger.index.get(table, key)
        except Damaged:
            self._ledger.revive()
            return self._ledger.index.get(table, key)

    def scan(self, table: Table, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Rows with start <= key < stop, in key order."""
        return self._index().scan(table, start, stop)

    def floor(self, table: Table, key: bytes) -> tuple[bytes, bytes] | None:
        """The row with the greatest key <= `key`, or None."""
        return self._index().floor(table, key)

    def count(self, table: Table) -> int:
        """Number of rows of a table."""
        return self._ledger.index.count(table)

    @property
    def live_bytes(self) -> int:
        """Bytes that files point to, wherever they are."""
        return self._ledger.index.live_total

    def live_all(self) -> dict[SegmentId, int]:
        """Bytes of files that point into each segment. A copy."""
        return self._ledger.index.live_all()

    @contextlib.contextmanager
    def observed_by(self, observer: Observer) -> Iterator[None]:
        """`observer` hears of every row that changes, for as long as the context is open."""
        observers = self._ledger.observers
        observers.append(observer)
        try:
            yield
        finally:
            observers.remove(observer)

    def begin(self) -> Change:
        return Change(self._index())

    def _index(self) -> Index:
        if self._ledger.index.broken:
            self._ledger.revive()
        return self._ledger.index
