"""Compaction: the live rest of mostly dead segments is written again at the end of the log; then they are dead.

What to move is decided by pure functions (`choose`, `pause_s`); `Compactor` does it, a batch at a time, on the cache's
thread. docs/adr/0005.

    for each record of the victim: the extents that still point into it ─ read, verified ─ appended
    ─ one change that replaces their rows

No await lies between looking an extent up and committing its new place, so whatever else happens to a file, it happens
before or after. A crash before the commit leaves records nobody names; after it the old ones are dead.
"""

from __future__ import annotations

import errno
import logging
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import trio

from qss.cache.change import Change
from qss.errors import CorruptData, FsError, NoSpace, QssError
from qss.formats.record import (
    PADDING_MAGIC,
    RECORD_HEAD_BYTES,
    RECORD_MAGIC,
    SEGMENT_HEADER_BYTES,
    decode_head,
    head_bytes,
)
from qss.formats.tables import ExtentRow, Table, pair_key, pair_of_key
from qss.ids import Ino, SegmentId, StripeNo, segment_text
from qss.limits import MIB, STRIPE_BYTES

BATCH_BYTES: Final = 1 * MIB
BATCH_RECORDS: Final = 64
"""A batch ends at either: about a millisecond of the cache's thread."""
SKIP_RECORDS: Final = 256
"""Dead records looked at between two pauses."""
LOOK_S: Final = 1.0
BUSY_S: Final = 0.25
REFUSED_S: Final = 300.0
"""A victim that could not be emptied is left alone for this long."""
NO_ROOM_S: Final = 5.0
"""The same where only room was missing: what is deleted meanwhile makes it."""
TRIES_MAX: Final = 3
"""Of one batch, all of it in one stripe: a miss, and one for damage found here."""
LATE_S: Final = 0.003
"""A timer is that late on a thread with nothing to do."""
BUSY_BYTES_PER_S: Final = 16 * MIB
"""Others write faster than this: they go first, unless dead bytes pile up."""

_LENGTH = struct.Struct("<4sI")

_log = logging.getLogger("qss.cache.compaction")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sealed data segment with live bytes."""

    segment: SegmentId
    length: int  # bytes, heads included; of payload alone where that is known
    live: int
    local: bool  # else it has to be fetched

    @property
    def dead(self) -> int:
        return max(self.length - self.live, 0)

    @property
    def cost(self) -> int:
        """Bytes to be moved: what lives is written again, and what is not here is fetched whole."""
        return max(self.live, 1) + (0 if self.local else self.length)


class RecordPlace(NamedTuple):
    """A record of a segment, by its head."""

    position: int
    ino: int
    offset: int
    length: int


def choose(candidates: Iterable[Candidate], waste: float, waste_bytes_min: int) -> list[Candidate]:
    """What to empty, the most bytes freed for each byte moved first. Pure.

    `waste`: share of dead bytes that is left alone, in a segment and in all of them together; `waste_bytes_min`: and
    this many bytes besides.
    """
    all_ = list(candidates)
    total = sum(each.length for each in all_)
    dead = sum(each.dead for each in all_)
    victims = []
    for each in sorted(all_, key=lambda one: (-one.dead / one.cost, one.segment)):
        if dead <= max(waste * total, waste_bytes_min):
            break
        if each.dead > waste * each.length:
            victims.append(each)
            dead -= each.dead
            total -= each.dead
    return victims


def pressing(candidates: Iterable[Candidate], waste_bytes_min: int) -> bool:
    """More is dead than alive: compaction goes on although others write. Pure."""
    all_ = list(candidates)
    dead = sum(each.dead for each in all_)
    return dead > max(sum(each.live for each in all_), waste_bytes_min)


def pause_s(moved: int, bytes_per_s: int, late_s: float) -> float:
    """How long to wait after moving so many bytes, when the last wait ended `late_s` too late: the busier the thread is
    with others, the longer. Pure."""
    return moved / bytes_per_s + min(10 * max(late_s - LATE_S, 0.0), 1.0)


def records(stripe: bytes | memoryview, base: int, start: int) -> Iterator[RecordPlace]:
    """The heads of one stripe that begins at `base` of its segment, verified; payloads are not looked at.

    Raises CorruptData at the first thing that is neither head nor padding.
    """
    view = memoryview(stripe)
    position = start
    while len(view) - position >= len(PADDING_MAGIC):
        if view[position : position + 4] == PADDING_MAGIC:
            return
        head = decode_head(view[position:])
        yield RecordPlace(base + position, head.ino, head.offset, head.length)
        position += head_bytes(head.length) + head.length


def payload_bytes(stripe: bytes | memoryview, start: int) -> int:
    """About how many bytes of payload a stripe holds: lengths are believed. Pure."""
    position, found = start, 0
    while len(stripe) - position >= RECORD_HEAD_BYTES:
        magic, length = _LENGTH.unpack_from(stripe, position)
        if magic != RECORD_MAGIC:
            break
        found += length
        position += head_bytes(length) + length
    return found


class Log(Protocol):
    """What the compactor does to the cache; SegmentCache is one."""

    def scan(self, table: Table, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]: ...

    def begin(self) -> Change: ...

    def commit(self, change: Change) -> None: ...

    @property
    def turn(self) -> trio.Lock: ...

    def append(self, ino: Ino, offset: int, payload: bytes | memoryview) -> list[tuple[int, ExtentRow]]: ...

    def read_now(self, extent: ExtentRow, start: int, stop: int) -> bytes | memoryview | None: ...

    async def read(self, extent: ExtentRow, start: int, stop: int) -> bytes | memoryview: ...


class Segments(Protocol):
    """What the compactor looks at; qss.cache.inventory has one."""

    def candidates(self) -> list[Candidate]:
        """Sealed data segments with live bytes that may be emptied now."""
        ...

    def stripe_count(self, segment: SegmentId) -> int: ...

    async def stripe(self, segment: SegmentId, stripe: StripeNo) -> bytes:
        """All bytes of a stripe, as they are. Raises FsError(EIO) when they cannot be had."""
        ...

    def distrust(self, segment: SegmentId) -> bool:
        """The local copy does not hold: read the stripes that can be fetched instead. False: there are none."""
        ...

    @property
    def writers_waiting(self) -> int: ...

    @property
    def log_position(self) -> tuple[SegmentId, int]: ...


class Compactor:
    """Background work of one cache. Lives on its trio thread."""

    def __init__(self, log: Log, segments: Segments, bytes_per_s: int, waste: float, waste_bytes_min: int) -> None:
        """`bytes_per_s`: moved, at most; 0: never. The others as for `choose`."""
        self._log = log
        self._segments = segments
        self._bytes_per_s = bytes_per_s
        self._waste = waste
        self._waste_bytes_min = waste_bytes_min
        self._payload: dict[SegmentId, int] = {}  # of segments that were looked at
        self._refused: dict[SegmentId, float] = {}  # until when, trio's clock
        self._late_s = 0.0
        self._ours = 0  # bytes moved since the last look
        self._seen = (segments.log_position, trio.current_time())
        self.on_moved: Callable[[Iterable[int]], None] = lambda _inos: None
        self.moved_bytes = 0  # since start

    async def run(self) -> None:
        """For as long as the cache lives."""
        while True:
            await trio.sleep(LOOK_S)
            while self._bytes_per_s and not self._busy() and await self.compact_one():
                pass

    async def compact_one(self) -> bool:
        """Empty the best victim, if one is worth it; False: none is. Never raises for what a victim does."""
        victim = next(iter(choose(self._candidates(), self._waste, self._waste_bytes_min)), None)
        if victim is None:
            return False
        try:
            if victim.segment not in self._payload:
                await self._measure(victim.segment)  # of tiny records, much is heads: is it worth it still?
            else:
                await self._empty(victim.segment)
                self._refused[victim.segment] = trio.current_time() + REFUSED_S  # it is dead, or cannot be helped
        except (QssError, OSError) as error:
            if not (isinstance(error, CorruptData) and self._segments.distrust(victim.segment)):
                _log.warning("segment %s is not compacted now: %s", segment_text(victim.segment), error)
                pause_s = NO_ROOM_S if isinstance(error, NoSpace) else REFUSED_S
                self._refused[victim.segment] = trio.current_time() + pause_s
        return True

    async def empty(self, segment: SegmentId) -> bool:
        """Move everything that lives in a segment, however much it is, within the same rate. False: it may not be
        emptied now, or nothing lives in it. Raises what reading and writing do; what was moved stays moved."""
        if all(each.segment != segment for each in self._segments.candidates()):
            return False
        await self._empty(segment)
        return True

    def _candidates(self) -> list[Candidate]:
        now = trio.current_time()
        found = self._segments.candidates()
        there = {each.segment for each in found}
        self._payload = {segment: count for segment, count in self._payload.items() if segment in there}
        self._refused = {segment: until for segment, until in self._refused.items() if until > now}
        return [
            Candidate(each.segment, self._payload.get(each.segment, each.length), each.live, each.local)
            for each in found
            if each.segment not in self._refused
        ]

    def _busy(self) -> bool:
        """Whether others need the disk and the thread more."""
        if self._segments.writers_waiting:
            return True
        (segment, position), then_s = self._seen
        now_segment, now_position = self._segments.log_position
        now_s = trio.current_time()
        self._seen = ((now_segment, now_position), now_s)
        written = now_position - position if segment == now_segment else now_position
        ours, self._ours = self._ours, 0
        if written - ours <= BUSY_BYTES_PER_S * max(now_s - then_s, LOOK_S):
            return False
        return not pressing(self._candidates(), self._waste_bytes_min)

    async def _measure(self, segment: SegmentId) -> None:
        found = 0
        for number in range(self._segments.stripe_count(segment)):
            stripe = await self._segments.stripe(segment, StripeNo(number))
            found += await trio.to_thread.run_sync(payload_bytes, stripe, _first_record(number))
            await self._pause(0)
        self._payload[segment] = found

    async def _empty(self, segment: SegmentId) -> None:
        for number in range(self._segments.stripe_count(segment)):
            stripe = await self._segments.stripe(segment, StripeNo(number))
            batch: list[RecordPlace] = []
            seen = size = 0
            for record in records(stripe, number * STRIPE_BYTES, _first_record(number)):
                seen += 1
                if self._living(segment, record):
                    batch.append(record)
                    size += record.length
                if len(batch) >= BATCH_RECORDS or size >= BATCH_BYTES or seen >= SKIP_RECORDS:
                    await self._move(segment, batch)
                    batch, seen, size = [], 0, 0
            await self._move(segment, batch)

    def _living(self, segment: SegmentId, record: RecordPlace) -> list[tuple[bytes, ExtentRow]]:
        """The rows that point into a record. They lie where the record was written: content never changes its place
        in a file."""
        first, stop = pair_key(record.ino, record.offset), pair_key(record.ino, record.offset + record.length)
        found = []
        for key, packed in self._log.scan(Table.EXTENTS, first, stop):
            extent = ExtentRow.unpack(packed)
            if extent.segment == segment and extent.record_position == record.position:
                found.append((key, extent))
        return found

    async def _move(self, segment: SegmentId, batch: list[RecordPlace]) -> None:
        """Raises FsError(EIO) when bytes verify nowhere: they stay where they are; NoSpace."""
        for _ in range(TRIES_MAX):
            async with self._log.turn:
                moved, missing = self._move_now(segment, batch)
            if missing is None:
                await self._pause(moved)
                return
            await self._log.read(missing, 0, missing.length)  # fetched, or healed; then everything is looked up again
        raise FsError(errno.EIO, "the bytes to be moved do not stay here")

    def _move_now(self, segment: SegmentId, batch: list[RecordPlace]) -> tuple[int, ExtentRow | None]:
        """One change: (bytes moved, None), or nothing: (0, an extent whose bytes are not here)."""
        found = [(key, extent) for record in batch for key, extent in self._living(segment, record)]
        payloads = []
        for _, extent in found:
            data = self._log.read_now(extent, 0, extent.length)
            if data is None:
                return 0, extent
            payloads.append(data)
        if not found:
            return 0, None
        change = self._log.begin()
        for (key, _), data in zip(found, payloads, strict=True):
            ino, offset = pair_of_key(key)
            for at, new in self._log.append(Ino(ino), offset, data):
                change.put(Table.EXTENTS, pair_key(ino, at), new.pack())
        self._log.commit(change)
        self.on_moved({pair_of_key(key)[0] for key, _ in found})
        moved = sum(extent.length for _, extent in found)
        self.moved_bytes += moved
        self._ours += moved
        return moved, None

    async def _pause(self, moved: int) -> None:
        """Within the rate, and others first."""
        asked = pause_s(moved, self._bytes_per_s or BUSY_BYTES_PER_S, self._late_s)
        before = trio.current_time()
        await trio.sleep(asked)
        self._late_s = trio.current_time() - before - asked
        while self._segments.writers_waiting:  # noqa: ASYNC110 - a look now and then is enough
            await trio.sleep(BUSY_S)


def _first_record(stripe: int) -> int:
    return SEGMENT_HEADER_BYTES if stripe == 0 else 0
