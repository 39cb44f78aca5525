"""The order of repair: closest to loss first, then oldest; nothing is dropped, and nothing waits for ever. Pure.

A segment's rank is how many more shards it may lose (`spare`), less one for each `AGE_STEP_S` it has waited, never
below 0; equal ranks go by age. So a stream of segments that may lose nothing more holds up the others for a bounded
time only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from qss.ids import SegmentId
from qss.offload.health import backoff_s

AGE_STEP_S: Final = 600.0
PAUSE_FIRST_S: Final = 0.5
PAUSE_MAX_S: Final = 60.0


@dataclass(slots=True)
class Entry:
    spare: int  # shards that may still be lost; below 0: it cannot be read now
    since_s: float
    tries: int = 0
    until_s: float = 0.0  # not before

    def rank(self, now_s: float) -> tuple[int, float]:
        """Lowest first."""
        return max(0, max(0, self.spare) - int((now_s - self.since_s) // AGE_STEP_S)), self.since_s


class RepairQueue:
    """At most one entry for a segment. Times in seconds on any steady clock, given as arguments."""

    def __init__(self) -> None:
        self._entries: dict[SegmentId, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, segment: SegmentId) -> bool:
        return segment in self._entries

    def __iter__(self) -> Iterator[SegmentId]:
        return iter(self._entries)

    @property
    def least_spare(self) -> int | None:
        """Of the segment closest to loss; None: nothing waits."""
        return min((entry.spare for entry in self._entries.values()), default=None)

    def put(self, segment: SegmentId, spare: int, now_s: float) -> None:
        """Merged with what is known: it keeps its age; when it has got closer to loss it is due at once."""
        entry = self._entries.setdefault(segment, Entry(spare, now_s))
        if spare < entry.spare:
            entry.until_s, entry.tries = 0.0, 0
        entry.spare = spare

    def take(self, now_s: float, busy: Collection[SegmentId]) -> SegmentId | None:
        """The one to repair next. It stays queued until `done` or `failed`."""
        due = (
            (entry.rank(now_s), segment)
            for segment, entry in self._entries.items()
            if entry.until_s <= now_s and segment not in busy
        )
        return min(due, default=(None, None))[1]

    def failed(self, segment: SegmentId, now_s: float, jitter: float) -> None:
        """Try again after a pause that grows. `jitter` in [0, 1)."""
        entry = self._entries.get(segment)
        if entry is not None:
            entry.until_s = now_s + backoff_s(entry.tries, PAUSE_FIRST_S, PAUSE_MAX_S, 1.0 - jitter)
            entry.tries += 1

    def done(self, segment: SegmentId) -> None:
        self._entries.pop(segment, None)

    def wake(self) -> None:
        """Something has changed for the better: everything is due."""
        for entry in self._entries.values():
            entry.until_s = 0.0

    def next_in_s(self, now_s: float) -> float:
        """Until the next one is due; infinite when none waits."""
        return max(0.0, min((entry.until_s for entry in self._entries.values()), default=float("inf")) - now_s)
