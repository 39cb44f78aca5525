"""The checkpoint's format: frozen vectors, round trips, torn and hostile frames."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import CorruptData
from qss.formats import checkpoint
from qss.formats.checkpoint import (
    ROWS_BYTES_MAX,
    Frame,
    FrameKind,
    decode_frame,
    encode_begin,
    encode_end,
    encode_rows,
    rows_of,
    scan_frames,
)
from qss.formats.tables import ExtentRow, Table, pair_key, u64_key
from qss.ids import SegmentId

VECTORS = Path(__file__).parents[2] / "vectors" / "checkpoint"
EXTENTS = [(pair_key(77, n * 4096), ExtentRow(SegmentId(3), n * 4096, 4096, 0, 4096).pack()) for n in range(3)]
NAMES = [(u64_key(1) + b"name", b"one"), (u64_key(1) + b"named", b"another")]
MARK = bytes(range(36))


def frames() -> list[bytes]:
    return [
        encode_begin(MARK),
        encode_rows(1, Table.EXTENTS, EXTENTS),
        encode_rows(2, Table.ENTRIES, NAMES),
        encode_end(3, 5),
    ]


def test_frozen_vector_is_read() -> None:
    """Packed by zlib, whose output may differ from version to version: what is frozen is what is read."""
    stored = bytes.fromhex((VECTORS / "frames-v1.hex").read_text())
    found = [frame for _, _, frame in scan_frames(stored)]
    assert [frame[:4] for frame in found] == [
        (FrameKind.BEGIN, 0, Table.META, 0),
        (FrameKind.ROWS, 1, Table.EXTENTS, 3),
        (FrameKind.ROWS, 2, Table.ENTRIES, 2),
        (FrameKind.END, 3, Table.META, 5),
    ]
    assert found[0].body == MARK
    assert rows_of(found[1]) == EXTENTS
    assert rows_of(found[2]) == NAMES


def test_frozen_vector_is_written_but_for_the_packing() -> None:
    stored = bytes.fromhex((VECTORS / "frames-v1.hex").read_text())
    assert [f for _, _, f in scan_frames(b"".join(frames()))] == [f for _, _, f in scan_frames(stored)]
    assert stored.startswith(frames()[0])  # too small to be packed: equal to the last byte


keys = st.binary(min_size=1, max_size=40)
rows = st.dictionaries(keys, st.one_of(st.binary(max_size=300), st.integers(0, 70_000).map(bytes)), min_size=1)


@given(rows, st.integers(0, 2**32 - 1), st.sampled_from(Table))
def test_what_is_written_is_read(written: dict[bytes, bytes], number: int, table: Table) -> None:
    ordered = sorted(written.items())
    encoded = encode_rows(number, table, ordered)
    frame, length = decode_frame(encoded + b"rest")
    assert length == len(encoded)
    assert frame[:4] == (FrameKind.ROWS, number, table, len(ordered))
    assert rows_of(frame) == ordered


@given(st.binary(max_size=200), st.integers(0, 400))
def test_only_corrupt_data_is_raised_for_anything(noise: bytes, place: int) -> None:
    whole = b"".join(frames())
    for untrusted in (noise, whole[:place] + noise + whole[place + len(noise) :]):
        try:
            for _, _, frame in scan_frames(untrusted):
                if frame.kind is FrameKind.ROWS:
                    rows_of(frame)
        except CorruptData:
            pass


@given(st.integers(0, 5000), st.binary(max_size=300))
def test_rows_that_verify_and_make_no_sense_are_corrupt_data(count: int, body: bytes) -> None:
    """As a program with a bug would have written them."""
    try:
        found = rows_of(Frame(FrameKind.ROWS, 1, Table.INODES, count, body))
    except CorruptData:
        return
    assert len(found) == count


@pytest.mark.parametrize("position", range(0, 60, 7))
def test_a_flipped_bit_is_noticed(position: int) -> None:
    damaged = bytearray(encode_rows(1, Table.EXTENTS, EXTENTS))
    damaged[position] ^= 1
    with pytest.raises(CorruptData):
        decode_frame(damaged)


def test_what_unpacks_to_more_than_a_frame_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = zlib.compress(bytes(ROWS_BYTES_MAX + 1), 1, -15)
    monkeypatch.setattr(checkpoint.zlib, "compress", lambda *_: bomb)
    with pytest.raises(CorruptData):
        decode_frame(encode_rows(1, Table.XATTRS, [(b"key", bytes(1_000_000))]))


def test_rows_are_packed() -> None:
    many = [(pair_key(n, 0), ExtentRow(SegmentId(3), n * 4096, 4096, 0, 4096).pack()) for n in range(1000)]
    assert len(encode_rows(1, Table.EXTENTS, many)) < 1000 * 20
