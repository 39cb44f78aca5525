"""Which local copies may go, in which order, and why. Pure: it decides, the cache unlinks. docs/adr/0096.

The order is that of 2Q (Johnson and Shasha, VLDB 1994): copies that were used in one visit only form one queue, those
used again another, both least recently used first. While the first holds more than its share, its head goes; so a pass
over much data pushes out its own traces and not what others come back to. qss.cache.access says what a visit is.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from qss.cache.options import PathPolicy, RetentionOptions
from qss.ids import SegmentId, StripeNo

ONCE_SHARE: Final = 0.25
"""Share of the cached bytes that copies used once may take before they go first; the paper's Kin."""
GENERAL: Final = -1
"""Policy number of what no path policy is about."""


class Reason(enum.StrEnum):
    """Why a local copy goes."""

    AGE = "not used for longer than max-age"
    PATH = "what is cached of its path is larger than the path's max-size"
    SIZE = "the cache is larger than max-size"
    FREE = "the disk has less free space than it should"
    ASKED = "asked for"


@dataclass(frozen=True, slots=True)
class Protection:
    """What the live content of a copy asks for: the most that any of it does."""

    pin: str | None = None  # the pinned path that keeps it here
    policy: int = GENERAL  # position in RetentionOptions.paths


NO_PROTECTION: Final = Protection()


class Guard(Protocol):
    """Knows which paths a copy holds content of. qss.fs has one; without it nothing is pinned."""

    async def refresh(self) -> None:
        """Bring what it knows up to date, if anything has changed. May take a while."""
        ...

    def protection(self, segment: SegmentId, stripe: StripeNo | None) -> Protection:
        """As of the last refresh. `stripe` None: the whole segment."""
        ...

    def wanted(self) -> Sequence[tuple[SegmentId, StripeNo]]:
        """Stripes with pinned content, wherever they are."""
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A local copy of bytes that are safe elsewhere."""

    segment: SegmentId
    stripe: StripeNo | None  # None: the whole segment
    size: int  # bytes
    idle_s: float  # since last use
    again: bool = False  # used in more than one visit
    protection: Protection = NO_PROTECTION


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
    reasons: tuple[Reason, ...] = ()


def most_protective(policies: Iterable[int], options: RetentionOptions) -> int:
    """The policy that keeps longest; among equals the one that keeps most. `policies`: at least one number."""

    def rank(number: int) -> tuple[float, float, bool]:
        age = options.age_s_max if number == GENERAL else options.paths[number].age_s_max
        size = None if number == GENERAL else options.paths[number].size_bytes_max
        return (
            float("inf") if age is None else age,
            float("inf") if size is None else size,
            number == GENERAL,
        )

    return max(policies, key=rank)


def eviction_order(copies: Iterable[Candidate]) -> list[Candidate]:
    """What would go first, first; pinned copies are not in it."""
    queues: tuple[list[Candidate], list[Candidate]] = ([], [])
    for copy in sorted(copies, key=lambda each: (each.idle_s, -each.segment, -(each.stripe or 0))):
        if copy.protection.pin is None:
            queues[copy.again].append(copy)  # the end of each goes first
    once, again = queues
    once_bytes, total = sum(each.size for each in once), sum(each.size for queue in queues for each in queue)
    order = []
    while once or again:
        if once and (not again or once_bytes > ONCE_SHARE * total):
            copy = once.pop()
            once_bytes -= copy.size
        else:
            copy = again.pop()
        total -= copy.size
        order.append(copy)
    return order


def plan(
    candidates: Iterable[Candidate], options: RetentionOptions, kept_bytes: int, free_bytes: int, *, all_: bool = False
) -> list[Victim]:
    """Victims, in the order they go. What is pinned never is one.

    `kept_bytes`: what is cached now, in bytes, candidates and what must stay together; `free_bytes`: of the disk.
    """
    order = eviction_order(candidates)
    if all_:
        return [Victim(copy, Reason.ASKED) for copy in order]
    chosen: dict[Candidate, Reason] = {}
    freed = 0
    for copy in order:
        age_s_max = policy_of(copy, options).age_s_max
        if age_s_max is not None and copy.idle_s > age_s_max:
            chosen[copy] = Reason.AGE
            freed += copy.size
    for number, policy in enumerate(options.paths):
        mine = [copy for copy in order if copy.protection.policy == number and copy not in chosen]
        over = sum(copy.size for copy in mine) - (policy.size_bytes_max if policy.size_bytes_max is not None else 2**63)
        for copy in mine:
            if over > 0:
                chosen[copy] = Reason.PATH
                freed += copy.size
                over -= copy.size
    too_large = kept_bytes - options.size_bytes_max
    too_full = options.free_bytes_min - free_bytes
    for copy in order:
        if copy not in chosen and freed < max(too_large, too_full):
            chosen[copy] = Reason.SIZE if freed < too_large else Reason.FREE
            freed += copy.size
    return [Victim(copy, chosen[copy]) for copy in order if copy in chosen]


def policy_of(copy: Candidate, options: RetentionOptions) -> PathPolicy:
    """The limits that hold for a copy, as one policy."""
    if copy.protection.policy == GENERAL:
        return PathPolicy("/", options.age_s_max, None)
    return options.paths[copy.protection.policy]
