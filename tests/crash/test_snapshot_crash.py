"""Cut the power before every change while snapshots are made, what they hold is deleted, and they are deleted.

A snapshot whose creation was answered is there, and brings back what was at its cut; one whose deletion was answered
is gone, and what only it held goes too.
"""

from __future__ import annotations

import random
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio

from qss.cache.pins import missing
from qss.cache.store import SegmentCache
from qss.formats.tables import SegmentState
from qss.host import Host
from qss.segments import SegmentKind
from tests.crash.test_space_crash import OPTIONS, Model, contents, put
from tests.harness.crash_disk import CrashDisk, Fate
from tests.harness.cuts import Known, Reached, after_cuts, host_on, moments, round_of_life
from tests.harness.locations import Contents


@dataclass
class Names(Model):
    """Also the snapshots asked for: what each has to hold, and how far the asking has come."""

    holds: dict[str, Contents] = field(default_factory=dict)
    there: set[str] = field(default_factory=set)  # answered
    gone: set[str] = field(default_factory=set)  # answered
    leaving: set[str] = field(default_factory=set)  # asked for, may have gone

    def copy(self) -> Names:
        return Names(
            list(self.states), self.covered, dict(self.holds), set(self.there), set(self.gone), set(self.leaving)
        )

    def key(self) -> Hashable:  # type: ignore[override]
        return self.covered, *map(frozenset, (self.holds, self.there, self.gone, self.leaving))


async def create(cache: SegmentCache, names: Names, name: str) -> None:
    names.holds[name] = names.states[-1]
    await cache.snapshots.create(name)
    names.there.add(name)
    names.covered = len(names.states) - 1


async def forget(cache: SegmentCache, names: Names, name: str) -> None:
    names.there.discard(name)
    names.leaving.add(name)
    await cache.snapshots.delete(name)
    names.leaving.discard(name)
    names.gone.add(name)


async def scenario(root: Path, disk: CrashDisk, names: Names, locations: Reached) -> None:
    cache = await SegmentCache.open(root, host_on(disk, "boot-1"), OPTIONS, locations)
    rng = random.Random(5)
    for ino in range(10, 14):
        put(cache, names, ino, rng.randbytes(30_000))
    await create(cache, names, "one")
    put(cache, names, 10, None)
    put(cache, names, 11, None)  # dead, and "one" needs them
    await round_of_life(cache, locations, names)
    await create(cache, names, "two")
    put(cache, names, 14, rng.randbytes(30_000))
    put(cache, names, 12, None)
    put(cache, names, 13, None)
    await forget(cache, names, "one")
    await round_of_life(cache, locations, names)
    await round_of_life(cache, locations, names)
    await create(cache, names, "three")
    await forget(cache, names, "two")
    await round_of_life(cache, locations, names)
    await cache.close()
    names.covered = len(names.states) - 1


async def check(root: Path, disk: CrashDisk, names: Names, locations: Reached) -> None:
    locations.disk = disk
    cache = await SegmentCache.open(root, host_on(disk, "boot-2"), OPTIONS, locations)
    assert contents(cache) in names.states[names.covered :]
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


@pytest.mark.usefixtures("without_threads")
@pytest.mark.parametrize("fate", Fate)
def test_every_power_cut_around_snapshots(tmp_path: Path, fate: Fate) -> None:
    disk, names, root = CrashDisk(), Names(), tmp_path / "life"
    life = Known(names, Reached(disk))
    found = moments(disk, life, partial(scenario, root, disk, names, life.locations))
    assert life.locations.deleted
    assert names.gone == {"one", "two"}
    for after, known in after_cuts(found, root, fate):
        trio.run(check, root, after, known.model, known.locations)
