"""Bandwidth by the clock: what a schedule says at each moment, and that a store keeps to it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import ConfigInvalid
from qss.offload.timetable import Timed, Timetable
from tests.contracts.object_store import ObjectStoreContract
from tests.harness.memory_store import MemoryStore, body_of

MIB = 1024**2
MONDAY, SATURDAY, SUNDAY = 2, 7, 8  # of November 2026


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, minute)


def test_days_hours_and_the_first_rule_that_fits() -> None:
    table = Timetable.parse("mon-fri 08:00-18:00 upload 2MB/s download 512K/s; sat,sun upload 10MB/s; upload 1g/s")
    assert table.at(at(MONDAY, 8)) == (2 * MIB, 512 * 1024)
    assert table.at(at(MONDAY, 17, 59)) == (2 * MIB, 512 * 1024)
    assert table.at(at(MONDAY, 18)) == (1024 * MIB, None)
    assert table.at(at(MONDAY, 7, 59)) == (1024 * MIB, None)
    assert table.at(at(SATURDAY, 12)) == table.at(at(SUNDAY, 0)) == (10 * MIB, None)
    assert table.slowest_upload == 2 * MIB


def test_hours_past_midnight_belong_to_the_day_they_begin_on() -> None:
    table = Timetable.parse("sun 22:00-06:00 upload 1MB/s")
    assert table.at(at(SUNDAY, 22)) == (MIB, None)
    assert table.at(at(MONDAY, 5, 59)) == (MIB, None)
    assert table.at(at(MONDAY, 6)) == table.at(at(SUNDAY, 5)) == table.at(at(MONDAY, 22)) == (None, None)
    assert Timetable.parse("sat-mon download 3b/s").at(at(SUNDAY, 3)) == (None, 3)
    assert Timetable.parse("fri-sat download 3b/s").at(at(SUNDAY, 3)) == (None, None)


@pytest.mark.parametrize(
    "bad",
    ["", ";", "upload", "mon", "upload fast", "upload 0/s", "upload 2MB", "mon-xyz upload 1M/s",
     "08:00-25:00 upload 1M/s", "08:00-08:00 upload 1M/s", "upload 1M/s upload 2M/s",
     "sideways 1M/s", "08:61-09:00 upload 1M/s"],
)  # fmt: skip
def test_what_is_no_schedule_is_refused_in_one_sentence(bad: str) -> None:
    with pytest.raises(ConfigInvalid, match="write for example"):
        Timetable.parse(bad)


@given(st.text(max_size=60))
def test_any_text_is_a_schedule_or_refused(text: str) -> None:
    try:
        table = Timetable.parse(text)
    except ConfigInvalid:
        return
    table.at(at(MONDAY, 12))


async def test_a_store_keeps_to_it_and_follows_the_clock(autojump_clock) -> None:
    now = at(MONDAY, 12)
    store = Timed(MemoryStore(), Timetable.parse("mon 08:00-18:00 upload 1000b/s download 2000b/s"), lambda: now)
    started = trio.current_time()
    await store.put("k", body_of(b"x" * 10_000, chunk_bytes=500))
    await store.put("k", body_of(b"x" * 10_000, chunk_bytes=500))
    assert 18 <= trio.current_time() - started <= 21
    started = trio.current_time()
    for _ in range(4):
        await store.get("k")
    assert 14 <= trio.current_time() - started <= 21
    now = at(MONDAY, 19)
    started = trio.current_time()
    await store.put("k", body_of(b"x" * 100_000))
    assert trio.current_time() - started < 1


class TestTimed(ObjectStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Timed:
        return Timed(MemoryStore(), Timetable.parse("upload 1G/s download 1G/s"), lambda: at(MONDAY, 1))
