"""qssctl recover --list and --snapshot: which roots there are, what the newest knows of snapshots, and one of them on
a new machine.

A recovered snapshot is to be read. It claims no epoch and publishes nothing: the machine that writes, if it lives, is
not disturbed, and this state directory is mounted read-only for as long as it is there.

1. a mark in the state directory: a recovery has begun          crash: it may be begun again
2. newest root → its logs → rows of the snapshots → the logs of this one → where its segments are
3. key, configuration (where there is none), identity, which names the snapshot
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from qss.app import wire
from qss.app.fetching import reading_vault
from qss.app.identity import Identity
from qss.app.locations import open_nodes
from qss.app.losses import Loss, loss_of, lost_path, write_loss
from qss.app.restore import begin, finish, only, undo
from qss.app.running import state_lock
from qss.app.snapshot_view import lay_out, logs_of
from qss.cache.frozen import build_index, open_index
from qss.cache.lost import Needed, needed
from qss.cache.pins import point_of
from qss.cache.segment_log import FOLDERS, log_path
from qss.config import Settings
from qss.errors import Refused
from qss.formats.root import Root
from qss.formats.tables import SegmentRow, SnapshotRow, Table, u64_of_key
from qss.host import Host
from qss.ids import SegmentId
from qss.offload.keys import FsKeys, MasterKey, fs_id_of
from qss.offload.presence import count_shards, every_root
from qss.offload.recovery import Recovery, RecoveryReport
from qss.offload.roots import RootBook
from qss.offload.vault import Vault
from qss.segments import RestorePoint, SegmentKind

SCRATCH: Final = "newest"


@dataclass(frozen=True, slots=True)
class _Known:
    """What the newest root that can be restored says of snapshots."""

    report: RecoveryReport
    rows: dict[str, SnapshotRow]
    points: dict[str, RestorePoint]

    @property
    def root(self) -> Root:
        return self.report.root


def listing(settings: Settings, master: MasterKey) -> dict[str, Any]:
    """The roots that can be recovered, newest first, and the snapshots, oldest first. Touches no state directory."""
    with tempfile.TemporaryDirectory(prefix="qss-") as folder:
        known, roots = trio.run(_list, settings, FsKeys.derive(master), Path(folder))
    rows = sorted(known.rows.items(), key=lambda item: item[1].number)
    return {
        "generation": known.root.generation,
        "cut_ns": known.root.point.cut_ns,
        "majority": known.report.majority,
        "roots": [
            {"generation": root.generation, "epoch": root.epoch, "cut_ns": root.point.cut_ns,
             "created_ns": root.created_ns, "logs_there": whole}
            for root, whole in roots
        ],
        "snapshots": [
            {"name": name, "number": row.number, "created_ns": row.created_ns, "automatic": row.automatic,
             "comment": row.comment}
            for name, row in rows
        ],
    }  # fmt: skip


def recovering(name: str, *, partial: bool = False) -> Callable[[Settings, MasterKey], dict[str, Any]]:
    """Bring this snapshot back. Where something of it is lost nothing is changed, unless that is accepted (`partial`).
    Raises Refused when the newest root does not know it, and as recovery does."""

    def recover(settings: Settings, master: MasterKey) -> dict[str, Any]:
        fresh = not settings.state.exists()
        with state_lock(settings.state):
            begin(settings)  # 1.
            report, row, loss = trio.run(_bring_back, settings, FsKeys.derive(master), name)  # 2.
            report["restored"] = loss.nothing or partial
            if not report["restored"]:
                undo(settings, fresh)
                return report
            write_loss(settings, loss)
            created_ns = Host().clock.now_ns()
            finish(settings, master, Identity(fs_id_of(master).hex(), created_ns, name, row.pack()))  # 3.
        return report

    return recover


async def _list(settings: Settings, keys: FsKeys, folder: Path) -> tuple[_Known, list[tuple[Root, bool]]]:
    """What the newest root knows, and every root with whether k shards of each of its logs are there."""
    host = Host()
    async with open_nodes(settings, host) as nodes:
        book = RootBook(nodes, keys, host)
        roots = await every_root(nodes, keys, book)
        counted = await count_shards(nodes, keys, {log for root in roots for log in root.point.logs})
        whole = [(root, all(counted[log] >= root.k for log in root.point.logs)) for root in roots]
        vault = Vault(nodes, keys, settings.offload, host, folder / "offload")
        return await _newest(settings, Recovery(vault, book), host, folder / SCRATCH), whole


async def _newest(settings: Settings, recovery: Recovery, host: Host, scratch: Path) -> _Known:
    """Bring the logs of the newest root to `scratch`, and read them."""
    kinds = (SegmentKind.JOURNAL, SegmentKind.CHECKPOINT)
    for kind in kinds:
        (scratch / FOLDERS[kind]).mkdir(mode=0o700, parents=True)
    rows: dict[str, SnapshotRow] = {}
    points: dict[str, RestorePoint] = {}

    async def read(point: RestorePoint, paths: list[Path]) -> list[SegmentId]:
        if not paths:
            return []  # nothing is stored yet
        only(scratch, paths)
        await trio.to_thread.run_sync(build_index, scratch, host, settings.cache.index_map_bytes, point)
        index = open_index(scratch, settings.cache.index_map_bytes)
        try:
            rows.update({key.decode(): SnapshotRow.unpack(value) for key, value in index.scan(Table.SNAPSHOTS, b"")})
            segments = {
                SegmentId(u64_of_key(key)): SegmentRow.unpack(value) for key, value in index.scan(Table.SEGMENTS, b"")
            }
        finally:
            index.close()
        points.update({name: point_of(row, segments, point.journals) for name, row in rows.items()})
        return []

    async def adopt(_found: object) -> None:
        return

    report = await recovery.run(lambda segment, kind: log_path(scratch, kind, segment), read, adopt)
    return _Known(report, rows, points)


async def _bring_back(settings: Settings, keys: FsKeys, name: str) -> tuple[dict[str, Any], SnapshotRow, Loss]:
    host, scratch = Host(), settings.state / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    for kind in (SegmentKind.JOURNAL, SegmentKind.CHECKPOINT):
        (settings.cache_dir / FOLDERS[kind]).mkdir(mode=0o700, parents=True)
    try:
        async with open_nodes(settings, host) as nodes:
            vault = reading_vault(settings, keys, nodes, host, settings.offload_dir)
            recovery = Recovery(vault, RootBook(nodes, keys, host))
            known = await _newest(settings, recovery, host, scratch)
            row = known.rows.get(name)
            if row is None:
                others = ", ".join(sorted(known.rows)) or "none"
                raise Refused(f"the newest root knows no snapshot {name}; those it knows: {others}")
            point = known.points[name]
            kept, view = logs_of(point, settings.cache_dir), logs_of(point, scratch / "view")
            for segment, path in logs_of(point, scratch).items():
                with suppress(FileNotFoundError):
                    path.rename(kept[segment])
            index = await lay_out(settings, host, point, scratch / "view", recovery.fetch_segment)
            try:
                for segment, path in view.items():  # those that were fetched only now
                    path.rename(kept[segment])
                files, need = index.count(Table.INODES), Needed(needed(index).files, {})
                _, lost = await recovery.find_all(list(need.files))  # what is found is remembered for reading
                loss = await loss_of(index, lost, need)
            finally:
                index.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return (
        {
            "fs_id": keys.fs_id.hex(),
            "config": str(settings.source),
            "state": str(settings.state),
            "key_file": str(settings.key_file),
            "generation": known.root.generation,
            "snapshot": name,
            "comment": row.comment,
            "point": wire.point_to_json(point),
            "files": files,
            "segments": len(need.files),
            "journals": len(point.journals),
            **loss.to_json(),
            "lost_list": "" if loss.nothing else str(lost_path(settings)),
            "notes": [],
        },
        row,
        loss,
    )
