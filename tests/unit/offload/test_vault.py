"""Store, lose, fetch, repair, on memory stores."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from qss.errors import CorruptData, TooFewShards, Unreachable
from qss.formats.shard import HEADER_BYTES
from qss.ids import LocationId, SegmentId, ShardNo, StripeNo
from qss.limits import KIB, STRIPE_BYTES
from qss.offload.census import take_census
from qss.offload.damage import DamagedShard
from tests.harness.vault import Machine, PlainShelf, World

S1 = SegmentId(1)
MARKER = b"a plaintext marker that no location may see " * 40


def content(length: int, seed: int = 1) -> bytes:
    noise = random.Random(seed).randbytes(length // 2)
    return (noise + (MARKER * (length // len(MARKER) + 1)))[:length]


async def store(machine: Machine, shelf: PlainShelf, data: bytes, segment: int = 1):
    sealed = shelf.add(segment, data)
    return await machine.vault.store(sealed, await shelf.path_of(sealed.id))


async def read_back(machine: Machine, length: int, into: Path, segment: int = 1) -> bytes:
    parts = []
    for stripe in range(-(-length // STRIPE_BYTES)):
        target = into / f"stripe-{stripe}"
        await machine.vault.fetch(SegmentId(segment), StripeNo(stripe), target)
        assert target.stat().st_mode & 0o777 == 0o600
        parts.append(target.read_bytes())
        target.unlink()
    return b"".join(parts)


@pytest.mark.parametrize(("k", "m"), [(1, 1), (2, 1), (2, 2), (3, 2), (4, 2), (6, 3)])
async def test_any_m_locations_may_be_lost(tmp_path: Path, k: int, m: int) -> None:
    world = World.of(k, m)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    data = content(100 * KIB + 17)
    receipt = await store(machine, shelf, data)
    assert receipt.complete
    assert sorted(place for place in receipt.placed if place) == sorted(world.stores)
    stored = sum(len(object_) for name in world.stores for object_ in world.objects(name).values())
    assert receipt.stored_bytes == stored
    for number, lost in enumerate(itertools.combinations(world.stores, m)):
        for name, each in world.stores.items():
            each.down = name in lost
        # a machine that knows nothing but the key
        other = world.machine(tmp_path / f"b{number}")
        assert await read_back(other, len(data), tmp_path) == data


async def test_fewer_than_k_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    world = World.of()
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    await store(machine, shelf, content(10_000))
    for name in list(world.stores)[:3]:
        world.stores[name].down = True
    with pytest.raises(TooFewShards):
        await machine.vault.fetch(S1, StripeNo(0), tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
    world.stores[LocationId("trove-1")].down = False
    while not machine.nodes[LocationId("trove-1")].up:
        await take_census(machine.nodes, machine.keys, S1)
    await machine.vault.fetch(S1, StripeNo(0), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == content(10_000)


async def test_several_stripes_come_back_in_place(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    data = content(2 * STRIPE_BYTES + 12345)
    await store(machine, shelf, data)
    assert await read_back(machine, len(data), tmp_path) == data
    manifest = await world.machine(tmp_path / "b").vault.fetch_segment(S1, tmp_path / "whole")
    assert (tmp_path / "whole").read_bytes() == data
    assert manifest.segment == shelf.segments[S1]
    assert "key=hidden" in repr(manifest)
    assert manifest.dek.hex() not in repr(manifest)


async def test_a_segment_larger_than_the_budget_is_stored_through_a_file(tmp_path: Path) -> None:
    world = World.of(2, 1, memory_bytes=1)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    machine.vault.buffers._budget = 4 * KIB
    data = content(2 * STRIPE_BYTES)
    await store(machine, shelf, data)
    assert await read_back(machine, len(data), tmp_path) == data
    assert machine.vault.buffers.held_bytes == 0


async def test_no_location_sees_plaintext_or_anything_twice(tmp_path: Path) -> None:
    world = World.of(compression_level=0)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    data = content(300 * KIB)
    await store(machine, shelf, data, 1)
    await store(machine, shelf, data, 2)
    everything = [data for name in world.stores for data in world.objects(name).values()]
    assert len(set(everything)) == 12
    assert not any(MARKER[:16] in each for each in everything)
    names = {key for name in world.stores for key in world.objects(name)}
    assert len(names) == 12


async def test_every_flipped_byte_of_a_block_is_noticed_and_rebuilt(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    data = content(1000)
    receipt = await store(machine, shelf, data)
    home = receipt.placed[0]
    objects = world.objects(home)
    ((key, good),) = objects.items()
    manifest = await machine.vault.manifest_of(S1)
    for position in range(HEADER_BYTES, HEADER_BYTES + manifest.stripes[0].block, 7):
        objects[key] = good[:position] + bytes([good[position] ^ 0x40]) + good[position + 1 :]
        assert await read_back(machine, len(data), tmp_path) == data
    assert machine.vault.damage.open == (DamagedShard(S1, ShardNo(0), home),)
    assert machine.vault.damage.blocks_seen > 40
    objects[key] = good[: HEADER_BYTES + 3] + b"?" + good[HEADER_BYTES + 4 :]
    receipt = await machine.vault.complete(S1)
    assert receipt.complete
    assert machine.vault.damage.open == ()
    assert machine.vault.damage.shards_repaired == 1
    end = HEADER_BYTES + manifest.stripes[0].block
    assert objects[key][HEADER_BYTES:end] == good[HEADER_BYTES:end]  # the very same ciphertext


async def test_every_flipped_byte_outside_the_blocks_is_noticed_by_a_census(tmp_path: Path) -> None:
    world = World.of(1, 1)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    data = content(500)
    receipt = await store(machine, shelf, data)
    bad, other = receipt.placed
    world.stores[other].down = True
    objects = world.objects(bad)
    ((key, good),) = objects.items()
    manifest = await machine.vault.manifest_of(S1)
    blocks_end = HEADER_BYTES + manifest.stripes[0].block
    table_end = blocks_end + 44
    for position in [*range(HEADER_BYTES), *range(table_end, len(good))]:
        objects[key] = good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :]
        fresh = world.machine(tmp_path / "b")
        fresh.vault.manifests.forget(S1)
        with pytest.raises((TooFewShards, CorruptData)):
            await fresh.vault.fetch(S1, StripeNo(0), tmp_path / "out")


async def test_shards_moved_between_segments_or_locations_are_refused(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    data = content(5000)
    first = await store(machine, shelf, data, 1)
    await store(machine, shelf, content(5000, seed=2), 2)
    keys = machine.keys
    one, two = first.placed[0], first.placed[1]
    name = {(segment, at): keys.shard_name(SegmentId(segment), 0, at) for segment in (1, 2) for at in (one, two)}
    # segment 2's object under segment 1's name; location two's object at location one
    world.objects(one)[name[1, one]] = world.objects(one)[name[2, one]]
    assert await read_back(machine, len(data), tmp_path) == data
    census = await take_census(machine.nodes, keys, S1)
    assert census.damaged == (one,)
    world.objects(one)[name[1, one]] = world.objects(two)[name[1, two]]
    census = await take_census(machine.nodes, keys, S1)
    assert census.damaged == (one,)
    assert await read_back(world.machine(tmp_path / "b"), len(data), tmp_path) == data
    assert (await machine.vault.complete(S1)).complete
    assert (await take_census(machine.nodes, keys, S1)).damaged == ()


async def test_a_degraded_store_is_completed_when_the_location_is_back(tmp_path: Path) -> None:
    world = World.of(2, 2, margin=1)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    world.stores[LocationId("trove-3")].down = True
    data = content(70_000)
    receipt = await store(machine, shelf, data)
    assert receipt.missing == 1
    again = await machine.vault.store(shelf.segments[S1], await shelf.path_of(S1))
    assert again.missing == 1
    assert again.seal == receipt.seal
    shelf.evict(1)
    world.stores[LocationId("trove-3")].down = False
    while not machine.nodes[LocationId("trove-3")].up:
        await take_census(machine.nodes, machine.keys, S1)
    whole = await machine.vault.complete(S1)
    assert whole.complete
    assert whole.seal == receipt.seal
    for lost in itertools.combinations(world.stores, 2):
        for name, each in world.stores.items():
            each.down = name in lost
        assert await read_back(world.machine(tmp_path / "".join(lost)), len(data), tmp_path) == data


async def test_a_spare_location_takes_the_shard_of_one_that_fails(tmp_path: Path) -> None:
    world = World.of(2, 1, count=5)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    for name in list(world.stores)[:2]:
        world.stores[name].down = True
    receipt = await store(machine, shelf, content(3000))
    assert receipt.complete
    assert not {LocationId("trove-1"), LocationId("trove-2")} & set(receipt.placed)
    assert await read_back(machine, 3000, tmp_path) == content(3000)


async def test_too_few_placed_is_retryable_and_a_new_seal_waits_for_the_old_one(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    data = content(3000)
    world.stores[LocationId("trove-1")].down = True
    with pytest.raises(Unreachable, match="2 of 3"):
        await store(machine, shelf, data)
    seal = machine.vault.manifests.load(S1).seal
    # both that hold it go silent: nothing may be overwritten
    for name in ("trove-2", "trove-3"):
        world.stores[LocationId(name)].down = True
    world.stores[LocationId("trove-1")].down = False
    with pytest.raises(Unreachable):
        await store(machine, shelf, data)
    assert world.objects(LocationId("trove-1")) == {}
    for each in world.stores.values():
        each.down = False
    while not all(node.up for node in machine.nodes.values()):
        await take_census(machine.nodes, machine.keys, S1)
    receipt = await store(machine, shelf, data)
    assert receipt.complete
    assert receipt.seal == seal


async def test_a_crash_before_any_shard_makes_a_new_seal(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    receipt = await store(machine, shelf, content(3000))
    for name in world.stores:
        world.objects(name).clear()
    again = await store(machine, shelf, content(3000))
    assert again.complete
    assert again.seal != receipt.seal
    assert await read_back(machine, 3000, tmp_path) == content(3000)


async def test_a_hung_location_is_hedged(tmp_path: Path, autojump_clock) -> None:
    world = World.of(2, 1)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    receipt = await store(machine, shelf, content(3000))
    world.stores[receipt.placed[0]].hung = True
    assert await read_back(machine, 3000, tmp_path) == content(3000)


async def test_wrong_bytes_on_the_wire_never_reach_the_reader(tmp_path: Path) -> None:
    world = World.of(3, 2)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    data = content(3000)
    await store(machine, shelf, data)
    for each in world.stores.values():
        each.faults.wrong_bytes = 0.3
    good = 0
    for _ in range(60):
        try:
            assert await read_back(machine, 3000, tmp_path) == data
            good += 1
        except TooFewShards:
            pass
    assert good > 20
    assert machine.vault.damage.blocks_seen > 0


async def test_delete_leaves_nothing(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    await store(machine, shelf, content(3000))
    await machine.vault.delete(S1)
    assert not any(world.objects(name) for name in world.stores)
    with pytest.raises(TooFewShards):
        await machine.vault.fetch(S1, StripeNo(0), tmp_path / "out")


async def test_a_changed_file_is_not_sealed(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    sealed = shelf.add(1, content(3000))
    path = await shelf.path_of(S1)
    path.write_bytes(b"short")
    with pytest.raises(CorruptData):
        await machine.vault.store(sealed, path)
    assert not any(world.objects(name) for name in world.stores)


async def test_the_newest_seal_wins_where_two_are_whole(tmp_path: Path) -> None:
    world = World.of(1, 1, count=4)
    old, new = world.machine(tmp_path / "a"), world.machine(tmp_path / "b")
    shelf = PlainShelf(tmp_path / "shelf")
    receipt = await store(old, shelf, content(3000))
    for place in receipt.placed:
        world.stores[place].down = True
    for _ in range(3):  # the breakers of the machine that comes new
        await take_census(new.nodes, new.keys, S1)
    again = await store(new, shelf, content(3000, seed=2))
    assert not set(again.placed) & set(receipt.placed)
    for each in world.stores.values():
        each.down = False
    reader = world.machine(tmp_path / "c")
    assert len((await take_census(reader.nodes, reader.keys, S1)).seals()) == 2
    assert await read_back(reader, 3000, tmp_path) == content(3000, seed=2)


async def test_more_shards_suspect_than_may_be_lost_are_repaired_all_the_same(tmp_path: Path) -> None:
    """A few spoiled answers make whole shards suspect; what is still whole must serve to repair what is not."""
    world = World.of(2, 1)
    machine = world.machine(tmp_path / "a")
    shelf = PlainShelf(tmp_path / "shelf")
    sealed = shelf.add(1, random.Random(1).randbytes(10_000))
    receipt = await machine.vault.store(sealed, await shelf.path_of(sealed.id))
    for number, place in enumerate(receipt.placed):
        assert place is not None
        machine.vault.damage.report(DamagedShard(sealed.id, ShardNo(number), place), "spoiled on its way")
    name = machine.keys.shard_name(sealed.id, 0, receipt.placed[0])
    del world.objects(receipt.placed[0])[name]
    assert (await machine.vault.complete(sealed.id)).complete
    assert name in world.objects(receipt.placed[0])
    assert machine.vault.damage.open == ()


async def test_what_another_machine_has_put_under_the_same_number_is_not_taken_for_ours(tmp_path: Path) -> None:
    """A copy of a state directory, or a recovery beside another one, gives the same numbers to other content."""
    world = World.of(2, 1)
    theirs, ours = content(50_000, seed=1), content(40_000, seed=2)
    await store(world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf-a"), theirs)
    machine, shelf = world.machine(tmp_path / "b"), PlainShelf(tmp_path / "shelf-b")
    for name, each in world.stores.items():
        each.down = name != "trove-1"
    with pytest.raises(Unreachable):
        await store(machine, shelf, ours)
    for each in world.stores.values():
        each.down = False
    while not all(node.up for node in machine.nodes.values()):
        await machine.book.survey()
    assert len((await take_census(machine.nodes, machine.keys, S1)).seals()) == 2
    assert (await store(machine, shelf, ours)).complete
    assert await read_back(world.machine(tmp_path / "c"), len(ours), tmp_path) == ours
