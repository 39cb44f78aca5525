"""Who holds a file system: seen by others, given up in order, lost to a higher epoch; a lease on changing anything."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import CorruptData, QssError
from qss.ids import LocationId, SegmentId
from qss.offload.courier import Courier
from qss.offload.fence import Fence, read_reason
from qss.offload.hold import BEAT_S, Hold, HoldBook, Holder, Signs, Watch
from qss.segments import RestorePoint, SegmentKind
from tests.harness.vault import Machine, PlainShelf, World
from tests.harness.waiting import until

LIVES = itertools.count()
VECTORS = Path(__file__).parents[2] / "vectors" / "hold"


def hold(machine: Machine, seat: str, epoch: int = 0) -> Hold:
    now_ns = machine.host.clock.now_ns()
    return Hold(seat, epoch, "00" * 16, f"host-{seat}", f"/state/{seat}", 0, now_ns, BEAT_S, f"life-{next(LIVES)}")


def book(machine: Machine) -> HoldBook:
    return HoldBook(machine.nodes, machine.keys, machine.host)


def holder(machine: Machine, seat: str, epoch: int = 0) -> Holder:
    ours = hold(machine, seat, epoch)
    return Holder(book(machine), machine.tenure, machine.host, ours, lambda: machine.roots.known.generation)


def point(upto: int) -> RestorePoint:
    return RestorePoint((), tuple(SegmentId(n) for n in range(1, upto + 1)), 1000 + upto, SegmentId(upto + 1))


def down(world: World, *, down: bool = True) -> None:
    for store in world.stores.values():
        store.down = down


@given(st.binary(max_size=200))
def test_what_is_no_hold_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptData):
        Hold.unpack(data)


def test_frozen_forms_are_read() -> None:
    frozen = (VECTORS / "hold-v1.json").read_bytes().rstrip()
    expected = Hold(
        "5e" * 16, 3, "ab" * 16, "host", "/state", 1700000000000000007, 1700000000000000009, 8.0, "1f" * 8, 42
    )
    assert Hold.unpack(frozen) == expected
    assert expected.pack() == frozen
    frozen = (VECTORS / "hold-v1-place.json").read_bytes().rstrip()
    assert Hold.unpack(frozen) == replace(expected, place="9c" * 16)
    assert replace(expected, place="9c" * 16).pack() == frozen
    assert read_reason(VECTORS / "fenced-v1.json") == "taken over"


def test_a_fence_that_cannot_be_read_is_no_open_gate(tmp_path: Path) -> None:
    (tmp_path / "fenced.json").write_text("{")
    with pytest.raises(CorruptData):
        Fence(tmp_path)


async def test_a_hold_lives_while_it_is_renewed_and_not_after(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    world = World.of(2, 1)
    first, second = world.machine(tmp_path / "a"), world.machine(tmp_path / "b")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(holder(first, "a").run)
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


async def test_what_a_location_that_was_away_shows_is_no_sign_of_life(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    world = World.of(2, 1)
    machine = world.machine(tmp_path / "a")
    away, *others = world.stores.values()
    dead = hold(machine, "dead")
    await book(machine).write(dead)
    away.down = True
    await book(machine).write(replace(dead, beats=7))
    others[0].down, away.down = True, False  # one shows it as it was, the other as it is now
    watching = trio.Event()

    async def flicker() -> None:
        await watching.wait()
        for number in range(12):
            others[1].down = number % 2 == 0
            await trio.sleep(1.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flicker)
        watching.set()
        assert await book(machine).is_alive(dead) is None


def test_a_location_that_goes_back_and_forth_is_no_sign_of_life(tmp_path: Path) -> None:
    machine = World.of(2, 1).machine(tmp_path / "a")
    dead = hold(machine, "dead")
    old, new, newer, newest = (replace(dead, beats=beats) for beats in (5, 7, 8, 9))
    nothing = Signs(set(), set())
    a, b, c = map(LocationId, "abc")
    watch = Watch()
    assert watch.look({a: new, b: old}) == nothing
    assert watch.look({a: new, b: new}) == nothing, "that is what the other has shown"
    assert watch.look({b: old}) == nothing
    assert watch.look({b: new}) == nothing
    assert watch.look({c: newer}) == Signs({dead.life}, set()), "it had a lease, and may be dead again since"
    assert watch.look({b: newest}) == Signs({dead.life}, {dead.life})


async def test_who_was_renewed_where_nobody_had_looked_is_watched_for_longer(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Its last beat is seen at a location that was silent before: the lease goes on from that one."""
    world = World.of(2, 1)
    machine = world.machine(tmp_path / "a")
    first, second, third = world.stores.values()
    dead = hold(machine, "dead")
    await book(machine).write(dead)
    second.down = third.down = True

    async def renew_once() -> None:
        await trio.sleep(dead.watch_s - 1)
        first.down, second.down = True, False
        await book(machine).write(replace(dead, beats=dead.beats + 1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(renew_once)
        assert await book(machine).is_alive(dead) is None
    assert trio.current_time() >= 2 * dead.watch_s - 1


async def test_a_higher_epoch_fences_the_first_for_good(tmp_path: Path) -> None:
    world = World.of(2, 1)
    first, second = world.machine(tmp_path / "a"), world.machine(tmp_path / "b")
    ours, theirs = holder(first, "a"), holder(second, "b", epoch=1)
    await ours.beat()
    assert first.tenure.leased
    await theirs.beat()
    await ours.beat()
    assert "host-b" in first.tenure.fence.reason
    assert "host-b" in Fence(first.state / "offload").reason
    assert not first.tenure.leased
    await theirs.beat()
    assert not second.tenure.fenced
    first.tenure.fence.lower()
    assert not Fence(first.state / "offload").up


async def test_who_takes_over_waits_until_the_first_cannot_have_a_lease(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    world = World.of(2, 1)
    first, second = world.machine(tmp_path / "a"), world.machine(tmp_path / "b")
    await holder(first, "a").beat()  # and never looks again: it is cut off
    theirs = holder(second, "b", epoch=1)
    for _ in range(6):
        await theirs.beat()
        assert not (first.tenure.leased and second.tenure.leased)
        await trio.sleep(4)
    assert second.tenure.leased


async def test_a_copy_that_begins_while_the_other_lives_is_told_who_holds(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    world = World.of(2, 1)
    first, copy = world.machine(tmp_path / "a"), world.machine(tmp_path / "b")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(holder(first, "a").run)
        await trio.sleep(1)
        with trio.fail_after(3 * BEAT_S):
            await holder(copy, "b").run()  # ends: it is fenced
        assert "host-a holds this file system (/state/a" in copy.tenure.fence.reason
        assert first.tenure.leased
        nursery.cancel_scope.cancel()
    released = await book(first).read()
    assert released is not None
    assert (released.seat, released.released) == ("a", True), "a copy that never held releases nothing"


async def test_an_image_of_the_whole_machine_is_no_former_life_of_it(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Same machine id, same name, same path; but another boot. Both have the lock of their state directory."""
    world = World.of(2, 1)
    first, image = world.machine(tmp_path / "a"), world.machine(tmp_path / "b")
    ours = replace(hold(image, "a"), place="another boot")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(holder(first, "a").run)
        await trio.sleep(1)
        beginning = Holder(book(image), image.tenure, image.host, ours, lambda: 0)
        await beginning.beat()
        assert not image.tenure.leased
        with trio.fail_after(3 * BEAT_S):
            await beginning.run()  # ends: it is fenced
        assert first.tenure.leased
        nursery.cancel_scope.cancel()


async def test_after_a_reboot_a_hold_that_was_not_given_up_is_waited_for(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    world = World.of(2, 1)
    machine = world.machine(tmp_path / "a")
    before = hold(machine, "a")
    await book(machine).write(before)
    again = Holder(book(machine), machine.tenure, machine.host, replace(hold(machine, "a"), place="2"), lambda: 0)
    started_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(again.run)
        await until(lambda: machine.tenure.leased)
        nursery.cancel_scope.cancel()
    assert trio.current_time() - started_s >= before.watch_s


def courier_of(machine: Machine, shelf: PlainShelf) -> Courier:
    return Courier(shelf, machine.vault, machine.roots, machine.tenure, lambda: 0.0)


async def test_of_two_that_began_at_the_same_time_one_gives_way(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    world = World.of(2, 1)
    machines = [world.machine(tmp_path / name) for name in "ab"]
    async with trio.open_nursery() as nursery:
        for seat, machine in zip("ab", machines, strict=True):
            nursery.start_soon(holder(machine, seat).run)
            nursery.start_soon(courier_of(machine, PlainShelf(tmp_path / f"shelf-{seat}")).run)
        await until(lambda: any(machine.tenure.may_change for machine in machines))
        await until(lambda: any(machine.tenure.fenced for machine in machines))
        nursery.cancel_scope.cancel()
    assert sorted(machine.tenure.fenced for machine in machines) == [False, True]


async def test_a_copy_that_hides_the_hold_of_its_original_has_no_tenure_beside_it(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """No root says yet who writes. The original has been away for so long that the copy takes it for dead, and is back
    between its last look and its first hold: seed 238 of the simulator of several machines."""
    world = World.of(2, 1)
    original, other = world.machine(tmp_path / "a"), world.machine(tmp_path / "b")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(holder(original, "a").run)
        nursery.start_soon(courier_of(original, PlainShelf(tmp_path / "shelf-a")).run)
        await until(lambda: original.tenure.may_change)
        theirs = hold(other, "b")
        await book(other).write(theirs)
        copy = Holder(book(other), other.tenure, other.host, theirs, lambda: 0)
        nursery.start_soon(copy.run)
        nursery.start_soon(courier_of(other, PlainShelf(tmp_path / "shelf-b")).run)
        await until(lambda: other.tenure.may_change or other.tenure.fenced)
        assert original.tenure.may_change
        assert other.tenure.fenced
        nursery.cancel_scope.cancel()
    assert "another machine" in other.tenure.fence.reason


async def test_the_lease_ends_when_most_locations_are_silent_and_what_is_under_way_with_it(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    world = World.of(2, 1)
    machine = world.machine(tmp_path / "a")
    tenure, ended = machine.tenure, trio.Event()

    async def work() -> None:
        assert await tenure.granted(lambda: tenure.may_change)
        with tenure.work():
            await trio.sleep_forever()
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(holder(machine, "a").run)
        nursery.start_soon(work)
        assert await tenure.granted(lambda: tenure.leased)
        tenure.claim(tenure.period)
        assert tenure.may_change
        down(world)
        before_s = trio.current_time()
        await ended.wait()
        assert trio.current_time() - before_s < hold(machine, "x").watch_s  # before anybody takes it for dead
        assert not tenure.may_change
        down(world, down=False)
        assert await tenure.granted(lambda: tenure.leased)
        assert not tenure.may_change, "a new lease, and no root claimed in it"
        nursery.cancel_scope.cancel()


async def test_a_majority_is_one_of_the_locations_as_they_are_now(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Five locations of which three die; two of those are removed, one after the other."""
    world = World.of(2, 1, count=5)
    machine = world.machine(tmp_path / "a")
    names = list(world.stores)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(holder(machine, "a").run)
        assert await machine.tenure.granted(lambda: machine.tenure.leased)
        for name in names[:3]:
            world.stores[name].down = True
        while machine.tenure.leased:
            await machine.tenure.change()
        left = [node for name, node in machine.nodes.items() if name not in names[:2]]
        machine.nodes.replace(left)
        assert await machine.tenure.granted(lambda: machine.tenure.leased)
        new = LocationId("new")
        world.stores[new] = World.of(1, 0).stores[LocationId("trove-1")]
        fresh = next(node for node in world.machine(tmp_path / "c").nodes.values() if node.location == new)
        machine.nodes.replace([*left, fresh])
        await trio.sleep(2 * BEAT_S)
        assert machine.keys.hold_name() in world.objects(new)
        nursery.cancel_scope.cancel()


async def test_behind_the_fence_nothing_changes_at_the_locations(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    world = World.of(2, 1)
    machine = world.machine(tmp_path / "a")
    shelf = PlainShelf(tmp_path / "shelf")
    shelf.add(1, b"never sent" * 1000)
    machine.tenure.lose("somebody else")
    courier = courier_of(machine, shelf)
    with trio.move_on_after(120):
        await courier.run()
    assert courier.status().blocked == "somebody else"
    assert courier.status().queued == 1
    assert not any(world.objects(name) for name in world.stores)


async def test_without_a_lease_nothing_changes_at_the_locations_and_with_it_all_goes(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    world = World.of(2, 1)
    machine, other = world.machine(tmp_path / "a"), world.machine(tmp_path / "b")
    shelf = PlainShelf(tmp_path / "shelf")
    shelf.add(1, b"content" * 1000)
    shelf.add(2, b"journal", SegmentKind.JOURNAL)
    dead = hold(other, "dead")
    await book(other).write(dead)
    before = {name: set(world.objects(name)) for name in world.stores}
    courier = courier_of(machine, shelf)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(holder(machine, "a").run)
        nursery.start_soon(courier.run)
        await trio.sleep(dead.watch_s - 1.0)
        assert {name: set(world.objects(name)) for name in world.stores} == before
        await until(lambda: shelf.published)
        nursery.cancel_scope.cancel()


async def test_losing_a_root_puts_the_fence_up_and_ends_an_upload_in_the_middle(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    world = World.of(2, 1)
    machine, other = world.machine(tmp_path / "a"), world.machine(tmp_path / "b")
    shelf = PlainShelf(tmp_path / "shelf")
    shelf.add(1, b"journal", SegmentKind.JOURNAL)
    courier = courier_of(machine, shelf)
    up = trio.Event()
    machine.tenure.fence.tell(lambda _reason: up.set())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(courier.run)
        with trio.fail_after(120):
            await until(lambda: shelf.published)
            other.roots.take_over(await other.roots.newest())
            await other.roots.publish(point(5))
            held_up = world.stores[LocationId("trove-1")]
            held_up.hung = True
            shelf.add(2, b"content" * 1000)
            courier.hint()
            await until(lambda: courier.status().in_flight)
            with pytest.raises(QssError, match="another machine"):
                await machine.roots.publish(point(1))
            machine.tenure.lose("another machine has written")
            await up.wait()
            await until(lambda: not courier.status().in_flight)
        nursery.cancel_scope.cancel()
    assert SegmentId(2) not in shelf.receipts
    assert "another machine" in Fence(machine.state / "offload").reason


async def test_copies_of_a_state_directory_that_begin_together_have_one_winner(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Both were started while no location answered; both have a segment of one number, of other content."""
    world = World.of(2, 1)
    original = world.machine(tmp_path / "a")
    await original.roots.catch_up()
    await original.roots.publish(point(1))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    down(world)
    machines = [world.machine(tmp_path / name) for name in "ab"]
    shelves = [PlainShelf(tmp_path / f"shelf-{name}") for name in "ab"]
    async with trio.open_nursery() as nursery:
        for seat, machine, shelf in zip("ab", machines, shelves, strict=True):
            shelf.add(7, f"content of {seat}".encode() * 1000)
            shelf.add(8, f"journal of {seat}".encode(), SegmentKind.JOURNAL)
            courier = courier_of(machine, shelf)
            nursery.start_soon(holder(machine, seat).run)
            nursery.start_soon(courier.run)
        await trio.sleep(60)
        down(world, down=False)
        await trio.sleep(120)
        nursery.cancel_scope.cancel()
    fenced = [machine.tenure.fenced for machine in machines]
    assert sorted(fenced) == [False, True]
    winner = fenced.index(False)
    assert shelves[winner].published
    assert not shelves[1 - winner].published
    assert not shelves[1 - winner].receipts
    reader = world.machine(tmp_path / "reader")
    for segment in (7, 8):
        await reader.vault.fetch_segment(SegmentId(segment), tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == (await shelves[winner].path_of(SegmentId(segment))).read_bytes()
    newest = await reader.roots.newest()
    assert newest is not None
    assert SegmentId(8) in newest.point.journals


async def test_a_machine_that_was_cut_off_and_comes_back_overwrites_nothing_of_its_copy(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The original goes on writing without its locations; a copy of its state is started elsewhere, waits until the
    original counts as dead, and publishes; then the original is back."""
    world = World.of(2, 1)
    original = world.machine(tmp_path / "a")
    shelf, other_shelf = PlainShelf(tmp_path / "shelf-a"), PlainShelf(tmp_path / "shelf-b")
    shelf.add(1, b"journal", SegmentKind.JOURNAL)
    async with trio.open_nursery() as nursery:
        courier = courier_of(original, shelf)
        nursery.start_soon(holder(original, "a").run)
        nursery.start_soon(courier.run)
        await until(lambda: shelf.published)
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        nodes = list(original.nodes.values())
        stores = [node.store for node in nodes]
        for node in nodes:
            node.store = World.of(1, 0).stores[LocationId("trove-1")]
            node.store.down = True
        shelf.add(2, b"content of the original" * 1000)
        copy = world.machine(tmp_path / "b")
        other_shelf.add(2, b"content of the copy" * 1000)
        other_shelf.add(3, b"journal of the copy", SegmentKind.JOURNAL)
        nursery.start_soon(holder(copy, "b").run)
        nursery.start_soon(courier_of(copy, other_shelf).run)
        await until(lambda: other_shelf.published)
        for node, store in zip(nodes, stores, strict=True):
            node.store = store
        while not original.tenure.fenced:
            await original.tenure.change()
        await trio.sleep(60)
        assert not copy.tenure.fenced
        nursery.cancel_scope.cancel()
    assert SegmentId(2) not in shelf.receipts
    await world.machine(tmp_path / "reader").vault.fetch_segment(SegmentId(2), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"content of the copy" * 1000
