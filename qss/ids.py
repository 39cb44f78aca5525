"""Identifiers and their single text form."""

from __future__ import annotations

from typing import Final, NewType

SegmentId = NewType("SegmentId", int)
"""Number of a segment, counted up from 1 by one file system; data and journal share the sequence. u64."""

StripeNo = NewType("StripeNo", int)
"""Number of a stripe within its segment, from 0."""

ShardNo = NewType("ShardNo", int)
"""Number of a shard within its segment, 0 … k+m-1; below k it carries data, from k on parity."""

LocationId = NewType("LocationId", str)
"""Name of a location as configured, e.g. "trove-1"."""

Ino = NewType("Ino", int)
"""Inode number, u64; 1 is the root directory."""

ROOT_INO: Final = Ino(1)
SEGMENT_ID_NONE: Final = SegmentId(0)


def segment_text(segment: SegmentId) -> str:
    """The one text form of a segment id: 16 hex digits, so that text order is number order."""
    return f"{segment:016x}"
