"""A vault on memory stores behind faulty stores, and a shelf of plain files. On trio."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from qss.errors import ObjectMissing
from qss.host import Host
from qss.ids import LocationId, SegmentId
from qss.offload.fence import Fence
from qss.offload.keys import FsKeys, MasterKey
from qss.offload.nodes import Node, Nodes
from qss.offload.options import LocationOptions, OffloadOptions
from qss.offload.roots import RootBook, Roots
from qss.offload.tenure import Tenure
from qss.offload.vault import Vault
from qss.segments import Receipt, RestorePoint, SealedSegment, SegmentKind, StoredSegment
from tests.harness.faulty_store import FaultyStore
from tests.harness.memory_store import MemoryStore

MASTER = MasterKey(bytes(range(32)))

FAST = {"attempts": 2, "backoff_first_s": 0.001, "backoff_max_s": 0.002, "hedge_delay_s": 0.05, "fetch_deadline_s": 5.0,
        "breaker_open_first_s": 0.01, "breaker_open_max_s": 0.02, "probe_interval_s": 0.05}  # fmt: skip


@dataclass
class World:
    """Locations that outlive machines."""

    options: OffloadOptions
    stores: dict[LocationId, FaultyStore]
    master: MasterKey = MASTER

    @classmethod
    def of(cls, k: int = 4, m: int = 2, count: int | None = None, **options) -> World:
        names = [LocationId(f"trove-{number}") for number in range(1, (count or k + m) + 1)]
        stores = {name: FaultyStore(MemoryStore(), seed) for seed, name in enumerate(names, 10)}
        return cls(OffloadOptions(k=k, m=m, **(FAST | options)), stores)

    def objects(self, location: LocationId) -> dict[str, bytes]:
        return self.stores[location].store.objects

    def machine(self, state: Path) -> Machine:
        return Machine(self, state)


class Machine:
    """One machine with its state directory."""

    def __init__(self, world: World, state: Path) -> None:
        self.world = world
        self.state = state
        state.mkdir(parents=True, exist_ok=True)
        self.host = Host()
        self.keys = FsKeys.derive(world.master)
        jitter = random.Random(1).random
        self.nodes = Nodes(
            [
                Node(LocationOptions(name, "http://127.0.0.1:1", "bucket"), store, world.options, jitter)
                for name, store in world.stores.items()
            ]
        )
        self.vault = Vault(self.nodes, self.keys, world.options, self.host, state / "offload")
        self.book = RootBook(self.nodes, self.keys, self.host)
        self.roots = Roots(self.book, self.keys, self.host, state / "offload", (world.options.k, world.options.m))
        self.tenure = Tenure(Fence(state / "offload"))  # nobody else is reckoned with until a holder needs the lease


@dataclass
class PlainShelf:
    """Segments as files; everything else in memory, which stands for what the cache keeps durably."""

    directory: Path
    segments: dict[SegmentId, SealedSegment] = field(default_factory=dict)
    receipts: dict[SegmentId, Receipt] = field(default_factory=dict)
    published: list[RestorePoint] = field(default_factory=list)
    dead: set[SegmentId] = field(default_factory=set)  # condemned, and no root needs them

    def add(self, segment: int, data: bytes, kind: SegmentKind = SegmentKind.DATA) -> SealedSegment:
        sealed = SealedSegment(SegmentId(segment), kind, len(data), 1000 + segment, SegmentId(0))
        self.directory.mkdir(parents=True, exist_ok=True)
        self._path(sealed.id).write_bytes(data)
        self.segments[sealed.id] = sealed
        return sealed

    def evict(self, segment: int) -> None:
        self._path(SegmentId(segment)).unlink()

    def _path(self, segment: SegmentId) -> Path:
        return self.directory / f"{segment}.log"

    async def unsafe_segments(self) -> list[SealedSegment]:
        return [
            sealed
            for segment, sealed in sorted(self.segments.items())
            if segment not in self.receipts or not self.receipts[segment].complete
        ]

    async def path_of(self, segment: SegmentId) -> Path:
        if not self._path(segment).exists():
            raise ObjectMissing("not cached")
        return self._path(segment)

    async def sealed_segment(self, segment: SegmentId) -> SealedSegment:
        return self.segments[segment]

    async def held_segments(self) -> list[SealedSegment]:
        return [sealed for segment, sealed in sorted(self.segments.items()) if segment in self.receipts]

    async def stored_segments(self) -> list[StoredSegment]:
        return [
            StoredSegment(self.segments[segment], one.k, one.m, len(one.placed) - one.missing, one.stored_bytes)
            for segment, one in sorted(self.receipts.items())
            if segment in self.segments and segment not in self.dead
        ]

    async def mark_offloaded(self, receipt: Receipt) -> None:
        self.receipts[receipt.segment] = receipt

    async def restore_point(self) -> RestorePoint | None:
        journals = []
        for segment, sealed in sorted(self.segments.items()):
            if segment not in self.receipts:
                break
            if sealed.kind is SegmentKind.JOURNAL:
                journals.append(segment)
        if not journals:
            return None
        return RestorePoint((), tuple(journals), 1000 + journals[-1], SegmentId(journals[-1] + 1))

    async def mark_published(self, point: RestorePoint) -> None:
        self.published.append(point)

    async def condemned(self) -> list[SegmentId]:
        return sorted(self.dead)

    async def mark_deleted(self, segment: SegmentId) -> None:
        self.dead.discard(segment)
        self.segments.pop(segment, None)


def flip(world: World, machine: Machine, segment: int, shard: int, position: int) -> None:
    """Turn a bit of a stored shard."""
    place = machine.vault.manifests.load(SegmentId(segment)).placed[shard]
    objects, name = world.objects(place), machine.keys.shard_name(SegmentId(segment), 0, place)
    good = objects[name]
    objects[name] = good[:position] + bytes([good[position] ^ 4]) + good[position + 1 :]
