"""Cut the power before every change of a scenario; recover; compare with a model. docs/crash-points.md."""

from __future__ import annotations

import gc
import random
import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio

from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.formats.tables import ExtentRow, SegmentRow, SegmentState, Table, pair_key, u64_key
from qss.ids import Ino, LocationId
from qss.limits import KIB, MIB
from qss.segments import Receipt
from tests.harness.crash_disk import CrashDisk, Fate, PowerCut
from tests.harness.cuts import Moment, after_cuts, forget_index, host_on, lived, moments
from tests.harness.soundness import assert_files_sound, assert_logs_sound

OPTIONS = CacheOptions(
    segment_bytes=256 * KIB, journal_bytes=4 * KIB, index_map_bytes=64 * MIB, free_bytes_hard=0, free_bytes_soft=1
)
PLACES = tuple(LocationId(f"trove-{n}") for n in range(6))
ROWS = (Table.INODES, Table.EXTENTS)


@dataclass
class Model:
    """Every state the index has been in, the content behind it, and the newest state a sync has covered."""

    states: list[dict[tuple[Table, bytes], bytes]] = field(default_factory=lambda: [{}])
    content: dict[bytes, bytes] = field(default_factory=dict)  # extent row → bytes
    covered: int = 0

    def copy(self) -> Model:
        return Model(list(self.states), dict(self.content), self.covered)

    def key(self) -> int:
        return self.covered


async def scenario(root: Path, disk: CrashDisk, model: Model) -> None:
    """Appends, commits, syncs, cuts and a checkpoint, some over a segment's end."""
    cache = await SegmentCache.open(root, host_on(disk, "boot-1"), OPTIONS, None)
    rng = random.Random(7)
    offset = 0
    for step in range(28):
        change = cache.begin()
        for size in (100, 3000, 90_000, 700)[: 1 + step % 4]:
            payload = rng.randbytes(size)
            for at, extent in cache.append(Ino(5), offset, payload):
                change.put(Table.EXTENTS, pair_key(5, at), extent.pack())
                model.content[extent.pack()] = payload[at - offset : at - offset + extent.length]
            offset += size
        change.put(Table.INODES, u64_key(5), rng.randbytes(8) + bytes(60) + offset.to_bytes(8, "little"))
        if step % 5 == 4:
            first = next(iter(change.scan(Table.EXTENTS, pair_key(5, 0))))
            change.delete(Table.EXTENTS, first[0])
        state = dict(model.states[-1])
        for table in ROWS:
            state = {key: value for key, value in state.items() if key[0] != table}
            state |= {(table, key): value for key, value in change.scan(table, b"")}
        model.states.append(state)  # it may be found from the moment the commit begins
        cache.commit(change)
        at = len(model.states) - 1
        if step % 6 == 3:
            await cache.sync_local()
            model.covered = at
        if step % 9 == 8:
            await cache.cut()
            model.covered = at
        if step in (12, 22):  # what is sealed is stored elsewhere, and goes
            for sealed in await cache.unsafe_segments():
                await cache.mark_offloaded(Receipt(sealed.id, b"s" * 16, 4, 2, PLACES, 1))
            await cache.evict(all_=True)
        if step == 20:
            await cache.checkpoint()
            model.covered = at
    at = len(model.states) - 1
    await cache.close()
    model.covered = at


def count_changes(root: Path) -> int:
    disk = CrashDisk()
    trio.run(scenario, root, disk, Model())
    return disk.changes


async def check(root: Path, disk: CrashDisk, model: Model, boot: str) -> int:
    """Number of extents found evicted."""
    cache = await SegmentCache.open(root, host_on(disk, boot), OPTIONS, None)
    found = {(table, key): value for table in ROWS for key, value in cache.scan(table, b"")}
    assert found in model.states[model.covered :], "not a state that was ever committed, or older than the last sync"
    live: dict[int, int] = {}
    evicted = 0
    for (table, _), value in found.items():
        if table is Table.EXTENTS:
            extent = ExtentRow.unpack(value)
            here = cache.read_now(extent, 0, extent.length)
            if here is None:
                row = SegmentRow.unpack(cache.get(Table.SEGMENTS, u64_key(extent.segment)) or b"")
                assert row.state is SegmentState.OFFLOADED, "evicted, and not known to be elsewhere"
                evicted += 1
            else:
                assert here == model.content[value]
            live[extent.segment] = live.get(extent.segment, 0) + extent.length
    assert cache._ledger.index.live_all() == live
    assert_files_sound(cache, root, disk)
    # It goes on: what is written now is there after another restart, and so is what was there before.
    change = cache.begin()
    change.put(Table.INODES, u64_key(9), b"again")
    (_, extent), *_ = cache.append(Ino(9), 0, b"after the cut")
    change.put(Table.EXTENTS, pair_key(9, 0), extent.pack())
    cache.commit(change)
    await cache.close()
    again = await SegmentCache.open(root, host_on(disk, boot), OPTIONS, None)
    assert again.get(Table.INODES, u64_key(9)) == b"again"
    assert again.read_now(extent, 0, extent.length) == b"after the cut"
    for (table, key), value in found.items():
        assert again.get(table, key) == value
    await again.close()
    assert_logs_sound(root, host_on(disk, boot), OPTIONS)
    return evicted


def run_to_cut(root: Path, cut_at: int) -> tuple[CrashDisk, Model]:
    disk, model = CrashDisk(), Model()
    disk.cut_at = cut_at
    lived(scenario, root, disk, model)
    return disk, model


def moments_of(root: Path) -> list[Moment[Model]]:
    disk, model = CrashDisk(), Model()
    found = moments(disk, model, partial(scenario, root, disk, model))
    assert len(found) > 100
    return found


@pytest.mark.parametrize("fate", Fate)
def test_every_power_cut_leaves_a_consistent_prefix_with_all_that_was_synced(tmp_path: Path, fate: Fate) -> None:
    root = tmp_path / "life"
    evicted = 0
    for after, model in after_cuts(moments_of(root), root, fate):
        evicted += trio.run(check, root, after, model, "boot-2")
    assert evicted


def test_a_kill_at_any_moment_loses_nothing_committed(tmp_path: Path) -> None:
    """The page cache and LMDB's file survive a mere kill; the index is used, not rebuilt."""
    total = count_changes(tmp_path / "count")
    for cut_at in range(1, total + 1, 3):
        root = tmp_path / str(cut_at)
        disk, model = run_to_cut(root, cut_at)
        gc.collect()  # lets go of LMDB as a kill does: nothing more is committed
        model.covered = max(model.covered, len(model.states) - 2)
        trio.run(check, root, disk.after_cut(Fate.KEPT, random.Random(0)), model, "boot-1")
        shutil.rmtree(root)


def test_a_synced_index_is_used_after_a_power_cut_and_any_other_is_rebuilt(tmp_path: Path) -> None:
    """LMDB as it was when the power went, with the logs as the disk kept them."""
    total = count_changes(tmp_path / "count")
    for cut_at in range(1, total + 1, 5):
        root = tmp_path / str(cut_at)
        disk, model = run_to_cut(root, cut_at)
        gc.collect()
        trio.run(check, root, disk.after_cut(Fate.LOST, random.Random(0)), model, "boot-2")
        shutil.rmtree(root)


def test_a_power_cut_during_recovery_is_recovered_from(tmp_path: Path) -> None:
    root = tmp_path / "life"
    for moment in moments_of(root)[5::19]:
        for second in range(8):
            [(disk, model)] = after_cuts([moment], root, Fate.TORN)
            disk.cut_at = second
            try:
                trio.run(check, root, disk, model, "boot-2")
            except (PowerCut, BaseExceptionGroup):
                assert disk.dead
            forget_index(root)
            disk = disk.after_cut(Fate.TORN, random.Random(second))
            trio.run(check, root, disk, moment.known, "boot-3")
