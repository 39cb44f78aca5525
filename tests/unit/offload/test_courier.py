"""The courier: everything sealed gets safe, in order, whatever fails in between."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

import pytest
import trio

from qss.errors import Unreachable
from qss.ids import LocationId, SegmentId
from qss.offload.courier import Courier, Pause
from qss.offload.status import Rate
from qss.segments import Receipt, SegmentKind
from tests.harness.vault import Machine, PlainShelf, World
from tests.harness.waiting import until

JOURNAL = SegmentKind.JOURNAL


class Killed(BaseException):
    """The process is gone."""


def courier_of(machine: Machine, shelf: PlainShelf, **options) -> Courier:
    return Courier(shelf, machine.vault, machine.roots, machine.tenure, random.Random(3).random, **options)


@asynccontextmanager
async def running(courier: Courier):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(courier.run)
        yield
        nursery.cancel_scope.cancel()


async def test_everything_sealed_becomes_safe_and_published(tmp_path: Path) -> None:
    world = World.of()
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    shelf.add(1, b"data" * 1000)
    shelf.add(2, b"journal", JOURNAL)
    stored: list[Receipt] = []

    async def on_stored(receipt: Receipt) -> None:
        stored.append(receipt)

    courier = courier_of(machine, shelf, on_stored=on_stored)
    async with running(courier):
        await until(lambda: shelf.published)
        assert shelf.published[-1].journals == (SegmentId(2),)
        shelf.add(3, b"more" * 1000)
        shelf.add(4, b"journal 2", JOURNAL)
        courier.hint()
        await until(lambda: len(shelf.published) == 2)
    status = courier.status()
    assert status.queued == 0 or not status.in_flight
    assert (status.root_generation, status.stored_segments, status.last_error, status.blocked) == (3, 4, "", "")
    assert len(stored) == 4
    assert all(receipt.complete for receipt in shelf.receipts.values())
    assert len(status.nodes) == 6


@pytest.mark.parametrize("step", ["unsafe_segments", "path_of", "mark_offloaded", "restore_point", "mark_published"])
@pytest.mark.parametrize("after", [False, True])
async def test_killed_at_every_step_and_started_again(tmp_path: Path, step: str, after: bool) -> None:
    world = World.of(2, 1)
    shelf = PlainShelf(tmp_path / "shelf")
    for number in (1, 3):
        shelf.add(number, b"data" * 500)
        shelf.add(number + 1, b"journal", JOURNAL)

    class Dying:
        """The shelf, until the n-th call of one step."""

        def __init__(self, nth: int) -> None:
            self.left = nth

        def __getattr__(self, name: str):
            method = getattr(shelf, name)
            if name != step:
                return method

            async def dying(*arguments):
                self.left -= 1
                if self.left == 0 and not after:
                    raise Killed
                answer = await method(*arguments)
                if self.left == 0:
                    raise Killed
                return answer

            return dying

    for nth in (1, 2):
        machine = world.machine(tmp_path / "a")
        courier = courier_of(machine, Dying(nth))
        died = False
        try:
            with trio.move_on_after(60 if nth == 1 else 5):
                await courier.run()
        except* Killed:
            died = True
        assert died or nth == 2, "the first life may have done all there was to do"
    machine = world.machine(tmp_path / "a")
    async with running(courier_of(machine, shelf)):
        await until(lambda: shelf.published and shelf.published[-1].journals == (SegmentId(2), SegmentId(4)))
    assert all(receipt.complete for receipt in shelf.receipts.values())
    for segment, sealed in shelf.segments.items():
        await world.machine(tmp_path / "b").vault.fetch_segment(segment, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == (await shelf.path_of(segment)).read_bytes()
        assert sealed.length == (tmp_path / "out").stat().st_size
    newest = await world.machine(tmp_path / "c").roots.newest()
    assert newest.point == shelf.published[-1]


async def test_killed_during_the_upload_and_started_again(tmp_path: Path, autojump_clock) -> None:
    world = World.of(2, 1)
    shelf = PlainShelf(tmp_path / "shelf")
    shelf.add(1, b"data" * 500)
    shelf.add(2, b"journal", JOURNAL)
    world.stores[LocationId("trove-2")].hung = True
    async with running(courier_of(world.machine(tmp_path / "a"), shelf)):
        await until(lambda: len(world.objects(LocationId("trove-1"))) >= 2)
    assert not shelf.receipts
    world.stores[LocationId("trove-2")].hung = False
    async with running(courier_of(world.machine(tmp_path / "a"), shelf)):
        await until(lambda: shelf.published)
    assert await whole(world, tmp_path, shelf)


async def test_after_a_restart_only_the_shards_that_are_missing_are_put(tmp_path: Path, autojump_clock) -> None:
    world = World.of(2, 2)
    shelf = PlainShelf(tmp_path / "shelf")
    shelf.add(1, b"data" * 5000)
    shelf.add(2, b"journal", JOURNAL)
    slow = LocationId("trove-3")
    world.stores[slow].hung = True
    others = [name for name in world.stores if name != slow]
    machine = world.machine(tmp_path / "a")
    names = {name: {machine.keys.shard_name(SegmentId(each), 0, name) for each in (1, 2)} for name in world.stores}
    async with running(courier_of(machine, shelf)):
        await until(lambda: all(names[name] <= world.objects(name).keys() for name in others))
    assert not shelf.receipts
    before = {name: {key: world.objects(name)[key] for key in names[name]} for name in others}
    world.stores[slow].hung = False
    async with running(courier_of(world.machine(tmp_path / "a"), shelf)):
        await until(lambda: shelf.published and all(receipt.complete for receipt in shelf.receipts.values()))
    assert {name: {key: world.objects(name)[key] for key in names[name]} for name in others} == before, "the same seal"
    assert names[slow] <= world.objects(slow).keys()
    assert await whole(world, tmp_path, shelf)


async def whole(world: World, tmp_path: Path, shelf: PlainShelf) -> bool:
    machine = world.machine(tmp_path / "reader")
    for segment in shelf.segments:
        await machine.vault.fetch_segment(segment, tmp_path / "out")
        if (tmp_path / "out").read_bytes() != (await shelf.path_of(segment)).read_bytes():
            return False
    return True


async def test_one_bad_segment_holds_up_no_other(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    shelf.add(1, b"x" * 100)
    (tmp_path / "shelf/1.log").write_bytes(b"cut")
    for number in range(2, 8):
        shelf.add(number, b"data")
    courier = courier_of(machine, shelf)
    async with running(courier):
        await until(lambda: len(shelf.receipts) == 6)
    assert SegmentId(1) not in shelf.receipts
    assert "shorter" in courier.status().last_error


async def test_it_goes_on_by_itself_when_the_locations_come_back(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    for each in world.stores.values():
        each.down = True
    shelf.add(1, b"data")
    shelf.add(2, b"journal", JOURNAL)
    courier = courier_of(machine, shelf)
    changes: list[tuple[str, bool]] = []

    async def on_location(location: LocationId, up: bool) -> None:
        changes.append((location, up))

    courier._on_location = on_location
    async with running(courier):
        await until(lambda: courier.status().last_error)
        assert not shelf.receipts
        await until(lambda: ("trove-1", False) in changes)
        for each in world.stores.values():
            each.down = False
        await until(lambda: shelf.published)
    assert ("trove-1", True) in changes
    assert courier.status().last_error == ""


async def test_missing_shards_are_completed_when_their_location_is_back(tmp_path: Path) -> None:
    world = World.of(2, 2, margin=1)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    world.stores[LocationId("trove-4")].down = True
    shelf.add(1, b"data" * 1000)
    courier = courier_of(machine, shelf)
    async with running(courier):
        await until(lambda: shelf.receipts)
        assert shelf.receipts[SegmentId(1)].missing == 1
        await until(lambda: courier.status().incomplete == (SegmentId(1),))
        world.stores[LocationId("trove-4")].down = False
        await until(lambda: shelf.receipts[SegmentId(1)].complete)
    assert world.objects(LocationId("trove-4"))


async def test_damage_that_a_read_has_found_is_repaired(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    shelf.add(1, b"data" * 1000)
    courier = courier_of(machine, shelf)
    async with running(courier):
        await until(lambda: shelf.receipts)
    home = shelf.receipts[SegmentId(1)].placed[0]
    objects = world.objects(home)
    name = machine.keys.shard_name(SegmentId(1), 0, home)
    objects[name] = objects[name][:150] + bytes([objects[name][150] ^ 1]) + objects[name][151:]
    await machine.vault.fetch(SegmentId(1), 0, tmp_path / "out")
    assert courier.status().damaged
    await courier.mender.round()
    assert not courier.status().damaged
    assert courier.status().shards_repaired == 1
    await machine.vault.fetch(SegmentId(1), 0, tmp_path / "out")
    assert courier.status().damaged_blocks_seen == 1


async def test_another_machine_stops_publication_and_says_so(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    shelf.add(1, b"journal", JOURNAL)
    other = world.machine(tmp_path / "b")
    await other.roots.catch_up()
    await other.roots.publish(await _point(shelf))
    courier = courier_of(machine, shelf)
    async with running(courier):
        await until(lambda: courier.status().blocked)
    assert "another machine" in courier.status().blocked
    assert not shelf.published


async def _point(shelf: PlainShelf):
    shelf.receipts[SegmentId(1)] = Receipt(SegmentId(1), bytes(16), 2, 1, (None, None, None), 0)
    point = await shelf.restore_point()
    shelf.receipts.clear()
    return point


async def test_a_shelf_that_does_not_answer_is_asked_again(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    shelf.add(1, b"journal", JOURNAL)

    class Flaky:
        failed: ClassVar[set[str]] = set()

        def __getattr__(self, name: str):
            async def flaky(*arguments):
                if name not in self.failed:
                    self.failed.add(name)
                    raise Unreachable("the mount process restarts")
                return await getattr(shelf, name)(*arguments)

            return flaky

    async with running(courier_of(machine, Flaky())):
        await until(lambda: shelf.published)


def test_pauses_grow_with_jitter_and_are_bounded() -> None:
    pause = Pause()
    lengths = []
    for _ in range(30):
        pause.failed(100.0, 0.0)
        lengths.append(pause.until_s - 100.0)
    assert lengths == sorted(lengths)
    assert lengths[0] == 0.25
    assert lengths[-1] == 30.0


def test_rate_is_that_of_the_window() -> None:
    rate = Rate(10.0)
    for second in range(20):
        rate.add(float(second), 100)
    assert rate.per_s(19.0) == pytest.approx(100.0, rel=0.15)
    assert rate.per_s(100.0) == 0.0
    assert rate.total == 2000
