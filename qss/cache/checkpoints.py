"""Checkpoints of the journal: when one is due, making it, taking it into the cache. docs/adr/0090.

    1 LMDB committed, synced and noted (`Durability.checkpoint`) ─ 2 a process of its own writes what it finds there
    ─ 3 LMDB and logs synced up to what it found ─ 4 its files numbered, renamed, synced ─ 5 rows in the journal

Crash before 4: files that nobody looks at, removed at the start. Within 4: parts of no checkpoint, removed. After 4: a
checkpoint without rows; the next start gives it its rows. What it stands for is synced before it has its name, so
whatever of the journal is cut off, the place it names is not.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import trio

from qss.cache.applied import NOTHING_APPLIED, Applied
from qss.cache.checkpoint_files import (
    NEW_DIR,
    Written,
    checkpoints_in,
    clear_new,
    number_parts,
    segment_path,
    write_parts,
)
from qss.cache.durability import Durability
from qss.cache.ledger import Ledger
from qss.cache.recovery import INDEX_DIR
from qss.cache.shelf import Shelf
from qss.cache.trimming import groups
from qss.errors import CorruptData, QssError
from qss.host import Host
from qss.ids import SEGMENT_ID_NONE, SegmentId
from qss.segments import SegmentKind

LOOK_S: Final = 1.0
"""Between two looks whether one is due."""
RETRY_S: Final = 60.0
"""After one that failed."""

Maker = Callable[[Path, Path, int], Awaitable[Written]]
"""Write the parts of a checkpoint: (LMDB's directory, where they go, bytes of a part at most). Raises QssError and
OSError."""

_log = logging.getLogger("qss.cache.checkpoints")


class Checkpoints:
    """Of one cache. Lives on its trio thread; one is made at a time."""

    def __init__(
        self, root: Path, host: Host, ledger: Ledger, shelf: Shelf, durability: Durability, maker: Maker | None
    ) -> None:
        """`maker`: None makes them in this thread, which waits for it: for tests, and caches that are small."""
        self._root = root
        self._host = host
        self._ledger = ledger
        self._shelf = shelf
        self._durability = durability
        self._maker = maker or self._make_here
        self._lock = trio.Lock()
        newest = next(iter(checkpoints_in(host.disk, ledger.checkpoints.directory)), None)
        self._last = newest.applied if newest else NOTHING_APPLIED

    async def run(self, after_bytes: int, part_bytes: int) -> None:
        """Make one whenever so many bytes of journal, and as many as the last one is large, lie behind that one.

        Never returns.
        """
        while True:
            await trio.sleep(LOOK_S)
            if self.behind_bytes() <= max(after_bytes, self.size_bytes()):
                continue
            try:
                await self.make(part_bytes)
            except (QssError, OSError) as error:
                _log.warning("the journal is not checkpointed now: %s", error)
                await trio.sleep(RETRY_S)

    def behind_bytes(self) -> int:
        """Journal bytes that a rebuilt index would have to replay."""
        since, journal = self._last, self._ledger.journal
        lengths = {s: row.length for s, row in self._shelf.rows.items() if row.kind is SegmentKind.JOURNAL}
        lengths |= {file.segment: file.position for file in journal.closing}
        if journal.open is not None:
            lengths[journal.open.segment] = journal.open.position
        total = sum(length for segment, length in lengths.items() if segment >= since.journal)
        return max(total - since.position, 0)

    def size_bytes(self) -> int:
        """Of the newest checkpoint; 0: there is none."""
        rows = self._shelf.rows
        return next((sum(rows[part].length for part in each.parts) for each in groups(rows)), 0)

    async def make(self, part_bytes: int) -> tuple[SegmentId, ...]:
        """The segments of a new checkpoint; none while nothing was ever written. Raises QssError, OSError."""
        async with self._lock:
            await self._durability.checkpoint()  # 1.
            if self._ledger.applied().journal == SEGMENT_ID_NONE:
                return ()
            disk, new = self._host.disk, self._root / NEW_DIR
            clear_new(disk, new)
            written = await self._maker(self._root / INDEX_DIR, new, part_bytes)  # 2.
            await self._durability.checkpoint()  # 3.
            _check(written.applied, self._ledger.applied())
            return await self._adopt(new, written)

    async def _adopt(self, new: Path, written: Written) -> tuple[SegmentId, ...]:
        log, disk = self._ledger.checkpoints, self._host.disk
        first = SegmentId(
            log.numbers.next_segment + 1
        )  # one number is left out: neighbours are parts of one checkpoint
        parts = tuple(SegmentId(first + place) for place in range(len(written.lengths)))
        log.numbers.next_segment = SegmentId(first + len(parts))
        try:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(number_parts, disk, new, written.lengths, log.directory, first)  # 4.
        except (QssError, OSError):
            for part in parts:
                with contextlib.suppress(OSError):
                    disk.remove(segment_path(log.directory, part))
            raise
        for part, length in zip(parts, written.lengths, strict=True):
            file = log.take_over(part, length, 0)
            file.synced, file.named, file.needs_upto = length, True, written.applied.journal
            log.closing.append(file)
        self._last = written.applied
        await self._durability.settle()  # 5.
        _log.info("checkpoint of %d rows in %d segments", written.rows, len(parts))
        return parts

    async def _make_here(self, _index: Path, into: Path, part_bytes: int) -> Written:
        await trio.lowlevel.checkpoint()
        committed = self._ledger.index.committed()
        try:
            return write_parts(committed, self._host.disk, into, part_bytes)
        finally:
            committed.close()


def _check(made: Applied, now: Applied) -> None:
    """Raises CorruptData for a checkpoint of something that is not behind us."""
    if made.journal == SEGMENT_ID_NONE or made[:3] > now[:3]:
        raise CorruptData("a checkpoint was made of another journal")
