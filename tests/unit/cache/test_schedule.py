"""Schedules: what is written, when a snapshot is due, and which ones go again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.cache.schedule import PERIODS, Schedule, Taken, name_at, period_of
from qss.cache.snapshots import check_name
from qss.errors import Refused

HOUR = 3600 * 10**9
DAY = 24 * HOUR
NOON = 1_700_049_600 * 10**9  # 2023-11-15 12:00 UTC, a Wednesday

schedules = st.lists(st.sampled_from(PERIODS), unique=True).flatmap(
    lambda periods: st.tuples(*(st.tuples(st.just(period), st.integers(1, 12)) for period in periods))
)
moments = st.lists(st.integers(NOON, NOON + 500 * DAY), max_size=60)


def made(text: str) -> Schedule:
    return Schedule.parse(text)


def taken(moments_ns: list[int]) -> list[Taken]:
    return [Taken(number, at) for number, at in enumerate(sorted(moments_ns), 1)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("daily=7 hourly=24", "hourly=24 daily=7"), ("", "off"), ("off", "off"), ("monthly=1 daily=0", "monthly=1")],
)
def test_schedules_are_written_and_shown(text: str, shown: str) -> None:
    assert str(made(text)) == shown
    assert made(shown) == made(text)


@pytest.mark.parametrize(
    "text", ["yearly=1", "daily", "daily=-1", "daily=x", "daily=1 daily=2", "daily=1001", "daily=²"]
)
def test_what_is_no_schedule_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Refused, match="hourly=24"):
        made(text)


def test_periods_are_hours_days_weeks_from_monday_and_months() -> None:
    monday = NOON - 2 * DAY - 12 * HOUR
    assert period_of("weekly", monday) == period_of("weekly", monday + 7 * DAY - 1)
    assert period_of("weekly", monday - 1) == period_of("weekly", monday) - 1
    assert period_of("hourly", NOON) == period_of("hourly", NOON + HOUR - 1) == period_of("hourly", NOON - 1) + 1
    assert period_of("daily", NOON + 12 * HOUR) == period_of("daily", NOON) + 1
    assert period_of("monthly", NOON + 15 * DAY) == period_of("monthly", NOON)
    assert period_of("monthly", NOON + 16 * DAY) == period_of("monthly", NOON) + 1
    assert name_at(NOON) == "auto-2023-11-15T12:00:00Z"
    check_name(name_at(NOON))


def test_one_is_due_in_each_period_however_many_were_missed() -> None:
    daily = made("daily=3")
    assert daily.is_due([], NOON)
    assert not daily.is_due(taken([NOON]), NOON + 11 * HOUR)
    assert daily.is_due(taken([NOON]), NOON + 12 * HOUR)
    assert daily.is_due(taken([NOON]), NOON + 100 * DAY)
    assert not daily.is_due(taken([NOON, NOON + 100 * DAY]), NOON + 100 * DAY)
    assert not daily.is_due(taken([NOON + DAY]), NOON), "the clock was set back"
    assert not made("off").is_due([], NOON)


def test_off_deletes_nothing() -> None:
    assert made("off").surplus(taken([NOON, NOON + DAY])) == []


@given(schedules, moments)
def test_thinning_keeps_what_each_period_asks_for(kept: tuple[tuple[str, int], ...], at: list[int]) -> None:
    schedule = Schedule.parse(" ".join(f"{period}={count}" for period, count in kept))
    have = taken(at)
    gone = schedule.surplus(have)
    left = [each for each in have if each not in gone]
    if not kept:
        assert gone == []
        return
    assert len(left) <= sum(count for _, count in kept)
    assert schedule.surplus(left) == [], "once is enough"
    if have:
        assert max(have, key=lambda each: each.created_ns).created_ns in {each.created_ns for each in left}
    for period, count in kept:  # the naive rule, once for each period
        buckets = sorted({period_of(period, each.created_ns) for each in have}, reverse=True)[:count]
        for bucket in buckets:
            newest = max(each.created_ns for each in have if period_of(period, each.created_ns) == bucket)
            assert newest in {each.created_ns for each in left}


@given(st.integers(1, 30), st.integers(1, 10), st.integers(1, 6))
def test_a_year_of_running_leaves_one_of_each_period_asked_for(hours: int, days: int, weeks: int) -> None:
    """Made and thinned hour by hour: thinning early never takes what a coarser period wants later."""
    schedule = Schedule.parse(f"hourly={hours} daily={days} weekly={weeks}")
    have: list[Taken] = []
    now = NOON
    for number in range(24 * 60):
        now = NOON + number * HOUR
        assert schedule.is_due(have, now)
        have.append(Taken(number, now))
        gone = schedule.surplus(have)
        have = [each for each in have if each not in gone]
    for period, count in schedule.kept:
        newest = period_of(period, now)
        wanted = {newest - back for back in range(count) if newest - back >= period_of(period, NOON)}
        assert wanted <= {period_of(period, each.created_ns) for each in have}


@pytest.mark.parametrize("name", ["a", "before-upgrade", "2026-11-21T09:00:00Z", "x" * 255, "a.b_c:d+e@f"])
def test_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "x" * 256, "a\n", "²"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(Refused, match="letters"):
        check_name(name)
