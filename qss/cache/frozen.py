"""A snapshot as something to read: the index its logs give, and content wherever it is now.

Beside the live cache and without a line to it: segment files of the live cache are read by path for as long as they
are there; what is not there is fetched, stripe by stripe, into a directory of our own. Nothing is ever written to
what belongs to the live cache, and nothing of it is unlinked.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import trio

from qss.cache.access import WHOLE
from qss.cache.applied import NOTHING_APPLIED
from qss.cache.change import Change
from qss.cache.index import Index
from qss.cache.read_cache import ReadCache
from qss.cache.recovery import INDEX_DIR, load_newest, replay_into
from qss.cache.scan import file_length
from qss.cache.segment_log import FOLDERS, log_path
from qss.errors import Damaged, FsError, QssError, Retryable, TooFewShards
from qss.formats.tables import ExtentRow, SegmentRow, Table, u64_key
from qss.host import Host
from qss.ids import Ino, SegmentId, StripeNo, segment_text
from qss.limits import GIB, STRIPE_BYTES
from qss.segments import RestorePoint, SegmentKind, SegmentVault

STRIPES_BYTES_MAX: Final = 1 * GIB
"""Fetched stripes kept; the longest unused go first."""
LOOK_EVERY_S: Final = 5.0
RETRY_S: Final = 0.25


class Lengths(Protocol):
    """Who knows how long a segment is that has no row in the snapshot: its cut closed it."""

    async def length_of(self, segment: SegmentId) -> int:
        """Bytes. Raises TooFewShards, Unreachable."""
        ...


@dataclass(frozen=True, slots=True)
class FrozenFacts:
    """For statfs, in bytes."""

    live_bytes: int
    disk_free_bytes: int = 0


def build_index(root: Path, host: Host, map_bytes: int, point: RestorePoint) -> None:
    """Make the index of a restore point whose logs lie in `root`, in a new file there. Blocks; in any thread.

    Raises Damaged when they are not all there or do not verify to their ends.
    """
    if not point.journals:
        raise Damaged("a restore point without a journal")
    for folder in (*FOLDERS.values(), INDEX_DIR, "stripes"):
        host.disk.makedirs(root / folder)
    index = open_index(root, map_bytes)
    try:
        applied = load_newest(index, root, host.disk)
        if point.checkpoint and applied == NOTHING_APPLIED:
            raise Damaged("a checkpoint does not verify")
        reached = replay_into(index, root, host, applied, same_boot=True, data_elsewhere=True)
        last = log_path(root, SegmentKind.JOURNAL, point.journals[-1])
        if (reached.journal, reached.position) != (point.journals[-1], file_length(host.disk, last)):
            raise Damaged(f"journal segment {segment_text(reached.journal)} does not verify to its end")
        index.checkpoint(reached.pack())
    finally:
        index.close()


def open_index(root: Path, map_bytes: int) -> Index:
    """What `build_index` made. To be closed by the thread that opened it."""
    return Index(root / INDEX_DIR, map_bytes)


class FrozenCache:
    """The Store of a file system that never changes. Lives on one trio thread."""

    def __init__(
        self, host: Host, root: Path, index: Index, lent: Path, vault: SegmentVault, lengths: Lengths, deadline_s: float
    ) -> None:
        """`root`: where `build_index` made it; `lent`: the directory of a live cache, there or not."""
        self._host = host
        self._root = root
        self._index = index
        self._lengths = lengths
        self._deadline_s = deadline_s
        self._reads = ReadCache(host.disk, root / "stripes", vault, deadline_s, self._following)
        self._stripes: dict[SegmentId, int] = {}  # of each segment whose length is known
        now = trio.current_time()
        for segment in sorted(index.live_all()):
            path = log_path(lent, SegmentKind.DATA, segment)
            if host.disk.exists(path):
                length = file_length(host.disk, path)
                self._reads.add_segment(segment, path, length, now)
                self._stripes[segment] = -(-length // STRIPE_BYTES)
            packed = index.get(Table.SEGMENTS, u64_key(segment))
            if packed is not None:
                self._stripes[segment] = -(-SegmentRow.unpack(packed).length // STRIPE_BYTES)
        self._order = sorted(index.live_all())

    async def run(self) -> None:
        """Background work: fetching ahead, and keeping what was fetched within bounds. Never returns."""
        async with trio.open_nursery() as nursery:
            self._reads.nursery = nursery
            try:
                while True:
                    await trio.sleep(LOOK_EVERY_S)
                    self._reads.let_go()
                    self.evict(STRIPES_BYTES_MAX)
            finally:
                self._reads.nursery = None

    def evict(self, bytes_max: int) -> None:
        """Unlink fetched stripes, the longest unused first, until at most so many bytes are left."""
        fetched = [(key, file) for key, file in self._reads.files.items() if key[1] != WHOLE]
        left = sum(file.length for _, file in fetched)
        for key, _ in sorted(fetched, key=lambda item: item[1].used_s):
            if left <= bytes_max:
                return
            left -= self._reads.drop(key)

    def close(self) -> None:
        self._reads.close()
        self._index.close()

    # -- rows

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self._index.get(table, key)

    def scan(self, table: Table, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Rows with start <= key < stop, in key order."""
        return self._index.scan(table, start, stop)

    def floor(self, table: Table, key: bytes) -> tuple[bytes, bytes] | None:
        """The row with the greatest key <= `key`, or None."""
        return self._index.floor(table, key)

    def count(self, table: Table) -> int:
        """Number of rows of a table."""
        return self._index.count(table)

    @property
    def live_bytes(self) -> int:
        """Bytes that files point to, wherever they are."""
        return self._index.live_total

    def facts(self) -> FrozenFacts:
        """Nothing is free: nothing can be written."""
        return FrozenFacts(self._index.live_total)

    # -- content

    def holds(self, segment: SegmentId, position: int) -> bool:
        """Whether the stripe with this byte of a segment can be read here without a fetch."""
        if self._reads.segment_file(segment) is not None:
            return True
        return (segment, StripeNo(position // STRIPE_BYTES)) in self._reads.files

    def read_now(self, extent: ExtentRow, start: int, stop: int) -> bytes | memoryview | None:
        """As `read`, if the bytes are here and verify; None otherwise. Never waits."""
        try:
            return self._reads.read_now(extent, start, stop)
        except Damaged:
            return None

    async def read(self, extent: ExtentRow, start: int, stop: int) -> bytes | memoryview:
        """Verified bytes [start, stop) relative to the extent, fetched on a miss.
        Raises FsError(EIO) when they cannot be had within the deadline, or do not verify anywhere."""
        segment = extent.segment
        if segment not in self._stripes:
            self._stripes[segment] = -(-await self._length_of(segment) // STRIPE_BYTES)
        return await self._reads.read(extent, start, stop, self._stripes[segment])

    async def _length_of(self, segment: SegmentId) -> int:
        deadline = trio.current_time() + self._deadline_s
        while True:
            try:
                return await self._lengths.length_of(segment)
            except (Retryable, TooFewShards) as error:
                if trio.current_time() >= deadline:
                    raise FsError(errno.EIO, str(error)) from error
            except QssError as error:
                raise FsError(errno.EIO, str(error)) from error
            await trio.sleep(RETRY_S)

    def _following(self, segment: SegmentId) -> tuple[SegmentId, int] | None:
        place = bisect_right(self._order, segment)
        if place == len(self._order) or self._order[place] not in self._stripes:
            return None
        return self._order[place], self._stripes[self._order[place]]

    # -- changes: there are none

    def begin(self) -> Change:
        return Change(self._index)

    def commit(self, change: Change, *, quiet: bool = False) -> None:
        """Raises FsError(EROFS) unless nothing changes."""
        if change.ops():
            raise FsError(errno.EROFS)

    def check_names(self) -> None:
        """Raises FsError(EROFS)."""
        raise FsError(errno.EROFS)

    async def admit(self, count: int) -> None:
        """Raises FsError(EROFS)."""
        raise FsError(errno.EROFS)

    async def append_in_turn(self, ino: Ino, offset: int, payload: bytes | memoryview) -> list[tuple[int, ExtentRow]]:
        """Raises FsError(EROFS)."""
        raise FsError(errno.EROFS)

    async def sync_local(self) -> None:
        """Nothing is unsynced."""
