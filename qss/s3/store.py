"""The port to a place that keeps objects: five verbs. The S3 client is one; tests and limits wrap others around it.

Loop-neutral: an implementation may live on trio (client) or asyncio (server), nothing here knows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from qss.errors import CorruptData


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes to put: their exact count, and a maker of the chunks, called again for each attempt."""

    length: int
    chunks: Callable[[], AsyncIterator[bytes | memoryview]]


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    key: str
    size: int  # bytes
    etag: str  # without quotes
    modified_ns: int  # nanoseconds since 1970; whole seconds on most servers


class ObjectStore(Protocol):
    """Objects under one prefix of one bucket.

    Every verb may raise Unreachable or Busy (send it again), AccessDenied, and what it says below.
    Keys are 1 to 1,024 bytes of UTF-8.
    """

    async def put(self, key: str, body: Body, *, if_absent: bool = False) -> None:
        """Store an object whole or not at all, replacing any. With `if_absent`, raises PreconditionFailed if there
        is one already."""
        ...

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes [start, stop) of an object; `stop` None means its end. Raises ObjectMissing; CorruptData when the
        answer is not exactly as long as asked."""
        ...

    async def head(self, key: str) -> ObjectInfo:
        """Raises ObjectMissing."""
        ...

    async def delete(self, key: str) -> None:
        """Remove an object; no error if there is none."""
        ...

    def list(self, prefix: str = "", after: str = "") -> AsyncIterator[ObjectInfo]:
        """Objects whose key starts with `prefix` and sorts behind `after`, in UTF-8 byte order."""
        ...


@runtime_checkable
class ReadsInto(Protocol):
    """An ObjectStore that can put what it reads where it is wanted: without it, fresh memory for each answer."""

    async def get_into(self, key: str, start: int, into: memoryview) -> None:
        """As ObjectStore.get of len(into) bytes from `start` on. After an error anything may be in `into`."""
        ...


@runtime_checkable
class HashesInPlace(Protocol):
    """An ObjectStore whose place may hash what it holds, so that verifying moves 32 bytes for each span."""

    async def hashes(self, key: str, spans: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """BLAKE3 of bytes [start, stop) of an object, as they were read from its disk now, for each span in order;
        None: this place cannot. Raises ObjectMissing; CorruptData when the object is shorter or does not verify."""
        ...


@runtime_checkable
class TellsRoom(Protocol):
    """An ObjectStore whose place may say how much it can take yet."""

    async def free_bytes(self) -> int | None:
        """Bytes of new objects it takes before it refuses them; None: it does not say. Raises CorruptData."""
        ...


async def get_into(store: ObjectStore, key: str, start: int, into: memoryview) -> None:
    """ReadsInto.get_into, of any store."""
    if isinstance(store, ReadsInto):
        await store.get_into(key, start, into)
        return
    data = await store.get(key, start, start + len(into))
    if len(data) != len(into):
        raise CorruptData(f"{len(into)} bytes of {key!r} asked for, {len(data)} came")
    into[:] = data
