"""Hashing in place: the header both ways, and through a real client and server."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import CorruptData
from qss.s3 import inplace

BODY = random.Random(5).randbytes(1000)


class Reader:
    def __init__(self, bad: range = range(0)) -> None:
        self.bad = bad

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        for at in range(start, stop, 100):
            if at in self.bad:
                raise CorruptData("a page does not verify")
            yield BODY[at : min(at + 100, stop)]


spans = st.lists(
    st.tuples(st.integers(0, 2**60), st.integers(1, 2**60)).map(lambda pair: (pair[0], pair[0] + pair[1])),
    min_size=1,
    max_size=inplace.SPANS_MAX,
)


@given(spans)
def test_what_is_asked_is_understood(wanted: list[tuple[int, int]]) -> None:
    assert inplace.asked(inplace.ask(wanted)) == wanted


@given(st.text(max_size=200))
def test_anything_else_is_refused_or_makes_sense(untrusted: str) -> None:
    try:
        found = inplace.asked(untrusted)
    except CorruptData:
        return
    assert found
    assert all(0 <= start < stop for start, stop in found)


@pytest.mark.parametrize("bad", ["", "5", "5-4", "-1-2", "1-2;3-4", ",".join(["0-1"] * 65), "1-99999999999999999999"])
def test_bad_spans_are_refused(bad: str) -> None:
    with pytest.raises(CorruptData):
        inplace.asked(bad)


async def test_the_answer_is_the_hashes_of_what_is_there() -> None:
    wanted = [(0, 100), (150, 950), (999, 1000)]
    value = await inplace.answer(Reader(), len(BODY), wanted)
    assert inplace.answered(value, 3) == [blake3(BODY[start:stop]).digest() for start, stop in wanted]


@pytest.mark.parametrize(("reader", "span"), [(Reader(range(300, 301)), (200, 500)), (Reader(), (500, 1001))])
async def test_what_cannot_be_read_is_said(reader: Reader, span: tuple[int, int]) -> None:
    value = await inplace.answer(reader, len(BODY), [(0, 100), span])
    assert value.endswith(",-")
    with pytest.raises(CorruptData):
        inplace.answered(value, 2)


@pytest.mark.parametrize("value", ["", "zz", "00" * 31, "00" * 32 + "," + "00" * 32])
def test_answers_that_do_not_hold_are_refused(value: str) -> None:
    with pytest.raises(CorruptData):
        inplace.answered(value, 1)
