"""Which location holds which shard: weighted rendezvous hashing under a failure-domain policy. Pure.

Each location draws a score from (segment, its name) and its weight; the highest scores hold the shards. So the choice
needs no table, a location that joins or leaves moves only what it takes or held, and shards spread by weight.
Source of the weighting: "Weighted Distributed Hash Tables", Schindelhauer and Schomaker 2005, logarithmic method.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3

from qss.errors import ConfigInvalid, TooFewShards
from qss.ids import LocationId, SegmentId, ShardNo

_SEGMENT: Final = struct.Struct("<Q")
_U64_COUNT: Final = 2.0**64


@dataclass(frozen=True, slots=True)
class LocationFacts:
    """What placement may know of a location."""

    location: LocationId
    weight: float = 1.0  # > 0; usually configured weight × free bytes
    labels: Mapping[str, str] = field(default_factory=dict)
    usable: bool = True  # False: gets no new shard now (down, full)
    leaving: bool = False  # being drained: gets none whatever happens

    @property
    def takes(self) -> bool:
        """Whether a new shard may go there now."""
        return self.usable and not self.leaving


@dataclass(frozen=True, slots=True)
class PlacementPolicy:
    """`max_per_domain[label]`: how many shards of a segment may be at locations that share one value of the label.
    A location without the label counts as a domain of its own."""

    max_per_domain: Mapping[str, int] = field(default_factory=dict)


def place(
    segment: SegmentId, shard_count: int, locations: Sequence[LocationFacts], policy: PlacementPolicy
) -> list[LocationId]:
    """The location of each shard number 0 … shard_count-1, no two alike. Which of the chosen holds data and which
    parity changes from segment to segment, since the order is that of the scores.

    Raises TooFewShards when the usable locations do not suffice now; one sentence.
    """
    usable = [facts for facts in locations if facts.takes]
    chosen = _choose(_ranked(segment, usable), shard_count, policy)
    if len(chosen) < shard_count:
        raise TooFewShards(_why_not(shard_count, len(chosen), len(usable), policy))
    return [facts.location for facts in chosen]


def spares(
    segment: SegmentId,
    placed: Mapping[ShardNo, LocationId],
    locations: Sequence[LocationFacts],
    policy: PlacementPolicy,
) -> list[LocationId]:
    """Locations that may take one more shard of a segment besides those `placed`, best first; each by itself keeps the
    policy. For several shards ask again after each."""
    by_name = {facts.location: facts for facts in locations}
    taken = set(placed.values())
    room = _Room(policy, [by_name[location] for location in taken if location in by_name])
    usable = [facts for facts in locations if facts.takes and facts.location not in taken]
    return [facts.location for facts in _ranked(segment, usable) if room.fits(facts)]


def room_for(
    locations: Sequence[LocationFacts], policy: PlacementPolicy
) -> Callable[[LocationId, Collection[LocationId]], bool]:
    """Whether a location may take a shard of a segment beside those others, by the policy alone."""
    by_name = {facts.location: facts for facts in locations}

    def fits(location: LocationId, others: Collection[LocationId]) -> bool:
        return _Room(policy, [by_name[other] for other in others if other in by_name]).fits(by_name[location])

    return fits


def check_policy(k: int, m: int, locations: Sequence[LocationFacts], policy: PlacementPolicy) -> list[str]:
    """At configuration time: raises ConfigInvalid if k+m shards cannot be placed at all (every location that is not
    leaving taken to be usable); returns warnings, one sentence each, for domains whose loss would lose data."""
    names = Counter(facts.location for facts in locations)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ConfigInvalid(f"two locations are named {twice[0]!r}: give each its own name")
    for facts in locations:
        if not (facts.weight > 0 and math.isfinite(facts.weight)):
            raise ConfigInvalid(f"the weight of location {facts.location!r} must be a number above 0")
    locations = [facts for facts in locations if not facts.leaving]
    if len(locations) < k + m:
        raise ConfigInvalid(
            f"k={k} and m={m} need {k + m} locations, but there are {len(locations)}: add locations or lower k or m"
        )
    for label, limit in policy.max_per_domain.items():
        if limit < 1:
            raise ConfigInvalid(f"max_per_domain of {label!r} must be at least 1, not {limit}")
    # Greedy over any order finds less than the best when several labels cross, so a few orders are tried.
    best = max(len(_choose(_ranked(SegmentId(trial), locations), k + m, policy)) for trial in range(8))
    if best < k + m:
        raise ConfigInvalid(_why_not(k + m, best, len(locations), policy))
    return [_warning(label, limit, m) for label, limit in policy.max_per_domain.items() if limit > m]


class _Room:
    """Counts shards for each domain of the policy."""

    def __init__(self, policy: PlacementPolicy, holding: Iterable[LocationFacts]) -> None:
        self._limits = policy.max_per_domain
        self._held: Counter[tuple[str, str]] = Counter()
        for facts in holding:
            self.take(facts)

    def fits(self, facts: LocationFacts) -> bool:
        return all(self._held[domain] < self._limits[domain[0]] for domain in self._domains(facts))

    def take(self, facts: LocationFacts) -> None:
        self._held.update(self._domains(facts))

    def _domains(self, facts: LocationFacts) -> list[tuple[str, str]]:
        return [(label, facts.labels[label]) for label in self._limits if label in facts.labels]


def _ranked(segment: SegmentId, locations: Collection[LocationFacts]) -> list[LocationFacts]:
    """Highest score first. The score -weight/ln(u), u uniform in (0, 1), makes chances proportional to weights."""
    prefix = _SEGMENT.pack(segment)

    def score(facts: LocationFacts) -> tuple[float, str]:
        draw = int.from_bytes(blake3(prefix + facts.location.encode()).digest(length=8), "little")
        return -facts.weight / math.log((draw + 0.5) / _U64_COUNT), facts.location

    return sorted(locations, key=score, reverse=True)


def _choose(ranked: Iterable[LocationFacts], count: int, policy: PlacementPolicy) -> list[LocationFacts]:
    """The first `count` in order that keep the policy together; fewer if there are not so many."""
    room = _Room(policy, [])
    chosen: list[LocationFacts] = []
    for facts in ranked:
        if len(chosen) == count:
            break
        if room.fits(facts):
            room.take(facts)
            chosen.append(facts)
    return chosen


def _why_not(count: int, possible: int, usable: int, policy: PlacementPolicy) -> str:
    if usable < count:
        return f"{count} shards need {count} locations, but only {usable} can take one"
    limits = ", ".join(f"{limit} per {label}" for label, limit in policy.max_per_domain.items())
    return f"of {count} shards only {possible} can be placed with at most {limits}: add locations or loosen the limit"


def _warning(label: str, limit: int, m: int) -> str:
    return f"losing one {label} can lose data: it may hold {limit} shards of a segment and only m={m} may be lost"
