"""The journal: batches of changes to the index, bytes ↔ values. docs/formats/journal.md has the byte tables.

A journal is a segment (qss.formats.record.SegmentHeader) filled with frames. A frame never crosses a stripe
boundary. A batch is one frame or, if it is very large, several, all but the last marked "more follows"; it is
applied whole or not at all.

A value is written as what changed: against the row it replaces if that has the same length (PATCH), against zeros
(SPARSE), or in full (PUT), whichever is shortest. A patch can only be applied to the very row it was made from;
replay is deterministic, so that is the row that is there.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from blake3 import blake3

from qss.errors import CorruptData
from qss.formats.record import PADDING_MAGIC, SEGMENT_HEADER_BYTES
from qss.formats.tables import Table
from qss.ids import SegmentId
from qss.limits import STRIPE_BYTES

Bytes = bytes | bytearray | memoryview

_HEAD: Final = struct.Struct("<4sI")
FRAME_MAGIC: Final = b"QSJ1"
_CHECK_BYTES: Final = 16
FRAME_OVERHEAD_BYTES: Final = _HEAD.size + _CHECK_BYTES
FRAME_BODY_BYTES_MAX: Final = STRIPE_BYTES - SEGMENT_HEADER_BYTES - FRAME_OVERHEAD_BYTES
_OPS_BYTES_MAX: Final = FRAME_BODY_BYTES_MAX - 40  # flags and three varints fit in 40

_MORE_FOLLOWS: Final = 1
_DELETE, _PUT, _PATCH, _SPARSE = range(4)
_COMPACT_BYTES_MAX: Final = 256  # longer values (link targets, xattrs) are written in full
_RUN: Final = re.compile(rb"[^\0]+(?:\0{1,2}[^\0]+)*", re.DOTALL)
_ZEROS: Final = bytes(_COMPACT_BYTES_MAX)
_NO_KEY: Final = bytes(16)
_TABLES: Final = tuple(Table)
assert all(table == place for place, table in enumerate(_TABLES))


class Op(NamedTuple):
    """One change: `before` is the row that is there now (None: none), `after` the row to be (None: deleted)."""

    table: Table
    key: bytes
    before: bytes | None
    after: bytes | None


class Batch(NamedTuple):
    """One frame, verified but with its ops still packed; see `ops_of`."""

    number: int  # of the frame in its segment, from 0, without gaps
    data_segment: SegmentId  # the data log reached to here when this was written; 0: no data yet
    data_bytes: int
    more_follows: bool
    packed_ops: memoryview


class PackedOp(NamedTuple):
    """One change as it stands in the journal. `code` says how `packed` gives the value."""

    table: Table
    key: bytes
    code: int
    packed: bytes

    def after(self, before: bytes | None) -> bytes | None:
        """The value to be, given the one that is there. Raises CorruptData."""
        if self.code == _PUT:
            return self.packed
        if self.code == _DELETE:
            return None
        if self.code == _SPARSE:
            length, at = _take_varint(self.packed, 0)
            if length > _COMPACT_BYTES_MAX:
                raise CorruptData("a row in the journal is too long")
            return _patched(bytes(length), self.packed, at)
        if before is None:
            raise CorruptData("the journal changes a row that is not there")
        return _patched(before, self.packed, 0)

    @property
    def needs_before(self) -> bool:
        """Whether `after` looks at the row that is there."""
        return self.code == _PATCH

    @property
    def is_put(self) -> bool:
        return self.code != _DELETE


def encode_batch(ops: Iterable[Op], number: int, data_segment: SegmentId, data_bytes: int) -> list[bytes]:
    """The frames of one batch, in order; nearly always one. `number`: of its first frame in the segment, from 0."""
    chunks: list[bytearray] = []
    out = bytearray()
    last_key = _NO_KEY
    for op in ops:
        before_length = len(out)
        _put_op(out, op, last_key)
        last_key = op.key
        if len(out) > _OPS_BYTES_MAX:
            del out[before_length:]
            chunks.append(out)
            out = bytearray()
            _put_op(out, op, _NO_KEY)
    chunks.append(out)
    frames = []
    for place, chunk in enumerate(chunks):
        body = bytearray(_HEAD.size)
        body.append(_MORE_FOLLOWS if place < len(chunks) - 1 else 0)
        _put_varint(body, number + place)
        _put_varint(body, data_segment)
        _put_varint(body, data_bytes)
        body += chunk
        _HEAD.pack_into(body, 0, FRAME_MAGIC, len(body) - _HEAD.size)
        frames.append(bytes(body) + blake3(body).digest(_CHECK_BYTES))
    return frames


def decode_frame(untrusted: Bytes) -> tuple[Batch, int]:
    """The frame that starts here and its length in bytes. `untrusted` may be longer. Raises CorruptData."""
    if len(untrusted) < FRAME_OVERHEAD_BYTES:
        raise CorruptData("a journal frame is cut short")
    magic, length = _HEAD.unpack_from(untrusted)
    if magic != FRAME_MAGIC:
        raise CorruptData("there is no journal frame here")
    whole = length + FRAME_OVERHEAD_BYTES
    if length > FRAME_BODY_BYTES_MAX or len(untrusted) < whole:
        raise CorruptData("the length of a journal frame does not hold")
    view = memoryview(untrusted)
    if blake3(view[: whole - _CHECK_BYTES]).digest(_CHECK_BYTES) != bytes(view[whole - _CHECK_BYTES : whole]):
        raise CorruptData("a journal frame does not verify")
    body = view[_HEAD.size : whole - _CHECK_BYTES]
    if not body or body[0] & ~_MORE_FOLLOWS:
        raise CorruptData("the flags of a journal frame are not known")
    number, at = _take_varint(body, 1)
    segment, at = _take_varint(body, at)
    data_bytes, at = _take_varint(body, at)
    return Batch(number, SegmentId(segment), data_bytes, bool(body[0] & _MORE_FOLLOWS), body[at:]), whole


def ops_of(batch: Batch) -> Iterator[PackedOp]:
    """The changes of one frame, in order. Raises CorruptData."""
    packed = bytes(batch.packed_ops)
    at, last_key = 0, _NO_KEY
    while at < len(packed):
        if len(packed) - at < 3:
            raise CorruptData("a change in the journal is cut short")
        code, shared, length = packed[at], packed[at + 1], packed[at + 2]
        if shared > len(_NO_KEY):
            raise CorruptData("the key of a change in the journal does not hold")
        at += 3
        if length > 0x7F:  # nearly never: this loop is what a start without an index waits for
            length, at = _take_varint(packed, at - 1)
        key = _padded(last_key)[:shared] + packed[at : at + length]
        at += length
        if at > len(packed) or not key:
            raise CorruptData("the key of a change in the journal does not hold")
        value = b""
        if code & 3 != _DELETE:
            value, at = _take_bytes(packed, at)
        if code >> 2 >= len(_TABLES):
            raise CorruptData(f"table {code >> 2} is not known")
        yield PackedOp(_TABLES[code >> 2], key, code & 3, value)
        last_key = key


def scan_frames(untrusted: Bytes, start: int = 0) -> Iterator[tuple[int, int, Batch]]:
    """The frames of one stripe of a journal: (position in the stripe, end, frame). Ends at padding or the end.

    Raises CorruptData at the first thing that is neither a frame that verifies nor padding.
    """
    view = memoryview(untrusted)
    position = start
    while len(view) - position >= len(PADDING_MAGIC):
        if view[position : position + 4] == PADDING_MAGIC:
            return
        batch, length = decode_frame(view[position:])
        yield position, position + length, batch
        position += length
    if any(view[position:]):
        raise CorruptData("a journal frame is cut short")


def frame_position(position: int, length: int) -> int:
    """Where a frame of `length` bytes goes in a journal that reaches to `position`: there, or at the next stripe."""
    room = STRIPE_BYTES - position % STRIPE_BYTES
    return position if length <= room else position + room


# -- ops: [table << 2 | code][bytes shared with the key before][varint n][n bytes of key]([varint n][n bytes])


def _put_op(out: bytearray, op: Op, last_key: bytes) -> None:
    table, key, before, after = op
    previous = last_key if len(last_key) >= 16 else _padded(last_key)
    count = min(len(key), 16)
    differing = int.from_bytes(key[:count], "big") ^ int.from_bytes(previous[:count], "big")
    shared = count - (differing.bit_length() + 7) // 8
    code = _DELETE
    packed = b""
    if after is not None:
        code, packed = _pack_value(before, after)
    out.append(table << 2 | code)
    out.append(shared)
    _put_varint(out, len(key) - shared)
    out += key[shared:]
    if after is not None:
        _put_varint(out, len(packed))
        out += packed


def _pack_value(before: bytes | None, after: bytes) -> tuple[int, bytes]:
    length = len(after)
    if length > _COMPACT_BYTES_MAX:
        return _PUT, after
    if before is not None and len(before) == length:
        code, packed = _PATCH, bytearray()
        differing = (int.from_bytes(before, "big") ^ int.from_bytes(after, "big")).to_bytes(length, "big")
    else:
        code, packed = _SPARSE, bytearray()
        _put_varint(packed, length)
        differing = after
    last = 0
    for run in _RUN.finditer(differing):
        start, stop = run.span()
        _put_varint(packed, start - last)
        _put_varint(packed, stop - start)
        packed += after[start:stop]
        last = stop
    return (code, bytes(packed)) if len(packed) < length else (_PUT, after)


def _patched(before: bytes, packed: Bytes, at: int) -> bytes:
    value = bytearray(before)
    position, end = 0, len(packed)
    while at < end:
        gap, at = (packed[at], at + 1) if packed[at] < 0x80 else _take_varint(packed, at)
        length, at = (packed[at], at + 1) if at < end and packed[at] < 0x80 else _take_varint(packed, at)
        position += gap
        stop = position + length
        if stop > len(value) or at + length > end:
            raise CorruptData("a change in the journal reaches outside its row")
        value[position:stop] = packed[at : at + length]
        position = stop
        at += length
    return bytes(value)


def _padded(key: bytes) -> bytes:
    return key if len(key) >= 16 else key.ljust(16, b"\0")


def _put_varint(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _take_varint(untrusted: Bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(untrusted) and shift < 64:
        byte = untrusted[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise CorruptData("a number in the journal does not hold")


def _take_bytes(untrusted: Bytes, at: int) -> tuple[bytes, int]:
    length, at = _take_varint(untrusted, at)
    if length > len(untrusted) - at:
        raise CorruptData("a text in the journal is cut short")
    return bytes(untrusted[at : at + length]), at + length
