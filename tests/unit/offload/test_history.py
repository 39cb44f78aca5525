"""What roots at the locations mean for a machine that remembers some: rolled back, forked, overtaken."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from qss.errors import PreconditionFailed, Refused
from qss.formats.root import Root
from qss.ids import SegmentId
from qss.offload.history import NO_DIGEST, History, Known, judge, refusal
from qss.segments import RestorePoint
from tests.harness.vault import Machine, World

US, THEM = b"u" * 16, b"t" * 16
POINT = RestorePoint((), (SegmentId(1),), 1, SegmentId(2))
FIRST = Root(b"f" * 16, 5, 0, US, NO_DIGEST, 2, 1, POINT, 5)
KNOWN = Known(5, 0, FIRST.digest(), US, 0)
CLAIMING = replace(KNOWN, claim=replace(FIRST, generation=6, previous=FIRST.digest()).digest())


def after(root: Root, **changes: object) -> Root:
    return replace(root, generation=root.generation + 1, previous=root.digest(), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("known", "newest", "current", "before", "history"),
    [
        (Known(0, 0, NO_DIGEST, US, 0), None, [], [], History.AS_KNOWN),
        (KNOWN, FIRST, [FIRST], [], History.AS_KNOWN),
        (CLAIMING, after(FIRST), [after(FIRST)], [FIRST], History.OURS),
        (CLAIMING, after(FIRST), [after(FIRST)], [], History.OURS),  # the old one is at no location that answers
        (CLAIMING, FIRST, [FIRST], [], History.AS_KNOWN),  # it came nowhere
        (KNOWN, after(FIRST), [after(FIRST)], [FIRST], History.OVERTAKEN),  # a copy of this directory went on by one
        (CLAIMING, after(FIRST, created_ns=9), [], [FIRST], History.OVERTAKEN),
        (KNOWN, after(FIRST, writer=THEM, epoch=1), [], [FIRST], History.OVERTAKEN),
        (KNOWN, after(FIRST, epoch=1), [], [FIRST], History.OVERTAKEN),  # a copy of this directory took over
        (KNOWN, after(after(FIRST)), [], [FIRST], History.OVERTAKEN),  # or went on
        (KNOWN, None, [], [], History.ROLLED_BACK),
        (KNOWN, replace(FIRST, generation=4), [], [], History.ROLLED_BACK),
        (replace(KNOWN, epoch=2), after(FIRST, epoch=1), [], [], History.ROLLED_BACK),  # an older epoch
        (KNOWN, replace(FIRST, created_ns=6), [], [], History.FORKED),
        (KNOWN, replace(FIRST, writer=THEM), [], [], History.FORKED),
        (KNOWN, FIRST, [FIRST, replace(FIRST, writer=THEM)], [], History.FORKED),
        (KNOWN, after(replace(FIRST, created_ns=6)), [], [], History.FORKED),
    ],
)
def test_standing(known: Known, newest: Root | None, current: list[Root], before: list[Root], history: History) -> None:
    assert judge(known, newest, current, before) is history
    assert (refusal(history, known, newest) is None) is (history in {History.AS_KNOWN, History.OURS})


def point(upto: int) -> RestorePoint:
    return RestorePoint((), tuple(SegmentId(n) for n in range(1, upto + 1)), 1000 + upto, SegmentId(upto + 1))


async def rolled_back(world: World, state: Path) -> Machine:
    """Four roots were published; the locations show two."""
    machine = world.machine(state)
    await machine.roots.catch_up()
    for upto in (1, 2):
        await machine.roots.publish(point(upto))
    images = {name: dict(world.objects(name)) for name in world.stores}
    for upto in (3, 4):
        await machine.roots.publish(point(upto))
    for name, image in images.items():
        world.objects(name).clear()
        world.objects(name).update(image)
    return world.machine(state)


async def test_a_rollback_is_refused_until_the_user_insists_and_then_what_is_here_counts(tmp_path: Path) -> None:
    world = World.of(2, 1)
    again = await rolled_back(world, tmp_path / "a")
    with pytest.raises(Refused, match="set back"):
        await again.roots.catch_up()
    newest, history = await again.roots.look()
    assert newest is not None
    assert (history, newest.generation) == (History.ROLLED_BACK, 2)
    again.roots.insist(newest)
    once_more = world.machine(tmp_path / "a")  # it is kept over a restart
    await once_more.roots.catch_up()
    root = await once_more.roots.publish(point(5))
    assert (root.generation, root.epoch) == (5, 1)
    assert await world.machine(tmp_path / "b").book.newest_first().__anext__() == root
    assert (await world.machine(tmp_path / "a").roots.look())[1] is History.AS_KNOWN


async def test_emptied_locations_are_refused_until_the_user_insists(tmp_path: Path) -> None:
    world = World.of(2, 1)
    await rolled_back(world, tmp_path / "a")
    for name in world.stores:
        world.objects(name).clear()
    again = world.machine(tmp_path / "a")
    with pytest.raises(Refused, match="generation 0"):
        await again.roots.catch_up()
    again.roots.insist(None)
    await again.roots.catch_up()
    assert (await again.roots.publish(point(5))).generation == 5


async def test_two_histories_of_one_file_system_are_refused(tmp_path: Path) -> None:
    """One machine, cut off with its state copied: both went on at locations of their own, which now meet."""
    ours, theirs = World.of(2, 1), World.of(2, 1)
    machine = ours.machine(tmp_path / "a")
    await machine.roots.catch_up()
    await machine.roots.publish(point(1))
    for name in ours.stores:
        theirs.objects(name).update(ours.objects(name))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    other = theirs.machine(tmp_path / "b")
    await other.roots.catch_up()
    await other.roots.publish(point(3))
    await machine.roots.publish(point(2))
    name = list(ours.stores)[2]
    ours.objects(name).clear()
    ours.objects(name).update(theirs.objects(name))
    with pytest.raises(Refused, match="another history"):
        await ours.machine(tmp_path / "a").roots.catch_up()


@pytest.mark.parametrize("further", [(2,), (2, 3)])
async def test_an_old_copy_of_the_state_directory_must_not_write(tmp_path: Path, further: tuple[int, ...]) -> None:
    world = World.of(2, 1)
    machine = world.machine(tmp_path / "a")
    await machine.roots.catch_up()
    await machine.roots.publish(point(1))
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    for upto in further:
        await machine.roots.publish(point(upto))
    with pytest.raises(PreconditionFailed, match="a copy of this state directory"):
        await world.machine(tmp_path / "copy").roots.catch_up()
