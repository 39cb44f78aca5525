"""Which local copies may go, and why. Pure: it decides, the cache unlinks."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from qss.cache.options import RetentionOptions
from qss.ids import SegmentId, StripeNo


class Reason(enum.StrEnum):
    """Why a local copy goes."""

    AGE = "not used for longer than max-age"
    SIZE = "the cache is larger than max-size"
    FREE = "the disk has less free space than it should"
    ASKED = "asked for"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A local copy of bytes that are safe elsewhere."""

    segment: SegmentId
    stripe: StripeNo | None  # None: the whole segment
    size: int  # bytes
    idle_s: float  # since last use


@dataclass(frozen=True, slots=True)
class Victim:
    copy: Candidate
    reason: Reason


@dataclass(frozen=True, slots=True)
class EvictionReport:
    """What an eviction freed."""

    segments: int
    stripes: int
    freed_bytes: int


def plan(
    candidates: Iterable[Candidate], options: RetentionOptions, kept_bytes: int, free_bytes: int, *, all_: bool = False
) -> list[Victim]:
    """Victims, least recently used first.

    `kept_bytes`: what is cached now, in bytes, candidates and what must stay together; `free_bytes`: of the disk.
    """
    victims = []
    too_large = kept_bytes - options.size_bytes_max
    too_full = options.free_bytes_min - free_bytes
    freed = 0
    for copy in sorted(candidates, key=lambda candidate: (-candidate.idle_s, candidate.segment)):
        if all_:
            reason = Reason.ASKED
        elif options.age_s_max is not None and copy.idle_s > options.age_s_max:
            reason = Reason.AGE
        elif freed < too_large:
            reason = Reason.SIZE
        elif freed < too_full:
            reason = Reason.FREE
        else:
            continue
        freed += copy.size
        victims.append(Victim(copy, reason))
    return victims
