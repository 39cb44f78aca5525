"""Who holds a file system: seen by others, given up in order, lost to a higher epoch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import CorruptData, QssError
from qss.ids import SegmentId
from qss.offload.courier import Courier
from qss.offload.fence import Fence
from qss.offload.hold import Hold, HoldBook, Holder
from qss.segments import RestorePoint
from tests.harness.vault import Machine, PlainShelf, World


def hold(machine: Machine, seat: str, epoch: int = 0) -> Hold:
    return Hold(seat, epoch, "00" * 16, f"host-{seat}", f"/state/{seat}", 0, machine.host.clock.now_ns(), 8.0)


def book(machine: Machine) -> HoldBook:
    return HoldBook(machine.nodes, machine.keys, machine.host)


def holder(machine: Machine, seat: str, epoch: int = 0) -> tuple[Holder, Fence]:
    fence = Fence(machine.state / "offload")
    return Holder(book(machine), fence, machine.host, hold(machine, seat, epoch)), fence


@given(st.binary(max_size=200))
def test_what_is_no_hold_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptData):
        Hold.unpack(data)


async def test_a_hold_lives_while_it_is_renewed_and_not_after(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    world = World.of(2, 1)
    first, second = world.machine(tmp_path / "a"), world.machine(tmp_path / "b")
    ours, _ = holder(first, "a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.run)
        await trio.sleep(1)
        seen = await book(second).read()
        assert seen is not None
        assert seen.host == "host-a"
        alive = await book(second).is_alive(seen)
        assert alive is not None
        assert alive.beats > seen.beats
        nursery.cancel_scope.cancel()
    released = await book(second).read()
    assert released is not None
    assert released.released
    assert await book(second).is_alive(released) is None
    await book(first).write(replace(released, released=False))  # as kill -9 leaves it
    left = await book(second).read()
    assert left is not None
    assert await book(second).is_alive(left) is None


async def test_a_higher_epoch_fences_the_first_for_good(tmp_path: Path) -> None:
    world = World.of(2, 1)
    first, second = world.machine(tmp_path / "a"), world.machine(tmp_path / "b")
    ours, fence = holder(first, "a")
    theirs, their_fence = holder(second, "b", epoch=1)
    await ours.beat()
    await theirs.beat()
    await ours.beat()
    assert "host-b" in fence.reason
    assert "host-b" in Fence(first.state / "offload").reason
    await theirs.beat()
    assert not their_fence.up
    fence.lower()
    assert not Fence(first.state / "offload").up


async def test_of_two_copies_that_both_run_one_gives_way(tmp_path: Path) -> None:
    world = World.of(2, 1)
    low, low_fence = holder(world.machine(tmp_path / "a"), "a")
    high, high_fence = holder(world.machine(tmp_path / "b"), "b")
    for _ in range(3):
        await low.beat()
        await high.beat()
    assert (low_fence.up, high_fence.up) == (True, False)


async def test_behind_the_fence_nothing_changes_at_the_locations(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    world = World.of(2, 1)
    machine = world.machine(tmp_path / "a")
    shelf = PlainShelf(tmp_path / "shelf")
    shelf.add(1, b"never sent" * 1000)
    fence = Fence(machine.state / "offload")
    fence.put_up("somebody else")
    courier = Courier(shelf, machine.vault, machine.roots, lambda: 0.0, fence=fence)
    with trio.move_on_after(120):
        await courier.run()
    assert courier.status().blocked == "somebody else"
    assert courier.status().queued == 1
    assert not any(world.objects(name) for name in world.stores)


async def test_losing_a_root_puts_the_fence_up(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, other = world.machine(tmp_path / "a"), world.machine(tmp_path / "b")
    await other.roots.catch_up()
    fence = Fence(machine.state / "offload")
    await other.roots.publish(RestorePoint((), (SegmentId(1),), 1, SegmentId(2)))
    courier = Courier(PlainShelf(tmp_path / "shelf"), machine.vault, machine.roots, lambda: 0.0, fence=fence)
    up = trio.Event()
    fence.on_up = lambda _reason: up.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(courier.run)
        with trio.fail_after(20):
            await up.wait()
        nursery.cancel_scope.cancel()
    assert "another machine" in fence.reason
    with pytest.raises(QssError, match="another machine"):
        await machine.roots.catch_up()
