"""Putting shard objects: one streaming PUT for each location, all at the same time."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio
from blake3 import blake3

from qss.errors import QssError
from qss.formats.manifest import Manifest
from qss.formats.shard import TABLE_ROW_BYTES, ShardHeader, TableRow, block_offsets, pack_table
from qss.ids import LocationId, ShardNo, StripeNo, segment_text
from qss.limits import MIB
from qss.offload.census import GENERATION
from qss.offload.keys import FsKeys
from qss.offload.plan import GiveUp, PutShard, UploadPlan
from qss.s3.store import Body, ObjectStore

_log = logging.getLogger(__name__)

STRAGGLER_S: Final = 10.0
"""Once enough shards are placed, how long the last ones may still take before they are left to repair: at least this,
or three times what the others took."""
PIECE_BYTES: Final = 1 * MIB
"""About what is handed to the connection at a time."""


@dataclass(frozen=True, slots=True)
class ShardObject:
    """All parts of one shard object in the order they are sent; blocks are views of a leased buffer."""

    header: bytes
    blocks: Sequence[memoryview]
    table: bytes
    manifest_box: bytes

    @property
    def length(self) -> int:
        return len(self.header) + sum(map(len, self.blocks)) + len(self.table) + len(self.manifest_box)

    def body(self, on_sent: Callable[[int], None] | None = None) -> Body:
        """`on_sent` hears of the bytes of each chunk that was taken."""

        async def chunks() -> AsyncIterator[bytes | memoryview]:
            parts: list[bytes | memoryview] = [self.header, *self.blocks, self.table + self.manifest_box]
            for part in parts:
                for piece in even_pieces(part):
                    yield piece
                    if on_sent is not None:
                        on_sent(len(piece))

        return Body(self.length, chunks)


def even_pieces(part: bytes | memoryview) -> Iterator[bytes | memoryview]:
    """The bytes in order, in pieces of one length of about PIECE_BYTES. No short rest: with k=4 the block of a
    whole stripe is 64 bytes longer than 1 MiB, and a send of them would cost as much of our time as one of the rest."""
    count = max(1, round(len(part) / PIECE_BYTES))
    length = -(-len(part) // count)
    return (part[start : start + length] for start in range(0, len(part), max(length, 1)))


def shard_object(
    manifest: Manifest,
    manifest_box: bytes,
    shard: ShardNo,
    blocks: Sequence[memoryview],
    keys: FsKeys,
    location: LocationId,
) -> ShardObject:
    """Frame one shard's blocks for one location."""
    lengths = [facts.block for facts in manifest.stripes]
    offsets = block_offsets(lengths)
    table = pack_table(
        [
            TableRow(offsets[number], lengths[number], manifest.hash_of(StripeNo(number), shard))
            for number in range(len(lengths))
        ]
    )
    manifest_offset = offsets[-1] + len(table)
    header = ShardHeader(
        suite=manifest.suite,
        k=manifest.k,
        m=manifest.m,
        shard=shard,
        stripes=len(lengths),
        seal=manifest.seal,
        table_offset=offsets[-1],
        manifest_offset=manifest_offset,
        total=manifest_offset + len(manifest_box),
        table_hash=blake3(table).digest(),
    )
    return ShardObject(header.pack(keys.header, manifest.segment.id, location), blocks, table, manifest_box)


def object_length(manifest: Manifest, box_bytes: int) -> int:
    """Length of each shard object of a segment, in bytes."""
    return manifest.block_offset(StripeNo(len(manifest.stripes))) + len(manifest.stripes) * TABLE_ROW_BYTES + box_bytes


class Uploader:
    def __init__(
        self, nodes: Mapping[LocationId, ObjectStore], keys: FsKeys, on_sent: Callable[[int], None] | None = None
    ) -> None:
        self._nodes = nodes
        self._keys = keys
        self._on_sent = on_sent

    async def put(self, manifest: Manifest, box: bytes, shard: ShardNo, home: LocationId,
                  blocks: Sequence[memoryview]) -> int:  # fmt: skip
        """Put one shard; returns the object's length in bytes. Raises what the location's `put` does."""
        parts = shard_object(manifest, box, shard, blocks, self._keys, home)
        name = self._keys.shard_name(manifest.segment.id, GENERATION, home)
        await self._nodes[home].put(name, parts.body(self._on_sent))
        return parts.length

    async def run(
        self, plan: UploadPlan, manifest: Manifest, box: bytes, blocks: Callable[[ShardNo], Sequence[memoryview]]
    ) -> str:
        """Carry the plan out. Returns when every shard is placed or given up, or when enough are placed and the
        others take much longer. The answer is the last trouble met, one sentence, empty if there was none."""
        trouble = ""
        started = trio.current_time()
        changed = trio.Event()

        async def put(task: PutShard) -> None:
            nonlocal trouble
            step: PutShard | GiveUp = task
            while isinstance(step, PutShard):
                try:
                    await self.put(manifest, box, step.shard, step.location, blocks(step.shard))
                except QssError as error:
                    trouble = f"{step.location}: {error}"
                    segment = segment_text(manifest.segment.id)
                    _log.info("shard %d of segment %s not placed at %s", step.shard, segment, trouble)
                    step = plan.on_failed(step.shard)
                else:
                    plan.on_placed(step.shard)
                    break
            changed.set()

        async with trio.open_nursery() as nursery:
            for task in plan.start():
                nursery.start_soon(put, task)
            deadline: float | None = None
            while not plan.finished:
                if plan.enough and deadline is None:
                    now = trio.current_time()
                    deadline = now + max(STRAGGLER_S, 3 * (now - started))
                with trio.move_on_at(deadline if deadline is not None else float("inf")) as waiting:
                    await changed.wait()
                changed = trio.Event()
                if waiting.cancelled_caught:
                    trouble = trouble or "a location takes much longer than the others"
                    break
            nursery.cancel_scope.cancel()
        return trouble
