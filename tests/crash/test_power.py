"""Cut the power before every operation of a life, with everything a disk may make of what was not synced.

The life goes through every step of tests/harness/crash_world.py. After each cut: start, run fsck, compare with the
model, go on, stop, run fsck again. docs/crash-points.md says what each step leaves.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qss.errors import Damaged
from qss.fsck.check import check_index
from qss.fsck.findings import Kind, Report
from qss.fsck.offline import look
from tests.harness.crash_disk import CrashDisk, Fate, PowerCut
from tests.harness.crash_index import IndexFate, IndexFile
from tests.harness.crash_world import OPTIONS, STEPS, DiskLocations, Model, Picture, World
from tests.harness.cuts import lived

LIFE = (
    "write small", "write large", "fsync", "overwrite", "seal", "set retention", "store", "publish", "write large",
    "rename", "checkpoint index", "evict", "fetch back", "overwrite", "rotate", "snapshot", "seal", "store", "publish",
    "cut short", "delete most", "seal", "condemn", "store", "publish", "drop snapshot", "condemn", "seal", "store",
    "publish", "checkpoint journal", "store", "publish", "dispose", "write small", "compact", "seal", "condemn",
    "store", "publish", "dispose", "checkpoint index", "evict", "reopen", "fetch back", "write large", "fsync",
    "overwrite",
)  # fmt: skip
AFTERWARDS = (
    "write small", "fsync", "overwrite", "seal", "store", "publish", "condemn", "dispose", "delete most", "write large",
)  # fmt: skip

FATES = (
    (Fate.LOST, IndexFate.SYNCED),
    (Fate.LOST, IndexFate.NOW),
    (Fate.KEPT, IndexFate.GONE),
    (Fate.TORN, IndexFate.MIXED),
    (Fate.GARBAGE, IndexFate.NOW),
    (Fate.PREFIX, IndexFate.MIXED),
    (Fate.TORN, IndexFate.DAMAGED),
)
SOUND_AFTER_A_CUT = {Kind.STRIPE_DAMAGED}  # a fetch is not synced; what it left is dropped by the first read


class Cut:
    """A life that ended before operation `at`; `at` None: it went to its end."""

    def __init__(self, root: Path, life: tuple[str, ...], at: int | None) -> None:
        self.root = root
        self.model = Model()
        self.disk = CrashDisk()
        self.disk.cut_at = at
        self.locations = DiskLocations(self.disk)
        self.index = IndexFile(root)
        self.steps: Counter[str] = Counter()  # operations of each
        with self.index.watched(self.disk):
            lived(self._live, life)
        self.index_now = self.index.now()

    async def _live(self, life: tuple[str, ...]) -> None:
        world = World(self.root, self.disk, self.model, self.locations)
        await world.open()
        for step in life:
            before = self.disk.changes
            await world.run(step)
            self.steps[step] += self.disk.changes - before
        await world.close()

    def check(self, fate: Fate | None, index_fate: IndexFate, seed: int, cut_again: int | None = None) -> bool:
        """`fate` None: a mere kill. `cut_again`: the power goes a second time before that operation of the start; True:
        the start had fewer."""
        disk = self.disk.after_cut(fate or Fate.KEPT, random.Random(seed))
        self.index.after_cut(index_fate, random.Random(seed), self.index_now)
        boot = "boot-1" if fate is None else "boot-2"
        reached = False
        if cut_again is not None:
            disk.cut_at = cut_again
            second = IndexFile(self.root)
            with second.watched(disk), suppress(PowerCut, BaseExceptionGroup):
                trio.run(World(self.root, disk, Model(), self.locations, boot).open)
                reached = True
            disk = disk.after_cut(fate or Fate.KEPT, random.Random(seed + 1))
            second.after_cut(IndexFate.MIXED, random.Random(seed + 2), second.now())
            boot = "boot-3"
        again = IndexFile(self.root)
        with again.watched(disk):
            trio.run(self._recovered, disk, boot, seed)
        return reached

    async def _recovered(self, disk: CrashDisk, boot: str, seed: int) -> None:
        locations = self.locations.seen_from(disk)
        model = Model()
        world = World(self.root, disk, model, locations, boot)
        world.serial = 1000
        if seed % 4 == 0:
            assert_sound(world, Kind.ROOT_MISSING, Kind.INDEX_DIFFERS)  # a look changes nothing
        await world.open()
        found = await world.picture()
        acceptable = self.model.states[self.model.covered :]
        assert found in acceptable, differences(found, acceptable)
        model.states.append(found)
        assert check_index(world.cache, world.cache.reach_of, Report()).findings == []
        for step in AFTERWARDS:
            await world.run(step)
        assert await world.picture() == model.now
        assert check_index(world.cache, world.cache.reach_of, Report()).findings == []
        await world.close()
        assert_sound(world)


def assert_sound(world: World, *besides: Kind) -> None:
    """fsck of the files, as `qssctl fsck --data` on an unmounted file system."""
    looked = look(world.root, world.host, OPTIONS, world.root / "fsck", data=True, on_stage=lambda *_: None)
    allowed = SOUND_AFTER_A_CUT | set(besides)
    assert [each for each in looked.report.findings if each.kind not in allowed] == []


def differences(found: Picture, acceptable: list[Picture]) -> str:
    nearest = min(acceptable, key=lambda each: len(set(each.items()) ^ set(found.items())))
    paths = sorted({path for path, _ in set(nearest.items()) ^ set(found.items())})
    return f"not a state that ever was, or older than the last sync: {paths} of {sorted(found)}"


def test_the_life_goes_through_every_step(tmp_path: Path) -> None:
    whole = Cut(tmp_path, LIFE, None)
    assert set(LIFE) == set(STEPS), "a step nobody cuts"
    assert all(whole.steps[step] for step in LIFE), whole.steps
    assert whole.locations.deleted, "nothing was disposed of"
    assert {verb.split()[0] for verb in whole.disk.log} == {
        "create", "pwrite", "sync_data", "sync_dir", "rename", "remove", "makedirs", "commit", "sync",
    }  # fmt: skip


@pytest.mark.usefixtures("without_threads")
def test_every_power_cut(tmp_path: Path) -> None:
    total = Cut(tmp_path / "whole", LIFE, None).disk.changes
    states = 0
    for at in range(1, total + 1):
        root = tmp_path / str(at)
        cut = Cut(root, LIFE, at)
        for number, (fate, index_fate) in enumerate(FATES):
            try:
                cut.check(fate, index_fate, at * 31 + number)
            except Exception as error:
                raise AssertionError(f"cut before {at} ({cut.disk.log[-1]}), {fate}, {index_fate}") from error
            states += 1
        shutil.rmtree(root)
    print(f"{states} states after {total} power cuts")


def test_a_kill_at_every_operation_loses_nothing_committed(tmp_path: Path) -> None:
    """The page cache and LMDB's file survive; the index is used as it is, or was deleted or damaged meanwhile."""
    total = Cut(tmp_path / "whole", LIFE, None).disk.changes
    for at in range(1, total + 1):
        root = tmp_path / str(at)
        cut = Cut(root, LIFE, at)
        cut.model.covered = max(cut.model.covered, len(cut.model.states) - 2)  # the one under way, or without it
        cut.check(None, (IndexFate.NOW, IndexFate.DAMAGED, IndexFate.GONE)[at % 3], at)
        shutil.rmtree(root)


def test_the_power_goes_again_at_every_operation_of_the_start(tmp_path: Path) -> None:
    total = Cut(tmp_path / "whole", LIFE, None).disk.changes
    states = 0
    for at in range(3, total + 1, 29):
        root = tmp_path / str(at)
        cut = Cut(root, LIFE, at)
        second = 0
        while not cut.check(Fate.TORN, IndexFate.NOW, at, second):
            second += 1
        states += second
        shutil.rmtree(root)
    assert states > 100
    print(f"{states} states after a second cut")


@settings(
    max_examples=int(os.environ.get("QSS_POWER_CUTS", "60")), deadline=None, suppress_health_check=list(HealthCheck)
)
@given(
    life=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=25),
    where=st.floats(0, 1),
    fate=st.sampled_from(Fate),
    index_fate=st.sampled_from(IndexFate),
    seed=st.integers(0, 2**32),
    again=st.none() | st.integers(0, 40),
)
def test_any_life_and_any_cut(tmp_path_factory, life, where, fate, index_fate, seed, again) -> None:
    root = tmp_path_factory.mktemp("life")
    total = Cut(root / "whole", tuple(life), None).disk.changes
    cut = Cut(root / "cut", tuple(life), 1 + int(where * (total - 1)))
    cut.check(fate, index_fate, seed, again)
    shutil.rmtree(root)


def test_a_disk_that_lies_about_syncs_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So these tests can fail."""
    monkeypatch.setattr(CrashDisk, "sync_data", lambda disk, handle: disk.changing("sync_data", Path("/lie/lie")))
    total = Cut(tmp_path / "whole", LIFE, None).disk.changes

    def cuts() -> None:
        for at in range(total // 2, total, 10):
            Cut(tmp_path / str(at), LIFE, at).check(Fate.LOST, IndexFate.GONE, at)

    with pytest.raises((AssertionError, Damaged, BaseExceptionGroup)):
        cuts()
