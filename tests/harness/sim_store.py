"""A location of the simulator: a memory store with a temper that the weather sets and takes back.

What is *unfaithful* (drops what it acknowledged, shows old versions, flips stored bits, is lost with all it had) is
for the locations the world names as such, never more than m. Everything else may happen to every location.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import trio

from qss.errors import Busy, Refused, Unreachable
from qss.s3.store import Body, ObjectInfo
from tests.harness.memory_store import MemoryStore, body_of
from tests.harness.sim_time import Trace


@dataclass(slots=True)
class Temper:
    """Of one location at one time; chances 0 … 1 for a request."""

    latency_s: float = 0.001
    refused: float = 0.0  # 503 before anything happens
    reset: float = 0.0  # nothing happened, and no answer
    lost_answer: float = 0.0  # it happened, and no answer
    cut: float = 0.0  # the body broke off; nothing is stored
    wrong_bytes: float = 0.0  # one bit of an answer is flipped
    short: float = 0.0  # the answer breaks off, and seems whole
    full: bool = False  # takes nothing new
    down: bool = False
    drops: float = 0.0  # unfaithful: acknowledges a PUT and forgets it
    old: float = 0.0  # unfaithful: answers with the version before


@dataclass(frozen=True, slots=True)
class Overwritten:
    """One machine has replaced or deleted what another had written."""

    at_s: float
    key: str
    of: str
    by: str


class SimStore:
    """An ObjectStore. `alive` of the machine that asks: what it was about to do when it died does not happen."""

    def __init__(self, name: str, rng: random.Random, trace: Trace) -> None:
        self.name = name
        self.kept = MemoryStore(page_objects=1000)
        self.before: dict[str, bytes] = {}  # the version before
        self.author: dict[str, str] = {}  # which machine has written an object
        self.overwritten: list[Overwritten] = []
        self.on_change: Callable[[str, str], None] = lambda _key, _machine: None
        self.temper = Temper()
        self._rng = rng
        self._trace = trace

    @property
    def objects(self) -> dict[str, bytes]:
        return self.kept.objects

    def link(
        self, alive: Callable[[], bool], machine: str = "", reaches: Callable[[str], bool] = lambda _name: True
    ) -> Link:
        """`reaches`: whether the machine has a way to the location of this name now."""
        return Link(self, alive, machine, lambda: reaches(self.name))

    def note_change(self, key: str, data: bytes | None, machine: str) -> None:
        """It is about to be put, or deleted (None)."""
        self.on_change(key, machine)
        old = self.objects.get(key)
        if old is not None and old != data and self.author.get(key, machine) != machine:
            self.overwritten.append(Overwritten(trio.current_time(), key, self.author[key], machine))
        self.author[key] = machine

    def lose_everything(self) -> None:
        self.objects.clear()
        self.before.clear()

    def flip_a_stored_bit(self) -> None:
        keys = sorted(self.objects)
        if keys:
            key = self._rng.choice(keys)
            data = bytearray(self.objects[key])
            data[self._rng.randrange(len(data))] ^= 1 << self._rng.randrange(8)
            self.objects[key] = bytes(data)
            self._trace.add(f"{self.name} rots {key[-12:]}")

    def happens(self, chance: float) -> bool:
        return chance > 0 and self._rng.random() < chance

    def spoiled(self, key: str, data: bytes) -> bytes:
        if self.happens(self.temper.old) and key in self.before:
            return self.before[key][: len(data)]
        if data and self.happens(self.temper.short):
            return data[: self._rng.randrange(len(data))]
        if data and self.happens(self.temper.wrong_bytes):
            flipped = bytearray(data)
            flipped[self._rng.randrange(len(flipped))] ^= 1 << self._rng.randrange(8)
            return bytes(flipped)
        return data

    async def begin(self, verb: str, key: str, alive: Callable[[], bool], reaches: Callable[[], bool]) -> None:
        temper = self.temper
        if temper.down or not reaches():
            await trio.lowlevel.checkpoint()
            raise Unreachable("simulated: connection refused")
        await trio.sleep(temper.latency_s * (0.5 + self._rng.random()))
        if not alive():
            raise Unreachable("simulated: whoever asked is dead")
        self._trace.add(f"{self.name} {verb} {key[-12:]}")
        if self.temper.down or not reaches() or self.happens(temper.reset):
            raise Unreachable("simulated: connection reset")
        if self.happens(temper.refused):
            raise Busy("simulated: SlowDown", retry_after_s=self._rng.choice((None, 1.0)))

    async def end(self, reaches: Callable[[], bool]) -> None:
        await trio.sleep(self.temper.latency_s * self._rng.random())
        if self.temper.down or not reaches() or self.happens(self.temper.lost_answer):
            raise Unreachable("simulated: the answer was lost")


class Link:
    """One machine's way to one location."""

    def __init__(self, store: SimStore, alive: Callable[[], bool], machine: str, reaches: Callable[[], bool]) -> None:
        self._store = store
        self._alive = alive
        self._machine = machine
        self._reaches = reaches

    async def put(self, key: str, body: Body, *, if_absent: bool = False) -> None:
        store = self._store
        await store.begin("put", key, self._alive, self._reaches)
        if store.temper.full:
            raise Refused("simulated: the storage is full")
        data = bytearray()
        breaks = store.happens(store.temper.cut)
        async for chunk in body.chunks():
            data += chunk
            if breaks:
                raise Unreachable("simulated: the connection broke in the middle of the body")
        await trio.sleep(store.temper.latency_s)
        if not self._alive():
            raise Unreachable("simulated: whoever sent it is dead")
        if not self._reaches():
            raise Unreachable("simulated: the network broke in the middle of the body")
        old = store.objects.get(key)
        if not store.happens(store.temper.drops):
            if old is None or not if_absent:
                store.note_change(key, bytes(data), self._machine)
            await store.kept.put(key, body_of(bytes(data)), if_absent=if_absent)
        if old is not None:
            store.before[key] = old
        await store.end(self._reaches)

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        await self._store.begin("get", key, self._alive, self._reaches)
        data = await self._store.kept.get(key, start, stop)
        await self._store.end(self._reaches)
        return self._store.spoiled(key, data)

    async def head(self, key: str) -> ObjectInfo:
        await self._store.begin("head", key, self._alive, self._reaches)
        info = await self._store.kept.head(key)
        await self._store.end(self._reaches)
        return info

    async def delete(self, key: str) -> None:
        await self._store.begin("delete", key, self._alive, self._reaches)
        self._store.note_change(key, None, self._machine)
        await self._store.kept.delete(key)
        self._store.before.pop(key, None)
        await self._store.end(self._reaches)

    async def list(self, prefix: str = "", after: str = "") -> AsyncIterator[ObjectInfo]:
        await self._store.begin("list", prefix, self._alive, self._reaches)
        async for info in self._store.kept.list(prefix, after):
            if self._store.happens(self._store.temper.cut):
                raise Unreachable("simulated: the listing broke off")
            yield info
