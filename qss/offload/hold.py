"""Holding a file system: a small object at every location that its machine renews, for others to see. ADR 0119, 0121.

Roots decide who may write (`qss.offload.roots`). A hold says it earlier and in words: a second machine learns before it
starts that the file system is in use, where, and since when; the first learns that it was taken over without having to
lose a root. And it is a lease: whoever has not been able to renew it at a majority of locations for a while changes
nothing there, before another machine may take it for dead (qss.offload.tenure).

Nobody's clock is believed: a hold is alive if it is seen to change. Only that seconds are about equally long.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final

import trio

from qss.errors import CorruptData, Damaged, QssError
from qss.host import Host
from qss.ids import LocationId
from qss.offload.keys import FsKeys
from qss.offload.seal import NONCE_BYTES, open_box, seal_box
from qss.offload.tenure import Tenure
from qss.s3.store import Body, ObjectStore

BEAT_S: Final = 8.0
"""Between two renewals."""
LEASE_BEATS: Final = 2.125
"""For how many of its intervals a machine may go on after it began to renew its hold."""
WATCH_BEATS: Final = 2.375
"""How many of its own intervals a hold may stay the same before it counts as dead."""
assert LEASE_BEATS < WATCH_BEATS
ANCIENT_S: Final = 3600.0
"""A hold that was renewed this long ago, by any sane clock, is not watched."""
ANSWER_S_MAX: Final = 5.0
"""How long locations may take to answer."""
STRAGGLER_S: Final = 1.0
"""The same, once a majority has."""
RETRY_S: Final = 2.0
"""Between attempts while there is no lease."""
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
    life: str  # of the process that renews it; hex
    generation: int = 0  # of its last root
    released: bool = False  # it was unmounted in order
    place: str = ""  # this boot of the machine, this very directory: not that of an image or a copy; hex

    @property
    def order(self) -> tuple[int, int, int, int]:
        """The larger one holds."""
        return (self.epoch, self.generation, self.beat_ns, self.beats)

    @property
    def watch_s(self) -> float:
        """How long it may stay the same before it counts as dead."""
        return WATCH_BEATS * self.every_s + 1.0

    def follows(self, other: Hold) -> bool:
        """Whether the other is an earlier life of this machine, and has ended: the lock of the state directory sees to
        that within one boot. An image of the whole machine has the same seat, and may live."""
        return self.seat == other.seat and (self.place == other.place or other.released)

    def pack(self) -> bytes:
        body = asdict(self)
        if not self.place:  # as earlier versions have it
            del body["place"]
        return json.dumps(body, sort_keys=True).encode()

    @classmethod
    def unpack(cls, data: bytes) -> Hold:
        """Raises CorruptData."""
        try:
            body = json.loads(data)
            return cls(
                seat=str(body["seat"]), epoch=int(body["epoch"]), writer=str(body["writer"]), host=str(body["host"]),
                state=str(body["state"]), beats=int(body["beats"]), beat_ns=int(body["beat_ns"]),
                every_s=min(600.0, max(0.0, float(body["every_s"]))), released=bool(body["released"]),
                life=str(body["life"]), generation=int(body["generation"]), place=str(body.get("place", "")),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise CorruptData("a hold does not hold") from error


@dataclass(frozen=True, slots=True)
class Signs:
    """Lives of which a look shows more than all looks before."""

    newer: set[str]  # a hold that none had shown: the life had a lease from then on, at the latest
    renewed: set[str]  # and at a location that had shown an older one: it lives


class Watch:
    """Tells holds that are renewed from those that lie there. A location that was away, or goes back to what it had,
    shows an older hold and then a newer one: that is no sign of life while another has shown the newer one before."""

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}  # by life, wherever
        self._shown: set[tuple[LocationId, str]] = set()

    def look(self, found: Mapping[LocationId, Hold]) -> Signs:
        """What is there now, against all looks before."""
        above = {place: hold for place, hold in found.items() if hold.beats > self._newest.get(hold.life, hold.beats)}
        signs = Signs(
            {hold.life for hold in above.values()},
            {hold.life for place, hold in above.items() if (place, hold.life) in self._shown},
        )
        for place, hold in found.items():
            self._shown.add((place, hold.life))
            self._newest[hold.life] = max(hold.beats, self._newest.get(hold.life, 0))
        return signs


def latest(found: Mapping[LocationId, Hold]) -> list[Hold]:
    """Of each life its newest hold, strongest first."""
    newest: dict[str, Hold] = {}
    for hold in found.values():
        if hold.life not in newest or hold.beats > newest[hold.life].beats:
            newest[hold.life] = hold
    return sorted(newest.values(), key=lambda hold: hold.order, reverse=True)


class HoldBook:
    """Holds as objects: encrypted, under one name at every location, replaced each time."""

    def __init__(self, nodes: Mapping[LocationId, ObjectStore], keys: FsKeys, host: Host) -> None:
        self._nodes = nodes
        self._keys = keys
        self._host = host

    @property
    def majority(self) -> int:
        """Of the locations as they are now."""
        return len(self._nodes) // 2 + 1

    async def read(self) -> Hold | None:
        """The one that holds, of all that are found in time; None: nobody, or nobody says."""
        return next(iter(latest((await self.look())[0])), None)

    async def look(self) -> tuple[dict[LocationId, Hold], int]:
        """Those that are found in time, and how many locations answered."""
        found: dict[LocationId, Hold] = {}

        async def ask(place: LocationId, node: ObjectStore) -> None:
            try:
                found[place] = self._open(await node.get(self._keys.hold_name()))
            except Damaged:  # there is none, or it does not verify
                return

        return found, await self._at_all(ask)

    async def write(self, hold: Hold) -> int:
        """At every location that takes it in time; at how many."""
        box = seal_box(
            self._keys.root, _DOMAIN + self._keys.fs_id, hold.pack(), self._host.entropy.token(NONCE_BYTES)
        )  # fmt: skip

        async def chunks() -> AsyncIterator[bytes | memoryview]:
            yield box

        return await self._at_all(lambda _, node: node.put(self._keys.hold_name(), Body(len(box), chunks)))

    async def _at_all(self, act: Callable[[LocationId, ObjectStore], Awaitable[None]]) -> int:
        """Do it at every location at once, those that are configured now; at how many it went well in time."""
        went_well, majority = 0, self.majority

        async def one(place: LocationId, node: ObjectStore) -> None:
            nonlocal went_well
            try:
                await act(place, node)
            except QssError:
                return
            went_well += 1
            if went_well == majority:
                scope.deadline = min(scope.deadline, trio.current_time() + STRAGGLER_S)

        with trio.move_on_after(ANSWER_S_MAX) as scope:
            async with trio.open_nursery() as nursery:
                for place, node in self._nodes.items():
                    nursery.start_soon(one, place, node)
        return went_well

    def may_live(self, hold: Hold) -> bool:
        """Whether it is worth watching."""
        age_ns = self._host.clock.now_ns() - hold.beat_ns
        return not hold.released and age_ns <= (ANCIENT_S + hold.every_s) * 1e9

    async def is_alive(self, hold: Hold) -> Hold | None:
        """Watch until it is renewed, or another one is; what it is then, or None when nobody renews any."""
        if not self.may_live(hold):
            return None
        watch = Watch()
        with trio.move_on_after(hold.watch_s) as scope:
            while True:
                found, _answered = await self.look()
                signs = watch.look(found)
                for now in latest(found):
                    if now.life in signs.renewed or (now.life != hold.life and now.order > hold.order):
                        return None if now.released else now
                if hold.life in signs.newer:  # its lease goes on from that beat, though it may be dead since
                    scope.deadline = trio.current_time() + hold.watch_s
                await trio.sleep(min(1.0, hold.every_s / 8))
        return None

    def _open(self, box: bytes) -> Hold:
        if len(box) > HOLD_BYTES_MAX:
            raise CorruptData("a hold is larger than any")
        return Hold.unpack(open_box(self._keys.root, _DOMAIN + self._keys.fs_id, box))


class Holder:
    """Renews this machine's hold for as long as it writes, and so its lease; gives up when another one holds."""

    def __init__(self, book: HoldBook, tenure: Tenure, host: Host, hold: Hold, generation: Callable[[], int]) -> None:
        """`generation`: of the last root of this machine."""
        self._book = book
        self._tenure = tenure
        self._host = host
        self._hold = hold
        self._generation = generation
        self._began = False  # it is written somewhere
        self._watch = Watch()
        self._lease_over_s: dict[str, float] = {}  # life of another → when it cannot have a lease any more
        tenure.need_lease()

    async def run(self) -> None:
        """Until cancelled, then released; or until the fence is up."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_lease)
                while not self._tenure.fenced:
                    began_s = trio.current_time()
                    await self.beat()
                    every_s = self._hold.every_s if self._tenure.leased else min(RETRY_S, self._hold.every_s)
                    await trio.sleep_until(began_s + every_s)
                nursery.cancel_scope.cancel()
        finally:
            if self._began and not self._tenure.fenced:
                with trio.CancelScope(shield=True):
                    await self._renew(released=True)

    async def beat(self) -> None:
        """Look who holds; if nobody else does, say that we do, and the lease goes on. Without the answers of a majority
        it does not."""
        began_s = trio.current_time()
        found, answered = await self._book.look()
        if answered < self._book.majority:
            return
        signs = self._watch.look(found)
        others = [hold for hold in latest(found) if hold.life != self._hold.life and not self._is_former(hold)]
        if winner := next((hold for hold in others if self._has_lost_to(hold, lives=hold.life in signs.renewed)), None):
            self._tenure.lose(taken_over(winner) if winner.epoch > self._hold.epoch else held_elsewhere(winner))
            return
        for hold in others:
            if hold.life in signs.newer or hold.life not in self._lease_over_s:
                self._lease_over_s[hold.life] = 0.0 if hold.released else trio.current_time() + hold.watch_s
        may_begin = self._tenure.leased or max(self._lease_over_s.values(), default=0.0) <= trio.current_time()
        if not may_begin and any(hold.epoch >= self._hold.epoch for hold in others):
            return  # ours must not hide it
        if await self._renew(released=False) >= self._book.majority and may_begin:
            self._tenure.lease(began_s + LEASE_BEATS * self._hold.every_s)

    def _is_former(self, hold: Hold) -> bool:
        """An earlier life of this machine."""
        return self._hold.follows(hold) and not self._began

    def _has_lost_to(self, there: Hold, *, lives: bool) -> bool:
        """Without a lease we give way to everybody who lives. With one, to a higher epoch and to whoever has published
        a root more. When two with copies of one state directory began at the same time, the first root decides between
        them."""
        if there.epoch != self._hold.epoch:
            return there.epoch > self._hold.epoch
        if not lives or there.released:
            return False
        return not self._tenure.leased or there.generation > self._generation()

    async def _watch_lease(self) -> None:
        """End what is under way when the lease has run out."""
        while True:
            if self._tenure.leased:
                await trio.sleep_until(self._tenure.until_s)
                self._tenure.lapse()
            else:
                await self._tenure.change()

    async def _renew(self, *, released: bool) -> int:
        """At how many locations."""
        self._began = True
        self._hold = replace(
            self._hold,
            beats=self._hold.beats + 1,
            beat_ns=self._host.clock.now_ns(),
            released=released,
            generation=self._generation(),
        )
        return await self._book.write(self._hold)


def taken_over(by: Hold) -> str:
    """For people: why this machine does not write any more."""
    return (
        f"this file system was taken over by {by.host} ({by.state}, writer {by.writer[:8]}): this machine only reads it"
        " now; get out what was not offloaded with qssctl export-unsent DIR"
    )


def held_elsewhere(by: Hold) -> str:
    """For people: why this machine does not write."""
    return (
        f"{by.host} holds this file system ({by.state}, writer {by.writer[:8]}): this machine only reads it; what was"
        " written here is copied out with qssctl export-unsent DIR; unmount it there before it is mounted here"
    )
