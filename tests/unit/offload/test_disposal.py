"""Shards of dead segments: deleted everywhere, whatever fails in between, and by nobody who must not write."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from qss.errors import QssError
from qss.ids import LocationId, SegmentId
from qss.offload import courier as courier_module
from qss.offload.courier import Courier
from qss.offload.disposal import Disposal
from qss.segments import SegmentKind
from tests.harness.vault import Machine, PlainShelf, World

ONE = SegmentId(1)


async def stored(tmp_path: Path, world: World) -> tuple[Machine, PlainShelf]:
    """A shelf with a data segment and its journal, both at the locations, published."""
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "shelf")
    shelf.add(1, b"data" * 1000)
    shelf.add(2, b"journal", SegmentKind.JOURNAL)
    for sealed in await shelf.unsafe_segments():
        await shelf.mark_offloaded(await machine.vault.store(sealed, await shelf.path_of(sealed.id)))
    await machine.roots.catch_up()
    point = await shelf.restore_point()
    assert point is not None
    await machine.roots.publish(point)
    return machine, shelf


def held(world: World, machine: Machine) -> int:
    """Locations with a shard of segment 1."""
    names = {location: machine.keys.shard_name(ONE, 0, location) for location in world.stores}
    return sum(names[location] in world.objects(location) for location in world.stores)


async def test_shards_go_when_the_shelf_says_so(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = await stored(tmp_path, world)
    disposal = Disposal(shelf, machine.vault, machine.roots)
    await disposal.round(())
    assert held(world, machine) == 3
    shelf.dead.add(ONE)
    await disposal.round({ONE})  # an upload of it is still under way
    assert held(world, machine) == 3
    await disposal.round(())
    assert (held(world, machine), shelf.dead, disposal.deleted) == (0, set(), 1)
    assert machine.vault.manifests.load(ONE) is None
    assert machine.vault.manifests.load(SegmentId(2)) is not None


async def test_a_location_that_is_down_gets_its_turn_later(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = await stored(tmp_path, world)
    disposal = Disposal(shelf, machine.vault, machine.roots)
    shelf.dead.add(ONE)
    world.stores[LocationId("trove-1")].down = True
    with pytest.raises(QssError):
        await disposal.round(())
    assert held(world, machine) == 1  # the others have given the space back
    assert shelf.dead == {ONE}
    world.stores[LocationId("trove-1")].down = False
    with trio.fail_after(10):
        while shelf.dead:  # the breaker lets it through when it has seen that it is back
            try:
                await disposal.round(())
            except QssError:
                await trio.sleep(0.02)
    assert held(world, machine) == 0


async def test_nothing_goes_while_k_locations_may_know_only_older_roots(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = await stored(tmp_path, world)
    disposal = Disposal(shelf, machine.vault, machine.roots)
    shelf.dead.add(ONE)
    machine.roots.behind = {LocationId("trove-1"), LocationId("trove-2")}
    await disposal.round(())
    assert held(world, machine) == 3
    machine.roots.behind = {LocationId("trove-1")}
    await disposal.round(())
    assert held(world, machine) == 0


async def test_nothing_goes_before_the_roots_are_known(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = await stored(tmp_path, world)
    again = world.machine(tmp_path / "a")
    shelf.dead.add(ONE)
    await Disposal(shelf, again.vault, again.roots).round(())
    assert held(world, machine) == 3


@pytest.mark.parametrize("other_wrote", [False, True])
async def test_the_courier_deletes_unless_another_machine_has_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_wrote: bool
) -> None:
    monkeypatch.setattr(courier_module, "DISPOSAL_S", 0.01)
    world = World.of(2, 1)
    machine, shelf = await stored(tmp_path, world)
    shelf.dead.add(ONE)
    if other_wrote:
        other = world.machine(tmp_path / "b")
        newest = await other.roots.newest()
        assert newest is not None
        other.roots.take_over(newest)
        await other.roots.publish(newest.point)
    courier = Courier(shelf, machine.vault, machine.roots, machine.tenure, random.Random(3).random)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(courier.run)
        with trio.fail_after(10):
            while not (courier.status().blocked if other_wrote else courier.status().deleted_segments):  # noqa: ASYNC110
                await trio.sleep(0.01)
            await trio.sleep(0.05 if other_wrote else 0)
        nursery.cancel_scope.cancel()
    assert held(world, machine) == (3 if other_wrote else 0)
