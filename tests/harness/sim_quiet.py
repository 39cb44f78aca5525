"""What must hold when the faults of a simulation are over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import trio

from qss.cache.segment_log import FOLDERS, log_path
from qss.cache.store import SegmentCache
from qss.errors import Damaged, QssError
from qss.formats.manifest import Manifest
from qss.formats.shard import HEADER_BYTES, ShardHeader
from qss.formats.tables import SegmentState
from qss.fs.filesystem import FileSystem, FsOptions
from qss.fsck.check import check_index
from qss.fsck.findings import Report
from qss.fsck.offline import look
from qss.host import Host, PosixDisk
from qss.ids import LocationId, SegmentId, ShardNo, StripeNo, segment_text
from qss.offload.census import GENERATION
from qss.offload.plan import Source
from qss.offload.recovery import Recovery
from qss.offload.roots import HISTORY_KEPT
from qss.offload.seal import hash_of
from qss.segments import RestorePoint, SegmentKind
from tests.harness.crash_world import Model, picture_of
from tests.harness.sim_machine import Machine, Offload, SimWorld, Stores
from tests.harness.sim_time import SimClock, SimEntropy, Trace

SETTLE_S_MAX = 1200.0


class Quiet:
    def __init__(
        self, machine: Machine, stores: Stores, model: Model, trace: Trace, strays_of: Collection[str] = ()
    ) -> None:
        """`strays_of`: machines that may have sent something in vain."""
        self._machine = machine
        self._strays_of = strays_of
        self._stores = stores
        self._model = model
        self._trace = trace

    async def settle(self, world: SimWorld) -> None:
        """Wait until nothing is left to do; then look at everything but what only a stopped machine shows."""
        await trio.sleep(130)  # breakers close, pauses end
        await self._publish(world)
        await self._scrub(world)
        for _ in range(3):  # roots that no longer need what is dead
            path = world.fresh()
            world.create(path)
            await world.write(path, 0, world.rng.randbytes(500))
            await self._publish(world)
            await trio.sleep(10)
        await self._until(world, "nothing to carry", lambda: self._nothing_to_carry(world))
        await self._scrub(world)
        assert await world.picture() == self._model.now
        await world.cache.evict(all_=True)
        assert await world.picture() == self._model.now, "what comes back is not what was acknowledged"
        offload = self._offload
        held, budget = offload.vault.buffers.held_bytes, offload.vault.options.memory_bytes
        assert held <= budget, f"{held} bytes of buffers are held, {budget} may be"
        assert check_index(world.cache, world.cache.reach_of, Report()).findings == []
        await self._census(world)
        self._check_roots()

    @property
    def _offload(self) -> Offload:
        assert self._machine.offload is not None, "the offload process is down in the quiet"
        return self._machine.offload

    async def _publish(self, world: SimWorld) -> None:
        at = len(self._model.states) - 1
        journal = await world.cache.cut()
        with trio.move_on_after(SETTLE_S_MAX) as limit:
            await world.cache.wait_published(journal)
        assert not limit.cancelled_caught, f"nothing is published in the quiet: {self._status()}"
        self._model.covered = at

    def _status(self) -> str:
        courier = self._offload.courier
        assert courier is not None
        facts = courier.status()
        return f"{facts.blocked} {facts.last_error}, queued {facts.queued}, in flight {facts.in_flight}"

    async def _until(self, world: SimWorld, what: str, done) -> None:
        deadline = trio.current_time() + SETTLE_S_MAX
        while not await done():
            assert trio.current_time() < deadline, f"never {what}: {self._status()}"
            await trio.sleep(5)

    async def _nothing_to_carry(self, world: SimWorld) -> bool:
        return not await world.cache.unsafe_segments() and not await world.cache.condemned()

    async def _manifests(self, world: SimWorld) -> dict[SegmentId, Manifest]:
        rows = world.cache._shelf.rows
        wanted = sorted(segment for segment, row in rows.items() if row.state is SegmentState.OFFLOADED)
        return {segment: await self._offload.vault.manifest_of(segment) for segment in wanted}

    async def _scrub(self, world: SimWorld) -> None:
        """Read every shard; what is damaged is repaired by the courier."""
        vault = self._offload.vault
        for segment, manifest in (await self._manifests(world)).items():
            for number, place in enumerate(manifest.placed):
                if place is None:
                    continue
                for stripe in range(len(manifest.stripes)):
                    room = memoryview(bytearray(manifest.stripes[stripe].block))
                    try:
                        await vault._fetcher.block(manifest, StripeNo(stripe), Source(ShardNo(number), place), room)
                    except Damaged as error:
                        self._trace.add(f"scrub {segment_text(segment)} {number}: {error}")
            if self._missing(segment, manifest):
                await self._until(world, "completed", lambda one=segment: self._completed(world, one))

        async def repaired() -> bool:
            assert self._offload.courier is not None
            await self._offload.courier.upkeep()
            return not self._offload.vault.damage.open

        await self._until(world, "repaired", repaired)

    async def _completed(self, world: SimWorld, segment: SegmentId) -> bool:
        """As every part of the courier does it: not while another one works on the segment."""
        assert self._offload.courier is not None
        with self._offload.courier.claim(segment) as ours:
            if ours:
                await world.cache.mark_offloaded(await self._offload.vault.complete(segment))
            return ours

    def _missing(self, segment: SegmentId, manifest: Manifest) -> list[ShardNo]:
        """Shards that are whole nowhere."""
        shards = (ShardNo(number) for number in range(len(manifest.placed)))
        return [shard for shard in shards if "" not in self._faults_of(segment, manifest, shard).values()]

    def _faults_of(self, segment: SegmentId, manifest: Manifest, shard: ShardNo) -> dict[LocationId, str]:
        return {place: self._fault_of(segment, manifest, shard, place) for place in self._stores}

    async def _census(self, world: SimWorld) -> None:
        """Every shard is whole where it should be, and nothing else is anywhere."""
        manifests = await self._manifests(world)
        for segment, manifest in manifests.items():
            missing = self._missing(segment, manifest)
            why = [self._faults_of(segment, manifest, shard) for shard in missing]
            assert not missing, f"segment {segment_text(segment)} lacks {missing}: {why}"
        rows = set(world.cache._shelf.rows)
        for location, store in self._stores.items():
            known = {self._machine.keys.shard_name(segment, GENERATION, location) for segment in rows}
            leaked = [key for key in store.objects if key not in known | self._root_names()]
            leaked = [key for key in leaked if store.author.get(key) not in self._strays_of]
            assert not leaked, f"{len(leaked)} objects at {location} belong to nothing: {leaked}"

    def _fault_of(self, segment: SegmentId, manifest: Manifest, shard: ShardNo, place: LocationId) -> str:
        """Why the object is not the shard it should be; empty when it is."""
        keys = self._machine.keys
        data = self._stores[place].objects.get(keys.shard_name(segment, GENERATION, place))
        if data is None:
            return "it is not there"
        try:
            header = ShardHeader.unpack(data[:HEADER_BYTES], keys.header, segment, place)
        except QssError as error:
            return str(error)
        if (header.seal, header.shard) != (manifest.seal, shard):
            return "it is another shard, or of another seal"
        for number, facts in enumerate(manifest.stripes):
            start = manifest.block_offset(StripeNo(number))
            if hash_of(data[start : start + facts.block]) != manifest.hash_of(StripeNo(number), shard):
                return f"stripe {number} does not verify"
        return ""

    def _root_names(self) -> set[str]:
        newest = self._offload.roots.known.generation
        numbers = range(max(1, newest - HISTORY_KEPT), newest + 1)
        keys = self._machine.keys
        return {keys.hold_name()} | {keys.root_name(number) for number in (None, *numbers)}

    def _check_roots(self) -> None:
        """One chain: each root names the one before it, wherever a majority holds that."""
        keys, book, known = self._machine.keys, self._offload.book, self._offload.roots.known
        digest, generation = known.digest, known.generation
        while generation > max(0, known.generation - HISTORY_KEPT):
            there: Counter[bytes] = Counter()
            of_digest = {}
            for store in self._stores.values():
                box = store.objects.get(keys.root_name(generation))
                if box is not None:
                    try:
                        root = book.open(box)
                    except QssError:
                        continue  # it has rotted
                    there[root.digest()] += 1
                    of_digest[root.digest()] = root
            if digest not in of_digest:
                assert generation < known.generation, "the newest root is nowhere"
                break  # lost with the locations that were lost
            digest, generation = of_digest[digest].previous, generation - 1

    def check_files(self) -> None:
        """fsck of the stopped machine, as `qssctl fsck --data`."""
        machine = self._machine
        looked = look(machine.root, machine.host, machine.cache_options, machine.root / "fsck", data=True,
                      on_stage=lambda *_: None)  # fmt: skip
        assert looked.report.findings == [], looked.report.findings

    async def check_recovery(self, base: Path) -> None:
        """A new machine, with nothing but the key and the locations, has what the newest root has."""
        machine = self._machine
        host = Host(PosixDisk(), SimClock("boot-1"), SimEntropy(machine.rng))
        for kind in (SegmentKind.JOURNAL, SegmentKind.CHECKPOINT):
            (base / "cache" / FOLDERS[kind]).mkdir(parents=True)
        offload = Offload(self._stores, machine.keys, machine.options, host, base / "offload")
        recovery = Recovery(offload.vault, offload.book)

        async def rebuild(point: RestorePoint, paths: list[Path]):
            made = await SegmentCache.rebuild(base / "cache", host, machine.cache_options, paths, point.next_segment)
            return made.unplaced

        async def adopt(found) -> None:
            cache = await SegmentCache.open(base / "cache", host, machine.cache_options, None)
            for sealed, receipt in found:
                await cache.adopt(sealed, receipt)
            await cache.close()

        report = await recovery.run(lambda segment, kind: log_path(base / "cache", kind, segment), rebuild, adopt)
        assert not report.skipped, report.skipped
        assert not report.lost, report.lost
        cache = await SegmentCache.open(base / "cache", host, machine.cache_options, offload.vault)
        try:
            assert await picture_of(FileSystem(cache, host.clock, FsOptions(atime="noatime"))) == self._model.now
        finally:
            await cache.close()
