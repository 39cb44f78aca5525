"""Short bytes are cut for hashing, and are the same bytes."""

from __future__ import annotations

import hashlib

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from qss.formats.volume import hash_blocks
from qss.limits import BLOCK_BYTES
from qss.pieces import PIECE_BYTES, SHORT_BYTES, in_pieces

EDGES = (0, 1, PIECE_BYTES, PIECE_BYTES + 1, 4096, 2 * PIECE_BYTES, SHORT_BYTES, SHORT_BYTES + 1)


@given(data=st.binary(max_size=3 * PIECE_BYTES))
def test_they_are_the_same_bytes_in_order(data: bytes) -> None:
    assert b"".join(in_pieces(data)) == data
    assert b"".join(in_pieces(memoryview(data))) == data


@pytest.mark.parametrize("size", EDGES)
def test_none_is_long_enough_to_let_go_of_the_gil(size: int) -> None:
    pieces = in_pieces(bytes(size))
    assert len(pieces) == 1 if size > SHORT_BYTES else all(len(piece) < 2048 for piece in pieces)


@pytest.mark.parametrize("size", [*EDGES, BLOCK_BYTES, BLOCK_BYTES + 1])
def test_a_hash_does_not_depend_on_how_it_was_cut(size: int) -> None:
    data = bytes(index * 31 % 251 for index in range(size))
    blocks = [data[at : at + BLOCK_BYTES] for at in range(0, size, BLOCK_BYTES)]
    assert hash_blocks(data) == b"".join(blake3(block).digest() for block in blocks)
    assert hash_blocks(memoryview(data)) == hash_blocks(data)
    digest = hashlib.md5(usedforsecurity=False)
    for piece in in_pieces(data):
        digest.update(piece)
    assert digest.digest() == hashlib.md5(data, usedforsecurity=False).digest()
