"""Segments against their files: what is here must be as long as its row says and be what it says it is.

Sealed files never change, so these checks run beside a mounted file system, in another process. A file that
retention takes away meanwhile is not missing: only what is at the locations is taken away.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Final

from qss.cache.checkpoint_files import checkpoints_in
from qss.cache.checkpoint_files import frames_of as checkpoint_frames
from qss.cache.scan import file_length, frames_of, header_of
from qss.cache.segment_log import FOLDERS, log_path
from qss.cache.trimming import groups
from qss.errors import CorruptData, Damaged
from qss.formats.checkpoint import FrameKind, rows_of
from qss.formats.journal import ops_of
from qss.formats.record import SEGMENT_HEADER_BYTES, decode_head, head_bytes, scan_stripe
from qss.formats.tables import ExtentRow, SegmentRow, SegmentState, Table, pair_of_key, u64_key
from qss.fsck.findings import Check, Finding, Kind, Where
from qss.fsck.rows import Rows, pages
from qss.host import Disk
from qss.host.disk import Handle
from qss.ids import SEGMENT_ID_NONE, SegmentId, StripeNo, segment_text
from qss.limits import STRIPE_BYTES
from qss.segments import SealedSegment, SegmentKind

STRIPE_SUFFIX: Final = ".stripe"

SegmentRows = Mapping[SegmentId, SegmentRow]


class Shelves:
    """The directories of one cache, for reading."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self.root = root
        self.disk = disk

    def path_of(self, segment: SegmentId, kind: SegmentKind) -> Path:
        return log_path(self.root, kind, segment)

    def open(self, path: Path) -> Handle | None:
        """None: it is not here."""
        try:
            return self.disk.open(path)
        except FileNotFoundError:
            return None


def text(segment: SegmentId) -> str:
    return f"segment {segment_text(segment)}"


def elsewhere(row: SegmentRow) -> bool:
    """Whether its bytes can be had from the locations."""
    return row.state is not SegmentState.SEALED or (row.k > 0 and row.placed >= row.k)


def _finding(kind: Kind, segment: SegmentId, sentence: str, lost: bool = False) -> Finding:
    return Finding(kind, text(segment), sentence, Where(Table.SEGMENTS, u64_key(segment)), lost)


def check_files(shelves: Shelves, rows: SegmentRows) -> Check:
    """Each data segment: is it here or elsewhere, and what is here as long as it should be?"""
    for segment, row in sorted(rows.items()):
        if row.kind is not SegmentKind.DATA:
            continue
        path = shelves.path_of(segment, row.kind)
        if not shelves.disk.exists(path):
            if not elsewhere(row):
                sentence = f"The file of {text(segment)} is gone, and it is not at the locations."
                yield _finding(Kind.SEGMENT_MISSING, segment, sentence)
        else:
            problem = _file_problem(shelves, path, segment, row)
            if problem:
                yield _finding(
                    Kind.SEGMENT_FILE, segment, f"The file of {text(segment)} {problem}.", not elsewhere(row)
                )
        yield 1


def _file_problem(shelves: Shelves, path: Path, segment: SegmentId, row: SegmentRow) -> str:
    try:
        length = file_length(shelves.disk, path)
        header = header_of(shelves.disk, path, segment)
    except FileNotFoundError:  # evicted this moment
        return ""
    if length != row.length:
        return f"has {length} bytes, not {row.length}"
    if header is None or header.kind is not row.kind:
        return "does not begin as it should"
    return ""


def check_journals(shelves: Shelves, rows: SegmentRows) -> Check:
    """Sealed journals: all here, each going on where the one before ends, every frame whole.

    Those before the newest checkpoint may be gone: trimmed, or never brought to this machine.
    """
    whole = checkpoints_in(shelves.disk, shelves.root / FOLDERS[SegmentKind.CHECKPOINT])
    based = whole[0].applied.journal if whole else SEGMENT_ID_NONE
    before: tuple[SegmentId, int] | None = None if based else (SEGMENT_ID_NONE, 0)
    for segment, row in sorted(rows.items()):
        if row.kind is not SegmentKind.JOURNAL or row.state is SegmentState.CONDEMNED:
            continue
        path = shelves.path_of(segment, row.kind)
        handle = shelves.open(path)
        if handle is None:
            if segment >= based:
                yield _finding(Kind.JOURNAL_MISSING, segment, f"The journal of {text(segment)} is gone.")
        else:
            try:
                yield from _journal(shelves, handle, segment, row, before if segment > based else None)
            finally:
                shelves.disk.close(handle)
        before = (segment, row.length)
        yield 1


def _journal(
    shelves: Shelves, handle: Handle, segment: SegmentId, row: SegmentRow, before: tuple[SegmentId, int] | None
) -> Iterator[Finding]:
    """`before`: the journal it should go on behind, and its length; None: whatever it was."""
    header = header_of(shelves.disk, shelves.path_of(segment, row.kind), segment)
    if header is None:
        yield _finding(Kind.JOURNAL_DAMAGED, segment, f"The head of the journal {text(segment)} does not verify.")
        return
    if before is not None and (header.previous, header.previous_length) != before:
        sentence = (
            f"The journal {text(segment)} follows {text(header.previous)} of {header.previous_length} bytes;"
            f" the one before it here is {text(before[0])} of {before[1]}."
        )
        yield _finding(Kind.JOURNAL_CHAIN, segment, sentence)
    end, count = SEGMENT_HEADER_BYTES, 0
    try:
        for position, batch in frames_of(shelves.disk, handle, SEGMENT_HEADER_BYTES):
            if batch.number != count:
                break
            for _ in ops_of(batch):
                pass
            end, count = position, count + 1
    except CorruptData:
        pass
    if end != row.length or shelves.disk.size(handle) != row.length:
        sentence = f"The journal {text(segment)} verifies up to byte {end} of {row.length}."
        yield _finding(Kind.JOURNAL_DAMAGED, segment, sentence)


def check_checkpoints(shelves: Shelves, rows: SegmentRows) -> Check:
    """Checkpoints: the newest is all here, and what is here of any is whole."""
    for place, checkpoint in enumerate(groups(rows)):
        number = 0
        before = (SEGMENT_ID_NONE, 0)
        for part in checkpoint.parts:
            row = rows[part]
            path = shelves.path_of(part, row.kind)
            if not shelves.disk.exists(path):
                if place == 0 or not elsewhere(row):
                    yield _finding(Kind.CHECKPOINT_MISSING, part, f"The checkpoint of {text(part)} is gone.")
                number = -1
            else:
                problem, number = _part_problem(shelves, path, (part, row, before), number)
                if problem:
                    yield _finding(Kind.CHECKPOINT_DAMAGED, part, f"The checkpoint of {text(part)} {problem}.")
            before = (part, row.length)
            yield 1


def _part_problem(
    shelves: Shelves, path: Path, expected: tuple[SegmentId, SegmentRow, tuple[SegmentId, int]], number: int
) -> tuple[str, int]:
    """What is wrong, or nothing, and the number of the frame that the next part begins with; -1: not known."""
    part, row, before = expected
    try:
        header = header_of(shelves.disk, path, part)
        if header is None or (header.kind, header.previous, header.previous_length) != (row.kind, *before):
            return "does not begin as it should", -1
        for frame in checkpoint_frames(shelves.disk, path, row.length):
            if number not in (-1, frame.number):
                return f"has frame {frame.number} where {number} should be", -1
            number = frame.number + 1
            if frame.kind is FrameKind.ROWS:
                rows_of(frame)
    except FileNotFoundError:  # trimmed this moment
        return "", -1
    except CorruptData as error:
        return f"does not verify: {error}", -1
    return "", number


# -- content, with --data


def check_data(shelves: Shelves, rows: SegmentRows) -> Check:
    """Every record of every sealed data segment that is here verifies."""
    for segment, row in sorted(rows.items()):
        if row.kind is not SegmentKind.DATA:
            continue
        handle = shelves.open(shelves.path_of(segment, row.kind))
        if handle is None:
            continue
        try:
            for stripe in range(-(-row.length // STRIPE_BYTES)):
                base = stripe * STRIPE_BYTES
                wanted = min(STRIPE_BYTES, row.length - base)
                if not _stripe_verifies(shelves.disk.pread(handle, wanted, base), wanted, stripe):
                    sentence = f"Content in stripe {stripe} of {text(segment)} does not verify."
                    yield _finding(Kind.DATA_DAMAGED, segment, sentence, not elsewhere(row))
                yield 1
        finally:
            shelves.disk.close(handle)


def _stripe_verifies(found: bytes, wanted: int, stripe: int) -> bool:
    if len(found) < wanted:
        return False
    try:
        for _ in scan_stripe(found, SEGMENT_HEADER_BYTES if stripe == 0 else 0):
            pass
    except CorruptData:
        return False
    return True


def check_stripes(shelves: Shelves, rows: SegmentRows) -> Check:
    """Stripes that were fetched back: of a segment there is, as long as it should be, every record verifies."""
    folder = shelves.root / "stripes"
    for name in sorted(shelves.disk.listdir(folder)):
        number, _, stripe = name.removesuffix(STRIPE_SUFFIX).partition("-")
        if not name.endswith(STRIPE_SUFFIX) or not stripe.isdigit():
            continue  # of a fetch under way
        segment = SegmentId(int(number, 16))
        handle = shelves.open(folder / name)
        if handle is None:
            continue
        try:
            wanted = _stripe_bytes(segment, rows.get(segment), int(stripe))
            good = _stripe_verifies(shelves.disk.pread(handle, STRIPE_BYTES + 1, 0), wanted, int(stripe))
            if not good or shelves.disk.size(handle) != wanted:
                subject = f"stripe {stripe} of {text(segment)}"
                where = Where(Table.SEGMENTS, u64_key(segment), int(stripe))
                yield Finding(Kind.STRIPE_DAMAGED, subject, f"The local copy of {subject} does not verify.", where)
        finally:
            shelves.disk.close(handle)
        yield 1


def _stripe_bytes(segment: SegmentId, row: SegmentRow | None, stripe: int) -> int:
    """-1: there is no such stripe."""
    if row is None:
        return -1
    sealed = SealedSegment(segment, row.kind, row.length, row.sealed_ns, row.needs_upto)
    return sealed.stripe_bytes(StripeNo(stripe)) if stripe < sealed.stripe_count else -1


def check_records(shelves: Shelves, rows: Rows, damaged: Container[SegmentId]) -> Check:
    """Every extent whose segment is here points at a record of just that length. Offline: it reads the disk.
    `damaged`: segments that do not verify and so say nothing."""
    handle: Handle | None = None
    current = SEGMENT_ID_NONE
    try:
        for page in pages(rows, Table.EXTENTS):
            for key, value in page:
                try:
                    extent = ExtentRow.unpack(value)
                except Damaged:
                    continue
                if extent.segment != current:
                    if handle is not None:
                        shelves.disk.close(handle)
                    handle = shelves.open(shelves.path_of(extent.segment, SegmentKind.DATA))
                    current = extent.segment
                if (
                    handle is not None
                    and extent.segment not in damaged
                    and not _record_is_there(shelves.disk, handle, extent)
                ):
                    ino, offset = pair_of_key(key)
                    sentence = (
                        f"Byte {offset} of inode {ino} should lie in a record at byte {extent.record_position} of"
                        f" {text(extent.segment)}; there is none of that length."
                    )
                    yield Finding(Kind.EXTENT_RECORD, f"inode {ino}", sentence, Where(Table.EXTENTS, key))
            yield len(page)
    finally:
        if handle is not None:
            shelves.disk.close(handle)


def _record_is_there(disk: Disk, handle: Handle, extent: ExtentRow) -> bool:
    try:
        head = decode_head(disk.pread(handle, head_bytes(extent.record_length), extent.record_position))
    except CorruptData:
        return False
    return head.length == extent.record_length
