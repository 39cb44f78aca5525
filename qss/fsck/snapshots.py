"""Snapshots: their rows can be read, and what they need is there and not on its way out.

The rows show most of it. What really lived at a cut only its logs say: offline, with --data, each snapshot's index is
built from the logs that are here, and every segment in it must have a row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from qss.cache.frozen import build_index, open_index
from qss.cache.pins import missing, point_of
from qss.cache.segment_log import FOLDERS, log_path
from qss.cache.snapshots import NEWEST_KEY
from qss.errors import CorruptData, Damaged
from qss.formats.tables import SegmentRow, SegmentState, SnapshotRow, Table, u64_key, u64_of_key, unpack_number
from qss.fsck.findings import Check, Finding, Kind, Where
from qss.fsck.rows import LiveRows, Rows
from qss.host import Host
from qss.ids import SegmentId, segment_text
from qss.segments import SegmentKind


def snapshot_rows(rows: Rows) -> dict[str, SnapshotRow]:
    """Those that can be read."""
    found = {}
    for key, value in rows.scan(Table.SNAPSHOTS, b""):
        with contextlib.suppress(CorruptData, UnicodeDecodeError):
            found[key.decode()] = SnapshotRow.unpack(value)
    return found


def check_snapshots(rows: LiveRows) -> Check:
    """SNAPSHOTS and DEATHS against SEGMENTS and LIVE, all at one moment: there are few of them."""
    segments = _segments(rows)
    deaths = {}
    for key, value in rows.scan(Table.DEATHS, b""):
        with contextlib.suppress(CorruptData):
            deaths[SegmentId(u64_of_key(key))] = unpack_number(value)
    yield from _invalid(rows)
    snapshots = snapshot_rows(rows)
    names = {row.number: name for name, row in snapshots.items()}
    for number, segment in missing(snapshots.values(), segments, deaths):
        yield _lost(names[number], segment, "is given up or has no row")
    yield from _deaths(rows, segments)
    yield len(snapshots) + len(deaths)


def _segments(rows: Rows) -> dict[SegmentId, SegmentRow]:
    found = {}
    for key, value in rows.scan(Table.SEGMENTS, b""):
        with contextlib.suppress(CorruptData):
            found[SegmentId(u64_of_key(key))] = SegmentRow.unpack(value)
    return found


def _invalid(rows: Rows) -> Iterator[Finding]:
    newest = 0
    with contextlib.suppress(CorruptData):
        newest = unpack_number(rows.get(Table.META, NEWEST_KEY) or u64_key(0))
    seen: set[int] = set()
    for key, value in rows.scan(Table.SNAPSHOTS, b""):
        name, problem = key.decode(errors="replace"), ""
        try:
            row = SnapshotRow.unpack(value)
        except CorruptData:
            problem = "cannot be read"
        else:
            if row.number > newest:
                problem = f"has the number {row.number}, and the newest there ever was is {newest}"
            elif row.number in seen:
                problem = f"has the number {row.number} of another"
            seen.add(row.number)
        if problem:
            sentence = f"The row of the snapshot {name} {problem}."
            yield Finding(Kind.SNAPSHOT_INVALID, f"snapshot {name}", sentence, Where(Table.SNAPSHOTS, key))


def _deaths(rows: LiveRows, segments: dict[SegmentId, SegmentRow]) -> Iterator[Finding]:
    """A mark of death lets a segment go, so it must not stand on what lives."""
    live = rows.live_all()
    for key, value in rows.scan(Table.DEATHS, b""):
        segment, problem = SegmentId(u64_of_key(key)), ""
        row = segments.get(segment)
        if segment in live:
            problem = "holds content of files"
        elif row is not None and row.kind is not SegmentKind.DATA:
            problem = "is no data"
        else:
            try:
                unpack_number(value)
            except CorruptData:
                problem = "has a mark that cannot be read"
        if problem:
            sentence = f"The segment {segment_text(segment)} is marked as dead and {problem}."
            subject = f"segment {segment_text(segment)}"
            yield Finding(Kind.DEATH_WRONG, subject, sentence, Where(Table.DEATHS, key))


def _lost(name: str, segment: SegmentId, why: str) -> Finding:
    sentence = f"The snapshot {name} needs the segment {segment_text(segment)}, which {why}."
    return Finding(Kind.SNAPSHOT_LOST, f"snapshot {name}", sentence, Where(Table.SEGMENTS, u64_key(segment)))


# -- with --data, offline


def check_contents(rows: Rows, root: Path, host: Host, map_bytes: int, scratch: Path) -> Check:
    """What each snapshot needs by its own logs has a row and is not given up. `scratch`: an empty directory. Snapshots
    some of whose logs are not here are left out: nobody fetches for a check."""
    segments = _segments(rows)
    for name, row in sorted(snapshot_rows(rows).items()):
        folder = scratch / str(row.number)
        point = point_of(row, segments)
        try:
            for kind, logs in ((SegmentKind.JOURNAL, point.journals), (SegmentKind.CHECKPOINT, point.checkpoint)):
                host.disk.makedirs(folder / FOLDERS[kind])
                for segment in logs:
                    log_path(folder, kind, segment).symlink_to(log_path(root, kind, segment))
            build_index(folder, host, map_bytes, point)
        except (FileNotFoundError, Damaged):
            yield 1
            continue
        index = open_index(folder, map_bytes)
        try:
            for segment in sorted(index.live_all()):
                now = segments.get(segment)
                if now is None or now.state is SegmentState.CONDEMNED:
                    yield _lost(name, segment, "is given up")
        finally:
            index.close()
        yield 1
