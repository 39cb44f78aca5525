"""What offload says of itself: plain values for `status`, metrics and hooks."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from qss.ids import SegmentId
from qss.offload.damage import DamagedShard
from qss.offload.nodes import NodeFacts

RATE_WINDOW_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class OffloadStatus:
    queued: int  # segments that are not safe yet, those under way included
    queued_bytes: int
    in_flight: tuple[SegmentId, ...]
    uploaded_bytes: int  # since start, everything put
    upload_bytes_per_s: float  # over the last RATE_WINDOW_S
    stored_segments: int  # since start
    deleted_segments: int  # dead ones whose shards are gone everywhere, since start
    last_error: str  # one sentence; empty when the last attempt of everything went well
    blocked: str  # why nothing may be written any more; empty: nothing is wrong
    incomplete: tuple[SegmentId, ...]  # stored, but shards are missing
    damaged: tuple[DamagedShard, ...]  # found by reads, not yet repaired
    damaged_blocks_seen: int  # since start
    shards_repaired: int  # since start
    root_generation: int  # last published; 0: none
    root_created_ns: int
    root_behind: int  # locations that have not got the last root
    buffers_bytes: int  # memory held for coded segments
    nodes: tuple[NodeFacts, ...]


def silent_majority(up: Sequence[bool]) -> str:
    """For people: why nothing is uploaded while most locations are away, though fewer are enough for reading. `up`: of
    each location. Empty: a majority is there."""
    majority, there = len(up) // 2 + 1, sum(up)
    if there >= majority:
        return ""
    return (
        f"{there} of {len(up)} locations are up: nothing is uploaded or deleted until {majority} are, for a majority"
        " says who writes this file system; writing here goes on, and so does reading where enough shards are left"
    )


class Rate:
    """Bytes per second over a sliding window. Time in seconds is an argument."""

    def __init__(self, window_s: float = RATE_WINDOW_S) -> None:
        self._window_s = window_s
        self._samples: deque[tuple[float, int]] = deque()
        self._sum = 0
        self.total = 0

    def add(self, now_s: float, count: int) -> None:
        self.total += count
        self._sum += count
        if self._samples and now_s - self._samples[-1][0] < self._window_s / 100:
            self._samples[-1] = (self._samples[-1][0], self._samples[-1][1] + count)
        else:
            self._samples.append((now_s, count))

    def per_s(self, now_s: float) -> float:
        while self._samples and self._samples[0][0] < now_s - self._window_s:
            self._sum -= self._samples.popleft()[1]
        return self._sum / self._window_s
