"""Which segments snapshots need: pure, over rows. docs/adr/0093.

A data segment belongs to a snapshot if it was there at the cut (its number is below `next_segment`) and was not dead
then. Dead stays dead, so one number for each dead segment is enough: that of the newest snapshot when it died (its
*death*). Snapshots up to there need it, later ones do not; a segment that lives (death None) is needed by all that
came after it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from qss.formats.tables import SegmentRow, SegmentState, SnapshotRow
from qss.ids import SEGMENT_ID_NONE, SegmentId
from qss.segments import RestorePoint, SegmentKind

Rows = Mapping[SegmentId, SegmentRow]
Deaths = Mapping[SegmentId, int]


class Pins:
    """The snapshots there are, made ready for asking. Immutable."""

    def __init__(self, snapshots: Iterable[SnapshotRow] = ()) -> None:
        rows = sorted(snapshots, key=lambda row: row.number)  # and so by next_segment: both only grow
        self._numbers = [row.number for row in rows]
        self._nexts = [row.next_segment for row in rows]
        self._parts = {part for row in rows for part in row.checkpoint}
        self._journals: list[tuple[SegmentId, SegmentId]] = []  # first and last, apart from each other
        for first, last in sorted((row.journal_first, row.journal_last) for row in rows):
            if self._journals and first <= self._journals[-1][1]:
                self._journals[-1] = (self._journals[-1][0], max(last, self._journals[-1][1]))
            else:
                self._journals.append((first, last))

    def holders(self, segment: SegmentId, death: int | None) -> list[int]:
        """Numbers of the snapshots that need a data segment, oldest first."""
        first = bisect_right(self._nexts, segment)
        stop = len(self._numbers) if death is None else bisect_right(self._numbers, death)
        return self._numbers[first:stop]

    def holds(self, segment: SegmentId, death: int | None) -> bool:
        """Whether any snapshot needs a data segment."""
        first = bisect_right(self._nexts, segment)
        return first < (len(self._numbers) if death is None else bisect_right(self._numbers, death))

    def holds_log(self, segment: SegmentId, kind: SegmentKind) -> bool:
        """Whether any snapshot needs a journal, or a part of a checkpoint."""
        if kind is SegmentKind.CHECKPOINT:
            return segment in self._parts
        place = bisect_right(self._journals, segment, key=lambda ends: ends[0])
        return place > 0 and segment <= self._journals[place - 1][1]


def held_alone(rows: Rows, deaths: Deaths, pins: Pins) -> dict[int, int]:
    """For each snapshot the bytes of data segments that nothing needs but this snapshot: deleting it frees them."""
    alone: dict[int, int] = {}
    for segment, death in deaths.items():
        row = rows.get(segment)
        if row is None or row.state is SegmentState.CONDEMNED:
            continue
        holders = pins.holders(segment, death)
        if len(holders) == 1:
            alone[holders[0]] = alone.get(holders[0], 0) + row.length
    return alone


def held_bytes(rows: Rows, deaths: Deaths, live: Mapping[SegmentId, int], pins: Pins) -> int:
    """Dead bytes that cannot go for the sake of snapshots: of segments all dead, and beside live bytes."""
    return sum(
        max(row.length - live.get(segment, 0), 0)
        for segment, row in rows.items()
        if row.kind is SegmentKind.DATA
        and row.state is not SegmentState.CONDEMNED
        and pins.holds(segment, None if segment in live else deaths.get(segment))
    )


def point_of(row: SnapshotRow, rows: Rows, others: Iterable[SegmentId] = ()) -> RestorePoint:
    """What brings the snapshot back. `others`: journals known to be there without a row yet."""
    known = {segment for segment, each in rows.items() if each.kind is SegmentKind.JOURNAL} | set(others)
    journals = tuple(sorted(each for each in known if row.journal_first <= each <= row.journal_last))
    return RestorePoint(row.checkpoint, journals, row.created_ns, row.next_segment)


class Missing(NamedTuple):
    """A segment that a snapshot needs and that is not there any more, or is on its way out."""

    snapshot: int
    segment: SegmentId


def missing(snapshots: Iterable[SnapshotRow], rows: Rows, deaths: Deaths) -> list[Missing]:
    """What rows alone show: condemned though needed, or a log without a row. A condemned segment's row says with
    which journal it was condemned: if that was part of the cut, the snapshot does without."""
    found = []
    newest = max((s for s, row in rows.items() if row.kind is SegmentKind.JOURNAL), default=SEGMENT_ID_NONE)
    for snapshot in snapshots:
        logs = {*snapshot.checkpoint, snapshot.journal_first, snapshot.journal_last}
        # A journal gets its row when it is synced, before any newer one does.
        found += [Missing(snapshot.number, each) for each in sorted(logs) if each not in rows and each < newest]
        for segment, row in rows.items():
            if row.state is not SegmentState.CONDEMNED:
                continue
            if row.kind is SegmentKind.CHECKPOINT:
                needed = segment in snapshot.checkpoint
            elif row.kind is SegmentKind.JOURNAL:
                needed = snapshot.journal_first <= segment <= snapshot.journal_last
            elif segment >= snapshot.next_segment:
                needed = False
            elif segment in deaths:
                needed = snapshot.number <= deaths[segment]
            else:
                needed = row.needs_upto > snapshot.journal_last
            if needed:
                found.append(Missing(snapshot.number, segment))
    return found
