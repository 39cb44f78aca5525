"""Shards go where they belong: drained locations become empty, those that are gone are made up for, and every crash in
between is taken up where it was."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from qss.ids import LocationId, SegmentId
from qss.offload.census import take_census
from qss.offload.courier import Courier
from qss.offload.mover import AGAIN_S, Mover
from qss.offload.nodes import Node
from qss.offload.options import LocationOptions
from tests.harness.faulty_store import FaultyStore
from tests.harness.memory_store import MemoryStore
from tests.harness.vault import Machine, PlainShelf, World

DATA = bytes(range(256)) * 20_000


async def stored(tmp_path: Path, count: int = 7, segments: int = 4, **options) -> tuple[Machine, PlainShelf]:
    machine = World.of(2, 2, count, **options).machine(tmp_path / "a")
    shelf = PlainShelf(tmp_path / "shelf")
    for number in range(1, segments + 1):
        sealed = shelf.add(number, DATA + bytes([number]))
        await shelf.mark_offloaded(await machine.vault.store(sealed, shelf._path(sealed.id)))
    return machine, shelf


def mover_of(machine: Machine, shelf: PlainShelf) -> Mover:
    return Mover(shelf, machine.vault, machine.tenure, lambda _segment: nullcontext(True))


def busiest(shelf: PlainShelf) -> LocationId:
    homes = [home for receipt in shelf.receipts.values() for home in receipt.placed]
    return max(set(homes), key=homes.count)


async def settle(mover: Mover) -> None:
    """All that is due, moved."""
    for _ in range(10):
        if await mover.round() > 1:
            return
    raise AssertionError(f"it does not come to an end: {mover.facts}")


async def check_whole(machine: Machine, shelf: PlainShelf, tmp_path: Path) -> None:
    """By looking at the locations, not at what anybody remembers: each segment whole, each shard once, all readable."""
    for segment, sealed in shelf.segments.items():
        census = await take_census(machine.nodes, machine.keys, segment)
        where = census.of_seal(shelf.receipts[segment].seal)
        assert sorted(where) == list(range(4))
        assert len(census.found) == 4
        assert shelf.receipts[segment].complete
        assert [where[number] for number in sorted(where)] == list(shelf.receipts[segment].placed)
        into = tmp_path / f"back-{segment}"
        machine.vault.manifests.forget(segment)
        await machine.vault.fetch_segment(segment, into)
        assert into.read_bytes() == shelf._path(segment).read_bytes()
        assert sealed.length == into.stat().st_size


def shard_objects(machine: Machine, location: LocationId, shelf: PlainShelf) -> set[SegmentId]:
    names = {machine.keys.shard_name(segment, 0, location): segment for segment in shelf.segments}
    return {names[key] for key in machine.world.objects(location) if key in names}


async def test_a_drained_location_becomes_empty_and_is_read_once(tmp_path: Path) -> None:
    machine, shelf = await stored(tmp_path)
    leaving = busiest(shelf)
    machine.nodes[leaving].draining = True
    held = len(shard_objects(machine, leaving, shelf))
    before = {name: machine.nodes[name].facts.bytes_down for name in machine.nodes}
    size = machine.vault.manifests.load(SegmentId(1)).stripes[0].block
    mover = mover_of(machine, shelf)
    await settle(mover)
    assert shard_objects(machine, leaving, shelf) == set()
    assert mover.facts.moved_shards == held
    assert mover.facts.left[leaving].shards == 0
    got = sum(machine.nodes[name].facts.bytes_down - before[name] for name in machine.nodes)
    # Its own shards, and what is read back of each at its new place: far from k times.
    assert machine.nodes[leaving].facts.bytes_down - before[leaving] < held * (size * 2 + 10_000)
    assert got < 2.5 * held * size * 2
    await check_whole(machine, shelf, tmp_path)


async def test_a_metered_location_is_drained_from_the_others_and_read_when_they_do_not_do(tmp_path: Path) -> None:
    machine, shelf = await stored(tmp_path, attempts=1)
    leaving = busiest(shelf)
    machine.nodes[leaving].draining = machine.nodes[leaving].metered = True
    manifest = machine.vault.manifests.load(SegmentId(1))
    size = manifest.stripes[0].block
    before = machine.nodes[leaving].facts.bytes_down
    mover = mover_of(machine, shelf)
    await settle(mover)
    assert shard_objects(machine, leaving, shelf) == set()
    assert machine.nodes[leaving].facts.bytes_down - before < size, "it was read"
    await check_whole(machine, shelf, tmp_path)


async def test_nothing_new_goes_to_a_draining_location(tmp_path: Path) -> None:
    machine, shelf = await stored(tmp_path, segments=0)
    leaving = LocationId("trove-3")
    machine.nodes[leaving].draining = True
    for number in range(1, 20):
        sealed = shelf.add(number, b"x" * 1000)
        receipt = await machine.vault.store(sealed, shelf._path(sealed.id))
        assert leaving not in receipt.placed
        assert receipt.complete


async def test_a_drained_location_that_is_down_is_rebuilt_from_the_others(tmp_path: Path) -> None:
    machine, shelf = await stored(tmp_path, attempts=1)
    leaving = busiest(shelf)
    machine.world.stores[leaving].down = True
    machine.nodes[leaving].draining = True
    mover = mover_of(machine, shelf)
    for _ in range(5):
        await mover.round()
        if not mover.facts.left[leaving].shards:
            break
    assert all(leaving not in receipt.placed for receipt in shelf.receipts.values())
    assert all(receipt.complete for receipt in shelf.receipts.values())


@pytest.mark.parametrize("step", range(12))
async def test_a_crash_anywhere_is_taken_up(tmp_path: Path, step: int) -> None:
    """Killed at its n-th request: the next mover finishes, and no shard is left over or lost."""
    machine, shelf = await stored(tmp_path, segments=2)
    leaving = busiest(shelf)
    machine.nodes[leaving].draining = True

    class Killed(BaseException):
        pass

    left = step

    def killing(verb):
        async def call(*arguments, **named):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return await verb(*arguments, **named)

        return call

    stores = [store.store for store in machine.world.stores.values()]
    real = {store: (store.put, store.get, store.delete) for store in stores}
    for store in stores:
        store.put, store.get, store.delete = map(killing, real[store])
    try:
        await settle(mover_of(machine, shelf))
    except* Killed:
        pass
    for store in stores:
        store.put, store.get, store.delete = real[store]
    after = machine.world.machine(tmp_path / "a")
    after.nodes[leaving].draining = True
    await settle(mover_of(after, shelf))
    assert shard_objects(after, leaving, shelf) == set()
    await check_whole(after, shelf, tmp_path)


async def test_shards_at_a_location_that_is_gone_are_made_up_for(tmp_path: Path) -> None:
    machine, shelf = await stored(tmp_path)
    gone = busiest(shelf)
    held = len(shard_objects(machine, gone, shelf))
    mover = mover_of(machine, shelf)
    loss = await mover.holdings(gone)
    assert (loss.shards, loss.thinner, loss.lost) == (held, held, ())
    machine.nodes.replace([node for name, node in machine.nodes.items() if name != gone])
    courier = Courier(shelf, machine.vault, machine.roots, machine.tenure, random.Random(3).random)  # never saw it
    mover.rebuild = courier.mender.give_up
    await mover.round()
    assert mover.facts.left[gone].shards == held
    assert courier.mender.facts.given_up == ()
    await courier.mender.round()
    assert await mover.round() == float("inf")
    assert gone not in mover.facts.left
    assert mover.facts.moved_shards == 0
    assert courier.mender.facts.repaired_segments == held
    await check_whole(machine, shelf, tmp_path)


async def test_what_cannot_be_rebuilt_is_said_and_the_dead_are_not(tmp_path: Path) -> None:
    machine, shelf = await stored(tmp_path, count=4, segments=2)
    first, *_ = shelf.receipts[SegmentId(1)].placed
    mover, said = mover_of(machine, shelf), []
    mover.rebuild = lambda gone: said.append(set(gone)) or "there is no place for them"
    machine.nodes.replace([node for name, node in machine.nodes.items() if name != first])
    assert await mover.round() == AGAIN_S
    assert said == [{first}]
    assert (mover.facts.left[first].shards, mover.facts.left[first].stuck) == (2, "there is no place for them")
    shelf.dead = set(shelf.segments)
    assert await mover.round() == float("inf")
    assert first not in mover.facts.left


async def test_holdings_count_what_would_be_lost(tmp_path: Path) -> None:
    machine, shelf = await stored(tmp_path, count=4, segments=3)
    names = list(machine.nodes)
    machine.nodes.replace([machine.nodes[name] for name in names[:2]])  # two are gone: nothing to spare
    loss = await mover_of(machine, shelf).holdings(names[0])
    assert loss.lost == (1, 2, 3)


async def test_balance_moves_what_a_new_location_should_hold_and_no_more(tmp_path: Path) -> None:
    machine, shelf = await stored(tmp_path, count=4, segments=12)
    mover = mover_of(machine, shelf)
    await settle(mover)
    assert mover.facts.moved_shards == 0
    fresh = LocationId("trove-new")
    machine.world.stores[fresh] = FaultyStore(MemoryStore(), 99)
    options = LocationOptions(fresh, "http://127.0.0.1:1", "bucket")
    node = Node(options, machine.world.stores[fresh], machine.world.options, random.Random(1).random)
    machine.nodes.replace([*machine.nodes.values(), node])
    await settle(mover)
    assert mover.facts.moved_shards == 0, "adding moves nothing by itself"
    mover.rebalance()
    await settle(mover)
    there = shard_objects(machine, fresh, shelf)
    assert len(there) == mover.facts.moved_shards > 0
    assert mover.facts.balance is None
    await check_whole(machine, shelf, tmp_path)


@asynccontextmanager
async def running(*parts):
    async with trio.open_nursery() as nursery:
        for part in parts:
            nursery.start_soon(part.run)
        yield
        nursery.cancel_scope.cancel()


async def test_it_runs_beside_the_courier(tmp_path: Path) -> None:
    machine, shelf = await stored(tmp_path)
    leaving = busiest(shelf)
    courier = Courier(shelf, machine.vault, machine.roots, machine.tenure, random.Random(3).random)
    mover = Mover(shelf, machine.vault, machine.tenure, courier.claim, bytes_per_s=1 << 30)
    with trio.fail_after(20):
        async with running(courier, mover):
            machine.nodes[leaving].draining = True
            mover.look()
            shelf.add(100, DATA)
            courier.hint()
            while leaving not in mover.facts.left or mover.facts.left[leaving].shards:
                await mover.news()
            while 100 not in shelf.receipts:  # noqa: ASYNC110 - a plain shelf tells nobody
                await trio.sleep(0.01)
    await check_whole(machine, shelf, tmp_path)


def test_claims_exclude_each_other(tmp_path: Path) -> None:
    machine = World.of().machine(tmp_path / "a")
    courier = Courier(
        PlainShelf(tmp_path / "shelf"), machine.vault, machine.roots, machine.tenure, random.Random(3).random
    )
    with courier.claim(SegmentId(1)) as first, courier.claim(SegmentId(1)) as second, courier.claim(SegmentId(2)) as x:
        assert (first, second, x) == (True, False, True)
    with courier.claim(SegmentId(1)) as again:
        assert again


def test_facts_do_not_share_state() -> None:
    one = LocationOptions(LocationId("a"), "http://127.0.0.1:1", "b")
    assert replace(one, draining=True).draining
    assert not one.draining
