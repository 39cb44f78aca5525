"""The narrow interface between the mount process (cache) and the offload process.

A *shelf* knows the sealed segments and where their bytes are; the cache is one. A *vault* stores
segments at the locations and brings stripes back; offload is one. Each side sees the other only as
these protocols. Two carriers bring them together: the unix socket (`qss.app`) and a direct call.

Everything about progress is durable on the shelf's side: "sealed and not yet offloaded" is a query,
so either process can die at any time and the work is found again. Wake-ups are only hints.
Bulk bytes never cross: the vault reads segment files by path and writes fetched stripes to a path.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from qss.ids import LocationId, SegmentId, StripeNo
from qss.limits import STRIPE_BYTES


class SegmentKind(enum.IntEnum):
    DATA = 1
    JOURNAL = 2
    CHECKPOINT = 3


@dataclass(frozen=True, slots=True)
class SealedSegment:
    """A closed, synced, immutable segment file."""

    id: SegmentId
    kind: SegmentKind
    length: int  # bytes
    sealed_ns: int  # wall clock, nanoseconds since 1970
    needs_upto: SegmentId  # journal: every data segment up to here must be safe before a root names it

    @property
    def stripe_count(self) -> int:
        return -(-self.length // STRIPE_BYTES)

    def stripe_bytes(self, stripe: StripeNo) -> int:
        """Length of one stripe of this segment, in bytes."""
        return min(STRIPE_BYTES, self.length - stripe * STRIPE_BYTES)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the vault says of a segment it has stored: which shard is where, and under which seal."""

    segment: SegmentId
    seal: bytes  # 16 bytes, fresh for each sealing attempt
    k: int
    m: int
    placed: tuple[LocationId | None, ...]  # one for each shard number; None: still missing
    stored_bytes: int  # sum over all shard objects placed

    @property
    def missing(self) -> int:
        return sum(1 for place in self.placed if place is None)

    @property
    def complete(self) -> bool:
        return self.missing == 0


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """What the shelf knows of a segment that counts on its shards at the locations."""

    segment: SealedSegment
    k: int
    m: int
    placed: int  # shards, by the newest receipt
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """What a root names: replaying checkpoint then journals gives the whole file system of `cut_ns`. With no journal:
    nothing was stored yet."""

    checkpoint: tuple[SegmentId, ...]
    journals: tuple[SegmentId, ...]  # oldest first, without gaps
    cut_ns: int  # wall clock of the newest cut included
    next_segment: SegmentId  # no segment from here on existed at the cut

    @property
    def logs(self) -> dict[SegmentId, SegmentKind]:
        """The segments to be replayed, in order."""
        return dict.fromkeys(self.checkpoint, SegmentKind.CHECKPOINT) | dict.fromkeys(
            self.journals, SegmentKind.JOURNAL
        )


class SegmentShelf(Protocol):
    """The cache, as offload sees it."""

    async def unsafe_segments(self) -> list[SealedSegment]:
        """Sealed segments whose shards are not all placed, oldest first."""
        ...

    async def path_of(self, segment: SegmentId) -> Path:
        """The file with the segment's bytes. Raises ObjectMissing if it is not cached whole."""
        ...

    async def sealed_segment(self, segment: SegmentId) -> SealedSegment:
        """Facts of one sealed segment. Raises ObjectMissing if there is none."""
        ...

    async def held_segments(self) -> list[SealedSegment]:
        """Segments of which locations may hold shards, the dead ones whose shards are not deleted yet among them,
        oldest first. For whoever empties or cleans a location; who repairs or verifies asks for stored_segments."""
        ...

    async def stored_segments(self) -> list[StoredSegment]:
        """Every segment that has a receipt and is not condemned, oldest first: what counts on its shards."""
        ...

    async def mark_offloaded(self, receipt: Receipt) -> None:
        """Durably note the receipt; now retention may free the local copy if it is complete. Idempotent."""
        ...

    async def restore_point(self) -> RestorePoint | None:
        """The newest restore point all of whose segments are safe; None before the first."""
        ...

    async def mark_published(self, point: RestorePoint) -> None:
        """Durably note that a root names this restore point. Idempotent."""
        ...

    async def condemned(self) -> list[SegmentId]:
        """Segments whose shards nobody needs any more: not the newest root, not the one before it. Oldest first."""
        ...

    async def mark_deleted(self, segment: SegmentId) -> None:
        """Durably note that no location holds shards of a condemned segment; it is not asked for again. Idempotent."""
        ...


class SegmentVault(Protocol):
    """Offload, as the cache sees it."""

    async def fetch(self, segment: SegmentId, stripe: StripeNo, into: Path) -> None:
        """Rebuild one stripe from any k shards and put its verified plaintext at `into`, whole or not
        at all (written beside it, then renamed).

        Raises TooFewShards when fewer than k verified blocks can be had now; the caller may try again.
        """
        ...
