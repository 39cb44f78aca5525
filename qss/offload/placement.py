"""Which location holds which shard: weighted rendezvous hashing under a failure-domain policy. Pure.

Source of the weighting: "Weighted Distributed Hash Tables", Schindelhauer and Schomaker 2005, logarithmic method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from qss.ids import LocationId, SegmentId


@dataclass(frozen=True, slots=True)
class LocationFacts:
    """What placement may know of a location."""

    location: LocationId
    weight: float = 1.0  # > 0; usually configured weight × free bytes
    labels: Mapping[str, str] = field(default_factory=dict)
    usable: bool = True  # False: gets no new shard (down, full, being drained)


@dataclass(frozen=True, slots=True)
class PlacementPolicy:
    """`max_per_domain[label]`: how many shards of a segment may be at locations that share one value of the label.
    A location without the label counts as a domain of its own."""

    max_per_domain: Mapping[str, int] = field(default_factory=dict)


def place(
    segment: SegmentId, shard_count: int, locations: Sequence[LocationFacts], policy: PlacementPolicy
) -> list[LocationId]:
    """The location of each shard number 0 … shard_count-1, no two alike.

    Raises TooFewShards when the usable locations do not suffice now; one sentence.
    """
    raise NotImplementedError


def spares(
    segment: SegmentId, placed: Mapping[int, LocationId], locations: Sequence[LocationFacts], policy: PlacementPolicy
) -> list[LocationId]:
    """Locations that may take one more shard of a segment besides those `placed` (shard number → location), best
    first; each by itself keeps the policy."""
    raise NotImplementedError


def check_policy(k: int, m: int, locations: Sequence[LocationFacts], policy: PlacementPolicy) -> list[str]:
    """At configuration time: raises ConfigInvalid if k+m shards cannot be placed at all; returns warnings, one sentence
    each, for domains whose loss would lose data (more than m shards may share them)."""
    raise NotImplementedError
