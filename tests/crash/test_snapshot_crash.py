"""Cut the power before every change while snapshots are made, what they hold is deleted, and they are deleted.

A snapshot whose creation was answered is there, and brings back what was at its cut; one whose deletion was answered
is gone, and what only it held goes too.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from qss.cache.pins import missing
from qss.cache.store import SegmentCache
from qss.formats.tables import SegmentState
from qss.host import Host
from qss.segments import SegmentKind
from tests.crash.test_space_crash import OPTIONS, Model, Reached, contents, host_on, put, round_of_life
from tests.harness.crash_disk import CrashDisk, Fate, PowerCut
from tests.harness.locations import Contents


@dataclass
class Names:
    """Snapshots asked for: what each has to hold, and how far the asking has come."""

    holds: dict[str, Contents] = field(default_factory=dict)
    there: set[str] = field(default_factory=set)  # answered
    gone: set[str] = field(default_factory=set)  # answered
    leaving: set[str] = field(default_factory=set)  # asked for, may have gone


async def create(cache: SegmentCache, model: Model, names: Names, name: str) -> None:
    names.holds[name] = model.states[-1]
    await cache.snapshots.create(name)
    names.there.add(name)
    model.covered = len(model.states) - 1


async def forget(cache: SegmentCache, names: Names, name: str) -> None:
    names.there.discard(name)
    names.leaving.add(name)
    await cache.snapshots.delete(name)
    names.leaving.discard(name)
    names.gone.add(name)


async def scenario(root: Path, disk: CrashDisk, model: Model, locations: Reached, names: Names) -> None:
    cache = await SegmentCache.open(root, host_on(disk, "boot-1"), OPTIONS, locations)
    rng = random.Random(5)
    for ino in range(10, 14):
        put(cache, model, ino, rng.randbytes(30_000))
    await create(cache, model, names, "one")
    put(cache, model, 10, None)
    put(cache, model, 11, None)  # dead, and "one" needs them
    await round_of_life(cache, locations, model)
    await create(cache, model, names, "two")
    put(cache, model, 14, rng.randbytes(30_000))
    put(cache, model, 12, None)
    put(cache, model, 13, None)
    await forget(cache, names, "one")
    await round_of_life(cache, locations, model)
    await round_of_life(cache, locations, model)
    await create(cache, model, names, "three")
    await forget(cache, names, "two")
    await round_of_life(cache, locations, model)
    await cache.close()
    model.covered = len(model.states) - 1


async def check(root: Path, disk: CrashDisk, model: Model, locations: Reached, names: Names) -> None:
    locations.disk = disk
    cache = await SegmentCache.open(root, host_on(disk, "boot-2"), OPTIONS, locations)
    assert contents(cache) in model.states[model.covered :]
    found = set(cache.snapshots.rows)
    assert names.there <= found <= names.holds.keys() - names.gone
    assert missing(cache.snapshots.rows.values(), cache._shelf.rows, cache.snapshots.deaths) == []
    again = Model(states=[contents(cache)])
    put(cache, again, 40, b"after the cut" * 100)
    for _ in range(4):
        await round_of_life(cache, locations, again)
    for number, name in enumerate(sorted(found)):
        point = cache.snapshots.point(name)
        back = await locations.restored(point, root / f"restored-{number}", Host(), OPTIONS)
        assert back == names.holds[name]
    for name in sorted(found):
        await cache.snapshots.delete(name)
    for _ in range(5):
        await round_of_life(cache, locations, again)
    rows = cache._shelf.rows
    kept = {s for s, row in rows.items() if row.kind is SegmentKind.DATA and row.state is not SegmentState.CONDEMNED}
    assert kept == set(cache._ledger.index.live_all())
    await cache.close()


def run_to_cut(root: Path, cut_at: int | None) -> tuple[CrashDisk, Model, Reached, Names]:
    disk, model, names = CrashDisk(), Model(), Names()
    locations = Reached(disk)
    disk.cut_at = cut_at
    try:
        trio.run(scenario, root, disk, model, locations, names)
    except PowerCut:
        pass
    except BaseExceptionGroup as group:
        if group.split(PowerCut)[1] is not None:
            raise
    return disk, model, locations, names


@pytest.mark.parametrize("fate", Fate)
def test_every_power_cut_around_snapshots(tmp_path: Path, fate: Fate) -> None:
    disk, _, whole, names = run_to_cut(tmp_path / "count", None)
    assert whole.deleted
    assert names.gone == {"one", "two"}
    for cut_at in range(1, disk.changes + 1):
        root = tmp_path / str(cut_at)
        disk, model, locations, names = run_to_cut(root, cut_at)
        shutil.rmtree(root / "index", ignore_errors=True)
        trio.run(check, root, disk.after_cut(fate, random.Random(cut_at)), model, locations, names)
        shutil.rmtree(root, ignore_errors=True)
