"""Publishing, finding, fencing and refusing roots."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest

from qss.errors import CorruptData, PreconditionFailed, QssError, Refused, Unreachable
from qss.ids import LocationId, SegmentId
from qss.offload.keys import MasterKey
from qss.offload.root_memory import RootMemory
from qss.offload.roots import HISTORY_KEPT
from qss.segments import RestorePoint
from tests.harness.vault import Machine, World


def point(upto: int) -> RestorePoint:
    return RestorePoint((), tuple(SegmentId(n) for n in range(1, upto + 1)), 1000 + upto, SegmentId(upto + 1))


async def published(machine: Machine, *uptos: int) -> None:
    await machine.roots.catch_up()
    for upto in uptos:
        await machine.roots.publish(point(upto))


def down(world: World, *numbers: int) -> None:
    for index, each in enumerate(world.stores.values(), 1):
        each.down = index in numbers


async def all_up_but(machine: Machine, *numbers: int) -> None:
    """These are known to be up, whatever the others are."""
    while not all(machine.nodes[LocationId(f"trove-{number}")].up for number in numbers):
        await machine.book.survey()


async def all_up(machine: Machine) -> None:
    while not all(node.up for node in machine.nodes.values()):
        await machine.book.survey()


async def test_a_published_root_is_read_by_a_machine_that_has_only_the_key(tmp_path: Path) -> None:
    world = World.of()
    machine = world.machine(tmp_path / "a")
    assert await machine.roots.catch_up() is None
    for upto in (1, 2, 3):
        root = await machine.roots.publish(point(upto))
    assert root.generation == 3
    other = world.machine(tmp_path / "b")
    down(world, 1, 2)
    newest = await other.roots.newest()
    assert newest == root
    seen = [each async for each in other.book.newest_first()]
    assert [each.generation for each in seen] == [3, 2, 1]
    assert [each.previous for each in seen[:2]] == [each.digest() for each in seen[1:]]
    assert seen[2].previous == bytes(32)


async def test_every_flipped_byte_of_a_root_is_refused(tmp_path: Path) -> None:
    world = World.of(1, 0)
    machine = world.machine(tmp_path / "a")
    await published(machine, 1)
    name = machine.keys.root_name(None)
    (home,) = world.stores
    box = world.objects(home)[name]
    for position in range(len(box)):
        with pytest.raises(CorruptData):
            machine.book.open(box[:position] + bytes([box[position] ^ 1]) + box[position + 1 :])
    with pytest.raises(CorruptData):
        machine.book.open(box[:-1])
    stranger = World(world.options, world.stores, MasterKey(bytes(32))).machine(tmp_path / "b")
    with pytest.raises(CorruptData):
        stranger.book.open(box)


async def test_a_root_is_not_taken_for_a_manifest_nor_another_generation(tmp_path: Path) -> None:
    world = World.of(1, 0)
    machine = world.machine(tmp_path / "a")
    await published(machine, 1, 2)
    (home,) = world.stores
    objects = world.objects(home)
    with pytest.raises(CorruptData):
        machine.vault.manifests.open(SegmentId(1), objects[machine.keys.root_name(None)])
    objects[machine.keys.root_name(3)] = objects[machine.keys.root_name(1)]
    assert await machine.book.read(3) == []


async def test_without_a_majority_nothing_is_published_and_the_same_root_goes_on(tmp_path: Path) -> None:
    world = World.of()
    machine = world.machine(tmp_path / "a")
    await published(machine, 1)
    down(world, 1, 2, 3)
    with pytest.raises(Unreachable, match="3 of 4"):
        await machine.roots.publish(point(2))
    assert machine.roots.known.generation == 1
    down(world)
    await all_up(machine)
    root = await machine.roots.publish(point(3))
    assert root.generation == 3  # 2 was at three locations already, so it was finished first
    assert [each.generation async for each in machine.book.newest_first()] == [3, 2, 1]


async def test_locations_that_missed_a_root_get_it_when_they_are_back(tmp_path: Path) -> None:
    world = World.of()
    machine = world.machine(tmp_path / "a")
    down(world, 5, 6)
    await published(machine, 1)
    assert machine.roots.behind == {LocationId("trove-5"), LocationId("trove-6")}
    await machine.roots.spread()
    assert machine.roots.behind
    down(world)
    await all_up(machine)
    await machine.roots.spread()
    assert not machine.roots.behind
    for home in world.stores:
        assert len(world.objects(home)) == 2


async def test_locations_that_missed_a_root_are_found_after_a_restart(tmp_path: Path) -> None:
    world = World.of()
    down(world, 6)
    await published(world.machine(tmp_path / "a"), 1)
    down(world)
    again = world.machine(tmp_path / "a")
    await again.roots.catch_up()
    assert again.roots.behind == {LocationId("trove-6")}
    await again.roots.spread()
    assert len(world.objects(LocationId("trove-6"))) == 2
    down(world, 1, 2, 3, 4, 5)
    assert [root.generation async for root in again.book.newest_first()] == [1]


async def test_an_answer_that_is_lost_is_looked_up(tmp_path: Path) -> None:
    world = World.of()
    machine = world.machine(tmp_path / "a")
    await machine.roots.catch_up()
    for each in world.stores.values():
        each.faults.lost_answer = 0.4
    for upto in range(1, 12):
        while True:
            try:
                await machine.roots.publish(point(upto))
                break
            except Unreachable:
                continue
    assert machine.roots.known.generation == 11


class Crash(BaseException):
    """The process is gone."""


def crashing(*_: object) -> None:
    raise Crash


async def test_a_crash_behind_the_commit_is_caught_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World.of()
    machine = world.machine(tmp_path / "a")
    await published(machine, 1)
    with monkeypatch.context() as patch:
        patch.setattr(RootMemory, "committed", crashing)
        with pytest.raises(Crash):
            await machine.roots.publish(point(2))
    again = world.machine(tmp_path / "a")
    newest = await again.roots.catch_up()
    assert newest is not None
    assert newest.generation == 2
    assert again.roots.last == newest
    await again.roots.publish(point(3))
    assert again.roots.known.generation == 3


async def test_a_crash_before_current_leaves_a_root_that_is_found(tmp_path: Path) -> None:
    world = World.of()
    machine = world.machine(tmp_path / "a")
    await published(machine, 1)
    current = machine.keys.root_name(None)
    before = {home: world.objects(home)[current] for home in world.stores}
    await machine.roots.publish(point(2))
    for home, box in before.items():
        world.objects(home)[current] = box
    newest = await world.machine(tmp_path / "b").roots.newest()
    assert newest is not None
    assert newest.generation == 2


async def test_what_an_earlier_life_left_at_a_minority_is_finished_first(tmp_path: Path) -> None:
    world = World.of()
    machine = world.machine(tmp_path / "a")
    await published(machine, 1)
    down(world, 3, 4, 5, 6)
    with pytest.raises(Unreachable):
        await machine.roots.publish(point(2))
    down(world, 1, 2)
    again = world.machine(tmp_path / "a")  # does not see generation 2
    assert (await again.roots.catch_up()).generation == 1
    down(world)
    await all_up(again)
    root = await again.roots.publish(point(3))
    assert root.generation == 3
    (left,) = await again.book.read(2)
    assert (left.point, root.previous) == (point(2), left.digest())


async def copied(world: World, base: Path) -> tuple[Machine, Machine]:
    """Two copies of one state directory, behind one root."""
    await published(world.machine(base / "a"), 1)
    shutil.copytree(base / "a", base / "b")
    copies = world.machine(base / "a"), world.machine(base / "b")
    for each in copies:
        await each.roots.catch_up()
    return copies


async def test_of_two_copies_that_publish_one_generation_one_loses_and_replaces_nothing(tmp_path: Path) -> None:
    world = World.of()
    one, other = await copied(world, tmp_path)
    root = await one.roots.publish(point(2))
    with pytest.raises(PreconditionFailed, match="another machine"):
        await other.roots.publish(point(3))
    assert await world.machine(tmp_path / "c").book.read(2) == [root]
    with pytest.raises(PreconditionFailed, match="a copy"):
        await world.machine(tmp_path / "b").roots.catch_up()


async def test_a_split_vote_waits_for_the_location_that_decides(tmp_path: Path) -> None:
    world = World.of(2, 1)
    one, other = await copied(world, tmp_path)
    down(world, 2, 3)
    with pytest.raises(Unreachable):
        await one.roots.publish(point(2))
    down(world, 1, 3)
    await all_up_but(other, 2)
    with pytest.raises(Unreachable):
        await other.roots.publish(point(3))
    down(world, 3)
    await all_up_but(one, 2)
    with pytest.raises(Unreachable, match="at the same time"):
        await one.roots.publish(point(2))
    down(world)
    await all_up(one)
    root = await one.roots.publish(point(2))
    await all_up(other)
    with pytest.raises(PreconditionFailed, match="another machine"):
        await other.roots.publish(point(3))
    newest = await world.machine(tmp_path / "c").roots.newest()
    assert newest == root
    await one.roots.spread()
    assert await world.machine(tmp_path / "c").book.read(2) == [root]


async def test_a_vote_split_evenly_is_decided_alike_by_both(tmp_path: Path) -> None:
    world = World.of(3, 1)
    copies = await copied(world, tmp_path)
    for each, up in zip(copies, ((1, 2), (3, 4)), strict=True):
        down(world, *({1, 2, 3, 4} - set(up)))
        await all_up_but(each, *up)
        with pytest.raises(Unreachable):
            await each.roots.publish(point(2 + up[0]))
    down(world)
    outcomes: list[str] = []
    for _ in range(3):
        for each in copies:
            await all_up(each)
            try:
                await each.roots.publish(point(9))
                outcomes.append(str(each.state))
            except Unreachable:
                continue
            except PreconditionFailed:
                outcomes.append("lost")
    assert len(set(outcomes)) == 2
    assert "lost" in outcomes


async def test_of_two_roots_of_one_generation_that_of_the_majority_is_found(tmp_path: Path) -> None:
    """Whatever their digests: also when the loser's is at the first locations that answer, and no "current" is left."""
    for seed in range(4):
        world, base = World.of(2, 1), tmp_path / str(seed)
        one, other = await copied(world, base)
        down(world, 2, 3)
        with pytest.raises(Unreachable):
            await other.roots.publish(point(3))
        down(world)
        await all_up(one)
        root = await one.roots.publish(point(2))
        for location in world.stores:
            del world.objects(location)[one.keys.root_name(None)]
        found = [each async for each in world.machine(base / "c").book.newest_first()]
        assert found[0] == root


@pytest.mark.parametrize("committed_by", ["current", "majority", "chain"])
async def test_a_claim_of_a_higher_epoch_that_has_lost_hides_nothing(tmp_path: Path, committed_by: str) -> None:
    """A recovery claimed a root that the first machine was faster with. Seed 209 of the simulator of several machines:
    the next recovery went on from what the claim said, which was older, and the first machine thought it had lost."""
    world = World.of(2, 1)
    first, second = world.machine(tmp_path / "a"), world.machine(tmp_path / "b")
    await published(first, 1)
    second.roots.take_over(await second.roots.newest())
    down(world, 3)
    root = await first.roots.publish(point(2))
    down(world)
    await all_up(second)
    with pytest.raises(PreconditionFailed):
        await second.roots.publish(point(1))
    names = [LocationId(f"trove-{number}") for number in (1, 2, 3)]
    if committed_by == "current":
        del world.objects(names[0])[first.keys.root_name(2)]
    elif committed_by == "majority":
        for name in names:
            world.objects(name).pop(first.keys.root_name(None), None)
    else:
        await first.roots.publish(point(3))
        del world.objects(names[0])[first.keys.root_name(2)]
    reader = world.machine(tmp_path / "c")
    found = [each async for each in reader.book.newest_first() if each.generation == 2]
    assert [each.epoch for each in found] == [0, 1]
    assert found[0] == root
    newest = await world.machine(tmp_path / "a").roots.catch_up()
    assert newest is not None
    assert newest.epoch == 0, "it has not lost"


async def test_a_root_is_published_when_most_locations_show_it_as_current(tmp_path: Path) -> None:
    """Else a reader with a majority might see nothing but a claim that has lost."""
    world = World.of(2, 1)
    machine = world.machine(tmp_path / "a")
    await published(machine, 1)
    put_current = machine.book.put_current

    async def put_at_one(box: bytes) -> dict[LocationId, QssError | None]:
        down(world, 2, 3)
        return await put_current(box)

    machine.book.put_current = put_at_one
    with pytest.raises(Unreachable, match="1 of 2 locations"):
        await machine.roots.publish(point(2))
    assert machine.roots.known.generation == 1
    machine.book.put_current = put_current
    down(world)
    await all_up(machine)
    assert (await machine.roots.publish(point(2))).generation == 2
    assert machine.roots.known.generation == 2


async def test_a_new_root_is_none_that_was_on_its_way(tmp_path: Path) -> None:
    world = World.of()
    machine = world.machine(tmp_path / "a")
    await published(machine, 1)
    down(world, 3, 4, 5, 6)
    with pytest.raises(Unreachable):
        await machine.roots.publish(point(2))
    down(world)
    await all_up(machine)
    assert (await machine.roots.publish(point(2), anew=True)).generation == 3


async def test_two_machines_cannot_both_write(tmp_path: Path) -> None:
    world = World.of()
    first = world.machine(tmp_path / "a")
    await published(first, 1)
    second = world.machine(tmp_path / "b")
    with pytest.raises(PreconditionFailed, match="another machine"):
        await second.roots.catch_up()
    newest = await second.roots.newest()
    second.roots.take_over(newest)
    await second.roots.catch_up()
    taken = await second.roots.publish(point(2))
    assert (taken.epoch, taken.generation) == (1, 2)
    with pytest.raises(PreconditionFailed, match="another machine"):
        await first.roots.publish(point(3))
    with pytest.raises(PreconditionFailed, match="another machine"):
        await world.machine(tmp_path / "a").roots.catch_up()
    again = world.machine(tmp_path / "b")
    assert (await again.roots.catch_up()).epoch == 1


async def test_taking_over_survives_a_crash_before_the_first_publication(tmp_path: Path) -> None:
    world = World.of()
    await published(world.machine(tmp_path / "a"), 1)
    second = world.machine(tmp_path / "b")
    second.roots.take_over(await second.roots.newest())
    again = world.machine(tmp_path / "b")
    assert (await again.roots.catch_up()).generation == 1
    assert (await again.roots.publish(point(2))).epoch == 1


async def test_numbers_of_segments_never_go_back_behind_a_recovery(tmp_path: Path) -> None:
    """Who recovers next begins behind all that the machine in between may have sent, published or not."""
    world = World.of()
    await published(world.machine(tmp_path / "a"), 1)
    second = world.machine(tmp_path / "b")
    second.roots.take_over(await second.roots.newest(), 1000)
    second = world.machine(tmp_path / "b")
    await second.roots.catch_up()
    taken = await second.roots.publish(second.roots.raised(point(1)))
    assert taken.point.next_segment == 1000
    third = world.machine(tmp_path / "c")
    third.roots.take_over(await third.roots.newest())
    await third.roots.catch_up()
    assert third.roots.raised(point(2)).next_segment == 1000
    assert third.roots.raised(point(2000)).next_segment == 2001


async def test_an_older_state_at_the_locations_is_refused(tmp_path: Path) -> None:
    world = World.of()
    machine = world.machine(tmp_path / "a")
    await published(machine, 1)
    old = {home: copy.copy(world.objects(home)) for home in world.stores}
    await machine.roots.publish(point(2))
    for home, objects in old.items():
        world.stores[home].store.objects = objects
    with pytest.raises(Refused, match="set back"):
        await world.machine(tmp_path / "a").roots.catch_up()
    for home in world.stores:
        world.objects(home).clear()
    with pytest.raises(Refused, match="generation 0"):
        await world.machine(tmp_path / "a").roots.catch_up()


async def test_history_is_bounded(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine = world.machine(tmp_path / "a")
    await published(machine, *range(1, HISTORY_KEPT + 6))
    for home in world.stores:
        assert len(world.objects(home)) == HISTORY_KEPT + 1
    assert len([root async for root in machine.book.newest_first()]) == HISTORY_KEPT


async def test_local_memory_is_private_and_checked(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine = world.machine(tmp_path / "a")
    await published(machine, 1)
    path = tmp_path / "a/offload/root.json"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Refused, match="belong together"):
        World(world.options, world.stores, MasterKey(bytes(32))).machine(tmp_path / "a")
    fields = json.loads(path.read_text())
    del fields["writer"]
    path.write_text(json.dumps(fields))
    with pytest.raises(CorruptData):
        world.machine(tmp_path / "a")


async def test_a_hung_location_does_not_hold_up_a_publication(tmp_path: Path, autojump_clock) -> None:
    world = World.of()
    machine = world.machine(tmp_path / "a")
    await machine.roots.catch_up()
    world.stores[LocationId("trove-2")].hung = True
    await machine.roots.publish(point(1))
    assert machine.roots.behind == {LocationId("trove-2")}


async def test_old_roots_go_from_a_location_that_was_down_when_their_time_was_over(tmp_path: Path) -> None:
    world = World.of()
    machine = world.machine(tmp_path / "a")
    last = HISTORY_KEPT + 9
    down(world)
    await published(machine, *range(1, HISTORY_KEPT + 2))
    down(world, 1)
    for upto in range(HISTORY_KEPT + 2, last + 1):
        await machine.roots.publish(point(upto))
    down(world)
    await all_up(machine)
    again = world.machine(tmp_path / "a")  # nothing in memory knows what was missed
    await again.roots.catch_up()
    await again.roots.spread()
    expired = [machine.keys.root_name(generation) for generation in range(1, last - HISTORY_KEPT + 1)]
    for location in world.stores:
        assert not set(expired) & set(world.objects(location)), location


async def test_a_deletion_whose_request_was_lost_is_made_good(tmp_path: Path) -> None:
    world = World.of()
    machine = world.machine(tmp_path / "a")
    await published(machine, *range(1, HISTORY_KEPT + 1))
    store = world.stores[LocationId("trove-3")]
    delete = store.delete

    async def lost(key: str) -> None:
        raise Unreachable("lost")

    store.delete = lost
    await machine.roots.publish(point(HISTORY_KEPT + 1))
    store.delete = delete
    name = machine.keys.root_name(1)
    assert name in world.objects(LocationId("trove-3"))
    await all_up(machine)
    await machine.roots.spread()
    assert name not in world.objects(LocationId("trove-3"))
