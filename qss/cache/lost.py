"""Segments of which a recovery has found too few shards: what is known of them, and that nobody waits for them.

They keep a row as if they were stored (with no shard placed): the rest of the file system goes on, roots are
published, and should enough shards turn up after all, they are read again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

import trio

from qss.cache.ledger import Ledger
from qss.cache.pins import Pins
from qss.cache.shelf import Shelf
from qss.formats.record import head_bytes
from qss.formats.tables import (
    ExtentRow,
    SegmentRow,
    SegmentState,
    SnapshotRow,
    Table,
    u64_of_key,
    unpack_number,
)
from qss.ids import SEGMENT_ID_NONE, SegmentId
from qss.segments import SegmentKind

SEAL_UNKNOWN = bytes(16)


class Index(Protocol):
    """A SegmentCache, or the index of a restore point."""

    def scan(self, table: Table, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]: ...

    def live_all(self) -> dict[SegmentId, int]: ...


class Needed(NamedTuple):
    """Segments without which something is lost, but for the logs of the restore point itself. None: it has no row."""

    files: dict[SegmentId, SegmentRow | None]  # files point into them
    snapshots: dict[SegmentId, SegmentRow]  # only snapshots need them, logs of theirs among them

    @property
    def all(self) -> dict[SegmentId, SegmentRow | None]:
        return self.files | self.snapshots


def needed(index: Index, logs: Collection[SegmentId] = ()) -> Needed:
    """Of the index of a restore point with these logs. A walk over segments, not over files."""
    rows = {SegmentId(u64_of_key(key)): SegmentRow.unpack(value) for key, value in index.scan(Table.SEGMENTS, b"")}
    deaths = {SegmentId(u64_of_key(key)): unpack_number(value) for key, value in index.scan(Table.DEATHS, b"")}
    pins = Pins(SnapshotRow.unpack(value) for _, value in index.scan(Table.SNAPSHOTS, b""))
    files = {segment: rows.get(segment) for segment in sorted(index.live_all())}
    snapshots: dict[SegmentId, SegmentRow] = {}
    for segment, row in rows.items():
        if row.state is SegmentState.CONDEMNED or segment in files or segment in logs:
            continue
        is_data = row.kind is SegmentKind.DATA
        if pins.holds(segment, deaths.get(segment)) if is_data else pins.holds_log(segment, row.kind):
            snapshots[segment] = row
    return Needed(files, snapshots)


class LostSegments:
    """Of one cache. Lives on its trio thread."""

    def __init__(self, ledger: Ledger, shelf: Shelf) -> None:
        self._ledger = ledger
        self._shelf = shelf
        self.why: dict[SegmentId, str] = {}
        """Of those that are given up for now: reads of what is not here fail at once, with these words."""
        self.healed = trio.Event()

    def adopt(self, segments: Iterable[SegmentId], code: tuple[int, int], cut_ns: int) -> None:
        """After a rebuild: give each a row that holds nothing up. `code`: (k, m), for those without one."""
        lost = set(segments)
        lengths = self._lengths(lost - self._shelf.rows.keys())
        for segment in sorted(lost):
            before = self._shelf.rows.get(segment)
            if before is not None and before.kind is not SegmentKind.DATA:
                continue  # a log of a snapshot, or a checkpoint that no root names: nothing waits for it
            row = before or SegmentRow(
                SegmentKind.DATA, SegmentState.SEALED, 0, 0, 0, lengths.get(segment, 0), cut_ns, SEGMENT_ID_NONE, 0,
                SEAL_UNKNOWN,
            )  # fmt: skip
            if row.state is SegmentState.SEALED:
                k, m = (row.k, row.m) if row.k else code
                row = row._replace(state=SegmentState.OFFLOADED, k=k, m=m, placed=0, stored_bytes=0)
                self._ledger.write([self._shelf.put(segment, row)])
                self._shelf.rows[segment] = row

    def back(self, segment: SegmentId) -> None:
        """Some of it could be read after all: whoever reads waits for it as for any other."""
        if self.why.pop(segment, None) is not None:
            self.healed.set()
            self.healed = trio.Event()

    def _lengths(self, segments: set[SegmentId]) -> Mapping[SegmentId, int]:
        """How far files point into them, in bytes."""
        found: dict[SegmentId, int] = {}
        if segments:
            for _, value in self._ledger.index.scan(Table.EXTENTS, b""):
                row = ExtentRow.unpack(value)
                if row.segment in segments:
                    end = row.record_position + head_bytes(row.record_length) + row.record_length
                    found[row.segment] = max(end, found.get(row.segment, 0))
        return found
