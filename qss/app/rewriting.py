"""Moving stored content to another k and m: compaction of whole segments, however much lives in them (adr/0118).

Which segments are left is a query, so it can end anywhere and go on the next time. Nothing at the locations is written
over: content goes into new segments, and the old ones are deleted when no root names them any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from qss.cache.store import SegmentCache
from qss.errors import NoSpace, QssError
from qss.segments import SegmentKind, StoredSegment


@dataclass(slots=True)
class Rewriting:
    k: int  # what is stored under another code goes to this one
    m: int
    segments: int = 0  # data segments under another code
    journals: int = 0  # and others, which a checkpoint replaces
    total_bytes: int = 0  # length of the data segments
    done_bytes: int = 0
    moved: int = 0  # segments
    held: int = 0  # may not be emptied now: a snapshot needs them, or nothing lives in them
    failed: int = 0
    trouble: str = ""

    @classmethod
    def of(cls, code: tuple[int, int], found: Collection[StoredSegment]) -> Rewriting:
        data = [each for each in found if each.segment.kind is SegmentKind.DATA]
        total = sum(each.segment.length for each in data)
        return cls(*code, segments=len(data), journals=len(found) - len(data), total_bytes=total)


def plan(stored: Collection[StoredSegment], code: tuple[int, int]) -> list[StoredSegment]:
    """What is stored under another code, oldest first. Pure."""
    return [each for each in stored if (each.k, each.m) != code]


async def rewrite(
    cache: SegmentCache, code: tuple[int, int], found: Rewriting, report: Callable[[Rewriting], Awaitable[None]]
) -> None:
    """Empty every data segment of another code, within `compact_limit`. Counts in `found` as it goes; a full disk ends
    it."""
    for each in plan(await cache.stored_segments(), code):
        if each.segment.kind is not SegmentKind.DATA:
            continue
        try:
            if await cache.compactor.empty(each.segment.id):
                found.moved += 1
            else:
                found.held += 1
        except (QssError, OSError) as error:
            found.failed += 1
            found.trouble = str(error)
            if isinstance(error, NoSpace):
                break
        found.done_bytes += each.segment.length
        await report(found)
    if found.moved:
        await cache.cut()
