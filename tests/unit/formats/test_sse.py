"""Envelopes, key files and lengths of sealed bodies: what is frozen, and that nothing else decodes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import CorruptData
from qss.formats.sse import (
    FRAME_BYTES,
    NO_KEY_ID,
    PLAIN_BYTES,
    Envelope,
    Mode,
    decode_envelope,
    decode_key_file,
    encode_key_file,
    frame_count,
    key_id_of,
    nonce,
    plain_len,
    sealed_len,
)

VECTORS = Path(__file__).parents[2] / "vectors" / "sse"
KEY = bytes(range(32))
ENVELOPES = {
    "envelope-node-1": Envelope(Mode.NODE, key_id_of(KEY), bytes(range(16)), bytes(range(100, 148))),
    "envelope-customer-1": Envelope(Mode.CUSTOMER, NO_KEY_ID, bytes(range(16)), bytes(range(100, 148))),
}


def test_vectors() -> None:
    made = {name: envelope.encode() for name, envelope in ENVELOPES.items()}
    made["keys-1"] = encode_key_file((KEY, bytes(32)))
    for name, data in made.items():
        assert data.hex() == (VECTORS / f"{name}.hex").read_text().strip(), name


@pytest.mark.parametrize("name", sorted(ENVELOPES))
def test_an_envelope_reads_back(name: str) -> None:
    data = ENVELOPES[name].encode()
    assert decode_envelope(data) == ENVELOPES[name]
    assert data.startswith(ENVELOPES[name].bound)
    assert len(data) == len(ENVELOPES[name].bound) + 48


def test_keys_read_back_and_their_ids_tell_nothing() -> None:
    keys = (KEY, bytes(32))
    assert decode_key_file(encode_key_file(keys)) == keys
    assert key_id_of(KEY) not in encode_key_file(keys)


@given(st.binary(max_size=120) | st.binary(min_size=72, max_size=72).map(lambda data: b"TSSE" + data))
def test_what_is_no_envelope_is_corrupt(data: bytes) -> None:
    try:
        found = decode_envelope(data)
    except CorruptData:
        return
    assert found.encode() == data


@given(st.integers(0, 92 * 8 - 1))
def test_no_bit_of_a_key_file_may_change(bit: int) -> None:
    data = bytearray(encode_key_file((KEY, bytes(32))))
    assert len(data) == 92
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptData):
        decode_key_file(bytes(data))


@given(st.binary(max_size=100))
def test_what_is_no_key_file_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptData):
        decode_key_file(b"TROVEKEY" + data)


@given(st.integers(0, 3 * PLAIN_BYTES) | st.integers(0, 2**40))
def test_lengths_follow_from_each_other(plain: int) -> None:
    sealed = sealed_len(plain)
    assert plain_len(sealed) == plain
    assert -(-sealed // FRAME_BYTES) == frame_count(plain), "a frame is a block"


@given(st.integers(0, 3 * FRAME_BYTES))
def test_a_length_that_no_body_has_is_corrupt(sealed: int) -> None:
    try:
        plain = plain_len(sealed)
    except CorruptData:
        assert all(sealed_len(each) != sealed for each in range(max(sealed - 80, 0), sealed + 1))
        return
    assert sealed_len(plain) == sealed


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.booleans(), st.booleans())
def test_a_nonce_says_one_frame(one: int, other: int, first: bool, second: bool) -> None:
    assert (nonce(one, last=first) == nonce(other, last=second)) == ((one, first) == (other, second))
