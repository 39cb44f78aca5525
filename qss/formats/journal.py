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
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from blake3 import blake3

from qss.errors import CorruptData
from qss.formats.record import SEGMENT_HEADER_BYTES, scan
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
_SET: Final = b"\0" + b"\1" * 255  # for bytes.translate: which are not zero
_SHAPES_MAX: Final = 4_096  # some 500 bytes each
_KEY_BYTES: Final = 16  # of a key that may be shared with the one before
_NO_KEY: Final = bytes(_KEY_BYTES)
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
    def is_patch(self) -> bool:
        """Only some bytes of the row that is there change."""
        return self.code == _PATCH

    @property
    def is_put(self) -> bool:
        return self.code != _DELETE


def encode_batch(ops: Sequence[Op], number: int, data_segment: SegmentId, data_bytes: int) -> list[bytes]:
    """The frames of one batch, in order; nearly always one. `number`: of its first frame in the segment, from 0."""
    packed, done = _pack_ops(ops)
    if done == len(ops):
        return [_frame(packed, False, number, data_segment, data_bytes)]
    chunks = [packed]
    while done < len(ops):
        packed, count = _pack_ops(ops[done:])
        chunks.append(packed)
        done += count
    last = len(chunks) - 1
    return [_frame(chunk, place < last, number + place, data_segment, data_bytes) for place, chunk in enumerate(chunks)]


def _frame(ops: bytes, more_follows: bool, number: int, data_segment: SegmentId, data_bytes: int) -> bytes:
    body = bytearray((more_follows,))
    for value in (number, data_segment, data_bytes):
        rest: int = value
        while rest > 0x7F:
            body.append(rest & 0x7F | 0x80)
            rest >>= 7
        body.append(rest)
    checked: bytes = _HEAD.pack(FRAME_MAGIC, len(body) + len(ops)) + body + ops
    return checked + blake3(checked).digest(_CHECK_BYTES)


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
    """`qss.formats.record.scan` of the frames of one stripe of a journal."""
    return scan(untrusted, start, decode_frame, "a journal frame")


def frame_position(position: int, length: int) -> int:
    """Where a frame of `length` bytes goes in a journal that reaches to `position`: there, or at the next stripe."""
    room = STRIPE_BYTES - position % STRIPE_BYTES
    return position if length <= room else position + room


# -- ops: [table << 2 | code][bytes shared with the key before][varint n][n bytes of key]([varint n][n bytes])


class _Shape(NamedTuple):
    """How a value is written, learnt from where its bytes are not zero (differ from the row before). The shapes of
    rows repeat, so that most values take no loop over their runs: `template % layout.unpack(after)`."""

    code: int
    template: bytes  # varint length of all that follows; the numbers between the runs; %b for each run
    layout: struct.Struct  # the runs in the value


def _pack_ops(ops: Sequence[Op]) -> tuple[bytes, int]:
    """As many as fit into one frame, and how many those are. One loop without calls: every change of the file system
    comes through here."""
    parts: list[bytes] = []
    size = 0
    last_key = 0  # the first 16 bytes of the key before as a number, zeros behind a shorter one
    for table, key, before, after in ops:
        count = len(key)
        if count >= _KEY_BYTES:
            number = int.from_bytes(key[:_KEY_BYTES], "big")
            shared = _KEY_BYTES - ((number ^ last_key).bit_length() + 7 >> 3)
            last_key = number
        else:
            bits = _KEY_BYTES - count << 3
            number = int.from_bytes(key, "big")
            shared = count - ((number ^ last_key >> bits).bit_length() + 7 >> 3)
            last_key = number << bits
        code = _DELETE
        value = b""
        if after is not None:
            length = len(after)
            if length > _COMPACT_BYTES_MAX:
                code, value = _PUT, _varint(length) + after
            else:
                if before is not None and len(before) == length:
                    differing = int.from_bytes(before, "big") ^ int.from_bytes(after, "big")
                    where = differing.to_bytes(length, "big").translate(_SET)
                    shape = _PATCHES.get(where) or _learn(_PATCHES, _PATCH, where)
                else:
                    where = after.translate(_SET)
                    shape = _SPARSES.get(where) or _learn(_SPARSES, _SPARSE, where)
                code, template, layout = shape
                value = template % layout.unpack(after)
        rest = key[shared:]
        if len(rest) < 0x80:
            part = b"%c%c%c%b%b" % (table << 2 | code, shared, len(rest), rest, value)
        else:
            part = b"%c%c%b%b%b" % (table << 2 | code, shared, _varint(len(rest)), rest, value)
        size += len(part)
        if size > _OPS_BYTES_MAX:
            break
        parts.append(part)
    return b"".join(parts), len(parts)


def _learn(shapes: dict[bytes, _Shape], code: int, where: bytes) -> _Shape:
    length = len(where)
    packed = bytearray()  # as it will be, but for the bytes of the runs
    numbers: list[bytes] = []
    layout = "<"
    last = 0
    if code == _SPARSE:
        _put_varint(packed, length)
        numbers.append(bytes(packed))
    for run in _RUN.finditer(where):
        start, stop = run.span()
        numbers.append(_varint(start - last) + _varint(stop - start))
        packed += numbers[-1] + bytes(stop - start)
        layout += f"{start - last}x{stop - start}s"
        last = stop
    if len(packed) < length:
        head = _varint(len(packed)) + (numbers.pop(0) if code == _SPARSE else b"")
        template = head.replace(b"%", b"%%") + b"".join(each.replace(b"%", b"%%") + b"%b" for each in numbers)
        shape = _Shape(code, template, struct.Struct(f"{layout}{length - last}x"))
    else:
        shape = _Shape(_PUT, _varint(length).replace(b"%", b"%%") + b"%b", struct.Struct(f"{length}s"))
    if len(shapes) >= _SHAPES_MAX:
        shapes.clear()
    shapes[where] = shape
    return shape


_PATCHES: Final[dict[bytes, _Shape]] = {}
_SPARSES: Final[dict[bytes, _Shape]] = {}
"""By the value with every byte that is not zero (differs) made 1. Only a memory of `_learn`, the same for everybody."""


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
    return key if len(key) >= _KEY_BYTES else key.ljust(_KEY_BYTES, b"\0")


def _varint(number: int) -> bytes:
    out = bytearray()
    _put_varint(out, number)
    return bytes(out)


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
