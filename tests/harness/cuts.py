"""A life on a crash disk, and every moment at which the power may go: what the crash tests share.

A life is run once, and before each change of the disk a copy of everything that counts is kept. That is what a cut
there leaves, as long as LMDB's file is not part of it; tests that need it run the life again up to the cut (`lived`).
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Awaitable, Callable, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import trio

from qss.cache.store import SegmentCache
from qss.host import Host, SystemEntropy
from qss.ids import SegmentId, StripeNo
from tests.harness.crash_disk import CrashDisk, Fate, FixedClock, PowerCut
from tests.harness.locations import Locations


class Kept(Protocol):
    """What a test knows beside the disk, as of one moment."""

    def copy(self) -> Self: ...

    def key(self) -> Hashable:
        """Equal keys and equal disks: a check of the later moment would find nothing new."""
        ...


K = TypeVar("K", bound=Kept)


def host_on(disk: CrashDisk, boot: str) -> Host:
    return Host(disk, FixedClock(boot), SystemEntropy())


class Reached(Locations):
    """Locations and the disk they read from: segment files are on the crash disk, not in a directory."""

    def __init__(self, disk: CrashDisk) -> None:
        super().__init__()
        self.disk = disk

    def read_file(self, path: Path) -> bytes:
        handle = self.disk.open(path)
        try:
            return self.disk.pread(handle, self.disk.size(handle), 0)
        finally:
            self.disk.close(handle)

    async def fetch(self, segment: SegmentId, stripe: StripeNo, into: Path) -> None:
        raise AssertionError("nothing is evicted here")

    def seen_from(self, disk: CrashDisk) -> Self:
        """The same locations as they are now, for a machine with that disk; what it changes stays there."""
        again = type(self)(disk)
        again.segments, again.roots = dict(self.segments), list(self.roots)
        again.stored, again.deleted = list(self.stored), list(self.deleted)
        return again


@dataclass
class Known(Generic[K]):
    """Model and locations of a scenario."""

    model: K
    locations: Reached

    def copy(self) -> Known[K]:
        return Known(self.model.copy(), self.locations.seen_from(self.locations.disk))

    def key(self) -> Hashable:
        there = self.locations
        return self.model.key(), len(there.roots), len(there.stored), len(there.deleted)


class Covering(Protocol):
    """A model of every state there has been, and the newest that a sync has covered."""

    states: list[Any]
    covered: int


async def round_of_life(cache: SegmentCache, locations: Locations, model: Covering) -> None:
    """Cut, store, publish, delete: as mount and courier would."""
    await cache.cut()
    model.covered = len(model.states) - 1
    await cache.reclaim()
    await locations.carry(cache)
    await locations.publish(cache)
    await locations.dispose(cache)


# -- cuts


def is_cut(error: BaseException) -> bool:
    """Nothing but the power cut, however trio has wrapped it."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_cut(each) for each in error.exceptions)
    return isinstance(error, PowerCut)


def lived(life: Callable[..., Awaitable[None]], *args: object) -> None:
    """Run a life to its end, or until the power goes."""
    try:
        trio.run(life, *args)
    except BaseException as error:
        if not is_cut(error):
            raise


def forget_index(root: Path) -> None:
    shutil.rmtree(root / "index", ignore_errors=True)


@dataclass(frozen=True)
class Moment(Generic[K]):
    at: int  # changes before the power goes
    disk: CrashDisk
    known: K


def moments(disk: CrashDisk, known: K, life: Callable[[], Awaitable[None]]) -> list[Moment[K]]:
    """Every one of a life: before its first change, and behind each."""
    found: list[Moment[K]] = []

    def keep() -> None:
        found.append(Moment(disk.changes, disk.copy(), known.copy()))

    disk.watch = keep
    trio.run(life)
    disk.watch = None
    keep()
    assert [each.at for each in found] == list(range(disk.changes + 1))
    return found


def after_cuts(found: list[Moment[K]], root: Path, fate: Fate) -> Iterator[tuple[CrashDisk, K]]:
    """The disk and what is known after a cut at each of these moments but the very first, without an index. `root`, of
    the life, holds what a real disk has to hold, which is directories. What is the same once more is left out."""
    seen: set[Hashable] = set()
    for moment in found:
        disk = moment.disk.after_cut(fate, random.Random(moment.at))
        key = disk.digest(), moment.disk.folders, moment.known.key()
        if not moment.at or key in seen:
            continue
        seen.add(key)
        shutil.rmtree(root, ignore_errors=True)
        for folder in moment.disk.folders:
            folder.mkdir(parents=True, exist_ok=True)
        yield disk, moment.known.copy()
    shutil.rmtree(root, ignore_errors=True)


async def in_turn(work: Callable[..., Any], *args: Any, **_options: Any) -> Any:
    """Instead of trio.to_thread.run_sync: what a thread would do is done here, so that every run makes the same changes
    in the same order."""
    await trio.lowlevel.checkpoint()
    return work(*args)
