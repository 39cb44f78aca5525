"""The data log: segment header and content records, bytes ↔ values. docs/formats/record.md has the byte tables.

A segment file starts with a segment header; from there on come records, each inside one stripe, so that a stripe
can be scanned and verified by itself. A record is head, table, payload; the table (one truncated BLAKE3 for each
64 KiB of payload) lies *before* the payload, so that head and table are one small read. Four zero bytes where a
magic should be mean: nothing more in this stripe.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeVar

from blake3 import blake3

from qss.errors import CorruptData
from qss.ids import SegmentId
from qss.limits import BLOCK_BYTES, SEGMENT_BYTES_MAX, STRIPE_BYTES
from qss.segments import SegmentKind

Bytes = bytes | bytearray | memoryview
T = TypeVar("T")

_SEGMENT: Final = struct.Struct("<8sBBHIQQ")
_SEGMENT_MAGIC: Final = b"QSSLOG\r\n"
_SEGMENT_VERSION: Final = 1
_CHECK_BYTES: Final = 8
SEGMENT_HEADER_BYTES: Final = _SEGMENT.size + _CHECK_BYTES

_HEAD: Final = struct.Struct("<4sIQQQ")
RECORD_MAGIC: Final = b"QSR1"
RECORD_HEAD_BYTES: Final = _HEAD.size + _CHECK_BYTES
BLOCK_CHECK_BYTES: Final = 16
PADDING_MAGIC: Final = bytes(4)
RECORD_PAYLOAD_BYTES_MAX: Final = (STRIPE_BYTES - RECORD_HEAD_BYTES) // (BLOCK_BYTES + BLOCK_CHECK_BYTES) * BLOCK_BYTES

assert SEGMENT_HEADER_BYTES == 40
assert RECORD_HEAD_BYTES == 40


class SegmentHeader(NamedTuple):
    """First bytes of a segment. `previous` and its length chain the segments of one log, so that a log with a
    piece missing is told from a whole one."""

    kind: SegmentKind
    segment: SegmentId
    previous: SegmentId  # the segment of the same kind before this one; 0: this is the first
    previous_length: int  # bytes

    def pack(self) -> bytes:
        fixed = _SEGMENT.pack(
            _SEGMENT_MAGIC, _SEGMENT_VERSION, self.kind, 0, self.previous_length, self.segment, self.previous
        )  # fmt: skip
        return fixed + blake3(fixed).digest(_CHECK_BYTES)

    @classmethod
    def unpack(cls, untrusted: Bytes) -> SegmentHeader:
        """Raises CorruptData."""
        if len(untrusted) < SEGMENT_HEADER_BYTES:
            raise CorruptData("a segment header is cut short")
        fixed = bytes(untrusted[: _SEGMENT.size])
        magic, version, kind, _, previous_length, segment, previous = _SEGMENT.unpack(fixed)
        if magic != _SEGMENT_MAGIC:
            raise CorruptData("this is not a segment")
        if version != _SEGMENT_VERSION:
            raise CorruptData(f"segment version {version} is not known")
        if blake3(fixed).digest(_CHECK_BYTES) != bytes(untrusted[_SEGMENT.size : SEGMENT_HEADER_BYTES]):
            raise CorruptData("a segment header does not verify")
        try:
            return cls(SegmentKind(kind), segment, previous, previous_length)
        except ValueError as error:
            raise CorruptData(f"segment kind {kind} is not known") from error


class RecordHead(NamedTuple):
    """What stands before the payload of a record, verified."""

    length: int  # bytes of payload
    ino: int
    offset: int  # in the file
    sequence: int  # see `sequence_of`
    table: bytes  # BLOCK_CHECK_BYTES for each BLOCK_BYTES of payload


def sequence_of(segment: SegmentId, number: int) -> int:
    """Place of a record in the order of the whole log: the segment, then the number of the record in it from 0.
    Without gaps inside a segment, so that a record lost to a power cut is not taken for padding."""
    return segment << 32 | number


def table_bytes(length: int) -> int:
    """Bytes of the table of a record with `length` bytes of payload."""
    return -(-length // BLOCK_BYTES) * BLOCK_CHECK_BYTES


def head_bytes(length: int) -> int:
    """Bytes from the start of a record with `length` bytes of payload to that payload."""
    return RECORD_HEAD_BYTES + -(-length // BLOCK_BYTES) * BLOCK_CHECK_BYTES


def payload_room(position: int, wanted: int) -> int:
    """How many of `wanted` bytes of payload a record at this position of a segment takes without crossing the
    stripe boundary: all, or a multiple of BLOCK_BYTES, or 0 (pad to the boundary)."""
    wanted = min(wanted, RECORD_PAYLOAD_BYTES_MAX)  # a first stripe has room for a little more
    room = STRIPE_BYTES - position % STRIPE_BYTES - RECORD_HEAD_BYTES
    if wanted + table_bytes(wanted) <= room:
        return wanted
    if room <= 0:
        return 0
    return room // (BLOCK_BYTES + BLOCK_CHECK_BYTES) * BLOCK_BYTES


def encode_head(ino: int, offset: int, sequence: int, payload: Bytes) -> bytes:
    """Head and table of a record; the payload goes right behind it, uncopied."""
    length = len(payload)
    if length <= BLOCK_BYTES:
        table: bytes = blake3(payload).digest(BLOCK_CHECK_BYTES)
    else:
        view = memoryview(payload)
        table = b"".join(
            [blake3(view[at : at + BLOCK_BYTES]).digest(BLOCK_CHECK_BYTES) for at in range(0, length, BLOCK_BYTES)]
        )
    fixed = _HEAD.pack(RECORD_MAGIC, length, ino, offset, sequence)
    return fixed + blake3(fixed + table).digest(_CHECK_BYTES) + table


def decode_head(untrusted: Bytes) -> RecordHead:
    """Head and table of the record that starts here. `untrusted` may be longer. Raises CorruptData."""
    if len(untrusted) < RECORD_HEAD_BYTES:
        raise CorruptData("a record is cut short")
    magic, length, ino, offset, sequence = _HEAD.unpack_from(untrusted)
    if magic != RECORD_MAGIC:
        raise CorruptData("there is no record here")
    if not 0 < length <= RECORD_PAYLOAD_BYTES_MAX:
        raise CorruptData("the length of a record does not hold")
    payload_at = head_bytes(length)
    if len(untrusted) < payload_at:
        raise CorruptData("the table of a record is cut short")
    table = bytes(untrusted[RECORD_HEAD_BYTES:payload_at])
    check = bytes(untrusted[_HEAD.size : RECORD_HEAD_BYTES])
    if blake3(bytes(untrusted[: _HEAD.size]) + table).digest(_CHECK_BYTES) != check:
        raise CorruptData("the head of a record does not verify")
    return RecordHead(length, ino, offset, sequence, table)


def verify_blocks(table: bytes, first_block: int, untrusted: Bytes) -> None:
    """Whole blocks of a payload, from `first_block` on (the last may be the short end). Raises CorruptData."""
    if len(untrusted) <= BLOCK_BYTES:
        at = first_block * BLOCK_CHECK_BYTES
        if blake3(untrusted).digest(BLOCK_CHECK_BYTES) != table[at : at + BLOCK_CHECK_BYTES]:
            raise CorruptData("a block of content does not verify")
        return
    view = memoryview(untrusted)
    at = first_block * BLOCK_CHECK_BYTES
    for start in range(0, len(view), BLOCK_BYTES):
        found = blake3(view[start : start + BLOCK_BYTES]).digest(BLOCK_CHECK_BYTES)
        if found != table[at : at + BLOCK_CHECK_BYTES]:
            raise CorruptData("a block of content does not verify")
        at += BLOCK_CHECK_BYTES


def scan(
    untrusted: Bytes, start: int, decode: Callable[[memoryview], tuple[T, int]], what: str
) -> Iterator[tuple[int, int, T]]:
    """What one stripe of a log is filled with: (position in the stripe, end, value). Ends at padding or at the end of
    the bytes. `decode` gives the value that starts at its argument, verified, and its length; `what` it is.

    Raises CorruptData at the first thing that is neither a value that verifies nor padding.
    """
    view = memoryview(untrusted)
    position = start
    while len(view) - position >= len(PADDING_MAGIC):
        if view[position : position + 4] == PADDING_MAGIC:
            return
        value, length = decode(view[position:])
        yield position, position + length, value
        position += length
    if any(view[position:]):
        raise CorruptData(f"{what} is cut short")


def scan_stripe(untrusted: Bytes, start: int = 0) -> Iterator[tuple[int, int, RecordHead]]:
    """`scan` of the records of one stripe of the data log, each verified whole (bytes from the boundary of the stripe
    on; `start` skips a segment header)."""
    return scan(untrusted, start, _decode_record, "a record")


def _decode_record(untrusted: memoryview) -> tuple[RecordHead, int]:
    head = decode_head(untrusted[: head_bytes(RECORD_PAYLOAD_BYTES_MAX)])
    payload_at = head_bytes(head.length)
    payload = untrusted[payload_at : payload_at + head.length]
    if len(payload) < head.length:
        raise CorruptData("the payload of a record is cut short")
    verify_blocks(head.table, 0, payload)
    return head, payload_at + head.length


assert RECORD_PAYLOAD_BYTES_MAX + head_bytes(RECORD_PAYLOAD_BYTES_MAX) <= STRIPE_BYTES
assert SEGMENT_BYTES_MAX < 2**32
