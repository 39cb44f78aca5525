"""Whole shards by hash, as they lie at the locations: header, table and every block against the manifest.

A location that hashes in place (Trove: docs/s3.md) sends 32 bytes for each block; any other sends the blocks.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import trio

from qss.errors import CorruptData, Damaged, QssError
from qss.formats.manifest import Manifest
from qss.formats.shard import TABLE_ROW_BYTES, ShardHeader
from qss.ids import LocationId, ShardNo, StripeNo
from qss.offload.census import GENERATION, read_header
from qss.offload.damage import DamagedShard, DamageList
from qss.offload.keys import FsKeys
from qss.offload.nodes import Node
from qss.offload.seal import hash_of

SHARDS_AT_ONCE: Final = 8


class Verdict(enum.Enum):
    SOUND = "sound"
    BAD = "bad"  # missing, damaged, or another seal's
    SILENT = "silent"  # no answer


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at one shard found."""

    shard: ShardNo
    location: LocationId
    verdict: Verdict
    bytes: int  # that were hashed, there or here


class Verifier:
    def __init__(self, nodes: Mapping[LocationId, Node], keys: FsKeys, damage: DamageList) -> None:
        self._nodes = nodes
        self._keys = keys
        self._damage = damage
        self._slots = trio.CapacityLimiter(SHARDS_AT_ONCE)

    async def look(self, manifest: Manifest, whole: Callable[[ShardNo], bool] = lambda _shard: True) -> list[Look]:
        """At every shard that is placed. Those at locations that do not hash in place are read if `whole` says so, else
        only their headers are. What is bad is also noted as damage."""
        looks: list[Look] = []

        async def one(shard: ShardNo, location: LocationId) -> None:
            async with self._slots:
                looks.append(await self._look(manifest, shard, location, whole(shard)))

        async with trio.open_nursery() as nursery:
            for number, place in enumerate(manifest.placed):
                if place is not None:
                    nursery.start_soon(one, ShardNo(number), place)
        return sorted(looks, key=lambda look: look.shard)

    async def _look(self, manifest: Manifest, shard: ShardNo, location: LocationId, whole: bool) -> Look:
        node = self._nodes.get(location)
        if node is None:
            return Look(shard, location, Verdict.SILENT, 0)
        try:
            header = await read_header(location, node, self._keys, manifest.segment.id)
            if (header.seal, header.shard) != (manifest.seal, shard):
                raise CorruptData("another shard is there")
            count = await self._blocks(manifest, shard, node, header, whole)
        except Damaged as error:
            self._damage.report(DamagedShard(manifest.segment.id, shard, location), str(error))
            return Look(shard, location, Verdict.BAD, 0)
        except QssError:
            return Look(shard, location, Verdict.SILENT, 0)
        return Look(shard, location, Verdict.SOUND, count)

    async def _blocks(self, manifest: Manifest, shard: ShardNo, node: Node, header: ShardHeader, whole: bool) -> int:
        """Bytes hashed. Raises CorruptData when one does not hold, and what the location's verbs do."""
        name = self._keys.shard_name(manifest.segment.id, GENERATION, node.location)
        spans, wanted, start = [], [], manifest.block_offset(StripeNo(0))
        for number, facts in enumerate(manifest.stripes):
            spans.append((start, start + facts.block))
            wanted.append(manifest.hash_of(StripeNo(number), shard))
            start += facts.block
        spans.append((header.table_offset, header.table_offset + len(manifest.stripes) * TABLE_ROW_BYTES))
        wanted.append(header.table_hash)
        spans.append((header.manifest_offset, header.total))  # sealed by itself: that it can be read is enough
        found = await node.hashes(name, spans)
        if found is None and not whole:
            return 0
        if found is None:
            found = []
            for first, behind in spans:
                memory = memoryview(bytearray(behind - first))
                await node.get_into(name, first, memory)
                found.append(hash_of(memory))
        for number, (is_, ought) in enumerate(zip(found, wanted, strict=False)):
            if is_ != ought:
                raise CorruptData(f"part {number} of the shard has another hash than was sealed")
        return sum(behind - first for first, behind in spans)
