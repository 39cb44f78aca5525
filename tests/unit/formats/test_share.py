"""Share tokens: the frozen one, and that nothing but it opens what it was made for."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from qss.errors import CorruptData
from qss.formats.share import TOKEN_CHARS, Claim, Grant, decode_share, encode_share, is_genuine

VECTOR = Path(__file__).parents[2] / "vectors" / "share" / "share-v1.txt"
KEY, SHARE = bytes(range(32)), bytes(range(100, 116))
GRANT = Grant("bucket", "a folder/ü.txt", 1_900_000_000, 3)


def test_the_frozen_token() -> None:
    frozen = VECTOR.read_text().strip()
    assert encode_share(KEY, SHARE, GRANT) == frozen
    claim = decode_share(frozen)
    assert (claim.share, claim.expires_s) == (SHARE, GRANT.expires_s)
    assert is_genuine(KEY, claim, GRANT)


def test_it_opens_nothing_else_and_no_other_key_makes_it() -> None:
    claim = decode_share(encode_share(KEY, SHARE, GRANT))
    for other in (
        replace(GRANT, key="a folder/u.txt"),
        replace(GRANT, bucket="bucketa", key=" folder/ü.txt"),
        replace(GRANT, bucket="bucke", key="ta folder/ü.txt"),
        replace(GRANT, expires_s=GRANT.expires_s + 1),
        replace(GRANT, uses_max=0),
    ):
        assert not is_genuine(KEY, claim, other)
    assert not is_genuine(bytes(32), claim, GRANT)
    later = Claim(claim.share, claim.expires_s + 1, claim.mac)
    assert not is_genuine(KEY, later, replace(GRANT, expires_s=GRANT.expires_s + 1))
    assert not is_genuine(KEY, Claim(bytes(16), claim.expires_s, claim.mac), GRANT)


@given(st.integers(0, 57 * 8 - 1))
def test_no_bit_of_it_may_change(bit: int) -> None:
    data = bytearray(base64.urlsafe_b64decode(encode_share(KEY, SHARE, GRANT)))
    data[bit // 8] ^= 1 << bit % 8
    try:
        claim = decode_share(base64.urlsafe_b64encode(data).decode())
    except CorruptData:
        return
    assert not is_genuine(KEY, claim, replace(GRANT, expires_s=claim.expires_s))


@given(st.text(max_size=120) | st.text("ABab01-_=+/", min_size=TOKEN_CHARS, max_size=TOKEN_CHARS))
def test_anything_else_is_corrupt(text: str) -> None:
    try:
        decode_share(text)
    except CorruptData:
        return
    assert text.startswith("AQ"), "the version is the first byte"
