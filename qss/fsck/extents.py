"""Extents: inside their files, apart from each other, inside segments that exist; and the sums kept over them.

Sums are exact while others write, as in qss.fsck.links: changes behind the mark are counted when they happen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from qss.errors import CorruptData
from qss.formats.journal import Op
from qss.formats.record import SEGMENT_HEADER_BYTES, head_bytes
from qss.formats.tables import ExtentRow, Table, pair_key, pair_of_key, u64_key
from qss.fs.attrs import is_file
from qss.fsck.findings import Check, Finding, Kind, Where
from qss.fsck.rows import LiveRows, Row, Rows, inode_of, is_last, pages
from qss.ids import SegmentId, segment_text
from qss.limits import STRIPE_BYTES

ReachOf = Callable[[SegmentId], int | None]
"""Bytes of a data segment, sealed or not; None: there is none of this number."""

_AT_END: Final = b"\xff" * 17  # behind every key


class ExtentTally:
    """Bytes of each segment that files point to, and bytes of content of the file that is being looked at."""

    def __init__(self) -> None:
        self.live: Counter[SegmentId] = Counter()
        self.ino = 0
        self.allocated = 0
        self.mark = b""  # extents up to here are counted

    def changed(self, op: Op) -> None:
        if op.table is Table.EXTENTS and op.key <= self.mark:
            if op.before is not None:
                self._count(op.key, op.before, -1)
            if op.after is not None:
                self._count(op.key, op.after, 1)

    def add(self, ino: int, extent: ExtentRow) -> None:
        self.live[extent.segment] += extent.length
        self.allocated += extent.length

    def begin(self, ino: int) -> None:
        self.ino, self.allocated = ino, 0

    def _count(self, key: bytes, value: bytes, sign: int) -> None:
        try:
            extent = ExtentRow.unpack(value)
        except CorruptData:
            return
        self.live[extent.segment] += sign * extent.length
        if pair_of_key(key)[0] == self.ino:
            self.allocated += sign * extent.length


def check_extents(rows: LiveRows, reach_of: ReachOf, tally: ExtentTally) -> Check:
    """EXTENTS → inodes, segments, LIVE. The caller lets `tally` hear of changes for as long as this runs."""
    for page in pages(rows, Table.EXTENTS):
        for key, value in page:
            ino, offset = pair_of_key(key)
            if ino != tally.ino:
                yield from _file_ends(rows, tally)
                tally.begin(ino)
            try:
                extent = ExtentRow.unpack(value)
            except CorruptData:
                sentence = f"An extent of inode {ino} at byte {offset} cannot be read."
                yield Finding(Kind.EXTENT_INVALID, f"inode {ino}", sentence, Where(Table.EXTENTS, key))
                continue
            tally.add(ino, extent)
            yield from extent_findings(rows, reach_of, (key, value))
            tally.mark = key
        if is_last(page):
            tally.mark = _AT_END
        yield len(page)
    yield from _file_ends(rows, tally)
    tally.mark = _AT_END
    yield from live_findings(tally.live, rows.live_all())


def _file_ends(rows: Rows, tally: ExtentTally) -> list[Finding]:
    """All extents of a file are seen: is their sum what its inode says?"""
    ino = tally.ino
    try:
        row = inode_of(rows, ino) if ino else None
    except CorruptData:
        row = None
    if row is None or row.allocated == tally.allocated:
        return []
    sentence = f"Inode {ino} counts {row.allocated} bytes of content and has {tally.allocated}."
    return [Finding(Kind.ALLOCATED, f"inode {ino}", sentence, Where(Table.INODES, u64_key(ino), tally.allocated))]


def extent_findings(rows: Rows, reach_of: ReachOf, row: Row) -> list[Finding]:
    """What is wrong with one extent, at this moment."""
    key, value = row
    ino, offset = pair_of_key(key)
    extent = ExtentRow.unpack(value)
    subject, where = f"inode {ino}", Where(Table.EXTENTS, key)
    found = []
    end = offset + extent.length
    try:
        inode = inode_of(rows, ino)
        if inode is None or not is_file(inode):
            sentence = f"There is content for inode {ino}, which is no file."
            found.append(Finding(Kind.EXTENT_STRAY, subject, sentence, where))
        elif end > inode.size:
            sentence = f"Inode {ino} has content up to byte {end}, behind its end at {inode.size}."
            found.append(Finding(Kind.EXTENT_BEYOND_END, subject, sentence, Where(Table.EXTENTS, key, end)))
    except CorruptData:
        pass
    behind = next(rows.scan(Table.EXTENTS, key + b"\0", pair_key(ino, min(end, 2**64 - 1))), None)
    if behind is not None:
        sentence = f"Two extents of inode {ino} meet at byte {pair_of_key(behind[0])[1]}."
        found.append(Finding(Kind.EXTENT_OVERLAP, subject, sentence, where))
    problem = _outside(extent, reach_of(extent.segment))
    if problem:
        sentence = f"Bytes {offset} to {end} of inode {ino} lie in segment {segment_text(extent.segment)}, {problem}."
        found.append(Finding(Kind.EXTENT_SEGMENT, subject, sentence, where))
    return found


def _outside(extent: ExtentRow, reach: int | None) -> str:
    """Why no record can be where an extent points; empty: one can."""
    if reach is None:
        return "which is not there"
    at = extent.record_position
    end = at + head_bytes(extent.record_length) + extent.record_length
    if end > reach:
        return f"which ends at byte {reach}, before byte {end}"
    if at < SEGMENT_HEADER_BYTES or at // STRIPE_BYTES != (end - 1) // STRIPE_BYTES:
        return f"where no record can be at byte {at}"
    return ""


def live_findings(counted: Counter[SegmentId], kept: dict[SegmentId, int]) -> list[Finding]:
    """Bytes that files point to in each segment, as counted and as kept. Pure."""
    found = []
    for segment in sorted(counted.keys() | kept.keys()):
        right, said = counted[segment], kept.get(segment, 0)
        if right != said:
            sentence = f"Segment {segment_text(segment)} says files use {said} bytes of it; they use {right}."
            where = Where(Table.LIVE, u64_key(segment), right)
            found.append(Finding(Kind.LIVE_WRONG, f"segment {segment_text(segment)}", sentence, where))
    return found
