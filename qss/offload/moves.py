"""Which shards have to go elsewhere: those at locations that are drained or are gone, and those that weights would put
elsewhere. Pure: a question to manifests and locations, so that nothing has to be remembered over a restart."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from qss.errors import TooFewShards
from qss.formats.manifest import Manifest
from qss.ids import LocationId, SegmentId, ShardNo
from qss.offload.placement import LocationFacts, PlacementPolicy, place, spares


class Why(enum.IntEnum):
    """In the order of urgency."""

    GONE = 1  # its location is configured no more: the shard is missing
    DRAINING = 2
    BALANCE = 3


@dataclass(frozen=True, slots=True)
class Move:
    segment: SegmentId
    shard: ShardNo
    source: LocationId
    why: Why
    spare: int  # shards beyond k that the segment has besides those that are gone
    size: int  # bytes of its blocks

    @property
    def order(self) -> tuple[int, int, int, int]:
        """What is closest to loss first, then the oldest."""
        return self.why, self.spare, self.segment, self.shard


def shard_bytes(manifest: Manifest) -> int:
    """Bytes of the blocks of one shard."""
    return sum(facts.block for facts in manifest.stripes)


def due(manifest: Manifest, locations: Mapping[LocationId, LocationFacts]) -> list[Move]:
    """What must leave its place."""
    there = [place for place in manifest.placed if place is not None and place in locations]
    spare, size = len(there) - manifest.k, shard_bytes(manifest)
    moves = []
    for number, home in enumerate(manifest.placed):
        if home is None:
            continue
        facts = locations.get(home)
        if facts is None or facts.leaving:
            why = Why.GONE if facts is None else Why.DRAINING
            moves.append(Move(manifest.segment.id, ShardNo(number), home, why, spare, size))
    return moves


def unbalanced(manifest: Manifest, locations: Sequence[LocationFacts], policy: PlacementPolicy) -> list[Move]:
    """What is not at one of the k+m locations that placement chooses for the segment now. No more than must: a shard
    that is at any of them stays."""
    held = {home for home in manifest.placed if home is not None}
    try:
        ideal = set(place(manifest.segment.id, manifest.k + manifest.m, locations, policy))
    except TooFewShards:
        return []
    size = shard_bytes(manifest)
    names = {facts.location for facts in locations}
    return [
        Move(manifest.segment.id, ShardNo(number), home, Why.BALANCE, len(held) - manifest.k, size)
        for number, home in enumerate(manifest.placed)
        if home is not None and home in names and home not in ideal and ideal - held
    ]


def target_of(
    move: Move, manifest: Manifest, locations: Sequence[LocationFacts], policy: PlacementPolicy
) -> LocationId | None:
    """Where the shard goes: the best place that keeps the policy beside the others; None: there is none now."""
    others = {
        ShardNo(number): home
        for number, home in enumerate(manifest.placed)
        if home is not None and number != move.shard
    }
    room = [each for each in spares(move.segment, others, locations, policy) if each != move.source]
    if move.why is Why.BALANCE:
        ideal = set(place(move.segment, manifest.k + manifest.m, locations, policy))
        room = [each for each in room if each in ideal]
    return room[0] if room else None


@dataclass(frozen=True, slots=True)
class Loss:
    """What it would mean to do without a location."""

    shards: int  # it holds
    bytes: int
    thinner: int  # segments that would have fewer shards than k+m
    lost: tuple[SegmentId, ...]  # segments that would have fewer than k


def loss_of(location: LocationId, manifests: Iterable[Manifest], usable: Iterable[LocationId]) -> Loss:
    """`usable`: the locations that count on with."""
    left = set(usable) - {location}
    shards = size = thinner = 0
    lost: list[SegmentId] = []
    for manifest in manifests:
        if location not in manifest.placed:
            continue
        shards += 1
        size += shard_bytes(manifest)
        others = sum(1 for home in manifest.placed if home in left)
        thinner += others < manifest.k + manifest.m
        if others < manifest.k:
            lost.append(manifest.segment.id)
    return Loss(shards, size, thinner, tuple(lost))
