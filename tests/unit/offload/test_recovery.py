"""The machine has burnt."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from qss.errors import Refused, TooFewShards, Unreachable, WrongKey
from qss.ids import LocationId, SegmentId
from qss.offload.courier import Courier
from qss.offload.keys import MasterKey
from qss.offload.presence import every_root
from qss.offload.recovery import Recovery
from qss.offload.roots import HISTORY_KEPT
from qss.segments import RestorePoint, SegmentKind
from tests.harness.vault import Machine, PlainShelf, World


async def filled(world: World, tmp_path: Path, rounds: int = 2) -> tuple[Machine, PlainShelf]:
    machine, shelf = world.machine(tmp_path / "burnt"), PlainShelf(tmp_path / "shelf")
    courier = Courier(shelf, machine.vault, machine.roots, machine.tenure, random.Random(5).random)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(courier.run)
        for number in range(rounds):
            shelf.add(2 * number + 1, random.Random(number).randbytes(50_000))
            shelf.add(2 * number + 2, f"journal {number}".encode() * 100, SegmentKind.JOURNAL)
            courier.hint()
            with trio.fail_after(20):
                while len(shelf.published) <= number:  # noqa: ASYNC110 - the shelf has no event
                    await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    return machine, shelf


class FakeCache:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.point: RestorePoint | None = None
        self.journals: list[bytes] = []
        self.adopted = []

    def path_of(self, segment: SegmentId, kind: SegmentKind) -> Path:
        self.directory.mkdir(exist_ok=True)
        return self.directory / f"{segment:016x}.log"

    async def rebuild(self, point: RestorePoint, journals: list[Path]):
        self.point = point
        self.journals = [path.read_bytes() for path in journals]
        return [SegmentId(n) for n in range(1, point.next_segment)]

    async def adopt(self, found) -> None:
        self.adopted = list(found)


async def test_end_to_end_from_the_key_and_any_k_locations(tmp_path: Path) -> None:
    world = World.of(4, 2)
    _, shelf = await filled(world, tmp_path)
    for name in ("trove-2", "trove-5"):
        world.stores[LocationId(name)].down = True
    machine, cache = world.machine(tmp_path / "new"), FakeCache(tmp_path / "journal")
    progress = []
    recovery = Recovery(machine.vault, machine.book, lambda *facts: progress.append(facts))
    report = await recovery.run(cache.path_of, cache.rebuild, cache.adopt)
    assert report.root.generation == 3
    assert report.newest == report.root
    assert not report.skipped
    assert report.majority
    assert (report.answered, report.locations) == (4, 6)
    assert cache.point == shelf.published[-1]
    assert cache.journals == [b"journal 0" * 100, b"journal 1" * 100]
    assert [sealed for sealed, _ in cache.adopted] == list(shelf.segments.values())
    assert report.incomplete == tuple(shelf.segments)
    assert not report.lost
    assert progress[-1] == ("segments", 4, 4)
    for sealed, receipt in cache.adopted:
        assert receipt.missing == 2
        await machine.vault.fetch(sealed.id, 0, tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == (await shelf.path_of(sealed.id)).read_bytes()
    # the new machine goes on writing; the old one, if it is alive, has lost
    machine.roots.take_over(report.newest)
    assert (await machine.roots.catch_up()).generation == 3


async def test_a_root_whose_journals_are_lost_gives_way_to_the_one_before(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = await filled(world, tmp_path)
    newest_journal = SegmentId(4)
    for name in list(world.stores)[:2]:
        del world.objects(name)[machine.keys.shard_name(newest_journal, 0, name)]
    fresh, cache = world.machine(tmp_path / "new"), FakeCache(tmp_path / "journal")
    report = await Recovery(fresh.vault, fresh.book).run(cache.path_of, cache.rebuild, cache.adopt)
    assert report.root.generation == 2
    assert report.newest.generation == 3
    assert cache.point == shelf.published[0]
    (skipped,) = report.skipped
    assert skipped.generation == 3
    assert "0000000000000004" in skipped.why
    fresh.roots.take_over(report.newest)
    assert await fresh.roots.catch_up() is not None
    assert (await fresh.roots.publish(report.root.point)).generation == 4


async def test_segments_below_k_are_named(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, _ = await filled(world, tmp_path)
    for name in list(world.stores)[:2]:
        del world.objects(name)[machine.keys.shard_name(SegmentId(1), 0, name)]
    fresh, cache = world.machine(tmp_path / "new"), FakeCache(tmp_path / "journal")
    report = await Recovery(fresh.vault, fresh.book).run(cache.path_of, cache.rebuild, cache.adopt)
    ((segment, why),) = report.lost
    assert segment == 1
    assert "1 shards found" in why
    assert len(report.found) == 3


async def test_a_wrong_key_is_one_sentence(tmp_path: Path) -> None:
    world = World.of(2, 1)
    await filled(world, tmp_path, rounds=1)
    stranger = World(world.options, world.stores, MasterKey(bytes(32))).machine(tmp_path / "new")
    cache = FakeCache(tmp_path / "journal")
    recovery = Recovery(stranger.vault, stranger.book)
    with pytest.raises(WrongKey, match="no location holds a root that this key opens"):
        await recovery.run(cache.path_of, cache.rebuild, cache.adopt)
    with pytest.raises(WrongKey):
        await recovery.find_root()
    assert cache.point is None


async def test_nothing_published_is_not_taken_for_a_wrong_key(tmp_path: Path) -> None:
    world = World.of(2, 1)
    fresh, cache = world.machine(tmp_path / "new"), FakeCache(tmp_path / "journal")
    recovery = Recovery(fresh.vault, fresh.book)
    with pytest.raises(WrongKey, match="or nothing of it was ever published"):
        await recovery.find_root()
    for name in list(world.stores)[:2]:
        world.stores[name].down = True
    few = "of 3 locations 1 answer, without a root that this key opens"
    with pytest.raises(Unreachable, match=few):
        await recovery.find_root()
    with pytest.raises(Unreachable, match=few):
        await recovery.run(cache.path_of, cache.rebuild, cache.adopt)


async def test_no_location_or_too_few(tmp_path: Path) -> None:
    world = World.of(2, 1)
    await filled(world, tmp_path, rounds=1)
    fresh, cache = world.machine(tmp_path / "new"), FakeCache(tmp_path / "journal")
    recovery = Recovery(fresh.vault, fresh.book)
    names = list(world.stores)
    for name in names[:2]:
        world.stores[name].down = True
    assert (await recovery.find_root()).generation == 2
    with pytest.raises(TooFewShards, match="no root can be restored"):
        await recovery.run(cache.path_of, cache.rebuild, cache.adopt)
    world.stores[names[2]].down = True
    with pytest.raises(Unreachable):
        await recovery.find_root()


async def test_census_and_whole_segments_by_themselves(tmp_path: Path) -> None:
    world = World.of(2, 1)
    _, shelf = await filled(world, tmp_path, rounds=1)
    fresh = world.machine(tmp_path / "new")
    recovery = Recovery(fresh.vault, fresh.book)
    assert await recovery.census(SegmentId(1)) == shelf.receipts[SegmentId(1)]
    await recovery.fetch_segment(SegmentId(2), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"journal 0" * 100
    with pytest.raises(TooFewShards):
        await recovery.census(SegmentId(99))


async def test_the_newest_root_that_is_not_younger(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = await filled(world, tmp_path, rounds=4)
    fresh, cache = world.machine(tmp_path / "new"), FakeCache(tmp_path / "journal")
    recovery = Recovery(fresh.vault, fresh.book)
    assert [root.generation for root in await every_root(fresh.nodes, fresh.keys, fresh.book)] == [5, 4, 3, 2, 1]
    cuts = [point.cut_ns for point in shelf.published]
    for at_ns, generation in ((cuts[1], 3), (cuts[2] - 1, 3), (cuts[3] + 10**18, 5)):
        chosen = await recovery.choose(cache.path_of, at_ns)
        assert (chosen.root.generation, chosen.newest.generation) == (generation, 5)
        assert [path.name for path in chosen.paths] == [f"{n:016x}.log" for n in chosen.root.point.journals]
    with pytest.raises(Refused, match="no root is that old"):
        await recovery.choose(cache.path_of, cuts[0] - 1)
    for name in list(world.stores)[:2]:  # the journal that roots 4 and 5 need
        del world.objects(name)[machine.keys.shard_name(SegmentId(6), 0, name)]
    chosen = await recovery.choose(cache.path_of, cuts[3])
    assert (chosen.root.generation, chosen.newest.generation) == (3, 5)
    assert [each.generation for each in chosen.skipped] == [5, 4]


async def test_the_first_root_is_no_substitute_for_one_whose_logs_are_lost(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = await filled(world, tmp_path, rounds=1)
    fresh, cache = world.machine(tmp_path / "new"), FakeCache(tmp_path / "journal")
    recovery = Recovery(fresh.vault, fresh.book)
    first, second = sorted(await every_root(fresh.nodes, fresh.keys, fresh.book), key=lambda root: root.generation)
    assert (first.point.logs, second.point) == ({}, shelf.published[0])
    for name in list(world.stores)[:2]:
        del world.objects(name)[machine.keys.shard_name(SegmentId(2), 0, name)]
    for at_ns in (None, first.point.cut_ns + 1):
        with pytest.raises(TooFewShards, match="no root can be restored"):
            await recovery.choose(cache.path_of, at_ns)


async def test_every_root_there_is(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine = world.machine(tmp_path)
    assert await every_root(machine.nodes, machine.keys, machine.book) == []
    await machine.roots.catch_up()
    for number in range(1, 41):
        await machine.roots.publish(RestorePoint((), (SegmentId(number),), number, SegmentId(number + 1)))
    for store in world.stores.values():
        store.down = True
    with pytest.raises(Unreachable):
        await every_root(machine.nodes, machine.keys, machine.book)
    world.stores[LocationId("trove-2")].down = False
    fresh = world.machine(tmp_path / "new")
    found = await every_root(fresh.nodes, fresh.keys, fresh.book)
    assert [root.generation for root in found] == list(range(40, 40 - HISTORY_KEPT, -1))


async def test_what_is_missing_is_found_by_listing(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, _ = await filled(world, tmp_path, rounds=3)
    names = list(world.stores)
    for segment, gone in ((1, 1), (3, 2), (5, 3)):
        for name in names[:gone]:
            del world.objects(name)[machine.keys.shard_name(SegmentId(segment), 0, name)]
    fresh = world.machine(tmp_path / "new")
    recovery = Recovery(fresh.vault, fresh.book)
    wanted = {SegmentId(number): 2 for number in range(1, 7)}
    lost = await recovery.missing(wanted)
    assert [segment for segment, _ in lost] == [3, 5]
    assert "1 shards found" in lost[0][1]
    world.stores[names[2]].down = True  # one shard of 1 is gone, one is silent
    silent = await Recovery(world.machine(tmp_path / "other").vault, fresh.book).missing(wanted)
    assert [segment for segment, _ in silent] == [1, 3, 5]
    assert f"no answer: {names[2]}" in silent[0][1]
    assert await recovery.missing({}) == []
