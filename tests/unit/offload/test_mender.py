"""The mender: shards back where they belong, or elsewhere after the grace; over restarts; verified by hash."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from qss.errors import CorruptData, Unreachable
from qss.ids import LocationId, SegmentId, ShardNo
from qss.offload.census import take_census
from qss.offload.courier import Courier
from qss.offload.damage import DamagedShard
from qss.offload.repair_book import RepairBook, RepairFacts, ScrubMark
from qss.offload.verifier import Verdict
from qss.segments import SealedSegment
from tests.harness.vault import Machine, PlainShelf, World, flip
from tests.harness.waiting import until

S1 = SegmentId(1)


def courier_of(machine: Machine, shelf: PlainShelf) -> Courier:
    return Courier(shelf, machine.vault, machine.roots, machine.tenure, random.Random(3).random)


@asynccontextmanager
async def running(courier: Courier) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(courier.run)
        yield
        nursery.cancel_scope.cancel()


async def stored(machine: Machine, shelf: PlainShelf, count: int = 1) -> None:
    for number in range(1, count + 1):
        sealed = shelf.add(number, random.Random(number).randbytes(30_000))
        await shelf.mark_offloaded(await machine.vault.store(sealed, await shelf.path_of(sealed.id)))
        shelf.evict(number)


def holders(machine: Machine, world: World, count: int) -> dict[LocationId, list[int]]:
    """Which of the segments 1 … count have a shard where."""
    keys, numbers = machine.keys, range(1, count + 1)
    return {
        name: [n for n in numbers if keys.shard_name(SegmentId(n), 0, name) in world.objects(name)]
        for name in world.stores
    }


async def whole(world: World, state: Path, segment: SegmentId) -> None:
    """By a machine that knows nothing but the key: k+m shards, each of them sound."""
    machine = world.machine(state)
    manifest = await machine.vault.manifest_of(segment)
    assert None not in manifest.placed
    looks = await machine.vault.verifier.look(manifest)
    assert [look.verdict for look in looks] == [Verdict.SOUND] * (manifest.k + manifest.m)
    assert len({look.location for look in looks}) == len(looks)


async def test_a_location_that_stays_away_is_replaced_after_the_grace_and_swept_when_it_returns(tmp_path: Path) -> None:
    world = World.of(2, 1, count=4, repair_grace_s=0.2)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    await stored(machine, shelf, 6)
    lost = max(world.stores, key=lambda name: len(world.objects(name)))
    held = len(world.objects(lost))
    world.stores[lost].down = True
    courier = courier_of(machine, shelf)
    async with running(courier):
        await until(lambda: courier.mender.facts.given_up == (lost,))
        await until(lambda: courier.mender.facts.repaired_segments == held and not courier.mender.queue)
        for number in range(1, 7):
            await whole(world, tmp_path / f"check-{number}", SegmentId(number))
            assert lost not in machine.vault.manifests.load(SegmentId(number)).placed
        assert all(receipt.complete for receipt in shelf.receipts.values())
        world.stores[lost].down = False
        await until(lambda: not world.objects(lost).keys() - {machine.keys.probe_name()})
        await until(lambda: not machine.vault.book.facts.sweep)
    segments = {machine.keys.shard_name(SegmentId(number), 0, lost) for number in range(1, 7)}
    assert not segments & world.objects(lost).keys()
    for number in range(1, 7):
        await whole(world, tmp_path / f"again-{number}", SegmentId(number))


async def test_within_the_grace_nothing_moves(tmp_path: Path) -> None:
    world = World.of(2, 1, count=4)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    await stored(machine, shelf, 3)
    before = holders(machine, world, 3)
    lost = LocationId("trove-1")
    world.stores[lost].down = True
    courier = courier_of(machine, shelf)
    async with running(courier):
        await until(lambda: lost in machine.vault.book.facts.down_since_ns)
        await courier.mender.round()
    assert holders(machine, world, 3) == before
    assert courier.mender.facts.given_up == ()


async def test_the_grace_goes_on_over_a_restart(tmp_path: Path) -> None:
    world = World.of(2, 1, count=4, repair_grace_s=3600.0)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    await stored(machine, shelf)
    lost = machine.vault.manifests.load(S1).placed[0]
    world.stores[lost].down = True
    courier = courier_of(machine, shelf)
    async with running(courier):
        await until(lambda: lost in machine.vault.book.facts.down_since_ns)
    machine.vault.book.facts.down_since_ns[lost] -= 3600 * 10**9  # an hour ago
    machine.vault.book.save()
    again = world.machine(tmp_path / "a")
    courier = courier_of(again, shelf)
    async with running(courier):
        await until(lambda: courier.mender.facts.repaired_segments == 1)
    await whole(world, tmp_path / "check", S1)


async def test_a_location_taken_from_the_configuration_is_given_up_at_once(tmp_path: Path) -> None:
    world = World.of(2, 1, count=5)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    await stored(machine, shelf)
    await courier_of(machine, shelf).mender.look()
    gone = machine.vault.manifests.load(S1).placed[1]
    del world.stores[gone]
    machine = world.machine(tmp_path / "a")
    courier = courier_of(machine, shelf)
    async with running(courier):
        await until(lambda: courier.mender.facts.repaired_segments == 1)
        await whole(world, tmp_path / "check", S1)
        await courier.mender.round()
    assert gone not in machine.vault.book.facts.known  # nothing names it any more
    assert courier.mender.facts.given_up == ()


async def test_without_a_spare_place_it_waits_and_costs_nothing(tmp_path: Path) -> None:
    world = World.of(2, 1, repair_grace_s=0.0)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    await stored(machine, shelf)
    world.stores[LocationId("trove-2")].down = True
    courier = courier_of(machine, shelf)
    async with running(courier):
        await until(lambda: S1 in courier.mender.queue)
        puts = world.stores[LocationId("trove-1")].calls["put"]
        await courier.mender.round()
        assert courier.mender.facts.least_spare == 0
        assert courier.mender.facts.queued == 1
        assert world.stores[LocationId("trove-1")].calls["put"] == puts
        world.stores[LocationId("trove-2")].down = False  # it comes back with what it held
        await until(lambda: not courier.mender.queue)
    await whole(world, tmp_path / "check", S1)


async def test_damage_that_was_found_is_repaired_after_a_restart(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    await stored(machine, shelf)
    manifest = machine.vault.manifests.load(S1)
    place = manifest.placed[2]
    name = machine.keys.shard_name(S1, 0, place)
    good = world.objects(place)[name]
    world.objects(place)[name] = good[:200] + bytes([good[200] ^ 1]) + good[201:]
    looks = await machine.vault.verifier.look(manifest)
    assert [look.verdict for look in looks] == [Verdict.SOUND, Verdict.SOUND, Verdict.BAD]
    await courier_of(machine, shelf).mender.look()  # writes it down
    again = world.machine(tmp_path / "a")
    assert again.vault.damage.open == (DamagedShard(S1, ShardNo(2), place),)
    courier = courier_of(again, shelf)
    async with running(courier):
        await until(lambda: courier.mender.facts.repaired_segments == 1)
    assert again.vault.damage.open == ()
    await whole(world, tmp_path / "check", S1)
    assert RepairBook(tmp_path / "a" / "offload" / "repair.json").facts.damaged == {}


async def test_it_is_not_repaired_while_another_shard_turns_out_bad(tmp_path: Path) -> None:
    """One block is known to be bad; the census of all shards finds a second, which no read had seen."""
    world = World.of(2, 2)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    await stored(machine, shelf)
    manifest = machine.vault.manifests.load(S1)
    for shard in (2, 3):
        place = manifest.placed[shard]
        objects = world.objects(place)
        name = machine.keys.shard_name(S1, 0, place)
        objects[name] = objects[name][:300] + b"\0" * 8 + objects[name][308:]
    machine.vault.damage.report(DamagedShard(S1, ShardNo(2), manifest.placed[2]), "as a read would")
    courier = courier_of(machine, shelf)
    await courier.mender.round()
    assert S1 in courier.mender.queue
    assert machine.vault.damage.open == (DamagedShard(S1, ShardNo(3), manifest.placed[3]),)
    courier.mender.hurry()
    await courier.mender.round()
    assert S1 not in courier.mender.queue
    await whole(world, tmp_path / "check", S1)


async def test_the_segment_closest_to_loss_is_repaired_first(tmp_path: Path) -> None:
    world = World.of(2, 2)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    await stored(machine, shelf, 3)
    for segment, shards in ((1, (0,)), (2, (0, 1)), (3, (3,))):
        placed = machine.vault.manifests.load(SegmentId(segment)).placed
        for shard in shards:
            del world.objects(placed[shard])[machine.keys.shard_name(SegmentId(segment), 0, placed[shard])]
            machine.vault.damage.report(DamagedShard(SegmentId(segment), ShardNo(shard), placed[shard]), "missing")
    order: list[int] = []
    courier = courier_of(machine, shelf)
    complete = machine.vault.complete

    async def noted(segment, lost=()):
        order.append(segment)
        return await complete(segment, lost)

    machine.vault.complete = noted
    await courier.mender.round()
    assert order == [2, 1, 3]
    assert len(courier.mender.queue) == 0


async def test_a_resumed_store_puts_only_what_is_missing(tmp_path: Path) -> None:
    """Shards that an interrupted upload has placed are not sent again."""
    world = World.of(4, 2)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    sealed = shelf.add(1, random.Random(1).randbytes(50_000))
    slow = [LocationId("trove-1"), LocationId("trove-2")]
    for name in slow:
        world.stores[name].hung = True
    with trio.move_on_after(0.3):
        await machine.vault.store(sealed, await shelf.path_of(S1))
    for each in world.stores.values():
        each.hung = False
        each.calls.clear()
    again = world.machine(tmp_path / "a")
    receipt = await again.vault.store(sealed, await shelf.path_of(S1))
    assert receipt.complete
    puts = {name: each.calls["put"] for name, each in world.stores.items()}
    assert puts == {name: int(name in slow) for name in world.stores}
    await whole(world, tmp_path / "check", S1)


async def test_damage_of_what_was_deleted_meanwhile_is_forgotten(tmp_path: Path) -> None:
    """Somebody was reading it, and found its shards gone. What waits for its upload keeps its marks."""
    world = World.of(4, 2)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    for segment in (1, 2):
        await machine.vault.store(shelf.add(segment, b"content"), await shelf.path_of(SegmentId(segment)))
    await machine.vault.delete(S1)
    for segment in (S1, SegmentId(2)):
        machine.vault.damage.report(DamagedShard(segment, ShardNo(0), LocationId("trove-1")), "no such object")
    await courier_of(machine, shelf).mender.look()
    assert machine.vault.damage.segments() == [SegmentId(2)]


async def stored_and_left_with_k(world: World, machine: Machine, shelf: PlainShelf) -> tuple[SealedSegment, Path]:
    """Segment 1 and where it is here; at the locations its last m shards are gone."""
    sealed = shelf.add(1, random.Random(1).randbytes(50_000))
    path = await shelf.path_of(S1)
    await machine.vault.store(sealed, path)
    for place in machine.vault.manifests.load(S1).placed[-world.options.m :]:
        del world.objects(place)[machine.keys.shard_name(S1, 0, place)]
    return sealed, path


async def test_what_can_no_longer_be_completed_is_stored_anew(tmp_path: Path) -> None:
    """k shards are left, one of them rotten, and the segment is still here: it does not wait for ever. Once is not
    enough: an answer may have been spoiled on its way, and what is whole must not be overwritten."""
    world = World.of(4, 2)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    sealed, path = await stored_and_left_with_k(world, machine, shelf)
    before = machine.vault.manifests.load(S1)
    flip(world, machine, 1, 0, 1000)
    with pytest.raises(Unreachable, match="waits for its locations"):
        await machine.vault.store(sealed, path)
    assert machine.vault.manifests.load(S1).seal == before.seal
    receipt = await machine.vault.store(sealed, path)
    assert receipt.complete
    assert machine.vault.manifests.load(S1).seal != before.seal
    await whole(world, tmp_path / "check", S1)


async def test_a_whole_shard_that_was_marked_as_damaged_is_not_sealed_over(tmp_path: Path, monkeypatch) -> None:
    """One spoiled answer marked it; k shards are left, this one among them, and they could not be read just now."""
    world = World.of(4, 2)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    sealed, path = await stored_and_left_with_k(world, machine, shelf)
    before = machine.vault.manifests.load(S1)
    machine.vault.damage.report(DamagedShard(S1, ShardNo(0), before.placed[0]), "spoiled on its way")

    async def times_out(_segment: SegmentId) -> None:
        raise Unreachable("no answer within 5 s")

    with monkeypatch.context() as patched:
        patched.setattr(machine.vault, "complete", times_out)
        with pytest.raises(Unreachable, match="waits for its locations"):
            await machine.vault.store(sealed, path)
    assert (await machine.vault.store(sealed, path)).complete
    assert machine.vault.manifests.load(S1).seal == before.seal


async def test_a_slow_location_slows_no_read_and_stops_no_write(tmp_path: Path, autojump_clock) -> None:
    world = World.of(4, 2, margin=0)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    slow = world.stores[LocationId("trove-3")]
    slow.faults.slow, slow.faults.slow_s = 1.0, 5.0
    started = trio.current_time()
    sealed = shelf.add(1, random.Random(1).randbytes(50_000))
    receipt = await machine.vault.store(sealed, await shelf.path_of(S1))
    assert receipt.missing <= 1
    assert trio.current_time() - started <= 11.0  # simulated seconds
    for number in range(5):
        started = trio.current_time()
        await machine.vault.fetch(S1, 0, tmp_path / f"out-{number}")
        assert trio.current_time() - started < 1.0  # hedged, and then not asked first any more


async def test_a_metered_location_is_read_only_when_the_others_do_not_suffice(tmp_path: Path, autojump_clock) -> None:
    world = World.of(4, 2)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    await stored(machine, shelf)
    metered, *others = machine.nodes.values()
    metered.metered = True
    for number in range(5):
        await machine.vault.fetch(S1, 0, tmp_path / f"out-{number}")
    assert metered.facts.bytes_down == 0
    for node in others[:2]:
        world.stores[node.location].down = True
    await machine.vault.fetch(S1, 0, tmp_path / "out")
    assert metered.facts.bytes_down > 0


# -- the book


def test_the_book_is_what_was_written(tmp_path: Path) -> None:
    book = RepairBook(tmp_path / "repair.json")
    book.facts = RepairFacts(
        {LocationId("a"): 7}, {DamagedShard(S1, ShardNo(2), LocationId("b")): "why"}, {LocationId("c")},
        {LocationId("a"), LocationId("b")}, ScrubMark(round=3, after=S1, started_ns=4, stopped=True, found=5),
    )  # fmt: skip
    book.save()
    assert RepairBook(tmp_path / "repair.json").facts == book.facts
    assert (tmp_path / "repair.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"version": 2}', b'{"version": 1}', b"\xff", b"null"])
def test_a_book_that_does_not_hold_is_begun_anew(tmp_path: Path, damage: bytes) -> None:
    with pytest.raises(CorruptData):
        RepairFacts.unpack(damage)
    (tmp_path / "repair.json").write_bytes(damage)
    assert RepairBook(tmp_path / "repair.json").facts == RepairFacts()


async def test_a_census_after_loss_shows_no_shard_twice(tmp_path: Path) -> None:
    world = World.of(2, 1, count=4, repair_grace_s=0.0)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    await stored(machine, shelf)
    lost = machine.vault.manifests.load(S1).placed[0]
    world.stores[lost].down = True
    courier = courier_of(machine, shelf)
    async with running(courier):
        await until(lambda: courier.mender.facts.repaired_segments == 1)
        world.stores[lost].down = False
        await until(lambda: not machine.vault.book.facts.sweep)
    census = await take_census(machine.nodes, machine.keys, S1)
    assert len(census.found) == 3
    assert lost not in census.found
