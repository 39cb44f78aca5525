"""A node: its directories, its lock, its identity, and what runs in the background while it serves."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

from qss.errors import ConfigInvalid, QssError, Refused
from qss.host import Host
from qss.limits import MIB
from qss.trove.commit import SyncMode
from qss.trove.compaction import compact_one
from qss.trove.drives import Drive, probe
from qss.trove.durable import beside, make_directory
from qss.trove.engine import Engine
from qss.trove.identity import LOCK, MARKER, Identity, require_all, settle, survey
from qss.trove.index import Index
from qss.trove.ledger import LEDGER, Ledger
from qss.trove.lifecycle import Lifecycle
from qss.trove.pace import Pace
from qss.trove.quotas import Quotas
from qss.trove.recovery import Report, recover
from qss.trove.scrub import Mark, Scrubber
from qss.trove.sealing import KEY_FILE as SSE_KEY_FILE
from qss.trove.sealing import NodeKeys
from qss.trove.shares import KEY_FILE, Shares, share_key
from qss.trove.store import TroveStore
from qss.trove.tokens import Tokens
from qss.trove.usage import bytes_in_uploads, usage_of
from qss.trove.volumes import VolumeSet

__all__ = ["CREDENTIALS", "LOCK", "MARKER", "DataLock", "Node", "NodeOptions", "clean_slate"]

log = logging.getLogger(__name__)

CREDENTIALS: Final = "credentials.json"
CHECKPOINT_S: Final = 5.0
EXPIRE_EVERY_S: Final = 3600.0
COMPACT_EVERY_S: Final = 10.0
FIRST_AFTER_S: Final = 10.0
"""After a start: what is due only now and then."""
PROBE_EVERY_S: Final = 30.0
DAMAGE_LISTED_MAX: Final = 1000
_SCRUB: Final = "scrub"


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What a node is told. The first of `data` holds the index, the lock and the credentials."""

    data: tuple[Path, ...]
    sync: SyncMode = SyncMode.GROUP
    upload_age_s_max: float = 7 * 86_400
    lifecycle_day_s: float = 86_400  # what a day is to lifecycle rules; another one only to try them out
    compact_garbage: float = 0.3  # share of a sealed volume that is dead before it is compacted; 1 switches it off
    compact_bytes_per_s: float | None = 64 * MIB  # read and written
    scrub_period_s: float | None = 30 * 86_400  # from one round's begin to the next; None: only when asked
    scrub_bytes_per_s: float | None = 32 * MIB
    allow_missing: bool = False  # start although drives are not there; what is on them is answered with 503
    forget_missing: bool = False  # give up drives that are not there
    rebuild: bool = False  # make the index again from the volumes
    host: Host = field(default_factory=Host)


class DataLock:
    """Two nodes never share a directory. Held while the process lives; the system lets go of it if it dies."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self._files: list[int] = []
        for directory in directories:
            self._files.append(self._opened(directory / LOCK))
            try:
                fcntl.flock(self._files[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self.release()
                raise Refused(f"{directory} is in use by another Trove; stop that one or give another --data") from None

    def _opened(self, path: Path) -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            with contextlib.suppress(OSError):
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a read-only drive
            self.release()
            raise Refused(f"{path.parent} cannot be used: {error.strerror}") from error

    def release(self) -> None:
        for handle in self._files:
            os.close(handle)
        self._files.clear()


def clean_slate(directory: Path) -> None:
    """Remove what a node has in a directory. Refused for a directory that no node has made."""
    if not directory.exists() or not any(directory.iterdir()):
        return
    if not (directory / MARKER).exists():
        raise Refused(f"{directory} holds no Trove ({MARKER} is missing), so nothing in it is removed")
    lock = DataLock([directory])
    try:
        for name in ("volumes", "index"):
            shutil.rmtree(directory / name, ignore_errors=True)
        for name in (CREDENTIALS, KEY_FILE, SSE_KEY_FILE, LEDGER, f"{LEDGER}-journal", MARKER):
            beside(directory / name).unlink(missing_ok=True)
            (directory / name).unlink(missing_ok=True)
    finally:
        lock.release()


def _drives(who: Identity, host: Host) -> list[Drive]:
    here = [Drive(path, name, host.clock) for name, path in who.drives]
    missing = [Drive(path, name, host.clock) for name, path in who.missing.items()]
    for drive in missing:
        drive.missing("not mounted when the node started")
    return here + missing


class Node:
    """An open node. `close` before another may open the same directories."""

    def __init__(self, options: NodeOptions) -> None:
        if not options.data:
            raise ConfigInvalid("give at least one --data directory")
        self.options = options
        host = options.host
        found = survey(options.data)
        require_all(found, options.data, allow_missing=options.allow_missing or options.forget_missing)
        for directory in found.present:
            try:
                make_directory(host.disk, directory)
            except OSError as error:
                raise Refused(f"{directory} cannot be made: {error.strerror}") from error
        self._lock = DataLock(found.present)
        try:
            who = settle(survey(options.data), options.data, host, forget=options.forget_missing)
            self.id = who.node
            if options.rebuild and who.missing:
                raise Refused("the index cannot be made again without the missing drives: mount them")
            volumes = VolumeSet(_drives(who, host), host.disk, host.clock, host.entropy, self.id)
            index = Index(options.data[0] / "index", host.clock.boot_id(), anew=options.rebuild)
            if index.rebuilding and who.missing:
                raise Refused(
                    "the index must be made again, and without the missing drives deleted objects might come back: "
                    "mount them, or give them up with trove repair --forget-missing"
                )
            self.report: Report = recover(volumes, index)
            key = share_key(options.data[0], host.entropy)
            ledger = Ledger(options.data[0])
            node_keys = NodeKeys(options.data[0], host.entropy, ledger)
            kept = ledger.load(_SCRUB).get(_SCRUB, {})
        except BaseException:
            self._lock.release()
            raise
        self.engine = Engine(volumes, index, host.clock, host.entropy, options.sync)
        self.engine.start_after(max(self.report.newest, index.totals.newest))
        self.ledger = ledger
        self.quotas = Quotas(ledger, partial(usage_of, index), partial(bytes_in_uploads, index))
        self.shares = Shares(ledger, key, host.clock, host.entropy.token)
        self.tokens = Tokens(ledger, host.clock, host.entropy.token)
        self.store = TroveStore(self.engine, node_keys, self.quotas)
        self.lifecycle = Lifecycle(self.store, host.clock, int(options.lifecycle_day_s * 1e9))
        self.scrubber = Scrubber(
            self.engine,
            Pace(options.scrub_bytes_per_s),
            options.scrub_period_s,
            Mark.of(kept),
            self._keep_mark,
            self.store.records.flush_damage,
        )
        self.started_ns = host.clock.now_ns()
        if self.report.damaged or self.report.cut_bytes or volumes.unreadable:
            log.warning(
                "start found %d damaged records, cut %d torn bytes, %d volumes cannot be read",
                self.report.damaged,
                self.report.cut_bytes,
                len(volumes.unreadable),
            )

    async def maintain(self) -> None:
        """Run until cancelled: what is due every few seconds or hours, compaction, lifecycle rules, and the scrub."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._upkeep(), name="trove-upkeep")
            group.create_task(self._compaction(), name="trove-compaction")
            group.create_task(self.lifecycle.run(), name="trove-lifecycle")
            group.create_task(self.scrubber.run(), name="trove-scrub")

    async def _keep_mark(self, mark: Mark) -> None:
        await self.ledger.put(_SCRUB, _SCRUB, asdict(mark))

    async def _upkeep(self) -> None:
        loop = asyncio.get_running_loop()
        expire_at = probe_at = loop.time() + FIRST_AFTER_S
        committed = -1
        while True:
            await asyncio.sleep(CHECKPOINT_S)
            try:
                self.store.records.flush_damage()
                await self.shares.flush()
                if self.engine.committer.commits != committed:
                    committed = self.engine.committer.commits
                    self._prune_graves()
                    await self.engine.checkpoint()
                if loop.time() >= expire_at:
                    expire_at = loop.time() + EXPIRE_EVERY_S
                    age_ns = int(self.options.upload_age_s_max * 1e9)
                    await self.store.expire_uploads(self.options.host.clock.now_ns() - age_ns)
                if loop.time() >= probe_at:
                    probe_at = loop.time() + PROBE_EVERY_S
                    await self.probe_drives()
            except (QssError, OSError) as error:
                log.warning("background work will be tried again: %s", error)

    async def _compaction(self) -> None:
        """By itself: at its pace a volume takes minutes, and checkpoints and drives are not to wait for that."""
        pace = Pace(self.options.compact_bytes_per_s)
        while True:
            await asyncio.sleep(COMPACT_EVERY_S)
            try:
                await compact_one(self.engine, self.options.compact_garbage, pace=pace)
            except (QssError, OSError) as error:
                log.warning("compaction will be tried again: %s", error)

    async def probe_drives(self) -> None:
        """See which drives are there, and which are well again."""
        volumes = self.engine.volumes
        for drive in volumes.drives:
            await self.engine.in_pool(probe, self.options.host.disk, drive, partial(volumes.touch, drive))

    def _prune_graves(self) -> None:
        if self.engine.volumes.may_return:
            return
        oldest = self.engine.volumes.oldest_unsettled()
        with self.engine.index.write() as tables:
            tables.prune_graves(2**64 - 1 if oldest is None else oldest)

    def status(self) -> dict[str, Any]:
        """What the admin API tells. Sizes in bytes."""
        self.store.records.flush_damage()
        engine = self.engine
        totals = engine.index.totals
        with engine.index.read() as tables:
            damage = list(islice(tables.damage(), DAMAGE_LISTED_MAX))
            damaged_records = tables.damage_count()
        return {
            "node": self.id.hex(),
            "objects": totals.objects,
            "bytes": totals.object_bytes,
            "sync": self.options.sync.value,
            "volumes": [
                {
                    "number": volume.number,
                    "bytes": volume.end,
                    "live": totals.volumes[volume.number].live if volume.number in totals.volumes else 0,
                    "sealed": volume.sealed,
                    "failed": volume.failed,
                    "drive": volume.drive.id,
                }
                for volume in engine.volumes.volumes.values()
            ],
            "drives": [drive.status(self.options.host.disk) for drive in engine.volumes.drives],
            "damaged": damage,
            "damaged_records": damaged_records,
            "damaged_reads": self.store.records.counters.damaged_reads,
            "unreadable_volumes": [str(path) for path in engine.volumes.unreadable],
            "lifecycle": asdict(self.lifecycle.tally),
            "commits": engine.committer.commits,
            "syncs": engine.committer.syncs,
            "scrub": self.scrubber.status(),
            "start": {"rebuilt": self.report.rebuilt, "records": self.report.records, "cut": self.report.cut_bytes},
        }

    async def aclose(self) -> None:
        """Finish what is under way and let go of the directories. The next start is a quick one."""
        with contextlib.suppress(QssError):
            self.store.records.flush_damage()
            await self.shares.flush()
        await self.engine.aclose()
        self.ledger.close()
        self._lock.release()
