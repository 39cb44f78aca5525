"""Giving space back: which dead segments may go, and how far each has gone. docs/adr/0004.

    no live byte, no snapshot needs it ─ 1 marked CONDEMNED in the journal ─ 2 mark synced, local copy unlinked
                 ─ 3 the newest root and the one before it include the mark ─ offload deletes the shards
                 ─ 4 row finished; removed as soon as a newer data segment has a row

A crash after any step: the row says which, and the step is done again. Dead stays dead: extents are only made for
records just appended, and a segment is closed before it gets its row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import trio

from qss.cache.access import WHOLE
from qss.cache.durability import Durability
from qss.cache.ledger import Ledger
from qss.cache.read_cache import ReadCache
from qss.cache.shelf import Shelf
from qss.cache.snapshots import Snapshots
from qss.cache.trimming import superfluous
from qss.errors import NoSpace
from qss.formats.journal import Op
from qss.formats.tables import SegmentRow, SegmentState, Table, u64_key
from qss.host import Host
from qss.ids import SEGMENT_ID_NONE, SegmentId
from qss.segments import RestorePoint, SegmentKind

UNPUBLISHED_S_MAX: Final = 60.0
"""While the newest root is older than this and shards are being placed, dead segments are stored too: skipping them
moves the next restore point on, and under a load that overwrites for ever there would never be one."""
STALLED_S: Final = 30.0
"""No receipt for this long: nothing is being placed, so nothing is delayed."""

Rows = Mapping[SegmentId, SegmentRow]


def dead(rows: Rows, live: Mapping[SegmentId, int], *, never_stored: bool) -> list[SegmentId]:
    """Data segments to condemn: no live byte, and every shard placed, or (if `never_stored`) not one. Pure."""
    found = []
    for segment, row in rows.items():
        if row.kind is not SegmentKind.DATA or segment in live:
            continue
        offloaded = row.state is SegmentState.OFFLOADED
        if offloaded or (never_stored and row.state is SegmentState.SEALED and row.k == 0):
            found.append(segment)
    return sorted(found)


def lifeless(rows: Rows, live: Mapping[SegmentId, int]) -> list[SegmentId]:
    """Data segments without a live byte that are not condemned, settled or not. Pure."""
    return [
        segment
        for segment, row in rows.items()
        if row.kind is SegmentKind.DATA and row.state is not SegmentState.CONDEMNED and segment not in live
    ]


def deletable(rows: Rows, fallback: SegmentId) -> list[SegmentId]:
    """Condemned segments whose mark is in both newest roots. `fallback`: newest journal of the older one. Pure."""
    return sorted(
        segment
        for segment, row in rows.items()
        if row.state is SegmentState.CONDEMNED and SEGMENT_ID_NONE < row.needs_upto <= fallback
    )


def cut_before(rows: Rows, moment_ns: int) -> SegmentId:
    """The newest journal that was closed by then; roots of later moments name it, or one behind it. Pure."""
    journals = (s for s, row in rows.items() if row.kind is SegmentKind.JOURNAL and row.sealed_ns <= moment_ns)
    return max(journals, default=SEGMENT_ID_NONE)


def finished(rows: Rows) -> list[SegmentId]:
    """Rows that say nothing any more. The newest data segment keeps its row: the log goes on behind it. Pure."""
    newest = max((s for s, row in rows.items() if row.kind is SegmentKind.DATA), default=SEGMENT_ID_NONE)
    return sorted(
        segment
        for segment, row in rows.items()
        if row.state is SegmentState.CONDEMNED
        and row.needs_upto == SEGMENT_ID_NONE
        and (segment < newest or row.kind is not SegmentKind.DATA)
    )


class Space:
    """Dead segments of one cache. Lives on its trio thread."""

    def __init__(
        self, host: Host, ledger: Ledger, shelf: Shelf, reads: ReadCache, durability: Durability, snapshots: Snapshots
    ) -> None:
        self._host = host
        self._ledger = ledger
        self._shelf = shelf
        self._reads = reads
        self._durability = durability
        self._snapshots = snapshots
        self._stored_s = trio.current_time()  # when the last receipt came
        self._published: RestorePoint | None = None  # by the newest root, as far as this run knows

    def receipt_came(self) -> None:
        self._stored_s = trio.current_time()

    @property
    def stalled(self) -> bool:
        """Nothing has been offloaded for a while."""
        return trio.current_time() - self._stored_s > STALLED_S

    def condemn(self, *, at_once: bool = False) -> int:
        """Mark what is dead (step 1); the number of marks. `at_once`: whatever it does to the next root.

        The marks must get into a root: the caller sees to a cut. On a full disk nothing is marked; eviction comes
        first.
        """
        live, rows = self._ledger.index.live_all(), self._shelf.rows
        segments = dead(rows, live, never_stored=at_once or self._may_skip_storing())
        try:
            self._snapshots.note_dead(lifeless(rows, live))
            segments = [segment for segment in segments if not self._snapshots.holds(segment)]
            if segments:
                mark = self._ledger.journal.ensure_open().segment  # where the ops below go
                self._put({s: self._condemned(s)._replace(needs_upto=mark) for s in segments})
        except NoSpace:
            return 0
        return len(segments)

    def note_cut(self, journal: SegmentId) -> None:
        """Data segments closed by now that nobody needs are dead from this cut on: they are not even stored."""
        for file in self._ledger.data.closing:
            needed = self._ledger.index.live_bytes(file.segment) or self._snapshots.holds(file.segment)
            if not needed and not file.dead_from:
                file.dead_from = journal

    def published(self, point: RestorePoint) -> None:
        """The newest root names this point; offload says so again after every start."""
        self._published = point

    def trim(self) -> int:
        """Mark journals and checkpoints that are not needed any more (step 1, as for data); the number of marks."""
        point, shelf = self._published, self._shelf
        segments = superfluous(shelf.rows, point, self._snapshots.holds_log)
        try:
            if point is not None and point.checkpoint and (ops := shelf.trim(point)):
                self._ledger.write(ops)  # first: without this row nothing may be missed
                shelf.trimmed = SegmentId(point.journals[0] - 1)
            if segments:
                mark = self._ledger.journal.ensure_open().segment
                self._put({s: self._condemned(s)._replace(needs_upto=mark) for s in segments})
        except NoSpace:
            return 0
        return len(segments)

    async def unlink(self) -> int:
        """Remove the local copies of what is condemned (step 2); the bytes that gives back. Raises FsError.

        Every local read is one step of this thread, so no reader is in the middle of one; those that come late with
        an old place find nothing and look the place up again.
        """
        rows = self._shelf.rows

        def gone(key: tuple[SegmentId, int]) -> bool:
            row = rows.get(key[0])
            return key[1] != WHOLE if row is None else row.state is SegmentState.CONDEMNED

        copies = [key for key in self._reads.files if gone(key)]
        freed = 0
        if copies:
            await self._durability.sync_local()  # the marks, and the changes that made them dead
            freed = sum(self._reads.drop(key) for key in copies)
        await self._reads.free_dropped()
        return freed

    def deletable(self, history_s: float) -> list[SegmentId]:
        """What offload may delete now (step 3): dead for the two newest roots, and for all of the last `history_s`."""
        rows, upto = self._shelf.rows, self._shelf.fallback
        if history_s:
            upto = min(upto, cut_before(rows, self._host.clock.now_ns() - int(history_s * 1e9)))
        return deletable(rows, upto)

    @property
    def waiting(self) -> bool:
        """Whether one more root would let condemned segments go."""
        fallback = self._shelf.fallback
        return any(
            row.state is SegmentState.CONDEMNED and row.needs_upto > fallback for row in self._shelf.rows.values()
        )

    async def deleted(self, segment: SegmentId) -> None:
        """No location holds it any more (step 4). Idempotent. Raises NoSpace, FsError."""
        row = self._shelf.rows.get(segment)
        if row is None or row.state is not SegmentState.CONDEMNED:
            return
        await self.unlink()
        # A file that came back after a power cut and found no row would be taken for a new segment.
        await trio.to_thread.run_sync(self._host.disk.sync_dir, self._ledger.log_of(row.kind).directory)
        self._put({segment: self._condemned(segment)._replace(needs_upto=SEGMENT_ID_NONE, stored_bytes=0)})
        self._put(dict.fromkeys(finished(self._shelf.rows)))

    def reclaimable_bytes(self) -> int:
        """Dead bytes in segments that still hold live ones, and that no snapshot needs."""
        live = self._ledger.index.live_all()
        rows = self._shelf.rows.items()
        return sum(
            max(row.length - live.get(segment, 0), 0)
            for segment, row in rows
            if row.kind is SegmentKind.DATA
            and row.state is not SegmentState.CONDEMNED
            and not self._snapshots.holds(segment)
        )

    # -- inside

    def _condemned(self, segment: SegmentId) -> SegmentRow:
        return self._shelf.rows[segment]._replace(state=SegmentState.CONDEMNED)

    def _may_skip_storing(self) -> bool:
        unpublished = [
            row.sealed_ns
            for segment, row in self._shelf.rows.items()
            if row.kind is SegmentKind.JOURNAL and segment > self._shelf.published
        ]
        if not unpublished or self.stalled:
            return True
        return self._host.clock.now_ns() - min(unpublished) < UNPUBLISHED_S_MAX * 1e9

    def _put(self, after: Mapping[SegmentId, SegmentRow | None]) -> None:
        rows = self._shelf.rows
        ops = []
        for segment, row in after.items():
            before = rows.get(segment)
            ops.append(
                Op(Table.SEGMENTS, u64_key(segment), before.pack() if before else None, row.pack() if row else None)
            )
        gone = [segment for segment, row in after.items() if row is None]
        ops = [op for op in ops if op.before != op.after] + self._snapshots.forget_ops(gone)
        if not ops:
            return
        self._ledger.write(ops)
        self._snapshots.forgotten(gone)
        for segment, row in after.items():
            if row is None:
                rows.pop(segment, None)
            else:
                rows[segment] = row
