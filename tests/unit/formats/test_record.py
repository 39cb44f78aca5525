"""The data log's format: frozen vectors, placement, and decoders that raise only CorruptData."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qss.errors import CorruptData
from qss.formats.record import (
    RECORD_HEAD_BYTES,
    RECORD_PAYLOAD_BYTES_MAX,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    decode_head,
    encode_head,
    head_bytes,
    payload_room,
    scan_stripe,
    sequence_of,
    verify_blocks,
)
from qss.ids import SegmentId
from qss.limits import BLOCK_BYTES, STRIPE_BYTES
from qss.segments import SegmentKind

VECTORS = Path(__file__).parents[2] / "vectors" / "record"

HEADER = SegmentHeader(SegmentKind.DATA, SegmentId(7), SegmentId(5), 123_456)
HEADER_V1 = (VECTORS / "segment-header-v1.hex").read_text().strip()
RECORD_V1 = (VECTORS / "record-v1.hex").read_text().strip()


def test_frozen_vectors() -> None:
    assert HEADER.pack().hex() == HEADER_V1
    assert SegmentHeader.unpack(bytes.fromhex(HEADER_V1)) == HEADER
    assert (encode_head(42, 4096, sequence_of(SegmentId(7), 3), b"hello") + b"hello").hex() == RECORD_V1
    head = decode_head(bytes.fromhex(RECORD_V1))
    assert (head.ino, head.offset, head.length, head.sequence) == (42, 4096, 5, 7 << 32 | 3)
    verify_blocks(head.table, 0, b"hello")


@given(st.integers(0, SEGMENT_HEADER_BYTES * 8 - 1))
def test_a_flipped_bit_in_a_segment_header_is_seen(bit: int) -> None:
    broken = bytearray(HEADER.pack())
    broken[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptData):
        SegmentHeader.unpack(broken)


@given(st.integers(0, (RECORD_HEAD_BYTES + 16) * 8 - 1))
def test_a_flipped_bit_in_a_record_head_is_seen(bit: int) -> None:
    broken = bytearray(encode_head(42, 0, 1, b"payload"))
    broken[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptData):
        decode_head(broken)


@given(st.integers(1, 5 * BLOCK_BYTES), st.data())
def test_each_block_of_a_payload_verifies_by_itself(length: int, data: st.DataObject) -> None:
    payload = bytearray(bytes(range(251)) * (length // 251 + 1))[:length]
    table = decode_head(encode_head(1, 0, 0, payload)).table
    at = data.draw(st.integers(0, length - 1))
    damaged = bytearray(payload)
    damaged[at] ^= 1
    for block in range(-(-length // BLOCK_BYTES)):
        piece = slice(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)
        verify_blocks(table, block, payload[piece])
        if block == at // BLOCK_BYTES:
            with pytest.raises(CorruptData):
                verify_blocks(table, block, damaged[piece])
        else:
            verify_blocks(table, block, damaged[piece])


@example(SEGMENT_HEADER_BYTES, RECORD_PAYLOAD_BYTES_MAX + 1)
@given(st.integers(SEGMENT_HEADER_BYTES, 2 * STRIPE_BYTES), st.integers(1, 2 * STRIPE_BYTES))
def test_no_record_crosses_a_stripe_boundary(position: int, wanted: int) -> None:
    room = payload_room(position, wanted)
    assert 0 <= room <= min(wanted, RECORD_PAYLOAD_BYTES_MAX)
    assert room == wanted or room % BLOCK_BYTES == 0
    if room:
        assert position // STRIPE_BYTES == (position + head_bytes(room) + room - 1) // STRIPE_BYTES


@given(st.binary(max_size=300))
def test_decoders_raise_only_corrupt_data(untrusted: bytes) -> None:
    for decode in (SegmentHeader.unpack, decode_head, lambda raw: list(scan_stripe(raw))):
        with contextlib.suppress(CorruptData):
            decode(untrusted)


def test_a_stripe_is_scanned_to_its_padding_or_its_first_torn_record() -> None:
    records = b"".join(encode_head(1, n, n, bytes([n]) * 50) + bytes([n]) * 50 for n in range(3))
    assert [head.offset for _, _, head in scan_stripe(records + bytes(100))] == [0, 1, 2]
    assert [position for position, _, _ in scan_stripe(b"x" * 9 + records, 9)] == [9, 115, 221]
    found = scan_stripe(records[:-1])
    assert [next(found)[2].offset, next(found)[2].offset] == [0, 1]
    with pytest.raises(CorruptData):
        next(found)
