"""Back-pressure: free, slower, waiting, ENOSPC; and always back again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from qss.cache.admission import RETRY_S, SAMPLE_EVERY_S, SLOW_S_MAX, Admission, Limits, Pressure, decide
from qss.errors import NoSpace

LIMITS = Limits(soft=1000, hard=400, deadline_s=10.0)


@given(st.integers(-(10**6), 10**6), st.integers(0, 10**6))
def test_the_less_is_left_the_longer_the_pause(spare: int, more: int) -> None:
    now, later = decide(spare + more, LIMITS), decide(spare, LIMITS)
    assert (later is None) == (spare <= 0)
    if later is not None:
        assert now is not None
        assert 0 <= now <= later <= SLOW_S_MAX


def test_free_passage_above_the_soft_limit_and_none_at_the_hard_one() -> None:
    assert decide(600, LIMITS) == 0.0
    assert decide(1, LIMITS) == pytest.approx(SLOW_S_MAX, rel=0.01)
    assert decide(0, LIMITS) is None


class SmallDisk:
    """So many free bytes; `room` frees what it is told to each time it is asked."""

    def __init__(self, free: int, gains: int = 0) -> None:
        self.free = free
        self.gains = gains
        self.rounds = 0
        self.admission = Admission(lambda: self.free, self.make_room, LIMITS)

    async def make_room(self) -> None:
        await trio.sleep(0.01)
        self.rounds += 1
        self.free += self.gains

    async def write(self, count: int) -> None:
        await self.admission.admit(count)
        self.admission.spend(count)
        self.free -= count


async def seconds(call: Callable[[], Awaitable[object]]) -> float:
    began = trio.current_time()
    await call()
    return trio.current_time() - began


async def test_writers_slow_down_then_wait_then_get_enospc_and_go_on_when_there_is_room(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = SmallDisk(1200)
    seen = []

    async def write(count: int) -> float:
        seen.append(disk.admission.pressure)
        return await seconds(lambda: disk.write(count))

    assert await write(10) == 0
    await trio.sleep(SAMPLE_EVERY_S)
    pauses = [await write(150) for _ in range(5)]
    assert pauses == sorted(pauses)
    assert 0 < pauses[-1] <= SLOW_S_MAX
    with pytest.raises(NoSpace):
        await write(150)
    assert disk.admission.pressure is Pressure.FULL
    assert disk.admission.refused == 1
    assert disk.free >= LIMITS.hard
    disk.free = 5000
    assert await write(150) == 0
    assert disk.admission.pressure is Pressure.OK
    assert seen[0] is Pressure.OK
    assert seen[3:7] == [Pressure.SLOW] * 4


async def test_a_writer_waits_no_longer_than_the_deadline_and_shows_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = SmallDisk(LIMITS.hard)
    async with trio.open_nursery() as nursery:

        async def refused() -> None:
            with pytest.raises(NoSpace):
                await disk.write(10)

        nursery.start_soon(refused)
        await trio.sleep(1)
        assert disk.admission.pressure is Pressure.WAITING
        assert disk.admission.waiting == 1
        began = trio.current_time() - 1
    assert LIMITS.deadline_s <= trio.current_time() - began <= LIMITS.deadline_s + 2 * RETRY_S
    assert disk.admission.waiting == 0


async def test_room_that_comes_is_used_at_once(autojump_clock: trio.testing.MockClock) -> None:
    disk = SmallDisk(LIMITS.hard)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(disk.write, 10)
        await trio.sleep(3)
        disk.free += 1000
        began = trio.current_time()
    assert trio.current_time() - began <= RETRY_S + SLOW_S_MAX


async def test_many_who_wait_have_room_made_once(autojump_clock: trio.testing.MockClock) -> None:
    disk = SmallDisk(LIMITS.hard, gains=300)
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(disk.write, 10)
    assert disk.rounds <= 5
    assert disk.free >= LIMITS.hard


@pytest.mark.parametrize("drained", [1, 7, 200])
async def test_a_slow_drain_lets_everybody_through_and_the_reserve_is_never_touched(
    autojump_clock: trio.testing.MockClock, drained: int
) -> None:
    disk, least = SmallDisk(1500), 1500
    done = 0

    async def writer() -> None:
        nonlocal done, least
        for _ in range(20):
            try:
                await disk.write(30)
            except NoSpace:
                return
            least = min(least, disk.free)
            done += 1

    async def drain(scope: trio.CancelScope) -> None:
        while True:
            await trio.sleep(0.5)
            disk.free += drained

    async with trio.open_nursery() as outer:
        outer.start_soon(drain, outer.cancel_scope)
        async with trio.open_nursery() as writers:
            for _ in range(8):
                writers.start_soon(writer)
        outer.cancel_scope.cancel()
    assert least >= LIMITS.hard
    if drained >= 7:
        assert done > (1500 - LIMITS.hard) // 30
    if drained == 200:
        assert done == 160, "nobody is refused while it drains"


async def test_names_are_made_until_half_the_reserve_is_left() -> None:
    disk = SmallDisk(LIMITS.hard // 2)
    disk.admission.check_names()
    disk = SmallDisk(LIMITS.hard // 2 - 1)
    with pytest.raises(NoSpace, match="deleting"):
        disk.admission.check_names()


async def test_a_fetch_makes_room_first_and_leaves_the_reserve_for_deleting(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = SmallDisk(2000)
    await disk.admission.room_for_fetch(100)
    assert disk.rounds == 0
    disk = SmallDisk(LIMITS.hard, gains=50)
    await disk.admission.room_for_fetch(100)
    assert disk.rounds == 1
    disk = SmallDisk(LIMITS.hard // 2, gains=50)
    with pytest.raises(NoSpace):
        await disk.admission.room_for_fetch(100)
