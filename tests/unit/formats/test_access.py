"""Access times of local copies: the frozen vector, and whatever else a file may hold."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import CorruptData
from qss.formats.access import Ghost, Use, decode_access, encode_access
from qss.ids import SegmentId

VECTOR = Path(__file__).parents[2] / "vectors" / "access" / "access-v1.hex"
USES = [Use(SegmentId(7), -1, 1_700_000_000_000_000_000, 2), Use(SegmentId(9), 3, -5, 1)]
GHOSTS = [Ghost(SegmentId(4), 0, 4194304)]


def test_the_frozen_bytes() -> None:
    frozen = bytes.fromhex(VECTOR.read_text())
    assert encode_access(USES, GHOSTS) == frozen
    assert decode_access(frozen) == (USES, GHOSTS)


@given(st.binary(max_size=200))
def test_anything_else_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptData):
        decode_access(data)


@given(st.integers(0, 90), st.integers(1, 255))
def test_a_changed_byte_is_seen(position: int, change: int) -> None:
    data = bytearray(encode_access(USES, GHOSTS))
    with contextlib.suppress(IndexError):
        data[position] ^= change
        with pytest.raises(CorruptData):
            decode_access(bytes(data))
