"""How checks read the index: the same over the live cache and over an index opened by itself."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final, Protocol

from qss.formats.journal import Op
from qss.formats.tables import InodeRow, Table, u64_key
from qss.ids import SegmentId

PAGE_ROWS: Final = 128
"""Rows checked in one piece: a millisecond or two, for which the mount process does nothing else."""

Row = tuple[bytes, bytes]


class Rows(Protocol):
    """The index, as a check sees it. SegmentCache, Index and Change are such."""

    def get(self, table: Table, key: bytes) -> bytes | None: ...

    def scan(self, table: Table, start: bytes, stop: bytes | None = None) -> Iterator[Row]: ...


class LiveRows(Rows, Protocol):
    """SegmentCache and Index."""

    def live_all(self) -> dict[SegmentId, int]:
        """Bytes of files that point into each segment, as it is kept."""
        ...


class Tally(Protocol):
    """A sum over a table that is still right when rows change while it is made."""

    def changed(self, op: Op) -> None:
        """A row was changed: if it was counted before, count it anew."""
        ...


def pages(rows: Rows, table: Table, start: bytes = b"") -> Iterator[list[Row]]:
    """A table in pieces; each is what was there when it was taken, so it must be used up before any pause.

    A piece that is not full has reached the end: what is added behind it later is not chased, or a check beside
    somebody who makes files would never end.
    """
    while page := list(islice(rows.scan(table, start), PAGE_ROWS)):
        yield page
        if is_last(page):
            return
        start = page[-1][0] + b"\0"


def is_last(page: list[Row]) -> bool:
    """Whether the table ended with this piece."""
    return len(page) < PAGE_ROWS


def inode_of(rows: Rows, ino: int) -> InodeRow | None:
    """Raises CorruptData for a row that cannot be read, which is a finding of its own."""
    packed = rows.get(Table.INODES, u64_key(ino))
    return None if packed is None else InodeRow.unpack(packed)
