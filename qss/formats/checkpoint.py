"""A checkpoint: every journaled row as of one place in the journal, bytes ↔ values. docs/formats/checkpoint.md.

It is a chain of segments (qss.formats.record.SegmentHeader, kind CHECKPOINT) filled with frames, numbered from 0 over
all of them: one BEGIN with the mark of the index, ROWS in the order of tables and keys, one END with their number. A
frame never crosses a stripe boundary. The rows of a frame are of one table, in columns: lengths, keys, values.
"""

from __future__ import annotations

import array
import enum
import itertools
import struct
import sys
import zlib
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from blake3 import blake3

from qss.errors import CorruptData
from qss.formats.record import SEGMENT_HEADER_BYTES, scan
from qss.formats.tables import Table
from qss.limits import MIB, STRIPE_BYTES

Bytes = bytes | bytearray | memoryview
Row = tuple[bytes, bytes]

_HEAD: Final = struct.Struct("<4sI")
_BODY: Final = struct.Struct("<BBBxIQ")  # kind, table, packing, number of the frame, number of rows
_LENGTHS: Final = struct.Struct("<II")  # of every key, of every value; _MIXED: one by one
FRAME_MAGIC: Final = b"QSC1"
_CHECK_BYTES: Final = 16
FRAME_OVERHEAD_BYTES: Final = _HEAD.size + _BODY.size + _CHECK_BYTES
ROWS_BYTES_TARGET: Final = MIB // 2
"""A frame is full once its rows have this many bytes."""
ROWS_BYTES_MAX: Final = 2 * MIB
"""Bounds what a reader unpacks. The largest row (an attribute of 64 KiB) fits behind a frame that is nearly full."""
_MIXED: Final = 2**32 - 1
_PLAIN, _ZLIB = 0, 1
_ZLIB_LEVEL: Final = 1

assert ROWS_BYTES_MAX + FRAME_OVERHEAD_BYTES <= STRIPE_BYTES - SEGMENT_HEADER_BYTES
assert array.array("I").itemsize == 4


class FrameKind(enum.IntEnum):
    BEGIN = 0  # its body: the mark, as in META `index.applied`
    ROWS = 1
    END = 2  # `row_count` is the number of all rows


class Frame(NamedTuple):
    """One frame, verified but with its rows still packed; see `rows_of`."""

    kind: FrameKind
    number: int  # from 0, over all segments of the checkpoint
    table: Table  # of ROWS
    row_count: int
    body: bytes


def encode_begin(mark: bytes) -> bytes:
    """The first frame; `mark` says which place in the journal the rows are of."""
    return _frame(FrameKind.BEGIN, 0, Table.META, 0, mark)


def encode_rows(number: int, table: Table, rows: Sequence[Row]) -> bytes:
    """`rows`: in key order, about ROWS_BYTES_TARGET."""
    keys, values = [key for key, _ in rows], [value for _, value in rows]
    columns, lengths = [], []
    for column in (keys, values):
        different = set(map(len, column))
        lengths.append(different.pop() if len(different) == 1 else _MIXED)
        if lengths[-1] == _MIXED:
            columns.append(_little(array.array("I", map(len, column))).tobytes())
    return _frame(FrameKind.ROWS, number, table, len(rows), _LENGTHS.pack(*lengths) + b"".join(columns + keys + values))


def encode_end(number: int, count: int) -> bytes:
    """The last frame. `count`: of all rows."""
    return _frame(FrameKind.END, number, Table.META, count, b"")


def _frame(kind: FrameKind, number: int, table: Table, count: int, body: bytes) -> bytes:
    assert len(body) <= ROWS_BYTES_MAX
    packing, packed = _PLAIN, body
    if len(body) > _CHECK_BYTES * 4:
        smaller = zlib.compress(body, _ZLIB_LEVEL, -zlib.MAX_WBITS)
        if len(smaller) < len(body):
            packing, packed = _ZLIB, smaller
    head = _HEAD.pack(FRAME_MAGIC, _BODY.size + len(packed)) + _BODY.pack(kind, table, packing, number, count)
    return head + packed + blake3(head).update(packed).digest(_CHECK_BYTES)


def decode_frame(untrusted: Bytes) -> tuple[Frame, int]:
    """The frame that starts here and its length in bytes. `untrusted` may be longer. Raises CorruptData."""
    if len(untrusted) < FRAME_OVERHEAD_BYTES:
        raise CorruptData("a frame of a checkpoint is cut short")
    view = memoryview(untrusted)
    magic, length = _HEAD.unpack_from(view)
    whole = _HEAD.size + length + _CHECK_BYTES
    if magic != FRAME_MAGIC or length < _BODY.size or whole > min(len(view), STRIPE_BYTES):
        raise CorruptData("there is no whole frame of a checkpoint here")
    if blake3(view[: whole - _CHECK_BYTES]).digest(_CHECK_BYTES) != bytes(view[whole - _CHECK_BYTES : whole]):
        raise CorruptData("a frame of a checkpoint does not verify")
    kind, table, packing, number, count = _BODY.unpack_from(view, _HEAD.size)
    packed = view[_HEAD.size + _BODY.size : whole - _CHECK_BYTES]
    try:
        return Frame(FrameKind(kind), number, Table(table), count, _unpacked(packing, packed)), whole
    except ValueError as error:
        raise CorruptData("a frame of a checkpoint is of a kind not known") from error


def rows_of(frame: Frame) -> list[Row]:
    """The rows of a ROWS frame, in key order. Raises CorruptData."""
    body, count = frame.body, frame.row_count
    if frame.kind is not FrameKind.ROWS or len(body) < _LENGTHS.size or count > len(body):
        raise CorruptData("a frame of a checkpoint holds no rows")
    at = _LENGTHS.size
    columns = []
    for length in _LENGTHS.unpack_from(body):
        lengths: Sequence[int]
        if length == _MIXED:
            stop = at + 4 * count
            if stop > len(body):
                raise CorruptData("the rows of a checkpoint are cut short")
            lengths = _little(array.array("I", body[at:stop]))
            at = stop
        else:
            lengths = [length] * count
        columns.append(lengths)
    if 0 in columns[0]:
        raise CorruptData("a key in a checkpoint is empty")
    if at + sum(columns[0]) + sum(columns[1]) != len(body):
        raise CorruptData("the rows of a checkpoint do not fill their frame")
    ends = list(itertools.accumulate(itertools.chain(*columns), initial=at))
    cells = [body[start:stop] for start, stop in itertools.pairwise(ends)]
    return list(zip(cells[:count], cells[count:], strict=True))


def scan_frames(untrusted: Bytes, start: int = 0) -> Iterator[tuple[int, int, Frame]]:
    """`qss.formats.record.scan` of the frames of one stripe of a checkpoint."""
    return scan(untrusted, start, decode_frame, "a frame of a checkpoint")


def _unpacked(packing: int, packed: memoryview) -> bytes:
    if packing == _PLAIN:
        body = bytes(packed)
    elif packing == _ZLIB:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            body = inflater.decompress(packed, ROWS_BYTES_MAX)
        except zlib.error as error:
            raise CorruptData("a frame of a checkpoint cannot be unpacked") from error
        if not inflater.eof or inflater.unused_data:
            raise CorruptData("a frame of a checkpoint is not as long as it should be")
    else:
        raise CorruptData("a frame of a checkpoint is packed in a way not known")
    if len(body) > ROWS_BYTES_MAX:
        raise CorruptData("a frame of a checkpoint is too long")
    return body


def _little(numbers: array.array[int]) -> array.array[int]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
