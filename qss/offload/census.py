"""What the locations hold of a segment, found by looking: shard objects describe themselves.

A location holds at most one shard of a segment, under a name that follows from the key, the segment and the location,
so a census is one small ranged GET for each location.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from qss.errors import CorruptData, Damaged, QssError, Retryable, TooFewShards
from qss.formats.manifest import Manifest
from qss.formats.shard import HEADER_BYTES, ShardHeader
from qss.ids import LocationId, SegmentId, ShardNo, segment_text
from qss.offload.keys import FsKeys
from qss.offload.manifests import Manifests
from qss.s3.store import ObjectStore

GENERATION = 0
"""Of shard objects: all of this version of the program."""
DEADLINE_S = 10.0
"""How long a census waits for the last location."""


@dataclass(frozen=True, slots=True)
class Census:
    """What was found, and who did not answer."""

    segment: SegmentId
    found: Mapping[LocationId, ShardHeader]
    silent: tuple[LocationId, ...]  # unreachable: may hold a shard
    damaged: tuple[LocationId, ...]  # holds an object that does not verify

    def of_seal(self, seal: bytes) -> dict[ShardNo, LocationId]:
        """Where each shard of one seal is."""
        return {header.shard: location for location, header in self.found.items() if header.seal == seal}

    def seals(self) -> list[bytes]:
        """Seals with at least k shards first, then by how many there are."""
        shards: dict[bytes, set[ShardNo]] = defaultdict(set)
        needed: dict[bytes, int] = {}
        for header in self.found.values():
            shards[header.seal].add(header.shard)
            needed[header.seal] = header.k
        return sorted(shards, key=lambda seal: (len(shards[seal]) < needed[seal], -len(shards[seal]), seal))


async def take_census(
    nodes: Mapping[LocationId, ObjectStore], keys: FsKeys, segment: SegmentId, deadline_s: float = DEADLINE_S
) -> Census:
    """Ask every location. Never raises for what a location says; AccessDenied counts as silence, and so does no
    answer within the deadline."""
    found: dict[LocationId, ShardHeader] = {}
    silent = set(nodes)
    damaged: list[LocationId] = []

    async def ask(location: LocationId, node: ObjectStore) -> None:
        try:
            found[location] = await read_header(location, node, keys, segment)
        except CorruptData:
            damaged.append(location)
        except Damaged:
            pass  # there is none
        except QssError:
            return
        silent.discard(location)

    with trio.move_on_after(deadline_s):
        async with trio.open_nursery() as nursery:
            for location, node in nodes.items():
                nursery.start_soon(ask, location, node)
    return Census(segment, found, tuple(sorted(silent)), tuple(sorted(damaged)))


async def read_header(location: LocationId, node: ObjectStore, keys: FsKeys, segment: SegmentId) -> ShardHeader:
    """Raises ObjectMissing, CorruptData, and what the location's `get` does."""
    data = await node.get(keys.shard_name(segment, GENERATION, location), 0, HEADER_BYTES)
    return ShardHeader.unpack(data, keys.header, segment, location)


async def find_manifest(
    census: Census, seal: bytes, nodes: Mapping[LocationId, ObjectStore], keys: FsKeys, manifests: Manifests
) -> Manifest:
    """The manifest of one seal from the first location that gives one that verifies, with the places of the census.

    Raises TooFewShards (none verifies) or Unreachable (none answers).
    """
    trouble: QssError | None = None
    for location, header in sorted(census.found.items()):
        if header.seal != seal:
            continue
        name = keys.shard_name(census.segment, GENERATION, location)
        try:
            box = await nodes[location].get(name, header.manifest_offset, header.total)
            manifest = manifests.open(census.segment, box)
            check_header(manifest, header)
        except QssError as error:
            trouble = error
            continue
        where = census.of_seal(seal)
        return manifest.with_placed(tuple(where.get(ShardNo(shard)) for shard in range(manifest.k + manifest.m)))
    if isinstance(trouble, Retryable):
        raise trouble
    raise TooFewShards(f"no manifest of segment {segment_text(census.segment)} verifies: {trouble}")


def check_header(manifest: Manifest, header: ShardHeader) -> None:
    """Raises CorruptData where a header and a manifest, each verified, do not speak of the same seal."""
    mine = (manifest.seal, manifest.suite, manifest.k, manifest.m, len(manifest.stripes))
    if mine != (header.seal, header.suite, header.k, header.m, header.stripes):
        raise CorruptData("a manifest and the header of its shard object are of different seals")


async def locate(
    nodes: Mapping[LocationId, ObjectStore], keys: FsKeys, manifests: Manifests, segment: SegmentId
) -> tuple[Manifest, Census]:
    """The newest seal of a segment of which the locations hold k shards. (Two are possible where there are more than
    k+m locations and a segment number was used again after a recovery.) Raises TooFewShards when no seal has k shards.
    """
    census = await take_census(nodes, keys, segment)
    whole: list[Manifest] = []
    for seal in census.seals():
        shards = census.of_seal(seal)
        if len(shards) < min(census.found[location].k for location in shards.values()):
            break
        whole.append(await find_manifest(census, seal, nodes, keys, manifests))
    if whole:
        return max(whole, key=lambda manifest: manifest.created_ns), census
    best = max((len(census.of_seal(seal)) for seal in census.seals()), default=0)
    raise TooFewShards(
        f"segment {segment_text(segment)}: {best} shards found, more are needed"
        f" (no answer: {_names(census.silent)}; damaged: {_names(census.damaged)})"
    )


def _names(locations: tuple[LocationId, ...]) -> str:
    return ", ".join(locations) or "none"
