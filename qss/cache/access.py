"""Our own access clock: what counts as one visit to a local copy, and what is remembered of copies that went. Pure.

A pass over a file touches each copy many times in a short while, always going forward: one visit. A new visit begins
with a touch that is VISIT_S or more after the last one began and does not lie further on than the touch before it; a
slow reader who only goes on never begins one. Copies with two visits or more are worth more (qss.cache.retention).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qss.ids import SegmentId

VISIT_S: Final = 30.0
VISITS_MAX: Final = 3
AGAIN: Final = 2
"""Visits from which a copy counts as used again."""

FileKey = tuple[SegmentId, int]  # stripe number, or WHOLE
WHOLE: Final = -1


@dataclass(slots=True)
class CachedFile:
    """One file with bytes of a segment: the whole of it, or one stripe."""

    path: Path
    length: int  # bytes; of the open segment only what it had when first seen
    used_s: float  # our access clock
    visits: int = 0  # reads only: what was just written has none
    visit_s: float = float("-inf")  # when the last visit began
    position: int = 0  # of the last touch

    def touch(self, now_s: float, position: int) -> None:
        """A read at this position of the segment."""
        self.used_s = now_s
        if now_s - self.visit_s >= VISIT_S and (position <= self.position or not self.visits):
            self.visit_s = now_s
            self.visits = min(self.visits + 1, VISITS_MAX)
        self.position = position


class Ghosts:
    """Copies that were read and went, oldest first, up to so many bytes: one that comes back was worth keeping.

    The paper's A1out. A scan of more than `bytes_max` forgets its own beginning, so scanning twice promotes nothing.
    """

    def __init__(self) -> None:
        self._lengths: OrderedDict[FileKey, int] = OrderedDict()
        self._bytes = 0

    def add(self, key: FileKey, length: int, bytes_max: int) -> None:
        self._bytes -= self._lengths.pop(key, 0)
        self._lengths[key] = length
        self._bytes += length
        while self._bytes > bytes_max:
            self._bytes -= self._lengths.popitem(last=False)[1]

    def came_back(self, key: FileKey) -> bool:
        """Whether it was here before; then it is no ghost any more. A stripe of a segment that went whole counts."""
        length = self._lengths.pop(key, None)
        if length is not None:
            self._bytes -= length
        return length is not None or (key[0], WHOLE) in self._lengths

    def all(self) -> list[tuple[FileKey, int]]:
        """Key and length, oldest first."""
        return list(self._lengths.items())
