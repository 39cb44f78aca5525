"""Holding a file system: a small object at every location that its machine renews, for others to see. ADR 0119.

Roots decide who may write (`qss.offload.roots`); a hold only says it earlier and in words: a second machine learns
before it starts that the file system is in use, where, and since when; the first learns that it was taken over without
having to lose a root. So a hold that is lost, late or forged by a clock costs a sentence, never data.

Nobody's clock is believed: a hold is alive if it is seen to change.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final

import trio

from qss.errors import CorruptData, QssError
from qss.host import Host
from qss.ids import LocationId
from qss.offload.fence import Fence
from qss.offload.keys import FsKeys
from qss.offload.seal import NONCE_BYTES, open_box, seal_box
from qss.s3.store import Body, ObjectStore

BEAT_S: Final = 8.0
"""Between two renewals."""
WATCH_BEATS: Final = 1.6
"""How many of its own intervals a hold may stay the same before it counts as dead."""
ANCIENT_S: Final = 3600.0
"""A hold that was renewed this long ago, by any sane clock, is not watched."""
ANSWER_S_MAX: Final = 5.0
"""How long locations may take to answer."""
HOLD_BYTES_MAX: Final = 4096

_DOMAIN: Final = b"qss hold v1\0"


@dataclass(frozen=True, slots=True)
class Hold:
    """Who writes the file system, as it says itself."""

    seat: str  # a machine and a state directory on it; hex
    epoch: int  # of the roots it writes
    writer: str  # hex
    host: str  # its name, for people
    state: str  # its state directory, for people
    beats: int  # renewals so far; says nothing but that it lives
    beat_ns: int  # when, by its clock
    every_s: float
    released: bool = False  # it was unmounted in order

    @property
    def order(self) -> tuple[int, int, int]:
        """The larger one holds."""
        return (self.epoch, self.beat_ns, self.beats)

    def pack(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def unpack(cls, data: bytes) -> Hold:
        """Raises CorruptData."""
        try:
            body = json.loads(data)
            return cls(
                seat=str(body["seat"]), epoch=int(body["epoch"]), writer=str(body["writer"]), host=str(body["host"]),
                state=str(body["state"]), beats=int(body["beats"]), beat_ns=int(body["beat_ns"]),
                every_s=min(600.0, max(0.0, float(body["every_s"]))), released=bool(body["released"]),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise CorruptData("a hold does not hold") from error


class HoldBook:
    """Holds as objects: encrypted, under one name at every location, replaced each time."""

    def __init__(self, nodes: Mapping[LocationId, ObjectStore], keys: FsKeys, host: Host) -> None:
        self._nodes = nodes
        self._keys = keys
        self._host = host

    async def read(self) -> Hold | None:
        """The one that holds, of all that are found in time; None: nobody, or nobody says."""
        found: list[Hold] = []

        async def ask(node: ObjectStore) -> None:
            try:
                found.append(self._open(await node.get(self._keys.hold_name())))
            except QssError:
                return

        with trio.move_on_after(ANSWER_S_MAX):
            async with trio.open_nursery() as nursery:
                for node in self._nodes.values():
                    nursery.start_soon(ask, node)
        return max(found, key=lambda hold: hold.order, default=None)

    async def write(self, hold: Hold) -> int:
        """At every location that takes it in time; at how many."""
        box = seal_box(
            self._keys.root, _DOMAIN + self._keys.fs_id, hold.pack(), self._host.entropy.token(NONCE_BYTES)
        )  # fmt: skip
        taken = 0

        async def put(node: ObjectStore) -> None:
            nonlocal taken
            try:
                await node.put(self._keys.hold_name(), Body(len(box), chunks))
            except QssError:
                return
            taken += 1

        async def chunks() -> AsyncIterator[bytes | memoryview]:
            yield box

        with trio.move_on_after(ANSWER_S_MAX):
            async with trio.open_nursery() as nursery:
                for node in self._nodes.values():
                    nursery.start_soon(put, node)
        return taken

    async def is_alive(self, hold: Hold) -> Hold | None:
        """Watch it until it changes; what it is then, or None when it has not: nobody renews it."""
        if hold.released:
            return None
        if self._host.clock.now_ns() - hold.beat_ns > (ANCIENT_S + hold.every_s) * 1e9:
            return None
        with trio.move_on_after(WATCH_BEATS * hold.every_s + 1.0):
            while True:
                await trio.sleep(min(1.0, hold.every_s / 8))
                now = await self.read()
                if now is not None and now.seat == hold.seat and now.beats != hold.beats:
                    return None if now.released else now
                if now is not None and now.seat != hold.seat:
                    return None if now.released else now
        return None

    def _open(self, box: bytes) -> Hold:
        if len(box) > HOLD_BYTES_MAX:
            raise CorruptData("a hold is larger than any")
        return Hold.unpack(open_box(self._keys.root, _DOMAIN + self._keys.fs_id, box))


class Holder:
    """Renews this machine's hold for as long as it writes, and puts up the fence when another one holds."""

    def __init__(self, book: HoldBook, fence: Fence, host: Host, hold: Hold) -> None:
        self._book = book
        self._fence = fence
        self._host = host
        self._hold = hold
        self._rival: Hold | None = None  # of our epoch, as seen last

    async def run(self) -> None:
        """Until cancelled, then released; or until the fence is up."""
        try:
            while not self._fence.up:
                await self.beat()
                await trio.sleep(self._hold.every_s)
        finally:
            if not self._fence.up:
                with trio.CancelScope(shield=True):
                    await self._renew(released=True)

    async def beat(self) -> None:
        """Look who holds; if nobody else does, say that we do."""
        there = await self._book.read()
        if there is not None and there.seat != self._hold.seat and self._lost_to(there):
            self._fence.put_up(taken_over(there))
            return
        self._rival = there if there is not None and there.seat != self._hold.seat else None
        await self._renew(released=False)

    def _lost_to(self, there: Hold) -> bool:
        if there.epoch != self._hold.epoch:
            return there.epoch > self._hold.epoch
        # Copies of one state directory, both started where no location answered: one of them has to give way.
        lives = self._rival is not None and self._rival.seat == there.seat and self._rival.beats != there.beats
        return lives and not there.released and there.seat > self._hold.seat

    async def _renew(self, *, released: bool) -> None:
        self._hold = replace(
            self._hold, beats=self._hold.beats + 1, beat_ns=self._host.clock.now_ns(), released=released
        )
        await self._book.write(self._hold)


def taken_over(by: Hold) -> str:
    """For people: why this machine does not write any more."""
    return (
        f"this file system was taken over by {by.host} ({by.state}, writer {by.writer[:8]}): this machine only reads it"
        " now; get out what was not offloaded with qssctl export-unsent DIR"
    )
