"""How far from loss each segment is, as known here."""

from __future__ import annotations

import random
from pathlib import Path

from qss.ids import LocationId, SegmentId, ShardNo
from qss.offload.census import take_census
from qss.offload.damage import DamagedShard
from qss.offload.standing import standing
from tests.harness.vault import PlainShelf, World


async def test_damage_silence_and_loss_all_count(tmp_path: Path) -> None:
    world = World.of(2, 2)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    vault = machine.vault
    empty = await standing([], vault, ())
    assert (empty.segments, empty.weakest, empty.weakest_spare) == (0, None, None)
    for number in range(1, 4):
        sealed = shelf.add(number, random.Random(number).randbytes(3000))
        await shelf.mark_offloaded(await vault.store(sealed, await shelf.path_of(sealed.id)))
    stored = await shelf.stored_segments()
    whole = await standing(stored, vault, ())
    assert (whole.by_spare, whole.weakest_spare, whole.missing, whole.silent) == ({2: 3}, 2, 0, 0)
    assert whole.stored_bytes == sum(receipt.stored_bytes for receipt in shelf.receipts.values())

    place = vault.manifests.load(SegmentId(2)).placed[0]
    vault.damage.report(DamagedShard(SegmentId(2), ShardNo(0), place), "rot")
    found = await standing(stored, vault, ())
    assert (found.by_spare, found.weakest, found.missing) == ({1: 1, 2: 2}, 2, 1)
    assert found.weakest_code == (2, 2)

    other = next(name for name in world.stores if name != place)
    world.stores[other].down = True
    while machine.nodes[other].up:
        await take_census(machine.nodes, machine.keys, SegmentId(1))
    found = await standing(stored, vault, ())
    assert (found.by_spare, found.weakest, found.missing, found.silent) == ({0: 1, 1: 2}, 2, 1, 3)
    found = await standing(stored, vault, {LocationId(other)})
    assert (found.by_spare, found.missing, found.silent) == ({0: 1, 1: 2}, 4, 0)

    vault.manifests.forget(SegmentId(1))  # then the receipt is what is known
    assert (await standing(stored, vault, ())).by_spare == {0: 1, 1: 1, 2: 1}
