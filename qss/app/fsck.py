"""qssctl fsck: which checks run where.

mounted        index: in the mount process, a page of rows at a time (`fsck.index` on its socket: qss.app.fsck_methods)
               files, content, locations: in this process, on files that never change and with clients of its own
not mounted    all here, under the lock that a mount takes; repairs only now
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trio

from qss.app.exits import Exit
from qss.app.holding import refuse_unless_ours
from qss.app.identity import check_key, unlocked
from qss.app.locations import open_nodes
from qss.app.running import is_locked, state_lock
from qss.app.snapshots import refuse_recovered
from qss.app.talk import OnProgress, call_mount
from qss.config import Settings
from qss.errors import Refused, Unreachable
from qss.formats.tables import SegmentRow, u64_of_key
from qss.fs.losses import files_in_segments
from qss.fsck import remote_repair
from qss.fsck.findings import Kind, Report
from qss.fsck.offline import Looked, look, look_at_files, opened, plan_repair, repair
from qss.fsck.remote import Remote, RowsNow, check_remote
from qss.fsck.segments import SegmentRows, Shelves
from qss.host import Host
from qss.ids import SegmentId
from qss.offload.keys import FsKeys
from qss.offload.manifests import Manifests
from qss.offload.roots import RootBook
from qss.offload.vault import Vault

SCRATCH: Final = "fsck"
"""In the state directory: an index made from the logs; removed at the end."""

_PROGRESS_EVERY: Final = 1_000

Tell = Callable[[str, int], None]
"""(stage, looked at in it)."""


def check(
    settings: Settings, on_progress: OnProgress | None, *, data: bool, remote: bool, mend: bool, dry_run: bool
) -> dict[str, Any]:
    """The document of `qssctl fsck --json`. Raises Refused for a repair of what is mounted."""
    tell = _teller(on_progress)
    refuse_recovered(settings)
    try:
        call_mount(settings, "where")
    except Unreachable:
        if is_locked(settings.state):
            raise Unreachable("the file system is just being mounted, unmounted or recovered: try again") from None
        settings = unlocked(settings)
        with state_lock(settings.state):
            return _offline(settings, tell, data=data, remote=remote, mend=mend, dry_run=dry_run)
    if mend and not dry_run:
        raise Refused("the file system is mounted: run qssctl umount, then qssctl fsck --repair")
    return _online(unlocked(settings) if remote else settings, on_progress, tell, data=data, remote=remote)


def exit_code(document: dict[str, Any]) -> Exit:
    """docs/operations.md."""
    left = document["left"]
    if left["lost"]:
        return Exit.DATA
    if not left["clean"]:
        return Exit.FOUND
    return Exit.OK if document["clean"] else Exit.CORRECTED


def _document(report: Report, left: Report, **facts: Any) -> dict[str, Any]:
    return {
        **facts,
        **report.to_json(),
        "left": {"clean": left.clean, "lost": left.lost, "findings": len(left.findings)},
    }


def _online(
    settings: Settings, on_progress: OnProgress | None, tell: Tell, *, data: bool, remote: bool
) -> dict[str, Any]:
    report = Report()
    report.absorb(call_mount(settings, "fsck.index", on_progress))
    rows = _rows_of(call_mount(settings, "fsck.segments"))
    shelves = Shelves(settings.cache_dir, Host().disk)
    files = Report()
    look_at_files(shelves, rows, files, data=data, on_stage=tell)
    if not files.clean:  # it is in use: what has changed meanwhile is not damage
        again = _rows_of(call_mount(settings, "fsck.segments"))
        same = {segment: row for segment, row in rows.items() if again.get(segment) == row}
        files = Report()
        look_at_files(shelves, same, files, data=data, on_stage=tell)
    report.absorb(files.to_json())
    if remote:

        async def rows_now() -> SegmentRows:
            return _rows_of(await trio.to_thread.run_sync(call_mount, settings, "fsck.segments"))

        trio.run(_remote, settings, rows_now, report, tell)
    lost = _below_k(report)
    files = call_mount(settings, "fsck.files", segments=sorted(lost)) if lost else []
    return _document(report, report, mounted=True, damaged_files=files)


def _offline(settings: Settings, tell: Tell, *, data: bool, remote: bool, mend: bool, dry_run: bool) -> dict[str, Any]:
    host, root, scratch = Host(), settings.cache_dir, settings.state / SCRATCH

    def all_of_it() -> Looked:
        looked = look(root, host, settings.cache, scratch, data=data, on_stage=tell)
        if remote:

            async def rows_now() -> SegmentRows:
                return looked.rows

            trio.run(_remote, settings, rows_now, looked.report, tell)
        return looked

    looked = all_of_it()
    report = looked.report
    if not mend or report.clean:
        return _document(report, report, mounted=False, damaged_files=_files_in(settings, scratch, _below_k(report)))
    if dry_run:
        planned = remote_repair.plan(report, looked.rows) if remote else []
        planned += plan_repair(root, host, settings.cache, report, scratch)
        return _document(report, report, mounted=False, would_repair=planned)
    if remote:
        report.repaired = trio.run(_repair_remote, settings, looked)
        if report.repaired:
            looked = all_of_it()  # with whole journals there may be more to see, or less
    report.repaired += trio.run(repair, root, host, settings.cache, looked.report)
    return _document(report, all_of_it().report, mounted=False)


def _below_k(report: Report) -> set[int]:
    """Segments that cannot be had from the locations."""
    return {u64_of_key(each.where.key) for each in report.findings if each.kind is Kind.SHARDS_BELOW_K and each.where}


def _files_in(settings: Settings, scratch: Path, segments: set[int]) -> list[dict[str, Any]]:
    """Which bytes of which files lie in these segments, of what is not mounted."""
    if not segments:
        return []
    with opened(settings.cache_dir, Host(), settings.cache.index_map_bytes, scratch) as both:
        if both.view is None:
            return []
        files = trio.run(files_in_segments, both.view, segments, trio.lowlevel.checkpoint)
        return [each.to_json() for each in files]


async def _repair_remote(settings: Settings, looked: Looked) -> list[str]:
    host, keys = Host(), FsKeys.derive(check_key(settings))
    async with open_nodes(settings, host) as nodes:
        await refuse_unless_ours(settings, keys, nodes, host)
        vault = Vault(nodes, keys, settings.offload, host, settings.offload_dir)
        shelves = Shelves(settings.cache_dir, host.disk)
        return await remote_repair.repair_remote(vault, shelves, looked.report, looked.rows)


def _teller(on_progress: OnProgress | None) -> Tell:
    """Not more often than every so many rows."""
    last: dict[str, int] = {}

    def tell(stage: str, count: int) -> None:
        if on_progress is not None and (not count or count - last.get(stage, 0) >= _PROGRESS_EVERY):
            last[stage] = count
            on_progress({"stage": stage, "looked_at": count})

    return tell


def _rows_of(answer: Any) -> dict[SegmentId, SegmentRow]:
    return {SegmentId(segment): SegmentRow.unpack(bytes.fromhex(row)) for segment, row in answer}


async def _remote(settings: Settings, rows_now: RowsNow, report: Report, tell: Tell) -> None:
    tell("locations", 0)
    host, keys = Host(), FsKeys.derive(check_key(settings))
    async with open_nodes(settings, host) as nodes:
        manifests = Manifests(settings.offload_dir / "manifests", keys, host.entropy)
        await check_remote(Remote(nodes, keys, manifests, RootBook(nodes, keys, host)), rows_now, report)
