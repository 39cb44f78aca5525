"""All checks of the index, in order, over a live cache or an index by itself; with or without pauses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from typing import Protocol

import trio

from qss.errors import CorruptData
from qss.formats.tables import SegmentRow, Table, u64_of_key
from qss.fsck.extents import ExtentTally, ReachOf, check_extents
from qss.fsck.findings import Check, Finding, Kind, Report, Where, run
from qss.fsck.inodes import check_inodes, check_orphans, check_symlinks, check_xattrs
from qss.fsck.links import WINDOW_INODES, LinkTally, check_links, windows
from qss.fsck.namespace import check_entries, check_order, check_tree
from qss.fsck.rows import LiveRows, Rows, Tally, pages
from qss.fsck.snapshots import check_snapshots
from qss.ids import SegmentId, segment_text

Watch = Callable[[Tally], AbstractContextManager[object]]
"""Lets a tally hear of every change, for as long as the context is open."""


class LiveCache(LiveRows, Protocol):
    """What an online check needs of the cache; SegmentCache is one."""

    def reach_of(self, segment: SegmentId) -> int | None: ...

    def observed_by(self, observer: Tally) -> AbstractContextManager[object]: ...


def unwatched(_tally: Tally) -> AbstractContextManager[object]:
    """For an index nobody changes meanwhile."""
    return nullcontext()


def index_checks(
    rows: LiveRows, reach_of: ReachOf, watch: Watch = unwatched, window: int = WINDOW_INODES
) -> Iterator[tuple[str, Check]]:
    """(stage, check), lazily: each is to be used up before the next is taken."""
    yield "inodes", check_inodes(rows)
    yield "names", check_entries(rows)
    yield "listings", check_order(rows)
    yield "tree", check_tree(rows)
    for base, width in windows(rows, window):
        links = LinkTally(base, width)
        with watch(links):
            yield "links", check_links(rows, links)
    yield "link targets", check_symlinks(rows)
    yield "attributes", check_xattrs(rows)
    yield "deleted", check_orphans(rows)
    extents = ExtentTally()
    with watch(extents):
        yield "extents", check_extents(rows, reach_of, extents)
    yield "segments", check_segment_rows(rows)
    yield "snapshots", check_snapshots(rows)


def segment_rows(rows: Rows) -> dict[SegmentId, SegmentRow]:
    """The rows of SEGMENTS that can be read."""
    found = {}
    for key, packed in rows.scan(Table.SEGMENTS, b""):
        with suppress(CorruptData):
            found[SegmentId(u64_of_key(key))] = SegmentRow.unpack(packed)
    return found


def check_segment_rows(rows: Rows) -> Check:
    """Every row of SEGMENTS can be read."""
    for page in pages(rows, Table.SEGMENTS):
        for key, value in page:
            try:
                SegmentRow.unpack(value)
            except CorruptData:
                subject = f"segment {segment_text(SegmentId(u64_of_key(key)))}"
                where = Where(Table.SEGMENTS, key)
                yield Finding(Kind.SEGMENT_INVALID, subject, f"The row of {subject} cannot be read.", where)
        yield len(page)


def check_index(rows: LiveRows, reach_of: ReachOf, report: Report) -> Report:
    """All at once, for an index nobody changes."""
    for stage, check in index_checks(rows, reach_of):
        run(stage, check, report)
    return report


OnStage = Callable[[str, int], Awaitable[None]]
"""(stage, rows looked at in it), now and then."""


async def check_online(cache: LiveCache, on_stage: OnStage, window: int = WINDOW_INODES) -> Report:
    """While the file system is in use: others have their turn after every page of rows."""
    report = Report()
    with closing(index_checks(cache, cache.reach_of, cache.observed_by, window)) as checks:  # type: ignore[type-var]
        for stage, check in checks:
            for step in check:
                if isinstance(step, int):
                    report.looked_at[stage] += step
                    await trio.lowlevel.checkpoint()
                else:
                    report.add(step)
            await on_stage(stage, report.looked_at[stage])
    return report
