"""Cut the power before every change while a journal checkpoint is made, published and journals are trimmed; the index
is gone each time, so it comes from the newest checkpoint and the journals behind it. docs/crash-points.md."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import trio

from qss.cache.index import Index
from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.formats.tables import SegmentRow, SegmentState, Table, name_key, u64_of_key
from qss.host import Host, SystemEntropy
from qss.ids import SegmentId, StripeNo
from qss.limits import KIB, MIB
from qss.segments import SegmentKind
from tests.harness.crash_disk import CrashDisk, Fate, FixedClock, PowerCut
from tests.harness.locations import Locations
from tests.harness.soundness import assert_files_sound, assert_logs_sound

OPTIONS = CacheOptions(
    segment_bytes=64 * KIB, journal_bytes=64 * KIB, index_map_bytes=64 * MIB, free_bytes_hard=0, free_bytes_soft=1
)
Rows = dict[bytes, bytes]
SMALL, LARGE = 100, 40_000


@pytest.fixture(autouse=True)
def lmdb_is_not_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is on the real disk, whose power is not cut, and goes with every cut."""
    monkeypatch.setattr(Index, "sync", lambda _self: None)


class Reached(Locations):
    """Locations, and the crash disk they read from."""

    def __init__(self, disk: CrashDisk) -> None:
        super().__init__()
        self.disk = disk

    def read_file(self, path: Path) -> bytes:
        handle = self.disk.open(path)
        return self.disk.pread(handle, self.disk.size(handle), 0)

    async def fetch(self, segment: SegmentId, stripe: StripeNo, into: Path) -> None:
        raise AssertionError("nothing is evicted here")


class Model:
    def __init__(self, states: list[Rows] | None = None) -> None:
        self.states: list[Rows] = states or [{}]
        self.covered = 0
        self.checkpoint_at = 0  # changes of the disk when the checkpoint was begun


def host_on(disk: CrashDisk, boot: str) -> Host:
    return Host(disk, FixedClock(boot), SystemEntropy())


def put(cache: SegmentCache, model: Model, number: int, value: bytes) -> None:
    """A row: random, so that a few make a checkpoint of several parts."""
    change, key = cache.begin(), name_key(number, b"user.x")
    change.put(Table.XATTRS, key, value)
    model.states.append(model.states[-1] | {key: value})
    cache.commit(change)


def contents(cache: SegmentCache) -> Rows:
    return dict(cache.scan(Table.XATTRS, b""))


async def round_of_life(cache: SegmentCache, locations: Reached, model: Model) -> None:
    """Cut, store, publish, delete: as mount and courier would."""
    await cache.cut()
    model.covered = len(model.states) - 1
    await cache.reclaim()
    await locations.carry(cache)
    await locations.publish(cache)
    await locations.dispose(cache)


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
    try:
        trio.run(scenario, root, disk, model, locations)
    except PowerCut:
        pass
    except BaseExceptionGroup as group:
        if group.split(PowerCut)[1] is not None:
            raise
    return disk, model, locations


@pytest.mark.parametrize("fate", Fate)
def test_every_power_cut_around_a_checkpoint(tmp_path: Path, fate: Fate) -> None:
    disk, model = CrashDisk(), Model()
    trio.run(scenario, tmp_path / "count", disk, model, Reached(disk))
    for cut_at in range(model.checkpoint_at, disk.changes + 1):
        root = tmp_path / str(cut_at)
        disk, found, locations = run_to_cut(root, cut_at)
        shutil.rmtree(root / "index", ignore_errors=True)
        after = disk.after_cut(fate, random.Random(cut_at))
        trio.run(check, root, after, found, locations, "boot-2")
        shutil.rmtree(root, ignore_errors=True)


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
