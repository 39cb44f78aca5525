"""What the cache knows about its sealed segments: rows, which are safe, what a root may name.

A mirror of the SEGMENTS table in memory; the ops that change it are made here and written by the cache.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, TypedDict

from qss.cache.index import Index
from qss.cache.trimming import groups
from qss.errors import CorruptData, ObjectMissing
from qss.formats.journal import Op, PackedOp
from qss.formats.tables import INODE_BYTES, SegmentRow, SegmentState, Table, is_only_atime, u64_key, u64_of_key
from qss.ids import SEGMENT_ID_NONE, SegmentId, segment_text
from qss.segments import Receipt, RestorePoint, SealedSegment, SegmentKind, StoredSegment

PUBLISHED_KEY: Final = b"cache.published"
FALLBACK_KEY: Final = b"cache.fallback"
TRIMMED_KEY: Final = b"cache.trimmed"
QUIET_KEYS: Final = (PUBLISHED_KEY, FALLBACK_KEY, TRIMMED_KEY)
_NUMBERS_BETWEEN_MAX: Final = 8  # segments of other kinds between two data segments, to look past
_PUBLISHED: Final = struct.Struct("<QqQ")
_JOURNAL: Final = struct.Struct("<Q")


def is_quiet(op: PackedOp) -> bool:
    """Whether a change is not worth a seal by itself: what is stored where, and access times."""
    if op.table is Table.INODES:
        return _is_atime(op)
    return op.table is Table.SEGMENTS or (op.table is Table.META and op.key in QUIET_KEYS)


def _is_atime(op: PackedOp) -> bool:
    """A patch says which bytes it sets, whatever row it is for: those that come out different from one of two rows."""
    for filler in (bytes(INODE_BYTES), b"\xff" * INODE_BYTES):
        try:
            after = op.after(filler) if op.is_patch else None
        except CorruptData:
            return False
        if after is None or not is_only_atime(filler, after):
            return False
    return True


class Figures(TypedDict):
    """Part of CacheFacts."""

    unsafe_bytes: int
    segments_sealed: int
    segments_offloaded: int
    segments_condemned: int
    condemned_bytes: int
    segment_bytes: int
    stored_bytes: int
    published_journal: SegmentId
    published_cut_ns: int
    newest_journal: SegmentId


def sealed_of(segment: SegmentId, row: SegmentRow) -> SealedSegment:
    needs_upto = SEGMENT_ID_NONE if row.kind is SegmentKind.DATA else row.needs_upto
    return SealedSegment(segment, row.kind, row.length, row.sealed_ns, needs_upto)


def is_safe(row: SegmentRow, missing_max: int) -> bool:
    """Whether enough shards are placed for a root to name the segment."""
    if row.state is SegmentState.OFFLOADED:
        return True
    return row.k > 0 and row.placed >= row.k + row.m - missing_max


def restore_point(
    rows: Mapping[SegmentId, SegmentRow],
    live: Mapping[SegmentId, int],
    next_segment: SegmentId,
    missing_max: int,
    trimmed: SegmentId = SEGMENT_ID_NONE,
) -> RestorePoint | None:
    """The newest journal such that it, every journal before it and every data segment it needs is safe. Pure.

    The newest checkpoint that is safe stands for the journals before it. `trimmed`: journals up to here may be gone.

    A data segment that holds live bytes and has no row is not safe. A condemned one that was never stored is not safe
    for journals before the one with its mark: what is dead now may have been alive at their cut.
    """
    data_safe_upto = next_segment
    hollow: list[tuple[SegmentId, SegmentId]] = []  # data segment, the journal that says it is dead
    for segment, row in rows.items():
        if row.kind is not SegmentKind.DATA or is_safe(row, missing_max):
            continue
        if row.state is SegmentState.CONDEMNED:
            hollow.append((segment, row.needs_upto))
        else:
            data_safe_upto = min(data_safe_upto, SegmentId(segment - 1))
    for segment in live:
        if segment not in rows:
            data_safe_upto = min(data_safe_upto, SegmentId(segment - 1))
    chain = sorted(
        s for s, r in rows.items() if r.kind is SegmentKind.JOURNAL and r.state is not SegmentState.CONDEMNED
    )
    bases = [each for each in groups(rows) if all(is_safe(rows[part], missing_max) for part in each.parts)]
    for parts, first in [*((base.parts, base.goes_on) for base in bases), ((), chain[0] if chain else SEGMENT_ID_NONE)]:
        if first <= trimmed or first not in rows:
            continue
        reached = _reached(rows, chain[chain.index(first) :], data_safe_upto, hollow, missing_max)
        if reached:
            row = rows[reached[-1]]
            # A journal that was open for long is older than data its cut closed: numbers go on behind all of it.
            behind = SegmentId(max(reached[-1], row.needs_upto, *parts) + 1)
            return RestorePoint(parts, tuple(reached), row.sealed_ns, behind)
    return None


def _reached(
    rows: Mapping[SegmentId, SegmentRow],
    chain: list[SegmentId],
    data_safe_upto: SegmentId,
    hollow: list[tuple[SegmentId, SegmentId]],
    missing_max: int,
) -> list[SegmentId]:
    """The journals of the chain up to the newest that can be restored. Pure."""
    count = 0
    for place, segment in enumerate(chain):
        row = rows[segment]
        if not is_safe(row, missing_max) or row.needs_upto > data_safe_upto:
            break
        if not any(data <= row.needs_upto and segment < mark for data, mark in hollow):
            count = place + 1
    return chain[:count]


class Shelf:
    """Rows of the sealed segments and the newest published restore point."""

    def __init__(self, index: Index) -> None:
        self.rows: dict[SegmentId, SegmentRow] = {
            SegmentId(u64_of_key(key)): SegmentRow.unpack(value) for key, value in index.scan(Table.SEGMENTS, b"")
        }
        stored = index.get(Table.META, PUBLISHED_KEY)
        self.published = SEGMENT_ID_NONE
        self.published_cut_ns = 0
        if stored is not None:
            try:
                journal, self.published_cut_ns, _ = _PUBLISHED.unpack(stored)
            except struct.error as error:
                raise CorruptData("the published point does not hold") from error
            self.published = SegmentId(journal)
        self.fallback = _journal_in(index, FALLBACK_KEY)  # newest journal of the root before the newest
        self.trimmed = _journal_in(index, TRIMMED_KEY)  # journals up to here may be gone: a checkpoint stands for them

    def row(self, segment: SegmentId) -> SegmentRow:
        """Raises ObjectMissing."""
        row = self.rows.get(segment)
        if row is None:
            raise ObjectMissing(f"segment {segment_text(segment)} is not sealed")
        return row

    @property
    def newest_journal(self) -> SegmentId:
        """The newest sealed journal; 0: none."""
        return max((s for s, row in self.rows.items() if row.kind is SegmentKind.JOURNAL), default=SEGMENT_ID_NONE)

    def unsafe(self) -> list[SealedSegment]:
        """Sealed and not completely placed, oldest first."""
        return [
            sealed_of(segment, row) for segment, row in sorted(self.rows.items()) if row.state is SegmentState.SEALED
        ]

    def held(self) -> list[SealedSegment]:
        """Of which locations may hold shards, oldest first."""
        return [
            sealed_of(segment, row)
            for segment, row in sorted(self.rows.items())
            if row.k and not (row.state is SegmentState.CONDEMNED and row.needs_upto == SEGMENT_ID_NONE)
        ]

    def stored(self) -> list[StoredSegment]:
        """With a receipt and not condemned, oldest first."""
        return [
            StoredSegment(sealed_of(segment, row), row.k, row.m, row.placed, row.stored_bytes)
            for segment, row in sorted(self.rows.items())
            if row.k > 0 and row.state is not SegmentState.CONDEMNED
        ]

    def stripes_elsewhere(self, segment: SegmentId) -> int:
        """Number of stripes of a segment that can be fetched; 0: it cannot, or nobody should wait for it any more."""
        row = self.rows.get(segment)
        if row is None or row.k == 0 or row.state is SegmentState.CONDEMNED:
            return 0
        return sealed_of(segment, row).stripe_count

    def following(self, segment: SegmentId) -> tuple[SegmentId, int] | None:
        """The data segment behind this one, and its stripes elsewhere; others take numbers in between."""
        for number in range(segment + 1, segment + 1 + _NUMBERS_BETWEEN_MAX):
            row = self.rows.get(SegmentId(number))
            if row is not None and row.kind is SegmentKind.DATA:
                return SegmentId(number), self.stripes_elsewhere(SegmentId(number))
        return None

    def is_elsewhere(self, segment: SegmentId) -> bool:
        """Whether all shards of it are placed."""
        row = self.rows.get(segment)
        return row is not None and row.state is SegmentState.OFFLOADED

    def figures(self) -> Figures:
        """Our part of CacheFacts."""
        rows = self.rows.values()
        by_state = Counter(row.state for row in rows)
        return {
            "unsafe_bytes": sum(row.length for row in rows if row.state is SegmentState.SEALED),
            "segments_sealed": by_state[SegmentState.SEALED],
            "segments_offloaded": by_state[SegmentState.OFFLOADED],
            "segments_condemned": by_state[SegmentState.CONDEMNED],
            "condemned_bytes": sum(row.length for row in rows if row.state is SegmentState.CONDEMNED),
            "segment_bytes": sum(
                row.length for row in rows if row.kind is SegmentKind.DATA and row.state is not SegmentState.CONDEMNED
            ),
            "stored_bytes": sum(row.stored_bytes for row in rows),
            "published_journal": self.published,
            "published_cut_ns": self.published_cut_ns,
            "newest_journal": self.newest_journal,
        }

    # -- changes: made here, noted with `note` once they are written

    def put(self, segment: SegmentId, row: SegmentRow) -> Op:
        before = self.rows.get(segment)
        return Op(Table.SEGMENTS, u64_key(segment), before.pack() if before else None, row.pack())

    def offloaded(self, receipt: Receipt) -> SegmentRow | None:
        """The row after this receipt; None if it says nothing new. Raises ObjectMissing."""
        row = self.row(receipt.segment)
        if row.state is SegmentState.CONDEMNED or (row.state is SegmentState.OFFLOADED and not receipt.complete):
            return None
        after = with_receipt(row, receipt)
        return None if after == row else after

    def restore_point(
        self, live: Mapping[SegmentId, int], next_segment: SegmentId, missing_max: int
    ) -> RestorePoint | None:
        """What a root may name now."""
        point = restore_point(self.rows, live, next_segment, missing_max, self.trimmed)
        if point is not None and point.journals[-1] < self.published:
            return None  # never back: what the newest root does not need may be deleted
        return point

    def publish(self, point: RestorePoint, get: Callable[[Table, bytes], bytes | None]) -> list[Op]:
        """What changes when a root names this point; nothing when that is known."""
        after = _PUBLISHED.pack(point.journals[-1], point.cut_ns, point.next_segment)
        ops = [Op(Table.META, PUBLISHED_KEY, get(Table.META, PUBLISHED_KEY), after)]
        if point.journals[-1] > self.published:
            ops.append(Op(Table.META, FALLBACK_KEY, get(Table.META, FALLBACK_KEY), _JOURNAL.pack(self.published)))
        return [op for op in ops if op.before != op.after]

    def trim(self, point: RestorePoint) -> list[Op]:
        """What changes when journals before this point's may go."""
        trimmed = SegmentId(point.journals[0] - 1)
        if trimmed <= self.trimmed:
            return []
        before = _JOURNAL.pack(self.trimmed) if self.trimmed else None
        return [Op(Table.META, TRIMMED_KEY, before, _JOURNAL.pack(trimmed))]

    def note_published(self, point: RestorePoint) -> None:
        if point.journals[-1] > self.published:
            self.fallback, self.published = self.published, point.journals[-1]
        self.published_cut_ns = max(self.published_cut_ns, point.cut_ns)


def _journal_in(index: Index, key: bytes) -> SegmentId:
    """A journal's number in META; 0: none is noted. Raises CorruptData."""
    stored = index.get(Table.META, key)
    try:
        return SEGMENT_ID_NONE if stored is None else SegmentId(_JOURNAL.unpack(stored)[0])
    except struct.error as error:
        raise CorruptData(f"{key.decode()} does not hold") from error


def with_receipt(row: SegmentRow, receipt: Receipt) -> SegmentRow:
    return row._replace(
        state=SegmentState.OFFLOADED if receipt.complete else SegmentState.SEALED,
        k=receipt.k, m=receipt.m, placed=len(receipt.placed) - receipt.missing,
        stored_bytes=receipt.stored_bytes, seal=receipt.seal,
    )  # fmt: skip


def row_of(sealed: SealedSegment) -> SegmentRow:
    """The first row of a segment found at the locations."""
    return SegmentRow(
        sealed.kind, SegmentState.SEALED, 0, 0, 0, sealed.length, sealed.sealed_ns, sealed.needs_upto, 0, bytes(16)
    )
