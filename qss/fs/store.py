"""What the file system stands on: rows, content, durability. qss.cache has two of them: the SegmentCache, and the
FrozenCache of a snapshot, which refuses changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from qss.cache.change import Change
from qss.formats.tables import ExtentRow, Table
from qss.ids import Ino, SegmentId


class StoreFacts(Protocol):
    """For statfs, in bytes."""

    @property
    def live_bytes(self) -> int: ...

    @property
    def disk_free_bytes(self) -> int: ...


class Store(Protocol):
    """Contracts are those of qss.cache.store.SegmentCache."""

    def get(self, table: Table, key: bytes) -> bytes | None: ...

    def scan(self, table: Table, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]: ...

    def floor(self, table: Table, key: bytes) -> tuple[bytes, bytes] | None: ...

    def count(self, table: Table) -> int: ...

    @property
    def live_bytes(self) -> int: ...

    def facts(self) -> StoreFacts: ...

    def holds(self, segment: SegmentId, position: int) -> bool: ...

    def begin(self) -> Change: ...

    def commit(self, change: Change, *, quiet: bool = False) -> None: ...

    def check_names(self) -> None: ...

    async def admit(self, count: int) -> None: ...

    async def append_in_turn(
        self, ino: Ino, offset: int, payload: bytes | memoryview
    ) -> list[tuple[int, ExtentRow]]: ...

    def read_now(self, extent: ExtentRow, start: int, stop: int) -> bytes | memoryview | None: ...

    async def read(self, extent: ExtentRow, start: int, stop: int) -> bytes | memoryview: ...

    async def sync_local(self) -> None: ...
