"""The courier: carries every sealed segment from the shelf to the vault, then publishes what the shelf says is whole.

The order of durability, and what a crash leaves:

    1. vault.store           crash: shards nothing names; the segment is still unsafe and found again
    2. shelf.mark_offloaded  crash: the shelf knows the receipt; 1 is not repeated
    3. roots.publish         crash: the root is committed or it is not; `catch_up` looks
    4. shelf.mark_published  crash: 3 is skipped, since the last root has this point already

It never gives up: what fails is tried again after a pause of its own, so that one bad segment holds up no other.
All of it happens within a tenure (qss.offload.tenure): each begins with a root of ours, and what is under way when it
ends is cancelled.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import trio

from qss.errors import ObjectMissing, PreconditionFailed, QssError, Refused
from qss.ids import LocationId, SegmentId, segment_text
from qss.offload.disposal import Disposal
from qss.offload.health import backoff_s
from qss.offload.mender import Mender
from qss.offload.roots import Roots
from qss.offload.scrub import Scrubber
from qss.offload.status import OffloadStatus, Rate
from qss.offload.tenure import Tenure
from qss.offload.vault import Vault
from qss.segments import Receipt, RestorePoint, SealedSegment, SegmentShelf

_log = logging.getLogger(__name__)

POLL_S: Final = 1.0
PAUSE_FIRST_S: Final = 0.5
PAUSE_MAX_S: Final = 60.0
PUBLISH_PAUSE_MAX_S: Final = 5.0
"""Shorter: `qssctl sync` waits for a publication."""
DISPOSAL_S: Final = 2.0
"""Between looks for dead segments whose shards may go."""
UPKEEP_S: Final = 15.0
"""Between rounds of roots that locations have missed."""


class Notify(Protocol):
    async def __call__(self, location: LocationId, up: bool) -> None: ...


@dataclass(slots=True)
class Pause:
    """When a segment may be tried again. Times on trio's clock, seconds."""

    max_s: float = PAUSE_MAX_S
    tries: int = 0
    until_s: float = 0.0

    def failed(self, now_s: float, jitter: float) -> None:
        """`jitter` in [0, 1): 0 gives the shortest pause, half the full one."""
        self.until_s = now_s + backoff_s(self.tries, PAUSE_FIRST_S, self.max_s, 1.0 - jitter)
        self.tries += 1


class Courier:
    """Lives on one trio thread, the vault's."""

    def __init__(
        self,
        shelf: SegmentShelf,
        vault: Vault,
        roots: Roots,
        tenure: Tenure,
        jitter: Callable[[], float],
        on_stored: Callable[[Receipt], Awaitable[None]] | None = None,
        on_location: Notify | None = None,
    ) -> None:
        """`jitter` returns a number in [0, 1), another one each time."""
        self.shelf = shelf
        self._vault = vault
        self._roots = roots
        self.tenure = tenure
        self._jitter = jitter
        self._on_stored = on_stored
        self._on_location = on_location
        self._wake = trio.Event()
        self._wake_publisher = trio.Event()
        self._pauses: dict[SegmentId, Pause] = {}
        self._in_flight: set[SegmentId] = set()
        self._queue: list[SealedSegment] = []
        self._errors: dict[str, str] = {}  # what → last trouble; removed when it goes well
        self._refusal = ""  # the locations show another history than is known here; asked again and again
        self._marked: RestorePoint | None = None  # the last the shelf was told is published
        self._disposal = Disposal(shelf, vault, roots)
        self.mender = Mender(shelf, vault, self._in_flight, self._disposal.current, jitter, self._mended)
        self.scrubber = Scrubber(shelf, vault, self._in_flight, self._has_new)
        self._stored = 0
        self.rate = Rate()

    def hint(self) -> None:
        """Something was sealed: look now."""
        self._wake.set()

    @contextmanager
    def claim(self, segment: SegmentId) -> Iterator[bool]:
        """While it is held nobody else puts or deletes shards of the segment. False: somebody does so now."""
        if segment in self._in_flight or segment in self._disposal.current:
            yield False
            return
        self._in_flight.add(segment)
        try:
            yield True
        finally:
            self._in_flight.discard(segment)

    @property
    def blocked(self) -> str:
        """Why nothing may be written any more; empty: nothing is wrong."""
        return self.tenure.fence.reason or self._refusal

    def publish_soon(self) -> None:
        """The locations have changed: a root must say so."""
        self._wake_publisher.set()

    def on_sent(self, count: int) -> None:
        """For the vault: bytes that went out."""
        self.rate.add(trio.current_time(), count)

    async def run(self) -> None:
        """Until cancelled."""
        options = self._vault.options
        async with trio.open_nursery() as nursery:
            probe = self._vault.keys.probe_name()
            nursery.start_soon(self._vault.nodes.watch, probe, self._location_changed, options.probe_interval_s)
            nursery.start_soon(self._publish_loop)
            nursery.start_soon(self._upkeep_loop)
            nursery.start_soon(self._disposal_loop)
            await self.mender.look()  # what is short of shards is the mender's from the start
            nursery.start_soon(self._within, self._mend)
            nursery.start_soon(self._within, self.scrubber.run)
            while True:
                await self._start_what_is_due(nursery)
                with trio.move_on_after(POLL_S):
                    await self._wake.wait()
                self._wake = trio.Event()

    async def _within(self, run: Callable[[], Awaitable[None]]) -> None:
        """In each tenure anew."""
        while await self.tenure.granted(lambda: self.tenure.may_change):
            with self.tenure.work():
                await run()

    async def _mend(self) -> None:
        await self.mender.run(self._has_new)

    def status(self) -> OffloadStatus:
        damage, roots = self._vault.damage, self._roots
        return OffloadStatus(
            queued=len(self._queue),
            queued_bytes=sum(sealed.length for sealed in self._queue),
            in_flight=tuple(sorted(self._in_flight)),
            uploaded_bytes=self.rate.total,
            upload_bytes_per_s=self.rate.per_s(trio.current_time()),
            stored_segments=self._stored,
            deleted_segments=self._disposal.deleted,
            last_error=next(reversed(self._errors.values()), self.mender.trouble),
            blocked=self.blocked,
            incomplete=tuple(sorted(self.mender.queue)),
            damaged=damage.open,
            damaged_blocks_seen=damage.blocks_seen,
            shards_repaired=damage.shards_repaired,
            root_generation=roots.known.generation,
            root_created_ns=roots.last.created_ns if roots.last else 0,
            root_behind=len(roots.behind),
            buffers_bytes=self._vault.buffers.held_bytes,
            nodes=tuple(self._vault.nodes.facts()),
        )

    async def _start_what_is_due(self, nursery: trio.Nursery) -> None:
        try:
            self._queue = await self.shelf.unsafe_segments()
        except QssError as error:
            self._trouble("shelf", error)
            return
        self._errors.pop("shelf", None)
        unsafe = {sealed.id for sealed in self._queue}
        for segment in self._pauses.keys() - unsafe - self._in_flight:  # dead meanwhile: no trouble any more
            self._errors.pop(_what(segment), None)
        self._pauses = {segment: pause for segment, pause in self._pauses.items() if segment in unsafe}
        now = trio.current_time()
        for sealed in self._queue if self.tenure.may_change else ():
            if len(self._in_flight) >= self._vault.options.uploads_in_flight:
                break
            pause = self._pauses.get(sealed.id)
            if sealed.id in self._in_flight or (pause is not None and pause.until_s > now):
                continue
            if sealed.id in self.mender.queue:
                continue
            self._in_flight.add(sealed.id)
            nursery.start_soon(self._carry, sealed)

    async def _carry(self, sealed: SealedSegment) -> None:
        what = _what(sealed.id)
        try:
            with self.tenure.work() as scope:
                receipt = await self._store(sealed)  # 1.
                await self.shelf.mark_offloaded(receipt)  # 2.
                self._note(receipt)
                if self._on_stored is not None:
                    await self._on_stored(receipt)
            if scope.cancelled_caught:
                return
        except (QssError, OSError) as error:
            self._trouble(what, error)
            self._pause(sealed.id)
        else:
            self._errors.pop(what, None)
            self._wake_publisher.set()
        finally:
            self._in_flight.discard(sealed.id)
            self._wake.set()

    async def _store(self, sealed: SealedSegment) -> Receipt:
        try:
            path: Path | None = await self.shelf.path_of(sealed.id)
        except ObjectMissing:
            path = None  # not cached: what is missing is rebuilt from the other shards
        if path is None:
            return await self._vault.complete(sealed.id)
        return await self._vault.store(sealed, path)

    def _note(self, receipt: Receipt) -> None:
        self._stored += 1
        self._pauses.pop(receipt.segment, None)
        if not receipt.complete:
            self.mender.note(receipt)

    async def _mended(self, receipt: Receipt) -> None:
        self._wake_publisher.set()
        if self._on_stored is not None:
            await self._on_stored(receipt)

    def _has_new(self) -> bool:
        """Whether segments wait that have not been stored at all: they come before repair and scrub."""
        return any(sealed.id not in self.mender.queue for sealed in self._queue)

    def _pause(self, segment: SegmentId) -> None:
        self._pauses.setdefault(segment, Pause()).failed(trio.current_time(), self._jitter())

    async def _publish_loop(self) -> None:
        pause = Pause(PUBLISH_PAUSE_MAX_S)
        while await self.tenure.granted(lambda: self.tenure.leased):
            wait_s = POLL_S
            try:
                with self.tenure.work(lambda: self.tenure.leased):
                    await (self._publish() if self.tenure.claimed else self._claim())
            except PreconditionFailed as error:
                _log.error("%s", error)
                self.tenure.lose(str(error))
                return
            except (QssError, OSError) as error:
                self._refusal = str(error) if isinstance(error, Refused) else ""
                self._trouble("root", error)
                pause.failed(trio.current_time(), self._jitter())
                wait_s = pause.until_s - trio.current_time()
            else:
                pause, self._refusal = Pause(PUBLISH_PAUSE_MAX_S), ""
                self._errors.pop("root", None)
            await self._sleep(wait_s)

    async def _claim(self) -> None:
        """Begin a tenure: look whether the newest root is ours, and put one more on it. Whoever else does so at the
        same time, or has a copy of this state directory, loses that root."""
        period = self.tenure.period
        await self._roots.catch_up()
        point = await self._point()
        await self._roots.publish(point, anew=True)
        await self._mark(point)
        self.tenure.claim(period)
        self._wake.set()

    async def _sleep(self, seconds: float) -> None:
        """The publisher's: until something was stored or a location came back, or this long."""
        with trio.move_on_after(max(0.0, seconds)):
            await self._wake_publisher.wait()
        self._wake_publisher = trio.Event()

    async def _point(self) -> RestorePoint:
        """What a root may say now: at least what the last one said, and the first that nothing is there yet."""
        last = self._roots.last
        said = self._roots.nothing_yet() if last is None else last.point
        return self._roots.raised(await self.shelf.restore_point() or said)

    async def _publish(self) -> None:
        point = await self._point()
        if point == self._marked and self._roots.names_them:
            return
        last = self._roots.last
        if last is None or last.point != point or not self._roots.names_them:
            await self._roots.publish(point)  # 3.
        await self._mark(point)  # 4.

    async def _mark(self, point: RestorePoint) -> None:
        if point.journals:
            await self.shelf.mark_published(point)
        self._marked = point

    async def _disposal_loop(self) -> None:
        pause = Pause()
        while True:
            await trio.sleep(max(DISPOSAL_S, pause.until_s - trio.current_time()))
            try:
                with self.tenure.work():  # else another machine may need what we hold for dead
                    await self._disposal.round(self._in_flight)
            except (QssError, OSError) as error:
                self._trouble("deletion", error)
                pause.failed(trio.current_time(), self._jitter())
            else:
                pause = Pause()
                self._errors.pop("deletion", None)

    async def _upkeep_loop(self) -> None:
        while True:
            await trio.sleep(UPKEEP_S)
            await self.upkeep()

    async def upkeep(self) -> None:
        """One round: bring roots to locations that missed them, give back memory."""
        with self.tenure.work():
            await self._roots.spread()
        if not self._queue:
            self._vault.trim()

    async def _location_changed(self, location: LocationId, up: bool) -> None:
        if up:
            for pause in self._pauses.values():
                pause.until_s = 0.0
            self.mender.hurry()
            self._wake.set()
            self._wake_publisher.set()
        if self._on_location is not None:
            await self._on_location(location, up)

    def _trouble(self, what: str, error: Exception) -> None:
        sentence = f"{what}: {error}"
        if self._errors.get(what) != sentence:
            _log.warning("%s", sentence)
        self._errors.pop(what, None)
        self._errors[what] = sentence


def _what(segment: SegmentId) -> str:
    return f"segment {segment_text(segment)}"
