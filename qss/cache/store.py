"""SegmentCache: the one public class of qss.cache. STUB of the interface qss.fs is written against."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Self

from qss.cache.options import CacheOptions
from qss.formats.tables import ExtentRow, Table
from qss.host import Host
from qss.ids import Ino, SegmentId
from qss.segments import SegmentVault


class Change:
    """A transaction being put together: reads see its own writes. Nothing happens until `SegmentCache.commit`."""

    def get(self, table: Table, key: bytes) -> bytes | None: ...

    def put(self, table: Table, key: bytes, value: bytes) -> None: ...

    def delete(self, table: Table, key: bytes) -> None: ...

    def scan(self, table: Table, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Rows with start <= key < stop, in key order, own writes included."""
        ...

    def floor(self, table: Table, key: bytes) -> tuple[bytes, bytes] | None:
        """The row with the greatest key <= `key`, or None."""
        ...


class SegmentCache:
    """Logs, index and read cache of one file system. Sole writer. Lives on one trio thread."""

    @classmethod
    async def open(cls, root: Path, host: Host, options: CacheOptions, vault: SegmentVault | None) -> Self:
        """Open or create the cache in `root`: recover the logs, replay the journal's tail into the index."""
        ...

    async def run(self) -> None:
        """Background work (checkpoints, sealing by time, eviction, admission). Started in a nursery by the app."""
        ...

    async def close(self) -> None:
        """Seal what is open, checkpoint, close."""
        ...

    # -- the index: synchronous, memory-mapped, a few microseconds. Iterators must be used up before any await
    def get(self, table: Table, key: bytes) -> bytes | None: ...

    def scan(self, table: Table, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]: ...

    def floor(self, table: Table, key: bytes) -> tuple[bytes, bytes] | None: ...

    def begin(self) -> Change: ...

    def commit(self, change: Change) -> None:
        """Append the change to the journal, then apply it to the index. All or nothing; raises NoSpace."""
        ...

    # -- content
    async def admit(self, count: int) -> None:
        """Wait until `count` more bytes may be written (back-pressure). Returns at once while there is room.
        Raises NoSpace after the deadline."""
        ...

    def append(self, ino: Ino, offset: int, payload: bytes | memoryview) -> list[tuple[int, ExtentRow]]:
        """Append file content to the data log: (file offset, extent) for each record written, in order.
        The bytes are in the page cache on return; they mean nothing until a committed change names them."""
        ...

    async def read(self, extent: ExtentRow, start: int, stop: int) -> bytes | memoryview:
        """Verified bytes [start, stop) relative to the extent. Fetches through the vault on a miss.
        Raises FsError(EIO) when they cannot be had within the deadline, or do not verify anywhere."""
        ...

    def read_now(self, extent: ExtentRow, start: int, stop: int) -> bytes | memoryview | None:
        """As `read`, if the bytes are cached; None on a miss. Never waits."""
        ...

    async def sync_local(self) -> None:
        """Return when everything appended and committed before the call survives a power cut (group commit)."""
        ...

    async def cut(self) -> SegmentId:
        """Seal both logs now; the id of the journal segment that closes this cut (the newest if nothing is dirty)."""
        ...

    async def wait_published(self, journal: SegmentId) -> None:
        """Return when a root names a restore point that includes this journal segment."""
        ...
