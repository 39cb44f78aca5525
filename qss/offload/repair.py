"""Rebuilding shards that are missing or damaged, from k verified ones, and putting them where they belong.

Needs no plaintext and no second seal: the new blocks must have the hashes the manifest names.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Final

import trio

from qss.errors import CorruptData, QssError, TooFewShards
from qss.formats.manifest import Manifest
from qss.ids import LocationId, ShardNo, StripeNo
from qss.offload import erasure
from qss.offload.buffers import Buffers
from qss.offload.census import Census, read_header
from qss.offload.damage import DamageList
from qss.offload.fetcher import Fetcher
from qss.offload.keys import FsKeys
from qss.offload.manifests import Manifests
from qss.offload.nodes import Nodes
from qss.offload.placement import LocationFacts, PlacementPolicy, spares
from qss.offload.plan import Source
from qss.offload.seal import hash_of
from qss.offload.uploader import Uploader, object_length

_log = logging.getLogger(__name__)

STRIPES_AT_ONCE: Final = 2
"""Of one segment: while one is computed the blocks of the next come in. Each has room for k+m blocks."""


def choose_targets(
    manifest: Manifest,
    damaged: Mapping[ShardNo, LocationId],
    locations: list[LocationFacts],
    policy: PlacementPolicy,
    lost: Collection[LocationId] = (),
) -> dict[ShardNo, LocationId]:
    """Where to put each shard that is missing, damaged, or at a location that is `lost`, as far as there is a usable
    place. A lost location counts for nothing: its shards go elsewhere, and it takes no room of its domain. Pure."""
    usable = {one.location for one in locations if one.takes}
    targets = {shard: location for shard, location in damaged.items() if location in usable}
    there = [None if place in lost else place for place in manifest.placed]
    targets = {shard: location for shard, location in targets.items() if location not in lost}
    taken = {ShardNo(number): place for number, place in enumerate(there) if place is not None}
    for number, place in enumerate(there):
        if place is not None:
            continue
        room = [
            one for one in spares(manifest.segment.id, taken, locations, policy) if one in usable and one not in lost
        ]
        if room:
            targets[ShardNo(number)] = taken[ShardNo(number)] = room[0]
    return targets


class Repairer:
    def __init__(
        self,
        nodes: Nodes,
        keys: FsKeys,
        policy: PlacementPolicy,
        fetcher: Fetcher,
        uploader: Uploader,
        buffers: Buffers,
    ) -> None:
        self._nodes = nodes
        self._keys = keys
        self._policy = policy
        self._fetcher = fetcher
        self._uploader = uploader
        self._buffers = buffers

    async def repair(
        self,
        manifest: Manifest,
        census: Census,
        damage: DamageList,
        manifests: Manifests,
        lost: Collection[LocationId] = (),
    ) -> tuple[Manifest, int]:
        """Put what is missing or damaged of a segment, or at a `lost` location, where there is a place for it now.

        Returns the manifest with the places that hold now, and the length of each shard object in bytes.
        Raises TooFewShards when k verified blocks of some stripe cannot be had. A crash anywhere leaves either the old
        shard or the whole new one at a location, and the work is found again.
        """
        damaged = damage.where(manifest.segment.id, manifest.placed)
        targets = choose_targets(manifest, damaged, self._nodes.placement(), self._policy, lost)
        places = list(manifest.placed)
        for shard, location in targets.items():
            places[shard] = location
        planned = manifest.with_placed(tuple(places))
        box = manifests.seal(planned)
        if targets:
            manifest = await self._rebuild(manifest, planned, box, targets, damage)
        damage.settle(manifest.segment.id, manifest.placed)
        manifests.save(manifest)
        known = [header.total for header in census.found.values() if header.seal == manifest.seal]
        return manifest, max([*known, object_length(manifest, len(box))])

    async def _rebuild(
        self, manifest: Manifest, planned: Manifest, box: bytes, targets: dict[ShardNo, LocationId], damage: DamageList
    ) -> Manifest:
        order = list(targets)
        sizes = [facts.block for _ in order for facts in manifest.stripes]
        count = len(manifest.stripes)
        async with self._buffers.lease(sizes) as buffers:
            blocks = {shard: buffers[at * count : (at + 1) * count] for at, shard in enumerate(order)}
            await self._fill(manifest, blocks)
            for shard, location in targets.items():
                try:
                    await self._uploader.put(planned, box, shard, location, blocks[shard])
                    await self.prove(planned, shard, location)
                except QssError as error:
                    _log.info("repair at %s: %s", location, error)
                    continue
                damage.repaired(manifest.segment.id, shard, location)
                places = list(manifest.placed)
                places[shard] = location
                manifest = manifest.with_placed(tuple(places))
        return manifest

    async def _fill(self, manifest: Manifest, blocks: Mapping[ShardNo, Sequence[memoryview]]) -> None:
        """Compute every block of these shards."""
        slots = trio.CapacityLimiter(STRIPES_AT_ONCE)
        failures: list[QssError] = []

        async def fill(stripe: StripeNo) -> None:
            wanted = {shard: of_shard[stripe] for shard, of_shard in blocks.items()}
            try:
                async with slots:
                    with self._fetcher.room(manifest) as room:
                        have = await self._verified(manifest, stripe, room, frozenset(blocks))
                        await trio.to_thread.run_sync(partial(rebuild_stripe, manifest, stripe, have, wanted))
            except QssError as error:
                failures.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for number in range(len(manifest.stripes)):
                nursery.start_soon(fill, StripeNo(number))
        if failures:
            raise failures[0]

    async def _verified(
        self, manifest: Manifest, stripe: StripeNo, room: memoryview, suspect: frozenset[ShardNo]
    ) -> Mapping[ShardNo, memoryview]:
        """k blocks that verify, of the suspect shards too if there are not enough others: an answer that was spoiled
        on its way makes a whole shard suspect, and no block is used that does not verify."""
        try:
            return await self._fetcher.gather(manifest, stripe, room, avoid=suspect)
        except TooFewShards:
            return await self._fetcher.gather(manifest, stripe, room)

    async def prove(self, manifest: Manifest, shard: ShardNo, location: LocationId) -> None:
        """Repaired means read back: the header and the last block. Raises CorruptData."""
        header = await read_header(location, self._nodes[location], self._keys, manifest.segment.id)
        if (header.seal, header.shard) != (manifest.seal, shard):
            raise CorruptData("another shard is there than was put")
        if manifest.stripes:
            last = StripeNo(len(manifest.stripes) - 1)
            memory = memoryview(bytearray(manifest.stripes[last].block))
            await self._fetcher.block(manifest, last, Source(shard, location), memory)


def rebuild_stripe(
    manifest: Manifest, stripe: StripeNo, have: Mapping[ShardNo, memoryview], wanted: Mapping[ShardNo, memoryview]
) -> None:
    """In a thread. Raises CorruptData when a rebuilt block is not the one the manifest names."""
    erasure.code(manifest.k, manifest.m).rebuild_into(have, wanted)
    for shard, block in wanted.items():
        if hash_of(block) != manifest.hash_of(stripe, shard):
            raise CorruptData(f"the rebuilt block of stripe {stripe}, shard {shard} has another hash than was sealed")
