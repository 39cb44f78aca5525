"""The disk is full, fails, or flips a bit at every operation of a life: what is answered, and what is left.

Whatever is refused has not happened; whatever was answered is there; nothing that is read is ever wrong. After the
fault is over everything works again, except that a failed sync stays failed until the next start.
"""

from __future__ import annotations

import errno
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from qss.errors import Damaged, FsError, NoSpace
from qss.fsck.check import check_index
from qss.fsck.findings import Report
from tests.crash.test_power import AFTERWARDS, LIFE, assert_sound, differences
from tests.harness.crash_disk import CrashDisk, Fate
from tests.harness.crash_index import IndexFate, IndexFile
from tests.harness.crash_world import DiskLocations, Model, World, content_of

Fault = Callable[[str, Path, int], Exception | None]


def full() -> Exception:
    return NoSpace("injected: the disk is full")


def failing() -> Exception:
    return OSError(errno.EIO, "injected: the disk fails")


def at_change(verbs: set[str], number: int, count: int, error: Callable[[], Exception]) -> Fault:
    """The `number`th change on, `count` of them, as far as they are of these verbs."""

    def fail(verb: str, path: Path, at: int) -> Exception | None:
        return error() if verb in verbs and number <= at < number + count else None

    return fail


def refused(error: BaseException) -> bool:
    """What may be answered: no space, or an input/output error."""
    if isinstance(error, BaseExceptionGroup):
        return all(refused(each) for each in error.exceptions)
    if isinstance(error, FsError | OSError):
        return error.errno in (errno.ENOSPC, errno.EIO)
    return isinstance(error, Damaged)


class Life:
    """A life beside a disk with faults; then the faults end, it goes on, stops and starts again."""

    def __init__(self, root: Path, fault: Fault | None) -> None:
        self.root = root
        self.disk = CrashDisk()
        self.model = Model()
        self.locations = DiskLocations(self.disk)
        self.index = IndexFile(root)
        self.refusals: Counter[str] = Counter()
        self.fault = fault

    def world(self, boot: str) -> World:
        return World(self.root, self.disk, self.model, self.locations, boot)

    def live(self) -> None:
        with self.index.watched(self.disk):
            trio.run(self._live)
        self.index_now = self.index.now()

    async def _live(self) -> None:
        world = self.world("boot-1")
        self.disk.fail = self.fault
        await self._opened(world)
        for step in LIFE:
            await self._step(world, step)
            assert await self._seen(world) == self.model.now, f"after {step}"
        self.disk.fail = None
        self.changes = self.disk.changes
        for step in AFTERWARDS:
            await self._step(world, step)
        assert await self._seen(world) == self.model.now, "after the faults"
        assert check_index(world.cache, world.cache.reach_of, Report()).findings == []
        await self._closed(world)

    async def _seen(self, world: World) -> object:
        """What there is, without the fault."""
        fail, self.disk.fail = self.disk.fail, None
        try:
            return await world.picture()
        finally:
            self.disk.fail = fail

    async def _opened(self, world: World) -> None:
        for attempt in range(3):
            try:
                await world.open()
                return
            except Exception as error:
                if not refused(error) or attempt == 2:
                    raise
                self.refusals["open"] += 1
                self.disk.fail = None  # it is over when the user tries again

    async def _step(self, world: World, step: str) -> None:
        try:
            if step == "reopen":
                await self._closed(world)
                await self._opened(world)
            else:
                await world.run(step)
        except Exception as error:
            if not refused(error):
                raise
            self.refusals[step] += 1

    async def _closed(self, world: World) -> None:
        try:
            await world.close()
        except Exception as error:
            if not refused(error):
                raise
            self.refusals["close"] += 1

    def start_again(self, fate: Fate | None, seed: int) -> None:
        """After a power cut, or a kill (`fate` None, and then for the last time), everything that counts is there."""
        disk = self.disk if fate is None else self.disk.after_cut(fate, random.Random(seed))
        self.index.after_cut(IndexFate.NOW if fate is None else IndexFate.MIXED, random.Random(seed), self.index_now)
        again = Life(self.root, None)
        again.disk = disk
        again.locations = self.locations.seen_from(disk)
        with again.index.watched(disk):
            trio.run(again._check, self.model, "boot-1" if fate is None else "boot-2")
        if fate is None:  # what was said to be synced was
            again.index_now = again.index.now()
            again.start_again(Fate.LOST, seed)

    async def _check(self, before: Model, boot: str) -> None:
        world = self.world(boot)
        world.serial = 1000
        await world.open()
        found = await world.picture()
        acceptable = before.states[before.covered :]
        assert found in acceptable, differences(found, acceptable)
        self.model.states.append(found)
        for step in AFTERWARDS:
            await world.run(step)
        await world.close()
        assert_sound(world)


def verbs_of(root: Path) -> list[str]:
    """Of every change of a life without a fault, in order."""
    life = Life(root, None)
    life.live()
    assert not life.refusals
    return [line.partition(" ")[0] for line in life.disk.log[: life.changes]]


WRITES = {"pwrite", "create", "rename", "makedirs", "commit"}
CASES = {
    "full-once": (WRITES, 1, full),
    "full-for-a-while": (WRITES, 9, full),
    "write-fails": (WRITES | {"truncate", "remove"}, 1, failing),
    "writes-fail-for-a-while": (WRITES | {"truncate", "remove"}, 9, failing),
    "sync-fails": ({"sync_data", "sync_dir", "sync"}, 1, failing),
    "syncs-fail-for-a-while": ({"sync_data", "sync_dir", "sync"}, 9, failing),
}


@pytest.mark.usefixtures("without_threads")
@pytest.mark.parametrize("case", CASES)
def test_a_disk_that_fails_at_every_change(tmp_path: Path, case: str) -> None:
    verbs, count, error = CASES[case]
    done = verbs_of(tmp_path / "whole")
    total = len(done)
    refusals: Counter[str] = Counter()
    for at in range(1, total + 1, 1 if count == 1 else 4):
        if verbs.isdisjoint(done[at - 1 : at - 1 + count]):
            continue  # a life without a fault
        root = tmp_path / str(at)
        life = Life(root, at_change(verbs, at, count, error))
        try:
            life.live()
            life.start_again((Fate.LOST, Fate.TORN, None)[at % 3], at)
        except BaseException as problem:
            raise AssertionError(f"{case} at {at}: {life.disk.log[max(0, at - 2) : at]}") from problem
        refusals += life.refusals
        shutil.rmtree(root)
    assert refusals
    print(case, total, dict(refusals))


# -- reads


def flipped(number: int) -> Callable[[Path, bytes, int], bytes]:
    """One bit of the `number`th read is wrong, once."""

    def spoil(path: Path, data: bytes, at: int) -> bytes:
        if at != number or not data:
            return data
        wrong = bytearray(data)
        wrong[at * 7919 % len(wrong)] ^= 1 << at % 8
        return bytes(wrong)

    return spoil


class Reader(Life):
    """A finished life is started again and read, with a fault at one of the reads."""

    async def begun(self) -> None:
        world = self.world("boot-1")
        await world.open()
        for step in (*LIFE, "write small", "store", "write large", "fsync", "rotate", "overwrite"):
            await world.run(step)
        self.left = world  # killed, not closed

    async def read(self, boot: str, fault: Fault | None, spoil: Callable[[Path, bytes, int], bytes] | None) -> None:
        self.disk.reads, self.disk.fail, self.disk.spoil = 0, fault, spoil
        world = self.world(boot)
        try:
            await world.open()
        except Damaged:
            self.refusals["start"] += 1
            self.disk.fail = self.disk.spoil = None
            await world.open()  # nothing was cut off or thrown away
        expected = self.model.now
        found = {path: await self._content(world, path) for path in expected}
        wrong = {path for path in expected if found[path] not in (expected[path], "EIO")}
        assert not wrong, "zeros, stale bytes or nothing"
        assert [path for path, content in found.items() if content == "EIO"] == [] or self.refusals["EIO"] <= 1
        self.reads = self.disk.reads
        self.disk.fail = self.disk.spoil = None
        assert await world.picture() == expected, "the fault is over, and so is what it did"
        assert not world.cache.damage.open
        await world.close()

    async def _content(self, world: World, path: str) -> object:
        if self.model.now[path] is None:
            return None
        try:
            return await content_of(world.fs, world.fs.lookup(*world.place(path)))
        except FsError as error:
            if error.errno != errno.EIO:
                raise
            self.refusals["EIO"] += 1
            return "EIO"

    def copy(self, boot: str) -> Reader:
        """The same state, to be read with another fault."""
        again = Reader(self.root, None)
        again.disk = self.disk.after_cut(Fate.KEPT, random.Random(0))
        again.locations = self.locations.seen_from(again.disk)
        again.model.states, again.model.covered = list(self.model.states), self.model.covered
        fate = IndexFate.NOW if boot == "boot-1" else IndexFate.GONE
        self.index.after_cut(fate, random.Random(0), self.index_now)
        again.index = IndexFile(self.root)
        return again


@pytest.mark.parametrize("fault", ["EIO", "flip"])
@pytest.mark.parametrize("boot", ["boot-1", "boot-2"])
def test_a_fault_at_every_read(tmp_path: Path, fault: str, boot: str) -> None:
    """After a kill (boot-1) and after a power cut with the index gone (boot-2: everything is replayed)."""
    life = Reader(tmp_path / "life", None)
    with life.index.watched(life.disk):
        trio.run(life.begun)
    life.index_now = life.index.now()
    whole = life.copy(boot)
    with whole.index.watched(whole.disk):
        trio.run(whole.read, boot, None, None)
    outcomes: Counter[str] = Counter()
    for at in range(1, whole.reads + 1):
        again = life.copy(boot)
        fail = at_change({"pread"}, at, 1, failing) if fault == "EIO" else None
        spoil = flipped(at) if fault == "flip" else None
        try:
            with again.index.watched(again.disk):
                trio.run(again.read, boot, fail, spoil)
        except BaseException as problem:
            raise AssertionError(f"{fault} at read {at} of {whole.reads}") from problem
        outcomes += again.refusals
    assert bool(outcomes) == (fault == "EIO"), "a bit that flips on the way is read again"
    print(fault, boot, whole.reads, dict(outcomes))
