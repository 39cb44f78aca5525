import os
from collections.abc import Iterator

import pyfuse3
import pytest
import trio
import trio.testing

from qss.fuse import turns
from qss.fuse.turns import ReadingLock, Turns


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


class Turn:
    """Counts turns of the loop that others got."""

    def __init__(self) -> None:
        self.taken = 0

    async def count(self) -> None:
        while True:
            self.taken += 1
            await trio.lowlevel.checkpoint()


async def test_the_next_request_costs_no_turn_until_the_time_is_up(pipe, monkeypatch, autojump_clock) -> None:
    reader, writer = pipe
    os.write(writer, b"request")
    wait_readable = Turns(clock=trio.current_time).lowlevel.wait_readable
    others = Turn()
    async with trio.open_nursery() as nursery:
        await wait_readable(reader)  # the first wait is one of the loop
        nursery.start_soon(others.count)
        for _ in range(100):
            await wait_readable(reader)
        assert others.taken == 0
        monkeypatch.setattr(turns, "TURN_S_MAX", 0.0)
        for _ in range(3):
            autojump_clock.jump(1.0)
            await wait_readable(reader)
        assert others.taken > 0
        nursery.cancel_scope.cancel()


async def test_without_a_request_the_loop_goes_on(pipe) -> None:
    reader, writer = pipe
    os.write(writer, b"1")
    wait_readable = Turns().lowlevel.wait_readable
    await wait_readable(reader)
    os.read(reader, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_readable, reader)
        await trio.testing.wait_all_tasks_blocked()
        os.write(writer, b"2")


async def test_a_descriptor_too_high_for_select_is_waited_for_by_the_loop(pipe) -> None:
    reader, writer = pipe
    os.write(writer, b"1")
    high = os.dup2(reader, 1500, inheritable=False)
    try:
        wait_readable = Turns().lowlevel.wait_readable
        for _ in range(3):
            await wait_readable(high)
    finally:
        os.close(high)


async def test_a_free_lock_is_taken_without_a_turn() -> None:
    lock = ReadingLock()
    others = Turn()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others.count)
        for _ in range(10):
            async with lock:
                pass
        assert others.taken == 0
        nursery.cancel_scope.cancel()


async def test_who_waits_gets_the_lock_when_the_holder_waits_elsewhere() -> None:
    lock = ReadingLock()
    held: list[str] = []
    answered = trio.Event()

    async def worker(name: str) -> None:
        async with lock:
            held.append(name)
        await answered.wait()

    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(worker, name)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(held) == ["a", "b", "c"]
        answered.set()


async def test_never_two_hold_it() -> None:
    lock = ReadingLock()
    inside = most = 0

    async def worker() -> None:
        nonlocal inside, most
        for _ in range(20):
            async with lock:
                inside += 1
                most = max(most, inside)
                await trio.lowlevel.checkpoint()
                inside -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(worker)
    assert most == 1


async def test_a_cancelled_waiter_takes_no_wake_up_with_it() -> None:
    lock = ReadingLock()
    got = trio.Event()

    async def doomed(scope: trio.CancelScope) -> None:
        with scope:
            async with lock:
                pass

    async def patient() -> None:
        async with lock:
            got.set()

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        async with lock:
            nursery.start_soon(doomed, scope)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(patient)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
        await got.wait()


def test_the_session_loop_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hasattr(pyfuse3, "trio"), "pyfuse3 has changed: its session loop no longer looks at this name"
    monkeypatch.setattr(pyfuse3, "trio", pyfuse3.trio)
    Turns().install()
    assert pyfuse3.trio.Lock is ReadingLock
    assert pyfuse3.trio.ClosedResourceError is trio.ClosedResourceError
    assert pyfuse3.trio.lowlevel.current_task is trio.lowlevel.current_task


async def test_who_was_woken_and_had_no_turn_yet_is_not_woken_again() -> None:
    lock = ReadingLock()
    came: list[int] = []

    async def reader(number: int) -> None:
        async with lock:
            came.append(number)

    async with trio.open_nursery() as nursery:
        async with lock:
            for number in range(3):
                nursery.start_soon(reader, number)
            await trio.testing.wait_all_tasks_blocked()
        for _ in range(5):
            async with lock:  # we go on; they wait for the loop
                assert came == []
    assert sorted(came) == [0, 1, 2]
