"""An ObjectStore in a dictionary, as strict as the port allows. Passes tests/contracts/object_store.py."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import trio

from qss.errors import CorruptData, ObjectMissing, PreconditionFailed
from qss.s3.store import Body, ObjectInfo

KEY_BYTES_MAX = 1024


def body_of(data: bytes | memoryview, chunk_bytes: int = 64 * 1024) -> Body:
    """A Body of bytes in memory."""

    async def chunks() -> AsyncIterator[bytes | memoryview]:
        view = memoryview(data)
        for start in range(0, len(view), chunk_bytes):
            yield view[start : start + chunk_bytes]

    return Body(len(data), chunks)


class MemoryStore:
    """Objects in memory. `objects` may be looked at and tampered with by tests."""

    def __init__(self, page_objects: int = 10) -> None:
        self.page_objects = page_objects
        self.objects: dict[str, bytes] = {}
        self.changes = 0  # puts and deletes that took place; stands in for the time of change

    async def put(self, key: str, body: Body, *, if_absent: bool = False) -> None:
        _check_key(key)
        data = bytearray()
        async for chunk in body.chunks():
            data += chunk
            await trio.lowlevel.checkpoint()
        assert len(data) == body.length, "a body is not as long as it says"
        if if_absent and key in self.objects:  # no await from here on: atomic
            raise PreconditionFailed(f"there is an object {key!r} already")
        self.changes += 1
        self.objects[key] = bytes(data)

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        data = self._find(key)
        stop = len(data) if stop is None else stop
        if not 0 <= start <= stop <= len(data):
            raise CorruptData(f"object {key!r} has {len(data)} bytes, not [{start}, {stop})")
        return data[start:stop]

    async def head(self, key: str) -> ObjectInfo:
        await trio.lowlevel.checkpoint()
        return self._info(key, self._find(key))

    async def delete(self, key: str) -> None:
        await trio.lowlevel.checkpoint()
        _check_key(key)
        if self.objects.pop(key, None) is not None:
            self.changes += 1

    async def list(self, prefix: str = "", after: str = "") -> AsyncIterator[ObjectInfo]:
        start = after.encode()
        while True:
            await trio.lowlevel.checkpoint()
            wanted = (key.encode() for key in self.objects if key.startswith(prefix))
            page = sorted(key for key in wanted if key > start)[: self.page_objects]
            infos = [self._info(key.decode(), self.objects[key.decode()]) for key in page]
            for info in infos:
                yield info
            if len(page) < self.page_objects:
                return
            start = page[-1]

    def _find(self, key: str) -> bytes:
        _check_key(key)
        try:
            return self.objects[key]
        except KeyError:
            raise ObjectMissing(f"there is no object {key!r}") from None

    def _info(self, key: str, data: bytes) -> ObjectInfo:
        return ObjectInfo(key, len(data), hashlib.md5(data, usedforsecurity=False).hexdigest(), self.changes)


def _check_key(key: str) -> None:
    assert 1 <= len(key.encode()) <= KEY_BYTES_MAX, "keys are 1 to 1,024 bytes"
