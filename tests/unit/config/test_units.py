import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.config.units import (
    format_duration,
    format_size,
    human_duration,
    human_size,
    parse_duration,
    parse_moment,
    parse_size,
)  # fmt: skip


@given(st.integers(0, 2**62))
def test_size_round_trip(count):
    assert parse_size(format_size(count)) == count


@given(st.integers(0, 10**12))
def test_duration_round_trip_to_the_millisecond(milliseconds):
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


@given(st.text())
def test_any_text_is_a_value_or_refused(text):
    for parse in (parse_size, parse_duration):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("512", 512), ("64M", 64 << 20), ("64MiB", 64 << 20), ("64 mb", 64 << 20), ("1.5G", 3 << 29), ("1b", 1)],
)
def test_sizes(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "G", "-1", "1X", "1e9", "0x10", "1 2", "nan", "1iB2"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="write"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("30s", 30), ("15m", 900), ("7d", 604_800), ("2w", 1_209_600)]
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "-1s", "1 month"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="write"):
        parse_duration(text)


def test_for_people():
    shown = [human_size(n) for n in (0, 999, 1024, 10 * 1024**2, 3 << 29)]
    assert shown == ["0 B", "999 B", "1 KiB", "10 MiB", "1.5 GiB"]
    assert [human_duration(s) for s in (0, 59, 61, 3600, 90_061)] == ["0s", "59s", "1m 1s", "1h", "1d 1h"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02", 86_400), ("1970-01-01 01:00", 3600), ("1970-01-01T01:00:00.5Z", 3600.5),
        ("1970-01-01T02:00:00+01:00", 3600), ("2h", 10**6 - 7200), ("0s", 10**6),
    ],
)  # fmt: skip
def test_moments(text, seconds):
    assert parse_moment(text, 10**15) == seconds * 10**9


@pytest.mark.parametrize("text", ["", "yesterday", "12:00", "7", "2026-13-01"])
def test_what_is_no_moment(text):
    with pytest.raises(ValueError, match="write"):
        parse_moment(text, 0)
