"""What compaction looks at: the sealed data segments, how much of them lives, their bytes wherever they are."""

from __future__ import annotations

import trio

from qss.cache.access import WHOLE
from qss.cache.admission import Admission
from qss.cache.compaction import Candidate
from qss.cache.ledger import Ledger
from qss.cache.read_cache import ReadCache
from qss.cache.shelf import Shelf, sealed_of
from qss.cache.snapshots import Snapshots
from qss.cache.space import Space
from qss.formats.tables import SegmentState
from qss.host import Disk
from qss.ids import SegmentId, StripeNo
from qss.limits import STRIPE_BYTES
from qss.segments import SegmentKind


class Inventory:
    """qss.cache.compaction.Segments of one cache."""

    def __init__(
        self, disk: Disk, ledger: Ledger, shelf: Shelf, reads: ReadCache, space: Space, admission: Admission,
        snapshots: Snapshots,
    ) -> None:  # fmt: skip
        self._disk = disk
        self._ledger = ledger
        self._shelf = shelf
        self._reads = reads
        self._space = space
        self._admission = admission
        self._snapshots = snapshots

    def candidates(self) -> list[Candidate]:
        """Those that are offloaded and that no snapshot needs, for then a move frees nothing. Others are on their way
        into a root, and emptying them would hold it up; they come too while nothing is being offloaded."""
        states = (SegmentState.OFFLOADED, SegmentState.SEALED) if self._space.stalled else (SegmentState.OFFLOADED,)
        live = self._ledger.index.live_all()
        return [
            Candidate(segment, row.length, live[segment], self._reads.segment_file(segment) is not None)
            for segment, row in self._shelf.rows.items()
            if row.kind is SegmentKind.DATA
            and row.state in states
            and segment in live
            and not self._snapshots.holds(segment)
        ]

    def stripe_count(self, segment: SegmentId) -> int:
        return sealed_of(segment, self._shelf.row(segment)).stripe_count

    async def stripe(self, segment: SegmentId, stripe: StripeNo) -> bytes:
        """All bytes of a stripe, as they are. Raises FsError(EIO) when they cannot be had."""
        file, position = self._reads.segment_file(segment), stripe * STRIPE_BYTES
        if file is None or (segment, WHOLE) in self._reads.bad_local:
            path, position = await self._reads.bring((segment, stripe)), 0
        else:
            path = file.path
        handle = self._disk.open(path)
        try:
            return await trio.to_thread.run_sync(self._disk.pread, handle, STRIPE_BYTES, position)
        finally:
            self._disk.close(handle)

    def distrust(self, segment: SegmentId) -> bool:
        """The local copy does not hold: read the stripes that can be fetched instead. False: there are none."""
        key = (segment, WHOLE)
        if key not in self._reads.files or key in self._reads.bad_local or not self._shelf.stripes_elsewhere(segment):
            return False
        self._reads.bad_local.add(key)
        return True

    @property
    def writers_waiting(self) -> int:
        return self._admission.waiting

    @property
    def log_position(self) -> tuple[SegmentId, int]:
        return self._ledger.data.reach
