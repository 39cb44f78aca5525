"""The logs as files: append, close, sync. Synchronous but for one call; the caller hands the syncs to threads.

A log has at most one open segment. `close_open` (a roll or a cut) takes it away; the next append makes a new one at
once, so writers never wait for a seal. Closed segments stay in `closing` until they are synced and have their row.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from qss.errors import FsError
from qss.formats.journal import frame_position
from qss.formats.record import (
    RECORD_PAYLOAD_BYTES_MAX,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    encode_head,
    head_bytes,
    payload_room,
    sequence_of,
)
from qss.formats.tables import ExtentRow
from qss.host import Disk
from qss.host.disk import Handle
from qss.ids import SEGMENT_ID_NONE, SegmentId, segment_text
from qss.limits import BLOCK_BYTES, STRIPE_BYTES
from qss.ranges import round_up
from qss.segments import SegmentKind

LOG_SUFFIX = ".log"
FOLDERS: Final = {SegmentKind.DATA: "data", SegmentKind.JOURNAL: "journal", SegmentKind.CHECKPOINT: "checkpoint"}
"""In a cache's directory."""


def log_path(root: Path, kind: SegmentKind, segment: SegmentId) -> Path:
    """Where the file of a segment lies in the cache in `root`."""
    return root / FOLDERS[kind] / (segment_text(segment) + LOG_SUFFIX)


@dataclass(slots=True)
class Numbers:
    """The counter that both logs share."""

    next_segment: SegmentId


@dataclass(slots=True, eq=False)
class LogFile:
    """One segment being written, or closed and on its way to its row."""

    segment: SegmentId
    kind: SegmentKind
    path: Path
    handle: Handle
    position: int  # bytes written
    count: int  # records or frames written
    synced: int  # bytes that survive a power cut
    named: bool  # its directory entry survives a power cut
    needs_upto: SegmentId = SEGMENT_ID_NONE  # journal, once closed: the newest data segment closed by then
    dead_from: SegmentId = SEGMENT_ID_NONE  # data: held no live byte when a cut closed it with this journal
    begun: int = 0  # bytes the disk was told to begin writing
    ragged: bool = False  # a write failed half-way, and so did taking it back: there may be garbage behind `position`

    @property
    def durable(self) -> bool:
        return self.named and self.synced == self.position


class SegmentLog:
    """One of the logs. Sole writer of its directory."""

    def __init__(self, disk: Disk, directory: Path, kind: SegmentKind, numbers: Numbers) -> None:
        self._disk = disk
        self.directory = directory
        self.kind = kind
        self.numbers = numbers
        self.open: LogFile | None = None
        self.closing: list[LogFile] = []
        self.last: tuple[SegmentId, int] = (SEGMENT_ID_NONE, 0)  # newest closed segment and its length
        self.last_count = 0  # and the frames in it
        self._stump: Path | None = None  # a file without a header that could not be removed

    def path_of(self, segment: SegmentId) -> Path:
        return self.directory / (segment_text(segment) + LOG_SUFFIX)

    @property
    def reach(self) -> tuple[SegmentId, int]:
        """How far the log reaches: (segment, bytes)."""
        return (self.open.segment, self.open.position) if self.open else self.last

    def take_over(self, segment: SegmentId, length: int, count: int) -> LogFile:
        """A segment found on the disk that has no row yet, as one just closed. The caller queues or reopens it."""
        path = self.path_of(segment)
        handle = self._disk.open(path, write=True)
        return LogFile(segment, self.kind, path, handle, length, count, 0, False)

    def unsynced(self) -> list[LogFile]:
        """Segments with something a power cut would take, oldest first."""
        files = [*self.closing, self.open] if self.open else self.closing
        return [file for file in files if not file.durable]

    def close_open(self) -> LogFile | None:
        """Take the open segment out of use (it stays readable) and queue it for its row.

        Raises OSError when garbage behind its end cannot be removed; then it stays open."""
        file = self.open
        if file is not None:
            if file.ragged:
                self._disk.truncate(file.handle, file.position)
                file.ragged, file.synced = False, 0
            self.closing.append(file)
            self.last = (file.segment, file.position)
            self.last_count = file.count
            self.open = None
        return file

    def settled(self, file: LogFile) -> None:
        """Its row is there: let go of it."""
        self.closing.remove(file)
        self._disk.close(file.handle)

    def append_record(
        self, ino: int, offset: int, payload: bytes | memoryview, segment_bytes_max: int
    ) -> list[tuple[int, ExtentRow]]:
        """Content as one record, or several where a stripe or the segment ends: (file offset, extent) for each.

        Raises NoSpace and OSError; records written before the failure are garbage that nothing names.
        """
        file = self.open or self._create()
        length = len(payload)
        position = file.position
        end = position + head_bytes(length) + length
        fits = end <= segment_bytes_max and position // STRIPE_BYTES == (end - 1) // STRIPE_BYTES
        if fits and length <= RECORD_PAYLOAD_BYTES_MAX:
            return [(offset, self._write_record(file, position, ino, offset, payload))]  # nearly always
        view = memoryview(payload)
        extents = []
        while view:
            file, at, room = self._next_place(len(view), segment_bytes_max)
            extents.append((offset, self._write_record(file, at, ino, offset, view[:room])))
            offset += room
            view = view[room:]
        return extents

    async def append_record_in_thread(
        self, ino: int, offset: int, payload: bytes | memoryview, segment_bytes_max: int
    ) -> list[tuple[int, ExtentRow]]:
        """As `append_record`; hashed and written by a thread. Until it returns nobody else may append or close."""
        view = memoryview(payload)
        extents = []
        while view:
            file, at, room = self._next_place(len(view), segment_bytes_max)
            try:
                written = await trio.to_thread.run_sync(self._put_bulk, file, at, ino, offset, view[:room])
            except (FsError, OSError):
                self._cut_back(file, file.position)
                raise
            extents.append((offset, self._noted(file, at, written, room)))
            offset += room
            view = view[room:]
        return extents

    def _next_place(self, wanted: int, segment_bytes_max: int) -> tuple[LogFile, int, int]:
        """Where a record of `wanted` bytes begins and how many of them it takes; in the next segment if it must."""
        while True:
            file = self.open or self._create()
            at, room = self._place(file.position, wanted, segment_bytes_max)
            if room:
                return file, at, room
            self.close_open()

    @staticmethod
    def _place(position: int, wanted: int, segment_bytes_max: int) -> tuple[int, int]:
        """Where the next record goes and how much payload it takes; 0: into the next segment."""
        room = payload_room(position, wanted)
        if room == 0:
            position = round_up(position + 1, STRIPE_BYTES)
            room = payload_room(position, wanted)
        left = segment_bytes_max - position - head_bytes(room)
        if room > left:
            room = max(left, 0) // BLOCK_BYTES * BLOCK_BYTES
        if room == 0 and position == SEGMENT_HEADER_BYTES:
            room = min(wanted, BLOCK_BYTES)  # a segment smaller than a block: only in tests
        return position, room

    def ensure_open(self) -> LogFile:
        """The open segment; a new one if there is none. Raises NoSpace and OSError."""
        return self.open or self._create()

    def append_frames(self, frames: list[bytes]) -> None:
        """The frames of one batch, all into one segment. Raises NoSpace and OSError; then none of them is there."""
        file = self.open or self._create()
        start = file.position
        try:
            for frame in frames:  # nearly always one
                length = len(frame)
                at = frame_position(file.position, length)
                self._disk.pwrite(file.handle, [frame], at)
                file.position = at + length
        except (FsError, OSError):
            self._cut_back(file, start)
            raise
        file.count += len(frames)

    def _write_record(
        self, file: LogFile, position: int, ino: int, offset: int, payload: bytes | memoryview
    ) -> ExtentRow:
        try:
            written = self._put(file, position, ino, offset, payload)
        except (FsError, OSError):
            self._cut_back(file, file.position)
            raise
        return self._noted(file, position, written, len(payload))

    def _put(self, file: LogFile, position: int, ino: int, offset: int, payload: bytes | memoryview) -> int:
        head = encode_head(ino, offset, sequence_of(file.segment, file.count), payload)
        return self._disk.pwrite(file.handle, [head, payload], position)

    def _put_bulk(self, file: LogFile, position: int, ino: int, offset: int, payload: memoryview) -> int:
        """In a thread. After each stripe the disk begins with what it will be asked to sync."""
        written = self._put(file, position, ino, offset, payload)
        end = position + written
        if end - file.begun >= STRIPE_BYTES:
            self._disk.begin_sync(file.handle, file.begun, end - file.begun)
            file.begun = end
        return written

    @staticmethod
    def _noted(file: LogFile, position: int, written: int, length: int) -> ExtentRow:
        file.count += 1
        file.position = position + written
        return ExtentRow(file.segment, position, length, 0, length)

    def _create(self) -> LogFile:
        if self._stump is not None:  # must not lie between two segments when the log is read again
            with contextlib.suppress(FileNotFoundError):
                self._disk.remove(self._stump)
            self._stump = None
        numbers = self.numbers
        segment = numbers.next_segment
        header = SegmentHeader(self.kind, segment, *self.last).pack()
        path = self.path_of(segment)
        handle = self._disk.create(path)
        try:
            self._disk.pwrite(handle, [header], 0)
        except (FsError, OSError):
            self._disk.close(handle)
            self._stump = path
            self._disk.remove(path)
            self._stump = None
            raise
        numbers.next_segment = SegmentId(segment + 1)
        self.open = LogFile(segment, self.kind, path, handle, len(header), 0, 0, False)
        return self.open

    def _cut_back(self, file: LogFile, position: int) -> None:
        """A write failed half-way: no garbage may stand where the next scan expects padding."""
        file.position = position
        file.begun = min(file.begun, position)
        file.synced = 0  # the garbage may have been synced, and taking it back has not
        try:
            self._disk.truncate(file.handle, min(position, self._disk.size(file.handle)))
        except OSError:
            file.ragged = True
