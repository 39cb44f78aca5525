"""Rows of the index: frozen vectors and round trips."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import CorruptData
from qss.formats.tables import (
    EntryRow,
    ExtentRow,
    InodeRow,
    OrderRow,
    PinRow,
    SegmentRow,
    SegmentState,
    SnapshotRow,
    is_only_atime,
    name_key,
    pack_number,
    pair_key,
    pair_of_key,
    u64_key,
    u64_of_key,
    unpack_number,
)
from qss.ids import Ino, SegmentId
from qss.segments import SegmentKind

VECTORS = Path(__file__).parents[2] / "vectors" / "tables"
ROWS = {
    "inode": InodeRow(0o100644, 2, 1000, 1001, 0, 1, 5, 6, 7, 8, -1, 1_500_000_001, 3),
    "entry": EntryRow(Ino(9), 3, 8),
    "order": OrderRow(Ino(9), 8, b"name"),
    "extent": ExtentRow(SegmentId(3), 4096, 100, 10, 90),
    "snapshot": SnapshotRow(
        3, 5, SegmentId(20), SegmentId(2), SegmentId(19), SegmentId(21), True, (SegmentId(7), SegmentId(8)), "früher"
    ),
    "segment": SegmentRow(SegmentKind.DATA, SegmentState.OFFLOADED, 4, 2, 6, 100, 5, SegmentId(1), 150, b"s" * 16),
    "pin": PinRow(1_700_000_000_000_000_000, b"/videos/\xff"),
}


@pytest.mark.parametrize("name", ROWS)
def test_frozen_vectors(name: str) -> None:
    row, packed = ROWS[name], (VECTORS / f"{name}-v1.hex").read_text().strip()
    assert row.pack().hex() == packed
    assert type(row).unpack(bytes.fromhex(packed)) == row


@given(st.binary(max_size=120))
def test_rows_raise_only_corrupt_data(untrusted: bytes) -> None:
    for kind in (InodeRow, EntryRow, OrderRow, ExtentRow, SegmentRow, PinRow, SnapshotRow):
        with contextlib.suppress(CorruptData):
            kind.unpack(untrusted)


def test_numbers() -> None:
    assert pack_number(258) == b"\x02\x01" + bytes(6)
    assert unpack_number(pack_number(2**64 - 1)) == 2**64 - 1
    with pytest.raises(CorruptData):
        unpack_number(b"1234567")


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_key_order_is_number_order(a: int, b: int) -> None:
    assert (u64_key(a) < u64_key(b)) == (a < b)
    assert u64_of_key(u64_key(a)) == a
    assert pair_of_key(pair_key(a, b)) == (a, b)
    assert name_key(a, b"n")[:8] == u64_key(a)


@given(*[st.integers(-(2**62), 2**62)] * 3)
def test_times_before_1970_survive(atime: int, mtime: int, ctime: int) -> None:
    row = InodeRow(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, atime, mtime, ctime)
    assert InodeRow.unpack(row.pack()) == row


def test_an_extent_outside_its_record_is_corrupt() -> None:
    with pytest.raises(CorruptData):
        ExtentRow.unpack(ExtentRow(SegmentId(1), 0, 10, 5, 6).pack())


times = st.integers(-(2**40), 2**60)


@given(st.lists(times, min_size=6, max_size=6), st.integers(0, 2**40), st.booleans())
def test_a_moved_access_time_is_told_from_everything_else(ns: list[int], size: int, other: bool) -> None:
    first = InodeRow(0o100644, 1, 0, 0, 0, 0, size, size, 0, 0, ns[0], ns[1], ns[2])
    second = InodeRow(0o100644, 1, 0, 0, 0, 0, size, size, 0, 0, ns[3], ns[1], ns[2] + other)
    assert is_only_atime(first.pack(), second.pack()) is not other
