"""Cut the power before every change while dead segments are condemned and deleted, and others compacted.

What files hold is compared, not where: a move is no new state. The locations survive the cut as they are.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio

from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.formats.tables import ExtentRow, SegmentState, Table, pair_key
from qss.host import Host
from qss.ids import Ino
from qss.limits import KIB, MIB
from qss.segments import SegmentKind
from tests.harness.crash_disk import CrashDisk, Fate
from tests.harness.cuts import Known, Reached, after_cuts, host_on, moments, round_of_life
from tests.harness.locations import Contents, joined

OPTIONS = CacheOptions(
    segment_bytes=64 * KIB, journal_bytes=64 * KIB, index_map_bytes=64 * MIB, free_bytes_hard=0, free_bytes_soft=1,
    compact_bytes_per_s=1 << 40, compact_waste_bytes_min=0, fetch_deadline_s=0.5,
)  # fmt: skip


@dataclass
class Model:
    states: list[Contents] = field(default_factory=lambda: [{}])
    covered: int = 0

    def copy(self) -> Model:
        return Model(list(self.states), self.covered)

    def key(self) -> int:
        return self.covered


def read(cache: SegmentCache, extent: ExtentRow) -> bytes:
    data = cache.read_now(extent, 0, extent.length)
    assert data is not None, f"bytes of {extent} are nowhere"
    return bytes(data)


def contents(cache: SegmentCache) -> Contents:
    return joined(cache, lambda extent: read(cache, extent))


def put(cache: SegmentCache, model: Model, ino: int, data: bytes | None) -> None:
    """Write a whole file, or delete it (None)."""
    change = cache.begin()
    for key, _ in change.scan(Table.EXTENTS, pair_key(ino, 0), pair_key(ino + 1, 0)):
        change.delete(Table.EXTENTS, key)
    for at, extent in cache.append(Ino(ino), 0, data) if data else ():
        change.put(Table.EXTENTS, pair_key(ino, at), extent.pack())
    state = {key: value for key, value in model.states[-1].items() if key[0] != ino}
    model.states.append(state | ({(ino, 0): data} if data else {}))
    cache.commit(change)


async def scenario(root: Path, disk: CrashDisk, model: Model, locations: Reached) -> None:
    cache = await SegmentCache.open(root, host_on(disk, "boot-1"), OPTIONS, locations)
    rng = random.Random(3)
    for ino in range(10, 22):
        put(cache, model, ino, rng.randbytes(15_000))
    await round_of_life(cache, locations, model)
    for ino in (10, 11, 12, 13, 15, 16, 17, 19, 20):  # the first segments die, others mostly
        put(cache, model, ino, None)
    await round_of_life(cache, locations, model)
    while await cache.compact_one():
        pass
    await round_of_life(cache, locations, model)
    put(cache, model, 30, rng.randbytes(40_000))
    put(cache, model, 30, None)
    await round_of_life(cache, locations, model)
    await cache.checkpoint()
    await round_of_life(cache, locations, model)
    put(cache, model, 31, rng.randbytes(1000))
    await cache.close()
    model.covered = len(model.states) - 1


async def check(root: Path, disk: CrashDisk, model: Model, locations: Reached, boot: str) -> None:
    locations.disk = disk
    cache = await SegmentCache.open(root, host_on(disk, boot), OPTIONS, locations)
    found = contents(cache)
    assert found in model.states[model.covered :], "not a state that ever was, or older than the last sync"
    live: dict[int, int] = {}
    for _, value in cache.scan(Table.EXTENTS, b""):
        extent = ExtentRow.unpack(value)
        live[extent.segment] = live.get(extent.segment, 0) + extent.length
    assert cache._ledger.index.live_all() == live
    # It goes on, and in the end nothing dead is left, here or there.
    again = Model(states=[found])
    put(cache, again, 40, b"after the cut" * 100)
    for _ in range(5):
        await round_of_life(cache, locations, again)
    assert contents(cache) == again.states[-1]
    rows = cache._shelf.rows
    data = {segment for segment, row in rows.items() if row.kind is SegmentKind.DATA}
    kept = {segment for segment in data if rows[segment].state is not SegmentState.CONDEMNED}
    assert kept == set(cache._ledger.index.live_all())
    assert not [rows[segment] for segment in data - kept if rows[segment].needs_upto]
    stored = {s for s in locations.segments if s not in rows or rows[s].kind is SegmentKind.DATA}
    assert stored <= kept
    await cache.close()
    for back, point in enumerate(locations.roots[-2:]):
        await locations.restored(point, root / f"restored-{back}", Host(), OPTIONS)


@pytest.mark.usefixtures("without_threads")
@pytest.mark.parametrize("fate", Fate)
def test_every_power_cut_while_space_is_given_back(tmp_path: Path, fate: Fate) -> None:
    disk, model, root = CrashDisk(), Model(), tmp_path / "life"
    life = Known(model, Reached(disk))
    found = moments(disk, life, partial(scenario, root, disk, model, life.locations))
    assert len(life.locations.deleted) > 3
    for after, known in after_cuts(found, root, fate):
        trio.run(check, root, after, known.model, known.locations, "boot-2")
