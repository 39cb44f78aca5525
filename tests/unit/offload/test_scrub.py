"""The scrub: what no read has asked for is looked at, too, and what is bad is found, told to repair, and counted."""

from __future__ import annotations

import random
from pathlib import Path

import trio
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from qss.ids import SegmentId, ShardNo
from qss.offload.scrub import METERED_ROUNDS, SAMPLE_ROUNDS, Scrubber, in_sample
from tests.harness.memory_store import MemoryStore
from tests.harness.vault import Machine, PlainShelf, World, flip


class HashingStore:
    """A location that hashes in place, and counts what left it."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.sent = 0

    def __getattr__(self, name: str):
        return getattr(self.store, name)

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        data = await self.store.get(key, start, stop)
        self.sent += len(data)
        return data

    async def hashes(self, key: str, spans) -> list[bytes]:
        return [blake3(await self.store.get(key, start, stop)).digest() for start, stop in spans]


async def stored(machine: Machine, shelf: PlainShelf, count: int) -> None:
    for number in range(1, count + 1):
        sealed = shelf.add(number, random.Random(number).randbytes(30_000))
        await shelf.mark_offloaded(await machine.vault.store(sealed, await shelf.path_of(sealed.id)))


def scrubber_of(machine: Machine, shelf: PlainShelf, busy=()) -> Scrubber:
    return Scrubber(shelf, machine.vault, busy, lambda: False)


@given(st.integers(1, 2**40), st.integers(0, 255), st.integers(0, 10**6))
def test_each_shard_is_in_the_sample_once_in_so_many_rounds(segment: int, shard: int, first: int) -> None:
    rounds = range(first, first + SAMPLE_ROUNDS)
    assert sum(in_sample(SegmentId(segment), ShardNo(shard), number) for number in rounds) == 1
    rare = range(first, first + METERED_ROUNDS)
    assert sum(in_sample(SegmentId(segment), ShardNo(shard), number, METERED_ROUNDS) for number in rare) == 1


async def test_places_that_hash_find_every_kind_of_damage_and_send_next_to_nothing(tmp_path: Path) -> None:
    world = World.of(2, 2, scrub_bytes_per_s=None)
    world.stores = {name: HashingStore(each.store) for name, each in world.stores.items()}
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    await stored(machine, shelf, 3)
    blocks_end = 128 + machine.vault.manifests.load(SegmentId(1)).stripes[0].block
    flip(world, machine, 1, 0, 2000)  # in a block
    flip(world, machine, 2, 1, blocks_end + 8)  # in the table
    flip(world, machine, 3, 2, 10)  # in the header
    place = machine.vault.manifests.load(SegmentId(3)).placed[3]
    del world.objects(place)[machine.keys.shard_name(SegmentId(3), 0, place)]
    scrubber = scrubber_of(machine, shelf)
    await scrubber.round()
    assert {(one.segment, one.shard) for one in machine.vault.damage.open} == {(1, 0), (2, 1), (3, 2), (3, 3)}
    mark = scrubber.mark
    assert (mark.round, mark.shards, mark.found, mark.started_ns) == (1, 12, 4, 0)
    assert sum(each.sent for each in world.stores.values()) < 12 * 200  # headers only
    assert sum(count for (_, verdict), count in scrubber.verdicts.items() if verdict == "bad") == 4


async def test_places_that_do_not_hash_are_read_in_samples_until_all_is_seen(tmp_path: Path) -> None:
    world = World.of(2, 1, scrub_bytes_per_s=None)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    await stored(machine, shelf, 4)
    for segment in range(1, 5):
        flip(world, machine, segment, segment % 3, 5000)
    scrubber = scrubber_of(machine, shelf)
    found = []
    for _ in range(SAMPLE_ROUNDS):
        before = scrubber.mark.round
        await scrubber.round()
        assert scrubber.mark.round == before + 1
        found.append(len(machine.vault.damage.open))
        assert scrubber.mark.bytes < 12 * 16_000  # a part of what there is
    assert found[-1] == 4
    assert found[0] < 4


async def test_where_reading_costs_money_samples_are_rarer(tmp_path: Path) -> None:
    world = World.of(2, 1, scrub_bytes_per_s=None)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    await stored(machine, shelf, 8)
    metered, *others = machine.nodes.values()
    metered.metered = True
    before = [node.facts.bytes_down for node in (metered, *others)]
    for _ in range(SAMPLE_ROUNDS):
        await scrubber_of(machine, shelf).round()
    down = [node.facts.bytes_down - was for node, was in zip((metered, *others), before, strict=True)]
    assert down[0] < 0.6 * min(down[1:])
    whole = max(down[1:])  # each shard of theirs once, and the headers in every round
    for _ in range(METERED_ROUNDS - SAMPLE_ROUNDS):
        await scrubber_of(machine, shelf).round()
    assert metered.facts.bytes_down - before[0] > 0.9 * whole, "and in the end all of it"


async def test_a_round_goes_on_after_a_restart_where_it_was(tmp_path: Path) -> None:
    world = World.of(2, 1, scrub_bytes_per_s=None)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    await stored(machine, shelf, 5)
    scrubber = scrubber_of(machine, shelf)
    look, seen = machine.vault.verifier.look, []

    async def noted(manifest, whole):
        seen.append(manifest.segment.id)
        if len(seen) == 3:
            scrubber.stop()
        return await look(manifest, whole)

    machine.vault.verifier.look = noted
    await scrubber.round()
    assert seen == [1, 2, 3]
    again = world.machine(tmp_path / "a")
    second = scrubber_of(again, shelf)
    assert second.mark.stopped
    second.start()
    again_look = again.vault.verifier.look

    async def noted_again(manifest, whole):
        seen.append(manifest.segment.id)
        return await again_look(manifest, whole)

    again.vault.verifier.look = noted_again
    await second.round()
    assert seen == [1, 2, 3, 4, 5]
    assert (second.mark.round, second.mark.shards) == (1, 15)


async def test_it_runs_by_itself_when_the_period_is_over_and_at_no_more_than_its_rate(
    tmp_path: Path, autojump_clock
) -> None:
    world = World.of(2, 1, scrub_period_s=3600.0, scrub_bytes_per_s=1000)
    world.stores = {name: HashingStore(each.store) for name, each in world.stores.items()}
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    await stored(machine, shelf, 4)
    scrubber = scrubber_of(machine, shelf)
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scrubber.run)
        with trio.fail_after(100_000):
            while scrubber.mark.round < 1:  # noqa: ASYNC110
                await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert trio.current_time() - started >= scrubber.mark.bytes / 1000 * 3 / 4 - 1
    assert not scrubber._due()


async def test_a_silent_place_is_not_called_damaged(tmp_path: Path) -> None:
    world = World.of(2, 1, scrub_bytes_per_s=None)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    await stored(machine, shelf, 2)
    next(iter(world.stores.values())).down = True
    scrubber = scrubber_of(machine, shelf)
    await scrubber.round()
    assert (scrubber.mark.found, scrubber.mark.unseen) == (0, 2)
    assert machine.vault.damage.open == ()
