"""One small life of a file system on a crash disk, step by step, beside a plain model of what it holds.

A step is an async function of the World. A new one is added with one line in STEPS; the exhaustive scenario is a list
of their names (tests/crash/test_power.py), the random ones draw from all of them.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from qss.cache.options import CacheOptions, RetentionOptions
from qss.cache.store import SegmentCache
from qss.errors import FsError, TooFewShards
from qss.fs.attrs import SetAttributes, User
from qss.fs.filesystem import FileSystem, FsOptions
from qss.ids import ROOT_INO
from qss.limits import KIB, MIB, STRIPE_BYTES
from tests.harness.crash_disk import CrashDisk
from tests.harness.cuts import Reached, host_on

OPTIONS: Final = CacheOptions(
    segment_bytes=64 * KIB, journal_bytes=4 * KIB, index_map_bytes=16 * MIB, free_bytes_hard=0, free_bytes_soft=1,
    compact_bytes_per_s=1 << 40, compact_waste_bytes_min=0, fetch_deadline_s=0.5, admit_deadline_s=0.0,
)  # fmt: skip

Picture = dict[str, bytes | None]
"""Path → content; None: a directory. What users see, and nothing about where it is."""


class DiskLocations(Reached):
    """Locations that read segments from a crash disk, and bring stripes back to it as offload does: beside, renamed,
    not synced."""

    def __init__(self, disk: CrashDisk) -> None:
        super().__init__(disk)
        self.open = True
        self._fetched = 0

    async def fetch(self, segment, stripe, into) -> None:
        await trio.lowlevel.checkpoint()
        if not self.open or segment not in self.segments:
            raise TooFewShards("no location has it")
        self._fetched += 1
        disk, beside = self.disk, into.with_name(f"{into.name}.{self._fetched}.new")
        handle = disk.create(beside)
        try:
            disk.pwrite(handle, [self.segments[segment][stripe * STRIPE_BYTES : (stripe + 1) * STRIPE_BYTES]], 0)
        finally:
            disk.close(handle)
        disk.rename(beside, into)


@dataclass
class Model:
    """Every picture there has been, and the newest that must survive a power cut."""

    states: list[Picture] = field(default_factory=lambda: [{}])
    covered: int = 0

    @property
    def now(self) -> Picture:
        return self.states[-1]

    def next(self, **_: object) -> Picture:
        """What it will be, from the moment the change begins; to be changed by the caller."""
        self.states.append(dict(self.states[-1]))
        return self.states[-1]


class World:
    def __init__(
        self, root: Path, disk: CrashDisk, model: Model, locations: DiskLocations, boot: str = "boot-1"
    ) -> None:
        self.root = root
        self.disk = disk
        self.model = model
        self.locations = locations
        self.host = host_on(disk, boot)
        self.rng = random.Random(5)
        self.serial = 0
        self.options = OPTIONS

    async def open(self) -> None:
        self.cache = await SegmentCache.open(self.root, self.host, self.options, self.locations)
        self.fs = FileSystem(self.cache, self.host.clock, FsOptions(atime="noatime"))
        self.cache.tell_moved(self.fs.invalidate)

    async def close(self) -> None:
        self.fs.detach()
        await self.cache.close()
        self.model.covered = len(self.model.states) - 1

    async def run(self, step: str) -> None:
        await STEPS[step](self)

    async def synced(self, how: Callable[[], Awaitable[object]]) -> None:
        """After `how` returns, all that is committed now survives a power cut."""
        at = len(self.model.states) - 1
        await how()
        self.model.covered = max(self.model.covered, at)

    # -- changes of files, each one commit

    def place(self, path: str) -> tuple[int, bytes]:
        folder, _, name = path.rpartition("/")
        return (self.fs.lookup(ROOT_INO, folder.encode()) if folder else ROOT_INO), name.encode()

    def paths(self) -> list[str]:
        return sorted(path for path, content in self.model.now.items() if content is not None)

    def change(self, act: Callable[[Picture], None], do: Callable[[], object]) -> None:
        """`act` on the model, `do` it. What is refused has not happened."""
        act(self.model.next())
        try:
            do()
        except (FsError, OSError):
            self.model.states.pop()
            raise

    def create(self, path: str) -> None:
        self.change(lambda now: now.update({path: b""}), lambda: self.fs.create(*self.place(path), 0o644, User()))

    def mkdir(self, path: str) -> None:
        self.change(lambda now: now.update({path: None}), lambda: self.fs.mkdir(*self.place(path), 0o755, User()))

    def unlink(self, path: str) -> None:
        self.change(lambda now: now.pop(path), lambda: self.fs.unlink(*self.place(path)))

    def rename(self, path: str, target: str) -> None:
        def act(now: Picture) -> None:
            now[target] = now.pop(path)

        self.change(act, lambda: self.fs.rename(*self.place(path), *self.place(target)))

    async def write(self, path: str, offset: int, data: bytes) -> None:
        before = self.model.now[path]
        assert before is not None
        after = before.ljust(offset, b"\0")[:offset] + data + before[offset + len(data) :]
        self.model.next()[path] = after
        handle = None
        try:
            handle = await self.fs.open(self.fs.lookup(*self.place(path)), os.O_RDWR)
            await self.fs.write(handle, offset, data)
        except (FsError, OSError):
            self.model.states.pop()
            raise
        finally:
            if handle is not None:
                self.fs.release(handle)

    async def truncate(self, path: str, size: int) -> None:
        before = self.model.now[path]
        assert before is not None
        self.model.next()[path] = before[:size].ljust(size, b"\0")
        try:
            await self.fs.setattr(self.fs.lookup(*self.place(path)), SetAttributes(size=size))
        except (FsError, OSError):
            self.model.states.pop()
            raise

    def fresh(self) -> str:
        taken = {path.rpartition("/")[2] for path in self.model.now}
        taken |= {facts.name for facts in self.cache.snapshots.listed()}
        self.serial = next(n for n in itertools.count(self.serial + 1) if f"f{n}" not in taken)
        return f"f{self.serial}"

    async def picture(self) -> Picture:
        return await picture_of(self.fs)


async def picture_of(fs: FileSystem) -> Picture:
    found: Picture = {}
    queue: list[tuple[str, int]] = [("", int(ROOT_INO))]
    while queue:
        folder, ino = queue.pop()
        for entry in list(fs.readdir(ino)):
            if entry.name in (b".", b".."):
                continue
            path = folder + entry.name.decode()
            if entry.type == 4:
                found[path] = None
                queue.append((path + "/", entry.ino))
            else:
                found[path] = await content_of(fs, entry.ino)
    return found


async def content_of(fs: FileSystem, ino: int) -> bytes:
    handle = await fs.open(ino, os.O_RDONLY)
    try:
        return bytes(await fs.read(handle, 0, fs.getattr(ino).size))
    finally:
        fs.release(handle)


# -- the steps


async def write_small(world: World) -> None:
    for size in (100, 3000):
        path = world.fresh()
        world.create(path)
        await world.write(path, 0, world.rng.randbytes(size))


async def write_large(world: World) -> None:
    """Over the end of a segment."""
    path = world.fresh()
    world.create(path)
    await world.write(path, 0, world.rng.randbytes(90_000))


async def overwrite(world: World) -> None:
    for path in world.rng.sample(world.paths(), min(2, len(world.paths()))):
        content = world.model.now[path] or b""
        await world.write(path, len(content) // 2, world.rng.randbytes(700))


async def cut_short(world: World) -> None:
    if world.paths():
        path = world.rng.choice(world.paths())
        await world.truncate(path, len(world.model.now[path] or b"") // 3)


async def rename(world: World) -> None:
    if "d" not in world.model.now:
        world.mkdir("d")
    paths = world.paths()
    if len(paths) > 1:
        one, other = world.rng.sample(paths, 2)
        world.rename(one, other)
        world.rename(other, f"d/{world.fresh()}")


async def delete_most(world: World) -> None:
    paths = world.paths()
    for path in world.rng.sample(paths, len(paths) * 2 // 3):
        world.unlink(path)
    world.fs.collect()


async def fsync(world: World) -> None:
    await world.synced(world.fs.fsync)


async def seal(world: World) -> None:
    await world.synced(world.cache.cut)


async def rotate(world: World) -> None:
    """More changes than one journal takes."""
    path = world.fresh()
    world.create(path)
    ino = world.fs.lookup(*world.place(path))
    for number in range(3):
        world.fs.setxattr(ino, b"user.x%d" % number, world.rng.randbytes(1500))


async def checkpoint_index(world: World) -> None:
    await world.synced(world.cache.checkpoint)


async def store(world: World) -> None:
    await world.locations.carry(world.cache)


async def publish(world: World) -> None:
    await world.locations.publish(world.cache)


async def condemn(world: World) -> None:
    await world.cache.reclaim()


async def dispose(world: World) -> None:
    await world.locations.dispose(world.cache)


async def evict(world: World) -> None:
    await world.cache.evict(all_=True)


async def fetch_back(world: World) -> None:
    """Read everything, wherever it is."""
    assert await world.picture() == world.model.now


async def compact(world: World) -> None:
    while await world.cache.compact_one():
        pass


async def set_retention(world: World) -> None:
    world.cache.eviction.set_retention(RetentionOptions(size_bytes_max=world.rng.randrange(1 << 20, 1 << 30)))


async def checkpoint_journal(world: World) -> None:
    await world.synced(world.cache.checkpoint_journal)


async def snapshot(world: World) -> None:
    name = world.fresh()
    await world.synced(lambda: world.cache.snapshots.create(name))


async def drop_snapshot(world: World) -> None:
    for facts in world.cache.snapshots.listed()[:1]:
        await world.cache.snapshots.delete(facts.name)


async def reopen(world: World) -> None:
    await world.close()
    await world.open()


STEPS: Final[dict[str, Callable[[World], Awaitable[None]]]] = {
    "write small": write_small,
    "write large": write_large,
    "overwrite": overwrite,
    "cut short": cut_short,
    "rename": rename,
    "delete most": delete_most,
    "fsync": fsync,
    "seal": seal,
    "rotate": rotate,
    "checkpoint index": checkpoint_index,
    "checkpoint journal": checkpoint_journal,
    "store": store,
    "publish": publish,
    "condemn": condemn,
    "dispose": dispose,
    "evict": evict,
    "fetch back": fetch_back,
    "compact": compact,
    "set retention": set_retention,
    "snapshot": snapshot,
    "drop snapshot": drop_snapshot,
    "reopen": reopen,
}
