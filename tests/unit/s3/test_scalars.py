"""Numbers and bytes in text that anybody may have written."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.s3.scalars import DIGITS_MAX, base64_of, integer_of, number_of


@given(st.integers(0, 10**DIGITS_MAX - 1))
def test_numbers(value: int) -> None:
    assert number_of(str(value)) == integer_of(str(value)) == value
    assert integer_of(str(-value)) == -value
    assert number_of(f"-{value}") is None


@pytest.mark.parametrize(
    "text", ["", "-", "--1", "+1", " 1", "1 ", "1_0", "1.0", "0x1", "\u00b2", "\u0663", "9" * 16, "9" * 5000]
)
def test_what_is_no_number(text: str) -> None:
    assert number_of(text) is None
    assert integer_of(text) is None


def test_digits_are_counted_without_the_sign() -> None:
    assert (integer_of("-99", 2), integer_of("-999", 2), number_of("007", 3)) == (-99, None, 7)


@given(st.binary(max_size=64))
def test_bytes(data: bytes) -> None:
    assert base64_of(base64.b64encode(data).decode()) == data


@pytest.mark.parametrize("text", ["a", "aa=a", "YQ", "YQ==\n", "Y Q==", "Y-_=", "\u00e9", "=YQ="])
def test_what_is_no_base64(text: str) -> None:
    assert base64_of(text) is None
