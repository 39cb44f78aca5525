"""Blocks that did not verify: counted, logged once, kept for status and repair."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qss.ids import LocationId, SegmentId, ShardNo, segment_text

_log = logging.getLogger(__name__)

OPEN_MAX: Final = 10_000
"""Shards remembered at a time; what comes on top is only counted, and found again by the next read."""


@dataclass(frozen=True, slots=True, order=True)
class DamagedShard:
    segment: SegmentId
    shard: ShardNo
    location: LocationId


class DamageList:
    """Owned by the vault's event loop. Entries leave when repair has proved them whole."""

    def __init__(self) -> None:
        self._open: dict[DamagedShard, str] = {}
        self.on_new: Callable[[DamagedShard], None] = lambda _damaged: None
        """Hears of each shard that was not known to be damaged."""
        self.blocks_seen = 0  # bad answers since start, counted every time
        self.shards_repaired = 0

    def report(self, damaged: DamagedShard, why: str) -> None:
        self.blocks_seen += 1
        if damaged not in self._open and len(self._open) < OPEN_MAX:
            self._open[damaged] = why
            _log.warning(
                "shard %d of segment %s at %s is damaged: %s",
                damaged.shard, segment_text(damaged.segment), damaged.location, why,
            )  # fmt: skip
            self.on_new(damaged)

    def recall(self, known: Mapping[DamagedShard, str]) -> None:
        """What was open before a restart."""
        self._open = {**known, **self._open}

    @property
    def reasons(self) -> dict[DamagedShard, str]:
        """What is open, and why."""
        return dict(self._open)

    def where(self, segment: SegmentId, placed: Sequence[LocationId | None]) -> dict[ShardNo, LocationId]:
        """The damaged shards of a segment, at the places where they are now."""
        return {
            one.shard: one.location for one in self.open if one.segment == segment and placed[one.shard] == one.location
        }

    def repaired(self, segment: SegmentId, shard: ShardNo, location: LocationId) -> None:
        if self._open.pop(DamagedShard(segment, shard, location), None) is not None:
            self.shards_repaired += 1

    def settle(self, segment: SegmentId, placed: Sequence[LocationId | None]) -> None:
        """Shards that now have another place are no longer damaged at the old one."""
        for one in [one for one in self._open if one.segment == segment]:
            if placed[one.shard] not in (None, one.location):
                del self._open[one]

    def forget(self, segment: SegmentId) -> None:
        for damaged in [one for one in self._open if one.segment == segment]:
            del self._open[damaged]

    @property
    def open(self) -> tuple[DamagedShard, ...]:
        return tuple(sorted(self._open))

    def segments(self) -> list[SegmentId]:
        return sorted({damaged.segment for damaged in self._open})
