"""The journal and the index as one thing: what is written is in both or in neither."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from qss.cache.applied import Applied
from qss.cache.index import Index
from qss.cache.segment_log import LogFile, SegmentLog
from qss.errors import Damaged
from qss.formats.journal import Op, encode_batch
from qss.segments import SegmentKind


class Observer(Protocol):
    """Hears of every row that was changed, in order, right after it was."""

    def changed(self, op: Op) -> None: ...


class Ledger:
    """Sole writer of journal and index."""

    def __init__(
        self, index: Index, data: SegmentLog, journal: SegmentLog, checkpoints: SegmentLog, reopen: Callable[[], Index]
    ) -> None:
        """`checkpoints`: a log that is never open; its segments come whole.

        `reopen` gives a fresh index brought up to the journal's end, should LMDB lose its transaction."""
        self.index = index
        self.data = data
        self.journal = journal
        self.checkpoints = checkpoints
        self._reopen = reopen
        self.observers: list[Observer] = []

    def log_of(self, kind: SegmentKind) -> SegmentLog:
        return {SegmentKind.DATA: self.data, SegmentKind.JOURNAL: self.journal}.get(kind, self.checkpoints)

    @property
    def closing(self) -> list[LogFile]:
        """Segments that are complete and have no row yet."""
        return self.data.closing + self.journal.closing + self.checkpoints.closing

    def write(self, ops: Sequence[Op]) -> None:
        """Append one batch to the journal, then apply it. Raises NoSpace and OSError; then nothing has changed."""
        segment, count = self.data.reach
        file = self.journal.ensure_open()  # first, for the number depends on the segment
        self.journal.append_frames(encode_batch(ops, file.count, segment, count))
        try:
            self.index.apply(ops)  # 2. a crash in between is made up for by replay
        except Damaged:
            self.revive()
        for observer in self.observers:
            for op in ops:
                observer.changed(op)

    def applied(self) -> Applied:
        """The mark of the index as it is now."""
        file = self.journal.open
        journal, position, frames = (
            (file.segment, file.position, file.count) if file else (*self.journal.last, self.journal.last_count)
        )
        return Applied(journal, position, frames, *self.data.reach, self.data.numbers.next_segment)

    def checkpoint(self) -> int:
        """Commit the index, unsynced; its txnid. Raises NoSpace and Damaged; the rows are all there still."""
        try:
            return self.index.checkpoint(self.applied().pack())
        except Exception:
            self.revive()
            raise

    def revive(self) -> None:
        """LMDB has lost its transaction (disk full, I/O error): build it again from its file and the journal."""
        self.index.close()
        self.index = self._reopen()
