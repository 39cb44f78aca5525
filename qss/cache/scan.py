"""Reading log files end to end: which bytes of them verify."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from qss.cache.segment_log import LOG_SUFFIX
from qss.errors import CorruptData
from qss.formats.journal import Batch, PackedOp, ops_of, scan_frames
from qss.formats.record import SEGMENT_HEADER_BYTES, SegmentHeader, scan_stripe
from qss.host import Disk
from qss.host.disk import Handle
from qss.ids import SegmentId
from qss.limits import STRIPE_BYTES

T = TypeVar("T")
Scan = Callable[[bytes, int], Iterator[tuple[int, int, T]]]
"""qss.formats.record.scan of one kind of log: a stripe and where to begin in it."""

READS_MAX: Final = 3
"""Of bytes that do not verify, before they count as damaged: a bit may flip on the way."""


def segments_in(disk: Disk, directory: Path) -> list[SegmentId]:
    """Ids of the log files in a directory, oldest first."""
    found = []
    for name in disk.listdir(directory):
        with contextlib.suppress(ValueError):
            if name.endswith(LOG_SUFFIX):
                found.append(SegmentId(int(name.removesuffix(LOG_SUFFIX), 16)))
    return sorted(found)


def file_length(disk: Disk, path: Path) -> int:
    """Bytes in a file."""
    handle = disk.open(path)
    try:
        return disk.size(handle)
    finally:
        disk.close(handle)


def header_of(disk: Disk, path: Path, segment: SegmentId) -> SegmentHeader | None:
    """The header of a log file; None if it does not verify or is another segment's."""
    handle = disk.open(path)
    try:
        for _ in range(READS_MAX):
            try:
                header = SegmentHeader.unpack(disk.pread(handle, SEGMENT_HEADER_BYTES, 0))
                return header if header.segment == segment else None
            except CorruptData:
                continue
        return None
    finally:
        disk.close(handle)


def frames_of(disk: Disk, handle: Handle, position: int) -> Iterator[tuple[int, Batch]]:
    """(end, frame) of a journal file from `position` on; ends at the first that does not verify."""
    return verified(disk, handle, position, disk.size(handle), scan_frames)


def verified(disk: Disk, handle: Handle, position: int, stop: int, scan: Scan[T]) -> Iterator[tuple[int, T]]:
    """(end in the file, value) of what a log holds between `position` and `stop`, stripe by stripe, each read again
    while that may help; ends at the first that does not verify."""
    while position < stop:
        base = position - position % STRIPE_BYTES
        for stripe in readings(disk, handle, base, min(STRIPE_BYTES, stop - base)):
            try:
                for _, end, value in scan(stripe, position - base):
                    position = base + end
                    yield position, value
                break
            except CorruptData:
                continue
        else:
            return
        position = base + STRIPE_BYTES


def readings(disk: Disk, handle: Handle, base: int, count: int = STRIPE_BYTES) -> Iterator[bytes]:
    """A stripe, read again as long as that may help: a log is cut where it does not verify, so be sure."""
    stripe = disk.pread(handle, count, base)
    yield stripe
    for _ in range(READS_MAX - 1):
        again = disk.pread(handle, count, base)
        if again == stripe:
            return
        stripe = again
        yield stripe


def any_op(disk: Disk, handle: Handle, wanted: Callable[[PackedOp], bool]) -> bool:
    """Whether a journal file has a change that is wanted."""
    return any(wanted(op) for _, batch in frames_of(disk, handle, SEGMENT_HEADER_BYTES) for op in ops_of(batch))


def verified_length(disk: Disk, path: Path) -> int:
    """Bytes from the start of a data segment that verify: whole records without a gap. -1: not even a header."""
    segment = SegmentId(int(path.stem, 16))
    if header_of(disk, path, segment) is None:
        return -1
    handle = disk.open(path)
    good, count = SEGMENT_HEADER_BYTES, 0
    try:
        for end, head in verified(disk, handle, good, disk.size(handle), scan_stripe):
            if head.sequence & 0xFFFF_FFFF != count:
                break
            good, count = end, count + 1
        return good
    finally:
        disk.close(handle)
