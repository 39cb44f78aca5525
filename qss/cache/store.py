"""SegmentCache: the one public class of qss.cache. It puts the parts together and decides nothing of its own."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

import trio

from qss.cache.admission import Admission, Limits, Pressure
from qss.cache.appender import Appender, cost
from qss.cache.change import Change
from qss.cache.checkpoints import Checkpoints, Maker
from qss.cache.compaction import Compactor
from qss.cache.cuts import Cuts
from qss.cache.damage import DamageBook
from qss.cache.durability import Durability
from qss.cache.eviction import Eviction
from qss.cache.facts import CacheFacts
from qss.cache.index import Index
from qss.cache.index_rows import IndexRows
from qss.cache.inventory import Inventory
from qss.cache.ledger import Ledger
from qss.cache.lost import LostSegments
from qss.cache.options import CacheOptions
from qss.cache.read_cache import ReadCache
from qss.cache.recovery import RebuildReport, Recovered, catch_up, drop_index, recover
from qss.cache.retention import EvictionReport
from qss.cache.segment_log import LogFile
from qss.cache.shelf import Shelf, row_of, sealed_of, with_receipt
from qss.cache.snapshots import Snapshots
from qss.cache.space import Space
from qss.cache.upkeep import Upkeep
from qss.errors import CorruptData, Damaged, FsError, ObjectMissing
from qss.formats.tables import ExtentRow, SegmentRow, SegmentState
from qss.host import Host
from qss.ids import Ino, SegmentId, StripeNo, segment_text
from qss.limits import STRIPE_BYTES
from qss.segments import Receipt, RestorePoint, SealedSegment, SegmentKind, SegmentVault, StoredSegment

_log = logging.getLogger("qss.cache")

__all__ = ["Change", "SegmentCache"]


class SegmentCache(IndexRows):
    """Logs, index and read cache of one file system. Sole writer. Lives on one trio thread.

    It is also the SegmentShelf of qss.segments.
    """

    def __init__(
        self, root: Path, host: Host, options: CacheOptions, vault: SegmentVault | None, recovered: Recovered,
        maker: Maker | None = None,
    ) -> None:  # fmt: skip
        """Use `open`."""
        self._root = root
        self._host = host
        self._options = options
        self._data = recovered.data
        self._journal = recovered.journal
        self._replayed = recovered.replayed
        self._ledger = Ledger(recovered.index, self._data, self._journal, recovered.checkpoints, self._reopened_index)
        self._durability = Durability(root, host, self._ledger, self._on_sealed)
        self._shelf = Shelf(recovered.index)
        self._reads = ReadCache(host.disk, root / "stripes", vault, options.fetch_deadline_s, self._shelf.following)
        self._reads.may_drop = self._shelf.is_elsewhere
        self.lost = LostSegments(self._ledger, self._shelf)
        self.snapshots = Snapshots(host.clock, self._ledger, self._shelf, self._durability)
        self._space = Space(host, self._ledger, self._shelf, self._reads, self._durability, self.snapshots)
        self._appender = Appender(self._data, options.segment_bytes, self._spend, self._appended)
        self._cuts = Cuts(self._ledger, self._space, self._appender, options)
        self.snapshots.end_logs, self.snapshots.touched = self._cuts.end, self._cuts.mark_dirty
        self._checkpoints = Checkpoints(root, host, self._ledger, self._shelf, self._durability, maker)
        self._eviction = Eviction(
            host, root, self._ledger, self._shelf, self._reads, self._durability, options.retention
        )
        self._upkeep = Upkeep(
            self._cuts, root, host, options, self._ledger, self._durability, self._space, self._eviction
        )
        limits = Limits(options.free_bytes_soft, options.free_bytes_hard, options.admit_deadline_s)
        self._admission = Admission(lambda: host.disk.free_bytes(root)[0], self._upkeep.make_room, limits)
        self._upkeep.admission = self._admission
        self._reads.room = self._admission.room_for_fetch
        inventory = Inventory(
            host.disk, self._ledger, self._shelf, self._reads, self._space, self._admission, self.snapshots
        )
        self._compactor = Compactor(
            self, inventory, options.compact_bytes_per_s, options.compact_waste, options.compact_waste_bytes_min
        )
        self._news = False  # of sealed segments
        self._news_event = trio.Event()
        self._published_event = trio.Event()
        self.on_sealed: Callable[[SegmentId, int], None] = lambda _segment, _length: None
        self.on_unreadable: Callable[[ExtentRow, int, int, str], None] = lambda *_what: None
        logs = (self._data, self._journal, self._ledger.checkpoints)
        here = [(s, log.path_of(s), length) for log in logs for s, length in recovered.local[log.kind].items()]
        self._reads.take_up(here, host.clock.now_ns())
        self._eviction.recall_access()
        if recovered.unsealed or self._space.waiting:
            self._cuts.mark_dirty()

    @classmethod
    async def open(
        cls, root: Path, host: Host, options: CacheOptions, vault: SegmentVault | None, maker: Maker | None = None
    ) -> Self:
        """Open or create the cache in `root`: recover the logs, replay the journal's tail into the index.

        `maker` writes journal checkpoints in a process of its own; without one this thread does.

        Raises Damaged when a journal is damaged where an fsync has covered it, or the disk cannot be read or written.
        """
        cache: Self | None = None
        try:
            recovered = recover(root, host, options.index_map_bytes)
            cache = cls(root, host, options, vault, recovered, maker)
            await cache._durability.settle()
            await cache._durability.mark_opened()
            return cache
        except BaseException as error:
            if cache is not None:
                cache._let_go()
            if isinstance(error, OSError):
                raise Damaged(f"the cache in {root} cannot be used: {error}") from error
            raise

    @classmethod
    async def rebuild(
        cls, root: Path, host: Host, options: CacheOptions, journals: list[Path], next_segment: SegmentId
    ) -> RebuildReport:
        """On a new machine: make a cache of a restore point brought back from the locations.

        `journals`: its segments, checkpoint first, where `log_path` puts them. No content is
        here afterwards; `adopt` the segments the report names before the first use of their content.
        `next_segment`: of the restore point. Raises Damaged when a journal does not verify to its end.
        """
        drop_index(root, host)
        recovered = recover(root, host, options.index_map_bytes, data_elsewhere=True)
        here = recovered.local[SegmentKind.JOURNAL].keys() | recovered.local[SegmentKind.CHECKPOINT].keys()
        if recovered.cut_bytes or here != {int(path.stem, 16) for path in journals}:
            recovered.index.close()
            raise Damaged("the journals brought back do not make a whole")
        newest_live = max(recovered.index.live_all(), default=0)  # roots written before 2026-11-21 may name less
        behind = SegmentId(max(next_segment, newest_live + 1) + 1)
        recovered.numbers.next_segment = max(recovered.numbers.next_segment, behind)
        cache = cls(root, host, options, None, recovered)
        await cache._durability.settle()
        unplaced = {segment for segment, row in cache._shelf.rows.items() if row.state is SegmentState.SEALED}
        unplaced |= recovered.index.live_all().keys() - cache._shelf.rows.keys()
        report = RebuildReport(recovered.replayed, recovered.numbers.next_segment, tuple(sorted(unplaced)))
        await cache._durability.mark_opened()
        await cache.close()
        return report

    async def run(self) -> None:
        """Background work: checkpoints, seals, eviction, compaction, fetching ahead. Never returns."""
        async with trio.open_nursery() as nursery:
            self._reads.nursery = nursery
            nursery.start_soon(self._compactor.run)
            nursery.start_soon(self._checkpoints.run, self._options.trim_after_bytes, self._options.segment_bytes)
            nursery.start_soon(self._eviction.run)
            try:
                await self._upkeep.run()
            finally:
                self._reads.nursery = None

    async def close(self) -> None:
        """Seal what is open, checkpoint, close. Raises NoSpace and FsError; closed it is all the same, and what
        the logs have is sealed after the next start."""
        with trio.CancelScope(shield=True):
            try:
                await self.cut()
                await self._durability.sync_local()
                await self._durability.mark_closed()
                self._eviction.note_access()
            finally:
                self._let_go()

    def _let_go(self) -> None:
        self._reads.close()
        for file in [*self._ledger.closing, self._data.open, self._journal.open]:
            if file is not None:
                self._host.disk.close(file.handle)
        self._ledger.index.close()

    # -- content and its places; rows are read through IndexRows

    def holds(self, segment: SegmentId, position: int) -> bool:
        """Whether the stripe with this byte of a segment can be read here without a fetch."""
        if self._reads.segment_file(segment) is not None:
            return True
        return (segment, StripeNo(position // STRIPE_BYTES)) in self._reads.files

    @property
    def revision(self) -> tuple[SegmentId, int]:
        """Changes with every commit."""
        return self._journal.reach

    def reach_of(self, segment: SegmentId) -> int | None:
        """Bytes of a data segment, sealed or not; None: there is no such."""
        row = self._shelf.rows.get(segment)
        if row is not None:
            return row.length if row.kind is SegmentKind.DATA else None
        files = [*self._data.closing, self._data.open]
        return next((file.position for file in files if file is not None and file.segment == segment), None)

    def commit(self, change: Change, *, quiet: bool = False) -> None:
        """Append the change to the journal, then apply it to the index. All or nothing; raises NoSpace.

        `quiet`: it is not worth a cut, and rides with the next one (qss.cache.shelf.is_quiet must say so too)."""
        ops = change.ops()
        if not ops:
            return
        self._ledger.write(ops)
        if not quiet:
            self._cuts.mark_dirty()
        self._cuts.committed()

    # -- content

    async def admit(self, count: int) -> None:
        """Wait until `count` more bytes may be written (back-pressure). Returns at once while there is room.
        Raises NoSpace after the deadline."""
        await self._admission.admit(cost(count))

    def check_names(self) -> None:
        """Before something is made that takes room for good. Raises NoSpace when the rest is kept for deleting."""
        self._admission.check_names()

    @property
    def pressure(self) -> Pressure:
        """What writers meet at the moment."""
        return self._admission.pressure

    def append(self, ino: Ino, offset: int, payload: bytes | memoryview) -> list[tuple[int, ExtentRow]]:
        """Append file content to the data log: (file offset, extent) for each record written, in order.
        The bytes are in the page cache on return; they mean nothing until a committed change names them.

        The caller has `turn`, or saw it free and has not waited since. Raises NoSpace at the hard limit of the disk."""
        return self._appender.append(ino, offset, payload)

    async def append_in_turn(self, ino: Ino, offset: int, payload: bytes | memoryview) -> list[tuple[int, ExtentRow]]:
        """As `append`, after those who append now; a large payload is hashed and written by a thread.

        The caller commits before it waits for anything else: a cut may come then."""
        return await self._appender.append_in_turn(ino, offset, payload)

    @property
    def turn(self) -> trio.Lock:
        """Whose turn it is to append."""
        return self._appender.turn

    def _spend(self, count: int) -> None:
        self._admission.spend(count)

    def _appended(self, extents: list[tuple[int, ExtentRow]]) -> None:
        if self._reads.segment_file(extents[-1][1].segment) is None:  # a new segment has begun
            self._upkeep.wake()
            for _, extent in extents:
                self._reads.add_segment(extent.segment, self._data.path_of(extent.segment), 0, trio.current_time())

    async def read(self, extent: ExtentRow, start: int, stop: int) -> bytes | memoryview:
        """Verified bytes [start, stop) relative to the extent. Fetches through the vault on a miss.
        Raises FsError(EIO) when they cannot be had within the deadline, or do not verify anywhere."""
        lost = self.lost.why.get(extent.segment)
        try:
            if lost is not None and self.read_now(extent, start, stop) is None:
                raise FsError(errno.EIO, lost)
            return await self._reads.read(extent, start, stop, self._shelf.stripes_elsewhere(extent.segment))
        except FsError as error:
            self.on_unreadable(extent, start, stop, error.detail)
            raise

    async def readable(self, extent: ExtentRow, start: int, stop: int) -> bool:
        """Whether `read` would give these bytes now; fetches if it must."""
        if self.read_now(extent, start, stop) is None and self._shelf.stripes_elsewhere(extent.segment):
            with contextlib.suppress(FsError):
                await self._reads.bring((extent.segment, StripeNo(extent.record_position // STRIPE_BYTES)))
        if self.read_now(extent, start, stop) is None:
            return False
        self.lost.back(extent.segment)
        self._reads.damage.healed(extent)
        return True

    def read_now(self, extent: ExtentRow, start: int, stop: int) -> bytes | memoryview | None:
        """As `read`, if the bytes are cached and verify; None otherwise. Never waits."""
        try:
            return self._reads.read_now(extent, start, stop)
        except CorruptData:
            return None  # `read` deals with it, and counts it

    @property
    def damage(self) -> DamageBook:
        """What readers met that did not verify."""
        return self._reads.damage

    # -- durability

    async def sync_local(self) -> None:
        """Return when everything appended and committed before the call survives a power cut (group commit)."""
        await self._durability.sync_local()

    async def cut(self) -> SegmentId:
        """Seal both logs now; the id of the journal segment that closes this cut (the newest if nothing is dirty;
        0 if nothing was ever written)."""
        await self._cuts.end()  # now, so that the root of this cut knows
        await self._durability.settle()
        return self._shelf.newest_journal

    async def checkpoint(self) -> None:
        """Make the index durable as it is; afterwards a start has less to replay."""
        await self._durability.checkpoint()

    async def checkpoint_journal(self) -> tuple[SegmentId, ...]:
        """Make a checkpoint of the journal now, so that journals before it can be trimmed once it is published."""
        return await self._checkpoints.make(self._options.segment_bytes)

    async def wait_published(self, journal: SegmentId) -> None:
        """Return when a root names a restore point that includes this journal segment."""
        while self._shelf.published < journal:
            await self._published_event.wait()

    # -- SegmentShelf

    async def unsafe_segments(self) -> list[SealedSegment]:
        """Sealed segments whose shards are not all placed, oldest first."""
        self._cuts.condemn()  # what is dead needs no shards
        return self._shelf.unsafe()

    async def path_of(self, segment: SegmentId) -> Path:
        """The file with the segment's bytes. Raises ObjectMissing if it is not cached whole."""
        self._shelf.row(segment)
        file = self._reads.segment_file(segment)
        if file is None:
            raise ObjectMissing(f"segment {segment_text(segment)} is not here")
        return file.path

    async def sealed_segment(self, segment: SegmentId) -> SealedSegment:
        """Facts of one sealed segment. Raises ObjectMissing if there is none."""
        return sealed_of(segment, self._shelf.row(segment))

    async def held_segments(self) -> list[SealedSegment]:
        """As qss.segments.SegmentShelf.held_segments."""
        return self._shelf.held()

    async def stored_segments(self) -> list[StoredSegment]:
        """Every segment that has a receipt and is not condemned, oldest first."""
        return self._shelf.stored()

    async def mark_offloaded(self, receipt: Receipt) -> None:
        """Durably note the receipt; now retention may free the local copy if it is complete. Idempotent."""
        row = self._shelf.offloaded(receipt)
        self._space.receipt_came()
        if row is not None:
            self._put_row(receipt.segment, row)
        await self._durability.sync_local()

    async def adopt(self, sealed: SealedSegment, receipt: Receipt) -> None:
        """After a rebuild: a segment as it is at the locations, whether it has a row here or not. Idempotent.
        Durable with the next `sync_local` or `close`."""
        self._put_row(sealed.id, with_receipt(row_of(sealed), receipt))

    async def restore_point(self) -> RestorePoint | None:
        """The newest restore point all of whose segments are safe; None before the first."""
        live, next_segment = self._ledger.index.live_all(), self._data.numbers.next_segment
        return self._shelf.restore_point(live, next_segment, self._options.safe_missing_max)

    async def mark_published(self, point: RestorePoint) -> None:
        """Durably note that a root names this restore point. Idempotent."""
        ops = self._shelf.publish(point, self.get)
        if ops:
            self._ledger.write(ops)
        await self._durability.sync_local()
        self._shelf.note_published(point)
        self._space.published(point)
        if self._space.trim() or self._space.waiting:
            self._cuts.mark_dirty()  # one more root, and they may go
        self._published_event.set()
        self._published_event = trio.Event()

    async def condemned(self) -> list[SegmentId]:
        """Segments whose shards nobody needs any more: not the newest root, not the one before it. Oldest first."""
        return self._space.deletable(self._options.history_s)

    async def mark_deleted(self, segment: SegmentId) -> None:
        """Durably note that no location holds shards of a condemned segment; it is not asked for again. Idempotent."""
        await self._space.deleted(segment)
        await self._durability.sync_local()

    async def wait_sealed(self) -> None:
        """Return when there may be a new unsafe segment since the last call returned. For one waiter."""
        while not self._news:
            await self._news_event.wait()
        self._news = False

    # -- space

    async def reclaim(self) -> int:
        """Condemn what is dead and unlink its local copies; the bytes that gives back here. Raises NoSpace, FsError."""
        return await self._upkeep.reclaim()

    @property
    def compactor(self) -> Compactor:
        return self._compactor

    async def compact_one(self) -> bool:
        """Empty the segment that is worth it most, or look at it first; False: none is. The loop of `run` does this."""
        return await self._compactor.compact_one()

    def tell_moved(self, on_moved: Callable[[Iterable[int]], None]) -> None:
        """Call this with inodes whose extents compaction has moved, right after it did."""
        self._compactor.on_moved = on_moved

    # -- retention

    @property
    def eviction(self) -> Eviction:
        """The retention in force, what it would do, and what is pinned."""
        return self._eviction

    async def evict(self, *, all_: bool = False) -> EvictionReport:
        """Unlink local copies that are safe elsewhere, as the policy says, or all that are not pinned."""
        await self._eviction.refresh()
        return await self._eviction.evict(self._eviction.plan(all_=all_))

    def facts(self) -> CacheFacts:
        """A moment's figures, for `status`."""
        shelf, reads, now_ns = self._shelf, self._reads, self._host.clock.now_ns()
        logs = [*self._data.closing, *self._journal.closing]
        if self._cuts.dirty_since_s is not None:
            logs += [file for file in (self._data.open, self._journal.open) if file is not None]
        ages = [(now_ns - sealed.sealed_ns) / 1e9 for sealed in shelf.unsafe()]
        if self._cuts.dirty_since_s is not None:
            ages.append(trio.current_time() - self._cuts.dirty_since_s)
        free, total = self._host.disk.free_bytes(self._root)
        return CacheFacts(
            unsealed_bytes=sum(file.position for file in logs),
            at_risk_age_s=max(ages, default=0.0),
            reclaimable_bytes=self._space.reclaimable_bytes(),
            snapshots=len(self.snapshots.rows),
            snapshot_bytes=self.snapshots.held_bytes(),
            moved_bytes=self._compactor.moved_bytes,
            live_bytes=self._ledger.index.live_total,
            disk_free_bytes=free,
            disk_total_bytes=total,
            writers_waiting=self._admission.waiting,
            writers_refused=self._admission.refused,
            replayed_batches=self._replayed,
            **shelf.figures(),
            **reads.figures({s for s, row in shelf.rows.items() if row.kind is not SegmentKind.DATA}),
        )

    # -- inside

    def _on_sealed(self, file: LogFile, row: SegmentRow) -> None:
        self._shelf.rows[file.segment] = row
        known = self._reads.segment_file(file.segment)
        self._reads.add_segment(file.segment, file.path, row.length, known.used_s if known else trio.current_time())
        self.on_sealed(file.segment, row.length)
        self._news = True
        self._news_event.set()
        self._news_event = trio.Event()

    def _put_row(self, segment: SegmentId, row: SegmentRow) -> None:
        op = self._shelf.put(segment, row)
        if op.before != op.after:
            self._ledger.write([op])
            self._shelf.rows[segment] = row

    def _reopened_index(self) -> Index:
        return catch_up(self._root, self._host, self._options.index_map_bytes, self._data, self._journal)
