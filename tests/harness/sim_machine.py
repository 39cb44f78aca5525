"""One machine of the simulator: cache and file system on a crash disk, courier and vault beside them, in one process
or another; it can lose its power, be killed, or lose only its offload process, between any two awaits.

What offload keeps (manifests, root.json) lies in a real directory: manifests are never synced, so a power cut may take
any of them; root.json is synced whenever it is written.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

import trio

from qss.cache.index import Index
from qss.cache.store import SegmentCache
from qss.errors import NoSpace, Unreachable
from qss.fs.filesystem import FileSystem, FsOptions
from qss.host import Host
from qss.ids import LocationId, SegmentId, StripeNo
from qss.offload.courier import Courier
from qss.offload.fence import Fence
from qss.offload.history import Known
from qss.offload.hold import BEAT_S, Hold, HoldBook, Holder
from qss.offload.keys import FsKeys
from qss.offload.nodes import Node, Nodes, jitter_from
from qss.offload.options import LocationOptions, OffloadOptions
from qss.offload.roots import RootBook, Roots
from qss.offload.tenure import Tenure
from qss.offload.vault import Vault
from qss.segments import SegmentShelf
from tests.harness.crash_disk import CrashDisk, Fate, PowerCut
from tests.harness.crash_index import IndexFate, IndexFile
from tests.harness.crash_world import DiskLocations, Model, World
from tests.harness.sim_store import SimStore
from tests.harness.sim_time import SimClock, SimEntropy, Trace

Stores = dict[LocationId, SimStore]


def only_power_cuts(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(only_power_cuts(each) for each in error.exceptions)
    return isinstance(error, PowerCut)


class Offload:
    """One life of the offload process."""

    def __init__(
        self, stores: Stores, keys: FsKeys, options: OffloadOptions, host: Host, state: Path, name: str = "",
        cut_off: Collection[str] = (),
    ) -> None:  # fmt: skip
        """`cut_off`: locations this machine has no way to, as it is when it is asked."""
        self.dead = False
        self._host = host
        jitter = jitter_from(host.entropy)
        self.nodes = Nodes(
            [
                Node(
                    LocationOptions(place, "http://127.0.0.1:1", "b"),
                    store.link(self.alive, name, lambda each: each not in cut_off),
                    options,
                    jitter,
                )
                for place, store in stores.items()
            ]
        )
        self.vault = Vault(self.nodes, keys, options, host, state)
        self.book = RootBook(self.nodes, keys, host)
        self.roots = Roots(self.book, keys, host, state, (options.k, options.m), created_by=name)
        self.jitter = jitter
        self.tenure = Tenure(Fence(state))
        self.courier: Courier | None = None

    def alive(self) -> bool:
        return not self.dead

    async def run(self, shelf: SegmentShelf, hold: Hold) -> None:
        """As qss.app.offload puts it together."""
        holds = HoldBook(self.nodes, self.vault.keys, self._host)
        holder = Holder(holds, self.tenure, self._host, hold, lambda: self.roots.known.generation)
        self.courier = Courier(shelf, self.vault, self.roots, self.tenure, self.jitter)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(holder.run)
            await self.courier.run()


class SimWorld(World):
    """The steps of tests/harness/crash_world.py, on a machine of the simulator."""

    def __init__(self, machine: Machine, model: Model) -> None:
        super().__init__(machine.root, machine.disk, model, DiskLocations(machine.disk), machine.boot)
        self.machine = machine
        self.host = machine.host
        self.rng = machine.rng
        self.options = machine.cache_options

    async def open(self) -> None:
        self.cache = await SegmentCache.open(self.root, self.host, self.options, self.machine)
        self.fs = FileSystem(self.cache, self.host.clock, FsOptions(atime="noatime"))
        self.cache.tell_moved(self.fs.invalidate)


class Machine:
    """Also the SegmentVault its cache asks."""

    def __init__(self, name, base, stores, keys, options, cache_options, rng: random.Random, trace: Trace) -> None:
        self.name = name
        self.seat = name  # what it is taken for
        self.root: Path = base / name / "cache"
        self.state: Path = base / name / "offload"
        self.export: Path = base / name / "export"
        for folder in (self.root, self.state, self.export):
            folder.mkdir(parents=True)
        self.stores: Stores = stores
        self.keys: FsKeys = keys
        self.options: OffloadOptions = options
        self.cache_options = cache_options
        self.rng = rng
        self.trace = trace
        self.boots = 1
        self.boot = "boot-1"
        self.disk = CrashDisk()
        self.host = Host(self.disk, SimClock(self.boot), SimEntropy(rng))
        self.index = IndexFile(self.root)
        self.dead = False
        self.closed = False  # as it should be
        self.offload: Offload | None = None
        self.scope = trio.CancelScope()
        self.offload_scope = trio.CancelScope()
        self.world: SimWorld | None = None
        self.ends = 0  # of the offload process
        self.cut_off: set[str] = set()  # names of locations
        self._fetched = 0

    # -- lives

    async def live(self, model: Model, drive) -> None:
        """Start, run `drive(world)`, stop cleanly; or until it dies."""
        self.dead = self.closed = False
        self.scope = trio.CancelScope()
        self.world = world = SimWorld(self, model)
        try:
            with self.scope:
                try:
                    await world.open()
                except NoSpace:
                    self.trace.add(f"{self.name} does not start on a full disk")
                    await trio.sleep(5)
                    return
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(world.cache.run)
                    nursery.start_soon(self._keep_offload, world)
                    await drive(world)
                    nursery.cancel_scope.cancel()
                world.fs.detach()
                try:
                    await world.cache.close()
                    self.closed = True
                except NoSpace:
                    self.trace.add(f"{self.name} stops on a full disk")
        except BaseException as error:
            if not (self.disk.dead and only_power_cuts(error)):
                raise
        self.dead = self.dead or self.disk.dead
        if self.offload is not None:
            self.offload.dead = True

    async def _keep_offload(self, world: SimWorld) -> None:
        while True:
            self.offload_scope = trio.CancelScope()
            with self.offload_scope:
                offload = Offload(self.stores, self.keys, self.options, self.host, self.state, self.name, self.cut_off)
                offload.tenure.fence.tell(lambda _reason: world.fs.turn_read_only())
                if offload.tenure.fenced:
                    world.fs.turn_read_only()
                self.offload = offload
                await offload.run(Shelf(self, world), self.hold(offload.roots.known))
            self.offload = None
            self.ends += 1
            await trio.sleep(0.2)

    def kill(self) -> None:
        """Everything of it ends at its next await, and changes nothing any more."""
        self.trace.add(f"{self.name} dies")
        self.dead = True
        self.disk.cut_at = self.disk.changes
        if self.offload is not None:
            self.offload.dead = True
        self.scope.cancel()

    def kill_offload(self) -> None:
        if self.offload is not None:
            self.trace.add(f"{self.name} loses its offload process")
            self.offload.dead = True
        self.offload_scope.cancel()

    def boot_again(self, fate: Fate | None, index_fate: IndexFate) -> None:
        """After it died. `fate` None: it was killed, and nothing but memory is lost."""
        now = self.index.now()
        for index in self.index._opened:
            with contextlib.suppress(Exception):
                index.close()
        self.index._opened.clear()
        self.disk = self.disk.after_cut(fate or Fate.KEPT, self.rng)
        self.index.after_cut(index_fate, self.rng, now)
        self.index = IndexFile(self.root)
        if fate is not None:
            self.boots += 1
            self.boot = f"boot-{self.boots}"
            self._lose_manifests(fate)
        self.host = Host(self.disk, SimClock(self.boot), self.host.entropy)
        shutil.rmtree(self.export)
        self.export.mkdir()
        self.trace.add(f"{self.name} boots after {fate} {index_fate}")

    def _lose_manifests(self, fate: Fate) -> None:
        if fate is Fate.KEPT:
            return
        for path in sorted((self.state / "manifests").glob("*")):
            luck = self.rng.random()
            if luck < 0.3:
                path.unlink()
            elif luck < 0.4:
                path.write_bytes(b"")

    def hold(self, known: Known) -> Hold:
        """As qss.app.seat."""
        host = self.host
        now_ns, life = host.clock.now_ns(), host.entropy.token(8).hex()
        return Hold(
            self.seat, known.next_epoch, known.writer.hex(), self.name, self.name, now_ns, now_ns, BEAT_S, life,
            known.generation, False, f"{self.boot} {self.name}",
        )  # fmt: skip

    # -- between the two processes

    async def fetch(self, segment: SegmentId, stripe: StripeNo, into: Path) -> None:
        offload = self.offload
        if offload is None or offload.dead:
            await trio.lowlevel.checkpoint()
            raise Unreachable("simulated: the offload process is down")
        self._fetched += 1
        fetched = self.export / f"stripe-{self._fetched}"
        await offload.vault.fetch(segment, stripe, fetched)
        disk, beside = self.disk, into.with_name(f"{into.name}.{self._fetched}.new")
        handle = disk.create(beside)
        try:
            disk.pwrite(handle, [fetched.read_bytes()], 0)
        finally:
            disk.close(handle)
            fetched.unlink()
        disk.rename(beside, into)


class Shelf:
    """A SegmentShelf: the cache, through a socket that takes a moment, with files a vault can open."""

    def __init__(self, machine: Machine, world: SimWorld) -> None:
        self._machine = machine
        self._cache = world.cache

    async def path_of(self, segment: SegmentId) -> Path:
        path = await self._cache.path_of(segment)
        target = self._machine.export / path.name
        target.write_bytes(self._machine.disk.files()[path])
        return target

    def __getattr__(self, name: str):
        method = getattr(self._cache, name)

        async def call(*args):
            await trio.sleep(self._machine.rng.random() * 0.002)
            answer = await method(*args)
            await trio.sleep(self._machine.rng.random() * 0.002)
            return answer

        return call


@contextlib.contextmanager
def indexes_watched(machines: list[Machine]) -> Iterator[None]:
    """LMDB's commits and syncs are operations of the disk of the machine they belong to (as IndexFile.watched, which
    knows one machine)."""
    make, commit, sync = Index.__init__, Index.checkpoint, Index.sync

    def owner(index: Index) -> Machine | None:
        return next((each for each in machines if each.index.path.parent == index.sim_path), None)  # type: ignore[attr-defined]

    def opened(index: Index, path: Path, *args: object, **options: object) -> None:
        index.sim_path = path  # type: ignore[attr-defined]
        make(index, path, *args, **options)  # type: ignore[arg-type]
        machine = owner(index)
        if machine is not None:
            machine.index._opened.append(index)

    def committed(index: Index, *args: object) -> int:
        machine = owner(index)
        if machine is not None:
            machine.disk.changing("commit", machine.index.path)
        return commit(index, *args)  # type: ignore[arg-type]

    def synced(index: Index) -> None:
        machine = owner(index)
        if machine is None:
            sync(index)
            return
        machine.disk.changing("sync", machine.index.path)
        machine.index.synced = machine.index._read()

    Index.__init__, Index.checkpoint, Index.sync = opened, committed, synced  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Index.__init__, Index.checkpoint, Index.sync = make, commit, sync  # type: ignore[method-assign]
