"""An ObjectStore around another that fails on purpose, by a seed: stricter than real S3. On trio.

With no faults it passes tests/contracts/object_store.py.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

import trio

from qss.errors import AccessDenied, Busy, Unreachable
from qss.s3.store import Body, ObjectInfo, ObjectStore


@dataclass(slots=True)
class Faults:
    """Chance of each fault for one request, 0 … 1."""

    slow: float = 0.0
    slow_s: float = 1.0
    busy: float = 0.0  # 503 before anything happens
    retry_after_s: float | None = None  # what a 503 says
    reset: float = 0.0  # the connection breaks before anything happens
    cut: float = 0.0  # the connection breaks in the middle of a body; nothing is stored
    lost_answer: float = 0.0  # done, but the answer never comes
    wrong_bytes: float = 0.0  # one bit of what a GET returns is flipped


class FaultyStore:
    """`down`: refuses connections. `hung`: accepts requests and never answers. `denied`: refuses credentials."""

    def __init__(self, store: ObjectStore, seed: int = 0, faults: Faults | None = None) -> None:
        self.store = store
        self.faults = faults or Faults()
        self.down = False
        self.hung = False
        self.denied = False
        self.calls: Counter[str] = Counter()  # by verb, however they ended
        self.injected: Counter[str] = Counter()  # by fault
        self._random = random.Random(seed)

    async def put(self, key: str, body: Body, *, if_absent: bool = False) -> None:
        await self._before("put")
        if self._happens("cut", self.faults.cut):
            async for _chunk in body.chunks():
                break
            raise Unreachable("injected: the connection broke in the middle of the body")
        await self.store.put(key, body, if_absent=if_absent)
        self._after()

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        await self._before("get")
        data = await self.store.get(key, start, stop)
        self._after()
        if data and self._happens("wrong_bytes", self.faults.wrong_bytes):
            flipped = bytearray(data)
            flipped[self._random.randrange(len(flipped))] ^= 1 << self._random.randrange(8)
            return bytes(flipped)
        return data

    async def head(self, key: str) -> ObjectInfo:
        await self._before("head")
        info = await self.store.head(key)
        self._after()
        return info

    async def delete(self, key: str) -> None:
        await self._before("delete")
        await self.store.delete(key)
        self._after()

    async def list(self, prefix: str = "", after: str = "") -> AsyncIterator[ObjectInfo]:
        await self._before("list")
        async for info in self.store.list(prefix, after):
            if self._happens("cut", self.faults.cut):
                raise Unreachable("injected: the listing broke off")
            yield info

    async def _before(self, verb: str) -> None:
        self.calls[verb] += 1
        await trio.lowlevel.checkpoint()
        if self.down:
            raise Unreachable("injected: connection refused")
        if self.hung:
            await trio.sleep_forever()
        if self.denied:
            raise AccessDenied("injected: the credentials are refused")
        if self._happens("slow", self.faults.slow):
            await trio.sleep(self.faults.slow_s)
        if self._happens("busy", self.faults.busy):
            raise Busy("injected: SlowDown", retry_after_s=self.faults.retry_after_s)
        if self._happens("reset", self.faults.reset):
            raise Unreachable("injected: connection reset")

    def _after(self) -> None:
        if self._happens("lost_answer", self.faults.lost_answer):
            raise Unreachable("injected: done, but the answer was lost")

    def _happens(self, fault: str, chance: float) -> bool:
        if chance > 0 and self._random.random() < chance:
            self.injected[fault] += 1
            return True
        return False
