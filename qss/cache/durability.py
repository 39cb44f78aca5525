"""When things become durable: group commit, seals, checkpoints. Owner of the tasks' locks; knows no policy."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import trio

from qss.cache.failed_sync import leave_note, take_note_away
from qss.cache.index_file import DATA_FILE, digest_of, verify_tree
from qss.cache.ledger import Ledger
from qss.cache.marker import Marker, read_marker, write_marker
from qss.cache.recovery import INDEX_DIR
from qss.cache.segment_log import LogFile
from qss.errors import CorruptData, Damaged, FsError
from qss.formats.journal import Op
from qss.formats.tables import SegmentRow, SegmentState, Table, u64_key
from qss.host import Host

_T = TypeVar("_T")
_FAILED: Final = "an earlier sync of the cache failed"


class Durability:
    """fsync, seal, checkpoint of one cache."""

    def __init__(
        self, root: Path, host: Host, ledger: Ledger, on_sealed: Callable[[LogFile, SegmentRow], None]
    ) -> None:
        self._root = root
        self._host = host
        self._ledger = ledger
        self._on_sealed = on_sealed
        self._sync_lock = trio.Lock()  # fair; whoever holds it may sync and let go of log files
        self._checkpoint_lock = trio.Lock()
        self._asked = 0
        self._answered = 0
        self._failed = False
        self._unnoted: int | None = None  # transaction committed and not yet noted as synced
        self._starts = 0  # as the marker has it
        self.boot_id = host.clock.boot_id()

    async def sync_local(self) -> None:
        """Return when all that was written before the call survives a power cut. One sync serves all who wait.

        Raises FsError(EIO) when the disk fails; from then on always: a failed sync may have dropped the pages.
        """
        if not self._failed and not self._unsynced():
            return
        self._asked += 1
        ticket = self._asked
        async with self._sync_lock:
            if self._answered >= ticket:
                return
            covers = self._asked
            await self._sync(self._unsynced())
            self._answered = covers

    def _unsynced(self) -> list[LogFile]:
        ledger = self._ledger
        return ledger.data.unsynced() + ledger.journal.unsynced() + ledger.checkpoints.unsynced()

    async def _sync(self, files: list[LogFile]) -> None:
        """Holding the lock."""
        if self._failed:
            raise FsError(errno.EIO, _FAILED)
        disk = self._host.disk
        targets = [(file, file.position) for file in files]
        unnamed = [file.path.parent for file in files if not file.named]
        jobs: list[Callable[[], None]] = [_job(disk.sync_data, f.handle) for f, at in targets if f.synced < at]
        jobs += [_job(disk.sync_dir, path) for path in dict.fromkeys(unnamed)]
        failures: list[OSError] = []

        async def do(job: Callable[[], None]) -> None:
            try:
                await trio.to_thread.run_sync(job)
            except OSError as error:
                failures.append(error)

        async with trio.open_nursery() as nursery:
            for job in jobs[1:]:
                nursery.start_soon(do, job)
            if jobs:
                await do(jobs[0])
        if failures:
            raise self._fail() from failures[0]
        for file, at in targets:
            file.synced = max(file.synced, at)
            file.named = True

    def _fail(self) -> FsError:
        """A sync has failed: for good, as far as this process is concerned."""
        self._failed = True
        leave_note(self._host, self._root)
        return FsError(errno.EIO, "the cache disk cannot be synced")

    async def settle(self) -> None:
        """Sync the closed segments and give them their rows. Raises NoSpace, FsError; then they stay queued.

        Crash after 1 or 2: they are given their rows at the next start. After 3: nothing is left to do.
        """
        if not self._ledger.closing:
            return
        async with self._sync_lock:
            if self._failed:
                raise FsError(errno.EIO, _FAILED)
            files = self._ledger.closing
            await self._sync([file for file in files if not file.durable])  # 1. their bytes are safe here
            rows = [(file, self._row(file)) for file in files]
            ops = [Op(Table.SEGMENTS, u64_key(file.segment), None, row.pack()) for file, row in rows]
            if ops:
                self._ledger.write(ops)  # 2. from here on they are sealed
            for file, _ in rows:
                self._ledger.log_of(file.kind).settled(file)
            with trio.CancelScope(shield=True):
                await self._sync(self._unsynced())  # 3. for good
            for file, row in rows:
                self._on_sealed(file, row)  # only now may anybody store them elsewhere

    def _row(self, file: LogFile) -> SegmentRow:
        # Dead already at its cut: no root will ever need it, so it is not stored at all (qss.cache.space).
        state = SegmentState.CONDEMNED if file.dead_from else SegmentState.SEALED
        return SegmentRow(
            file.kind, state, 0, 0, 0, file.position, self._host.clock.now_ns(), file.dead_from or file.needs_upto, 0,
            bytes(16),
        )  # fmt: skip

    async def checkpoint(self) -> None:
        """Commit the index and make it durable.

        Crash after 1 or 2: the index is a transaction ahead of the marker; after a power cut it is rebuilt, after a
        mere kill it is used. The next commit must not begin before 4: LMDB may then reuse pages of the one noted.
        """
        async with self._checkpoint_lock:
            if self._starts:  # it has been of use for as long as that
                self._starts, self._unnoted = 0, self._ledger.index.txnid
            await self._checkpoint()

    async def mark_opened(self) -> None:
        """At start: note this boot, make durable what was found, then what was replayed."""
        async with self._checkpoint_lock:
            marker = read_marker(self._host, self._root)
            self._starts = 1 + (marker.starts if marker else 0)
            self._unnoted = self._ledger.index.txnid
            await self._checkpoint()
            take_note_away(self._host, self._root)

    async def mark_closed(self) -> None:
        """At a clean stop, nothing is written after it: note what LMDB's file is, for the next start to compare."""
        async with self._checkpoint_lock:
            self._starts, self._unnoted = 0, self._ledger.index.txnid
            await self._checkpoint(closing=True)

    async def _checkpoint(self, *, closing: bool = False) -> None:
        """Holding the lock."""
        if self._ledger.index.changes:
            await self._finish()  # what failed the last time, or a kill has left
            self._unnoted = self._ledger.checkpoint()  # 1. in the page cache
        await self._finish(closing=closing)

    async def _finish(self, *, closing: bool = False) -> None:
        if self._unnoted is None:
            return
        if self._failed:
            raise FsError(errno.EIO, _FAILED)
        journal, data = self._ledger.journal.reach, self._ledger.data.reach
        index, marker = self._ledger.index, Marker(self.boot_id, self._unnoted, "", self._starts, *journal, *data)

        def finish() -> None:
            try:
                index.sync()  # 3. the index
            except (Damaged, OSError) as error:
                raise self._fail() from error
            digest = _digest(self._root / INDEX_DIR / DATA_FILE) if closing else ""
            write_marker(self._host, self._root, marker._replace(digest=digest))  # 4. and that it is

        with trio.CancelScope(shield=True):
            await self.sync_local()  # 2. the logs first: the index must never know more than they do
            await trio.to_thread.run_sync(finish)
        self._unnoted = None


def _digest(file: Path) -> str:
    """None of a file that was damaged while it was in use: the next start must look for itself."""
    try:
        verify_tree(file)
        return digest_of(file)
    except CorruptData:
        return ""


def _job(call: Callable[[_T], None], argument: _T) -> Callable[[], None]:
    return lambda: call(argument)
