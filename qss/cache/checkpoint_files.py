"""Checkpoints as files: written beside the cache, numbered, found again, loaded. docs/formats/checkpoint.md.

`write_parts` runs in a process of its own; it reads one committed state of the index and touches nothing but its own
new files. Everything else runs in the process that owns the cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from qss.cache.applied import Applied
from qss.cache.index import Index
from qss.cache.scan import header_of, readings, segments_in, verified
from qss.cache.segment_log import LOG_SUFFIX
from qss.errors import CorruptData
from qss.formats.checkpoint import (
    ROWS_BYTES_TARGET,
    Frame,
    FrameKind,
    Row,
    encode_begin,
    encode_end,
    encode_rows,
    rows_of,
    scan_frames,
)
from qss.formats.journal import frame_position
from qss.formats.record import SEGMENT_HEADER_BYTES, SegmentHeader
from qss.formats.tables import Table
from qss.host import Disk
from qss.host.disk import Handle
from qss.ids import SEGMENT_ID_NONE, SegmentId, segment_text
from qss.segments import SegmentKind

NEW_DIR: Final = "checkpoint-new"
"""Parts being written. Nothing in here means anything to a later start."""
PART_SUFFIX: Final = ".part"


class Committed(Protocol):
    """One state of the index; qss.cache.index.Committed is one."""

    @property
    def applied(self) -> bytes | None: ...

    def rows(self, table: Table) -> Iterator[Row]: ...


class Written(NamedTuple):
    """A checkpoint whose files are whole and synced, but have no numbers yet."""

    applied: Applied
    lengths: tuple[int, ...]  # bytes of each part
    rows: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint in the cache, complete as far as its headers and its last frame say."""

    applied: Applied
    parts: tuple[tuple[SegmentId, int], ...]  # in order: segment, bytes


def part_path(directory: Path, place: int) -> Path:
    """Of the new part with this place in its checkpoint, from 0."""
    return directory / f"{place:04d}{PART_SUFFIX}"


def segment_path(directory: Path, segment: SegmentId) -> Path:
    return directory / (segment_text(segment) + LOG_SUFFIX)


# -- writing


class _Parts:
    """Frames into files of at most `part_bytes`; a file is synced when the next one begins."""

    def __init__(self, disk: Disk, directory: Path, part_bytes: int) -> None:
        self._disk = disk
        self._directory = directory
        self._part_bytes = part_bytes
        self._handle: Handle | None = None
        self._position = 0
        self.lengths: list[int] = []
        self.frames = 0

    def add(self, frame: bytes) -> None:
        at = frame_position(self._position, len(frame))
        if self._handle is None or (at + len(frame) > self._part_bytes and self._position > SEGMENT_HEADER_BYTES):
            self.finish()
            self._handle = self._disk.create(part_path(self._directory, len(self.lengths)))
            self._disk.pwrite(self._handle, [bytes(SEGMENT_HEADER_BYTES)], 0)  # `number_parts` puts the header there
            at = SEGMENT_HEADER_BYTES
        self._disk.pwrite(self._handle, [frame], at)
        self._position = at + len(frame)
        self.frames += 1

    def finish(self) -> None:
        if self._handle is None:
            return
        self._disk.sync_data(self._handle)
        self.close()
        self.lengths.append(self._position)
        self._position = 0

    def close(self) -> None:
        if self._handle is not None:
            self._disk.close(self._handle)
            self._handle = None


def write_parts(committed: Committed, disk: Disk, directory: Path, part_bytes: int) -> Written:
    """Every journaled row into new, synced files in `directory`. Reads all of the index: seconds for millions of files.

    Raises CorruptData when nothing was ever committed, FileExistsError, NoSpace and OSError; files may be left then.
    """
    mark = committed.applied
    if mark is None:
        raise CorruptData("the index does not say how far it has come")
    parts, total = _Parts(disk, directory, part_bytes), 0
    try:
        parts.add(encode_begin(mark))
        for table in Table:
            if table is Table.LIVE:
                continue  # derived from EXTENTS
            for rows in _chunks(committed.rows(table)):
                parts.add(encode_rows(parts.frames, table, rows))
                total += len(rows)
        parts.add(encode_end(parts.frames, total))
        parts.finish()
    finally:
        parts.close()
    return Written(Applied.unpack(mark), tuple(parts.lengths), total)


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += len(row[0]) + len(row[1])
        if size >= ROWS_BYTES_TARGET:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def clear_new(disk: Disk, directory: Path) -> None:
    """Remove what an earlier attempt has left."""
    disk.makedirs(directory)
    for name in disk.listdir(directory):
        with contextlib.suppress(FileNotFoundError):
            disk.remove(directory / name)


def number_parts(disk: Disk, new: Path, lengths: tuple[int, ...], directory: Path, first: SegmentId) -> None:
    """Make new parts the segments `first`, `first` + 1 … of the cache, durably. Blocks.

    Crash before the end: some of the parts are in `directory`, not all: no checkpoint, and removed at the next start.
    """
    previous, previous_length = SEGMENT_ID_NONE, 0
    for place, length in enumerate(lengths):
        segment = SegmentId(first + place)
        handle = disk.open(part_path(new, place), write=True)
        try:
            header = SegmentHeader(SegmentKind.CHECKPOINT, segment, previous, previous_length)
            disk.pwrite(handle, [header.pack()], 0)
            disk.sync_data(handle)
        finally:
            disk.close(handle)
        previous, previous_length = segment, length
    for place in range(len(lengths)):
        disk.rename(part_path(new, place), segment_path(directory, SegmentId(first + place)))
    disk.sync_dir(directory)


# -- finding and reading


def checkpoints_in(disk: Disk, directory: Path) -> list[Checkpoint]:
    """The complete ones, newest first: chained parts from one with a BEGIN to one with an END. Rows are not read."""
    found: list[Checkpoint] = []
    parts: list[tuple[SegmentId, int]] = []
    applied: Applied | None = None
    for segment in segments_in(disk, directory):
        path = segment_path(directory, segment)
        header, length = header_of(disk, path, segment), 0
        if header is None or header.kind is not SegmentKind.CHECKPOINT:
            parts = []
            continue
        if header.previous == SEGMENT_ID_NONE:
            parts, applied = [], _mark_of(disk, path)
        elif not parts or (header.previous, header.previous_length) != parts[-1]:
            parts = []
            continue
        handle = disk.open(path)
        try:
            length = disk.size(handle)
            parts.append((segment, length))
            if applied is not None and _ends(disk, handle, length):
                found.append(Checkpoint(applied, tuple(parts)))
                parts = []
        finally:
            disk.close(handle)
    return found[::-1]


def _mark_of(disk: Disk, path: Path) -> Applied | None:
    """What the first frame says; None if it does not verify."""
    handle = disk.open(path)
    try:
        for stripe in readings(disk, handle, 0):
            with contextlib.suppress(CorruptData):
                for _, _, frame in scan_frames(stripe, SEGMENT_HEADER_BYTES):
                    return Applied.unpack(frame.body) if frame.kind is FrameKind.BEGIN else None
    finally:
        disk.close(handle)
    return None


def _ends(disk: Disk, handle: Handle, length: int) -> bool:
    """Whether the last frame before `length` is an END."""
    tail = encode_end(0, 0)
    if length < SEGMENT_HEADER_BYTES + len(tail):
        return False
    for read in readings(disk, handle, length - len(tail), len(tail)):
        with contextlib.suppress(CorruptData):
            for _, _, frame in scan_frames(read):
                return frame.kind is FrameKind.END
    return False


def frames_of(disk: Disk, path: Path, length: int) -> Iterator[Frame]:
    """All frames of one part. Raises CorruptData where they do not verify up to `length`."""
    handle = disk.open(path)
    try:
        end = SEGMENT_HEADER_BYTES
        for reached, frame in verified(disk, handle, SEGMENT_HEADER_BYTES, length, scan_frames):
            end = reached
            yield frame
        if end != length or disk.size(handle) != length:
            raise CorruptData(f"a checkpoint verifies up to byte {end} of {length}")
    finally:
        disk.close(handle)


def rows_in(disk: Disk, directory: Path, checkpoint: Checkpoint) -> Iterator[Frame]:
    """All ROWS frames, in order. Raises CorruptData when anything of it is missing or does not verify."""
    number = rows = 0
    ended = False
    for segment, length in checkpoint.parts:
        for frame in frames_of(disk, segment_path(directory, segment), length):
            if ended or frame.number != number or (frame.kind is FrameKind.BEGIN) != (number == 0):
                raise CorruptData("a frame of a checkpoint is not the next one")
            number += 1
            if frame.kind is FrameKind.ROWS:
                rows += frame.row_count
                yield frame
            elif frame.kind is FrameKind.END:
                ended = frame.row_count == rows
    if not ended:
        raise CorruptData("a checkpoint does not end as it should")


def load(index: Index, disk: Disk, directory: Path, checkpoint: Checkpoint) -> None:
    """Into an empty index. Raises CorruptData; then part of it is in there."""
    for frame in rows_in(disk, directory, checkpoint):
        if frame.table is Table.LIVE:
            raise CorruptData("a checkpoint holds rows that are never journaled")
        index.load(frame.table, rows_of(frame))
