"""Cut the power before every change while a journal checkpoint is made, published and journals are trimmed; the index
is gone each time, so it comes from the newest checkpoint and the journals behind it. docs/crash-points.md."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio

from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.formats.tables import SegmentRow, SegmentState, Table, name_key, u64_of_key
from qss.host import Host
from qss.limits import KIB, MIB
from qss.segments import SegmentKind
from tests.harness.crash_disk import CrashDisk, Fate
from tests.harness.cuts import Known, Reached, after_cuts, host_on, lived, moments, round_of_life
from tests.harness.soundness import assert_files_sound, assert_logs_sound

OPTIONS = CacheOptions(
    segment_bytes=64 * KIB, journal_bytes=64 * KIB, index_map_bytes=64 * MIB, free_bytes_hard=0, free_bytes_soft=1
)
Rows = dict[bytes, bytes]
SMALL, LARGE = 100, 40_000


@dataclass
class Model:
    states: list[Rows] = field(default_factory=lambda: [{}])
    covered: int = 0
    checkpoint_at: int = 0  # changes of the disk when the checkpoint was begun

    def copy(self) -> Model:
        return Model(list(self.states), self.covered, self.checkpoint_at)

    def key(self) -> int:
        return self.covered


def put(cache: SegmentCache, model: Model, number: int, value: bytes) -> None:
    """A row: random, so that a few make a checkpoint of several parts."""
    change, key = cache.begin(), name_key(number, b"user.x")
    change.put(Table.XATTRS, key, value)
    model.states.append(model.states[-1] | {key: value})
    cache.commit(change)


def contents(cache: SegmentCache) -> Rows:
    return dict(cache.scan(Table.XATTRS, b""))


async def scenario(root: Path, disk: CrashDisk, model: Model, locations: Reached) -> None:
    cache = await SegmentCache.open(root, host_on(disk, "boot-1"), OPTIONS, locations)
    rng = random.Random(5)
    for number in range(1, 6):
        put(cache, model, number, rng.randbytes(LARGE if number < 4 else SMALL))
    await round_of_life(cache, locations, model)
    put(cache, model, 6, rng.randbytes(SMALL))
    model.checkpoint_at = disk.changes
    parts = await cache.checkpoint_journal()
    model.covered = len(model.states) - 1
    assert len(parts) > 1
    for number in range(7, 10):
        put(cache, model, number, rng.randbytes(SMALL))
        await round_of_life(cache, locations, model)
    assert locations.deleted, "journals are trimmed in this scenario"
    await cache.checkpoint_journal()
    for number in range(10, 12):
        put(cache, model, number, rng.randbytes(SMALL))
        await round_of_life(cache, locations, model)
    await cache.close()


def numbers_in(disk: CrashDisk, directory: Path) -> set[int]:
    return {int(name.partition(".")[0], 16) for name in disk.listdir(directory)}


async def check(root: Path, disk: CrashDisk, model: Model, locations: Reached, boot: str) -> None:
    locations.disk = disk
    cache = await SegmentCache.open(root, host_on(disk, boot), OPTIONS, locations)
    found = contents(cache)
    assert found in model.states[model.covered :], "not a state that ever was, or older than the last sync"
    assert_files_sound(cache, root, disk)
    # It goes on: another checkpoint, and in the end nothing is kept that no root needs, here or there.
    again = Model([found])
    put(cache, again, 40, b"after the cut")
    made = await cache.checkpoint_journal()
    for _ in range(6):
        await round_of_life(cache, locations, again)
    assert contents(cache) == again.states[-1]
    newest = locations.roots[-1]
    assert newest.checkpoint == made
    rows = {u64_of_key(key): SegmentRow.unpack(value) for key, value in cache.scan(Table.SEGMENTS, b"")}
    assert not [number for number, row in rows.items() if row.state is SegmentState.CONDEMNED]
    assert {n for n, row in rows.items() if row.kind is SegmentKind.CHECKPOINT} == set(made)
    assert min(n for n, row in rows.items() if row.kind is SegmentKind.JOURNAL) == newest.journals[0]
    assert min(numbers_in(disk, root / "journal")) == newest.journals[0]
    assert numbers_in(disk, root / "checkpoint") == set(made)
    assert not disk.listdir(root / "checkpoint-new")
    assert locations.segments.keys() <= {*rows, *newest.journals}
    await cache.close()
    assert_logs_sound(root, host_on(disk, boot), OPTIONS)
    for back, point in enumerate(locations.roots[-2:]):
        new = root / f"restored-{back}"
        await locations.restored(point, new, Host(), OPTIONS)
        restored = await SegmentCache.open(new, Host(), OPTIONS, None)
        assert contents(restored) == again.states[-1]
        await restored.close()


def run_to_cut(root: Path, cut_at: int) -> tuple[CrashDisk, Model, Reached]:
    disk, model = CrashDisk(), Model()
    locations = Reached(disk)
    disk.cut_at = cut_at
    lived(scenario, root, disk, model, locations)
    return disk, model, locations


@pytest.mark.usefixtures("without_threads")
@pytest.mark.parametrize("fate", Fate)
def test_every_power_cut_around_a_checkpoint(tmp_path: Path, fate: Fate) -> None:
    disk, model, root = CrashDisk(), Model(), tmp_path / "life"
    life = Known(model, Reached(disk))
    found = moments(disk, life, partial(scenario, root, disk, model, life.locations))
    for after, known in after_cuts(found[model.checkpoint_at :], root, fate):
        trio.run(check, root, after, known.model, known.locations, "boot-2")


def test_a_kill_at_any_moment_around_a_checkpoint(tmp_path: Path) -> None:
    """The page cache and LMDB's file survive a mere kill."""
    disk, model = CrashDisk(), Model()
    trio.run(scenario, tmp_path / "count", disk, model, Reached(disk))
    for cut_at in range(model.checkpoint_at, disk.changes + 1, 2):
        root = tmp_path / str(cut_at)
        disk, found, locations = run_to_cut(root, cut_at)
        found.covered = max(found.covered, len(found.states) - 2)
        trio.run(check, root, disk.after_cut(Fate.KEPT, random.Random(0)), found, locations, "boot-1")
        shutil.rmtree(root, ignore_errors=True)
