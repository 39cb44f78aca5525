"""fsck of a cache that nobody has open: all checks on the files, and the repairs. The caller holds the state's lock.

A check changes nothing. A repair goes in this order:
1. local copies that do not verify and are at the locations are removed     crash: they are fetched when read
2. LMDB's file is removed if it is not what the logs say                    crash: the next start replays them
3. the cache is opened as a mount does, and rows are repaired, change by change, until nothing is left to repair
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qss.cache.change import Change
from qss.cache.options import CacheOptions
from qss.cache.recovery import drop_index
from qss.cache.store import SegmentCache
from qss.formats.tables import SegmentRow, u64_of_key
from qss.fsck.check import check_index, index_checks, segment_rows
from qss.fsck.findings import Check, Finding, Kind, Report, run
from qss.fsck.repair import repair_rows
from qss.fsck.replay import OfflineReach, Opened, check_replay, open_both
from qss.fsck.segments import (
    STRIPE_SUFFIX,
    SegmentRows,
    Shelves,
    check_checkpoints,
    check_data,
    check_files,
    check_journals,
    check_records,
    check_stripes,
)
from qss.fsck.snapshots import check_contents
from qss.host import Host
from qss.ids import SegmentId, segment_text
from qss.segments import SegmentKind

ROUNDS_MAX: Final = 12
"""Repairs make way for others (a name put back changes a link count); more than a few rounds are a bug of ours."""
REPAIRS_AT_ONCE_MAX: Final = 100_000
"""Repairs of one kind in one round."""

OnStage = Callable[[str, int], None]
"""(stage, looked at in it)."""

_REBUILT: Final = {Kind.INDEX_DIFFERS, Kind.LIVE_WRONG}
_LOGS_NOT_WHOLE: Final = {
    Kind.JOURNAL_DAMAGED, Kind.JOURNAL_MISSING, Kind.JOURNAL_CHAIN, Kind.CHECKPOINT_DAMAGED, Kind.CHECKPOINT_MISSING,
}  # fmt: skip
_FETCHED_AGAIN: Final = {Kind.SEGMENT_FILE, Kind.DATA_DAMAGED}


@dataclass(slots=True)
class Looked:
    """What a look at a cache has found. `rows`: of the sealed segments."""

    report: Report
    rows: dict[SegmentId, SegmentRow] = field(default_factory=dict)


@contextlib.contextmanager
def opened(root: Path, host: Host, map_bytes: int, scratch: Path) -> Iterator[Opened]:
    """`scratch`: a directory that is made, and removed at the end."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700, parents=True)
    both = None
    try:
        both = open_both(root, host, map_bytes, scratch)
        yield both
    finally:
        if both is not None:
            both.close()
        shutil.rmtree(scratch, ignore_errors=True)


def look(root: Path, host: Host, options: CacheOptions, scratch: Path, *, data: bool, on_stage: OnStage) -> Looked:
    """All checks of a cache; with `data` every record is read. Changes nothing."""
    looked = Looked(Report())
    try:
        host.disk.listdir(root / "journal")
    except FileNotFoundError:  # nothing was ever mounted here
        return looked
    with opened(root, host, options.index_map_bytes, scratch) as both:
        _do("log", check_replay(both), looked.report, on_stage)
        if both.view is None:
            return looked
        reach_of = OfflineReach(both.view, root, host)
        for stage, check in index_checks(both.view, reach_of):
            _do(stage, check, looked.report, on_stage)
        looked.rows = segment_rows(both.view)
        shelves = Shelves(root, host.disk)
        look_at_files(shelves, looked.rows, looked.report, data=data, on_stage=on_stage)
        if data:
            damaged = {_segment_of(each) for each in looked.report.findings if each.kind is Kind.DATA_DAMAGED}
            _do("records", check_records(shelves, both.view, damaged), looked.report, on_stage)
            held = check_contents(both.view, root, host, options.index_map_bytes, scratch / "snapshots")
            _do("snapshot contents", held, looked.report, on_stage)
    return looked


def look_at_files(shelves: Shelves, rows: SegmentRows, report: Report, *, data: bool, on_stage: OnStage) -> None:
    """The checks of sealed files, which need no index but these rows."""
    _do("files", check_files(shelves, rows), report, on_stage)
    _do("journals", check_journals(shelves, rows), report, on_stage)
    _do("checkpoints", check_checkpoints(shelves, rows), report, on_stage)
    if data:
        _do("data", check_data(shelves, rows), report, on_stage)
        _do("fetched stripes", check_stripes(shelves, rows), report, on_stage)


def _do(stage: str, check: Check, report: Report, on_stage: OnStage) -> None:
    run(stage, _told(stage, check, on_stage), report)


def _told(stage: str, check: Check, on_stage: OnStage) -> Check:
    count = 0
    on_stage(stage, 0)
    for step in check:
        if isinstance(step, int):
            count += step
            on_stage(stage, count)
        yield step


def _segment_of(finding: Finding) -> SegmentId:
    assert finding.where is not None
    return SegmentId(u64_of_key(finding.where.key))


# -- repair


async def repair(root: Path, host: Host, options: CacheOptions, report: Report) -> list[str]:
    """Repair what `look` has found; the sentences of what was done. Raises Damaged when the cache cannot be opened."""
    done = _repair_files(root, host, report, dry_run=False)
    done += _repair_index(root, host, report, dry_run=False)
    cache = await SegmentCache.open(root, host, options, None)
    try:
        for _ in range(ROUNDS_MAX):
            found = check_index(cache, cache.reach_of, Report(REPAIRS_AT_ONCE_MAX))
            made = repair_rows(cache.begin, cache.commit, found.findings, host.clock.now_ns())
            done += made
            if not made:
                break
    finally:
        await cache.close()
    return done


def plan_repair(root: Path, host: Host, options: CacheOptions, report: Report, scratch: Path) -> list[str]:
    """What `repair` would do first; later rounds depend on it. Changes nothing."""
    planned = _repair_files(root, host, report, dry_run=True)
    planned += _repair_index(root, host, report, dry_run=True)
    with opened(root, host, options.index_map_bytes, scratch) as both:
        index = both.view
        if index is not None:
            planned += repair_rows(lambda: Change(index), lambda _: None, report.findings, host.clock.now_ns())
    return planned


def _repair_files(root: Path, host: Host, report: Report, *, dry_run: bool) -> list[str]:
    """1. Copies that are at the locations as well."""
    shelves = Shelves(root, host.disk)
    paths: dict[Path, str] = {}
    for finding in report.findings:
        if not finding.repairable or finding.where is None:
            continue
        if finding.kind in _FETCHED_AGAIN:
            segment = _segment_of(finding)
            what = f"segment {segment_text(segment)}"
            paths[shelves.path_of(segment, SegmentKind.DATA)] = (
                f"Removed the local copy of {what}; it is fetched again."
            )
        elif finding.kind is Kind.STRIPE_DAMAGED:
            name = f"{segment_text(_segment_of(finding))}-{finding.where.value}{STRIPE_SUFFIX}"
            paths[root / "stripes" / name] = f"Removed the local copy of {finding.subject}; it is fetched again."
    for path in paths:
        if not dry_run:
            with contextlib.suppress(FileNotFoundError):
                host.disk.remove(path)
            host.disk.sync_dir(path.parent)
    return list(paths.values())


def _repair_index(root: Path, host: Host, report: Report, *, dry_run: bool) -> list[str]:
    """2. Unless the journals are damaged: then LMDB's file may be all there is."""
    wrong = any(finding.kind in _REBUILT and finding.repairable for finding in report.findings)
    if not wrong or any(report.counts[kind] for kind in _LOGS_NOT_WHOLE):
        return []
    if not dry_run:
        drop_index(root, host)
    return ["Built the index anew from the journals."]
