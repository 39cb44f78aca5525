"""docs/formats/shard.md"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import CorruptData
from qss.formats.shard import (
    HEADER_BYTES,
    TABLE_ROW_BYTES,
    ShardHeader,
    TableRow,
    block_offsets,
    pack_table,
    unpack_table,
)
from qss.ids import LocationId, SegmentId, ShardNo

VECTORS = Path(__file__).parents[2] / "vectors" / "shard"
KEY = bytes(range(32))
SEGMENT = SegmentId(7)
HOME = LocationId("trove-3")
ROWS = [TableRow(136, 64, bytes([1]) * 32), TableRow(200, 1024, bytes([2]) * 32)]
TABLE = pack_table(ROWS)
HEADER = ShardHeader(
    suite=1,
    k=4,
    m=2,
    shard=ShardNo(5),
    stripes=2,
    seal=bytes(range(16)),
    table_offset=1224,
    manifest_offset=1224 + 2 * TABLE_ROW_BYTES,
    total=1224 + 2 * TABLE_ROW_BYTES + 300,
    table_hash=blake3(TABLE).digest(),
)
PACKED = HEADER.pack(KEY, SEGMENT, HOME)


def test_frozen_vector_v1() -> None:
    assert PACKED.hex() == (VECTORS / "header-v1.hex").read_text().strip()
    assert TABLE.hex() == (VECTORS / "table-v1.hex").read_text().strip()


def test_there_and_back() -> None:
    assert len(PACKED) == HEADER_BYTES
    assert ShardHeader.unpack(PACKED + b"more", KEY, SEGMENT, HOME) == HEADER
    assert unpack_table(TABLE, HEADER) == ROWS
    assert block_offsets([64, 1024]) == [136, 200, 1224]


@given(st.integers(0, HEADER_BYTES * 8 - 1))
def test_every_flipped_bit_of_a_header_is_refused(bit: int) -> None:
    bad = bytearray(PACKED)
    bad[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptData):
        ShardHeader.unpack(bytes(bad), KEY, SEGMENT, HOME)


@given(st.integers(0, len(TABLE) * 8 - 1))
def test_every_flipped_bit_of_a_table_is_refused(bit: int) -> None:
    bad = bytearray(TABLE)
    bad[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptData):
        unpack_table(bytes(bad), HEADER)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_as_corrupt(data: bytes) -> None:
    for untrusted in (data, PACKED[:8] + data, PACKED[: len(data)]):
        if untrusted[:HEADER_BYTES] != PACKED:
            with pytest.raises(CorruptData):
                ShardHeader.unpack(untrusted, KEY, SEGMENT, HOME)
        with pytest.raises(CorruptData):
            unpack_table(data, HEADER)


def test_a_header_holds_for_one_key_segment_and_location() -> None:
    for key, segment, home in [
        (bytes(32), SEGMENT, HOME),
        (KEY, SegmentId(8), HOME),
        (KEY, SEGMENT, LocationId("trove-4")),
    ]:
        with pytest.raises(CorruptData, match="does not verify"):
            ShardHeader.unpack(PACKED, key, segment, home)


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 0},
        {"k": 255, "m": 2},
        {"shard": ShardNo(6)},
        {"stripes": 3},
        {"stripes": 257},
        {"table_offset": 100},
        {"manifest_offset": 1224},
        {"total": HEADER.manifest_offset},
        {"total": 2**40},
    ],
)
def test_figures_that_contradict_each_other_are_refused_even_with_a_good_mac(wrong: dict) -> None:
    header = replace(HEADER, **wrong)
    try:
        packed = header.pack(KEY, SEGMENT, HOME)
    except Exception:
        return
    with pytest.raises(CorruptData):
        ShardHeader.unpack(packed, KEY, SEGMENT, HOME)


def test_a_table_with_gaps_is_refused() -> None:
    for rows in ([ROWS[0], replace(ROWS[1], offset=201)], [ROWS[0], replace(ROWS[1], length=1023)]):
        table = pack_table(rows)
        with pytest.raises(CorruptData):
            unpack_table(table, replace(HEADER, table_hash=blake3(table).digest()))
