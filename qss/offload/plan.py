"""What to ask of whom: plans of one upload and of one fetch. Pure: no socket, no clock, no task."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from qss.errors import TooFewShards
from qss.ids import LocationId, SegmentId, ShardNo
from qss.offload.placement import LocationFacts, PlacementPolicy, place

METERED_WAITS: Final = 8
"""Times the delay of a hedge without any answer, before a location that costs money is asked besides."""


@dataclass(frozen=True, slots=True)
class PutShard:
    shard: ShardNo
    location: LocationId


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The shard stays missing; repair will place it."""

    shard: ShardNo


class ShardState(enum.Enum):
    PUTTING = "putting"
    PLACED = "placed"
    MISSING = "missing"


@dataclass(slots=True)
class UploadPlan:
    """Where each shard of a segment goes, and what to do when a location fails."""

    homes: dict[ShardNo, LocationId]
    spares: list[LocationId]  # not in homes, best first
    safe: int  # shards that must be placed for the upload to count
    states: dict[ShardNo, ShardState] = field(default_factory=dict)
    fits: Callable[[LocationId, Collection[LocationId]], bool] = lambda _location, _others: True
    """Whether a spare may take a shard beside those others: the policy for labels holds for it too."""

    def start(self) -> list[PutShard]:
        self.states = dict.fromkeys(self.homes, ShardState.PUTTING)
        return [PutShard(shard, home) for shard, home in sorted(self.homes.items())]

    def on_placed(self, shard: ShardNo) -> None:
        self.states[shard] = ShardState.PLACED

    def on_failed(self, shard: ShardNo) -> PutShard | GiveUp:
        gone = {other for other, state in self.states.items() if state is ShardState.MISSING} | {shard}
        others = [home for other, home in self.homes.items() if other not in gone]
        for at, spare in enumerate(self.spares):
            if self.fits(spare, others):
                self.homes[shard] = self.spares.pop(at)
                return PutShard(shard, self.homes[shard])
        self.states[shard] = ShardState.MISSING
        return GiveUp(shard)

    @property
    def placed(self) -> tuple[LocationId | None, ...]:
        return tuple(
            home if self.states.get(shard) is ShardState.PLACED else None for shard, home in sorted(self.homes.items())
        )

    @property
    def placed_count(self) -> int:
        return sum(1 for state in self.states.values() if state is ShardState.PLACED)

    @property
    def enough(self) -> bool:
        return self.placed_count >= self.safe

    @property
    def finished(self) -> bool:
        return ShardState.PUTTING not in self.states.values()


def choose_homes(
    segment: SegmentId, count: int, locations: Sequence[LocationFacts], policy: PlacementPolicy
) -> tuple[dict[ShardNo, LocationId], list[LocationId]]:
    """Homes of all shards, and the usable locations left over.

    When too few locations are usable, those that are not get shards too: their uploads fail at once and are repaired
    when they are back, and meanwhile the others hold what they can. Raises TooFewShards when there are too few at all.
    """
    try:
        homes = place(segment, count, locations, policy)
    except TooFewShards:
        everyone = [LocationFacts(one.location, one.weight, one.labels, leaving=one.leaving) for one in locations]
        homes = place(segment, count, everyone, policy)
    taken = set(homes)
    spares = [one.location for one in locations if one.takes and one.location not in taken]
    return {ShardNo(number): home for number, home in enumerate(homes)}, spares


@dataclass(frozen=True, slots=True)
class Source:
    """Where a block can be had."""

    shard: ShardNo
    location: LocationId
    metered: bool = False  # asking costs money


def rank_sources(
    placed: Sequence[LocationId | None],
    k: int,
    up: Mapping[LocationId, bool],
    latency_s: Mapping[LocationId, float],
    metered: Collection[LocationId] = (),
) -> list[Source]:
    """Sources in the order to ask them: those that are up, cost nothing, are not slow beside the others, data before
    parity."""
    sources = [
        Source(ShardNo(shard), location, location in metered)
        for shard, location in enumerate(placed)
        if location is not None and location in up
    ]
    known = sorted(latency_s[source.location] for source in sources if source.location in latency_s)
    slow_s = 4 * known[(len(known) - 1) // 2] if known else 0.0

    def rank(source: Source) -> tuple[bool, bool, bool, bool, int]:
        slow = latency_s.get(source.location, 0.0) > slow_s
        return not up[source.location], source.metered, slow, source.shard >= k, source.shard

    return sorted(sources, key=rank)


class FetchPlan:
    """Which blocks of one stripe to ask for: k at first, one more for each that fails or dawdles."""

    def __init__(self, k: int, sources: Iterable[Source]) -> None:
        self._k = k
        self._untried = list(sources)
        self._asked: set[ShardNo] = set()
        self._waits = 0  # since the last answer
        self.good: set[ShardNo] = set()

    def start(self) -> list[Source]:
        first = self._untried[: self._k]
        del self._untried[: self._k]
        self._asked = {source.shard for source in first}
        return first

    def on_good(self, shard: ShardNo) -> None:
        self._asked.discard(shard)
        self._waits = 0
        self.good.add(shard)

    def on_bad(self, shard: ShardNo) -> Source | None:
        """The answer was no, or wrong bytes: whom to ask instead."""
        self._asked.discard(shard)
        self._waits = 0
        if len(self.good) + len(self._asked) >= self._k:
            return None  # a hedge is under way already
        return self._next()

    def on_slow(self) -> Source | None:
        """Nobody has answered for a while: whom to ask besides. What costs money is asked only after a long while."""
        self._waits += 1
        if self._untried and self._untried[0].metered and self._waits < METERED_WAITS:
            return None
        return self._next()

    @property
    def done(self) -> bool:
        return len(self.good) >= self._k

    @property
    def hopeless(self) -> bool:
        return len(self.good) + len(self._asked) + len(self._untried) < self._k

    def _next(self) -> Source | None:
        if not self._untried:
            return None
        source = self._untried.pop(0)
        self._asked.add(source.shard)
        return source
