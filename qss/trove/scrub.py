"""The scrub: every record that counts is read whole once in a period and compared with its hashes.

It walks the volumes as they lie on the disk, not the keys, and so sees deletions and lists of parts as well. How far
a round is, is kept: after a restart it goes on there. What does not verify is quarantined: noted, never served, its
volume not compacted away; what was noted by a read and verifies now (a cable, not the disk) is taken off the list.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from qss.errors import CorruptData, QssError, Retryable
from qss.formats.volume import SUPERBLOCK_BYTES
from qss.host import Disk
from qss.limits import MIB
from qss.trove.compaction import lives, note_damage, quarantine
from qss.trove.engine import Engine
from qss.trove.pace import Pace
from qss.trove.places import keys_within
from qss.trove.rows import Place
from qss.trove.scan import Found, Unreadable, Whole, body_pieces, end_of, next_few, position_of, scan
from qss.trove.slots import Volume

log = logging.getLogger(__name__)

BATCH_BYTES: Final = 4 * MIB
"""Bodies verified in one hop to a thread; a larger body goes in pieces of this size."""
SAVE_S: Final = 30.0
"""Of work done again after a crash, at most about so much."""
POLL_S: Final = 60.0
"""Between looks whether a round is due."""


@dataclass(slots=True)
class Mark:
    """How far it is. Kept in the ledger; if that is lost, a round begins anew."""

    round: int = 0
    started_ns: int = 0  # 0: no round is under way
    ended_ns: int = 0  # of the last whole round
    volume: int = 0  # everything before this volume,
    position: int = 0  # and this position in it, is done
    stopped: bool = False
    records: int = 0  # of this round, and so below
    bytes: int = 0
    found: int = 0

    @staticmethod
    def of(kept: dict[str, Any]) -> Mark:
        """What was kept; a new mark where that does not fit."""
        fresh = Mark()
        for name, value in kept.items():
            if hasattr(fresh, name) and type(value) is type(getattr(fresh, name)):
                setattr(fresh, name, value)
        return fresh


class Scrubber:
    """Lives on the node's loop. `keep` writes the mark down, durably; `flush` what reads have noted."""

    def __init__(
        self,
        engine: Engine,
        pace: Pace,
        period_s: float | None,
        mark: Mark,
        keep: Callable[[Mark], Awaitable[None]],
        flush: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._flush = flush
        self._pace = pace
        self._period_s = period_s
        self._keep = keep
        self.mark = mark
        self._wake = asyncio.Event()
        self._saved_at = float("-inf")
        self._illegible: list[Place] = []  # of this round and this life: whose keys are to be looked for
        self.found_total = 0  # since start, and so below
        self.bytes_total = 0
        self.rounds = 0

    async def start(self) -> None:
        """A round begins now, or goes on."""
        self.mark.stopped = False
        if not self.mark.started_ns:
            self._begin()
        await self._keep(self.mark)
        self._wake.set()

    async def stop(self) -> None:
        """No scrub until `start`; it will go on where it is."""
        self.mark.stopped = True
        await self._keep(self.mark)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), POLL_S)  # first: a start has other things to do
            self._wake.clear()
            try:
                if self._due():
                    await self.round()
            except (QssError, OSError) as error:
                log.warning("the scrub goes on later: %s", error)

    def _due(self) -> bool:
        if self.mark.stopped:
            return False
        if self.mark.started_ns:
            return True
        since_ns = self._engine.clock.now_ns() - self.mark.ended_ns
        return self._period_s is not None and since_ns >= self._period_s * 1e9

    def _begin(self) -> None:
        mark = self.mark
        mark.started_ns = self._engine.clock.now_ns()
        mark.volume = mark.position = mark.records = mark.bytes = mark.found = 0
        self._illegible.clear()

    async def round(self) -> None:
        """To the end of a round, begun or gone on with, or until it is stopped."""
        mark = self.mark
        if not mark.started_ns:
            self._begin()
        for number in sorted(self._engine.volumes.volumes):
            if number < mark.volume:
                continue
            if number > mark.volume:
                mark.volume, mark.position = number, 0
            await self._volume(number)
            if mark.stopped:
                await self._keep(mark)
                return
        await self._name()
        mark.round += 1
        mark.ended_ns, mark.started_ns = self._engine.clock.now_ns(), 0
        mark.volume = mark.position = 0
        self.rounds += 1
        await self._keep(mark)

    async def _volume(self, number: int) -> None:
        """From the mark to what was settled when this volume's turn came."""
        try:
            unpin = self._engine.volumes.pin(number)
        except (CorruptData, Retryable):
            return  # compacted away since, or on a drive that is gone
        try:
            volume = self._engine.volumes.volumes[number]
            start, limit = max(self.mark.position, SUPERBLOCK_BYTES), volume.low
            found = scan(self._engine.volumes.disk, volume, start)
            while start < limit and volume.drive.readable and not self.mark.stopped:
                batch = await self._engine.in_pool(next_few, found, limit)
                if not batch:
                    return
                await self._batch(volume, batch)
                start = self.mark.position = max(end_of(each) for each in batch)
                now_s = asyncio.get_running_loop().time()
                if now_s - self._saved_at >= SAVE_S:
                    self._saved_at = now_s
                    await self._keep(self.mark)
        finally:
            unpin()

    async def _batch(self, volume: Volume, batch: list[Found]) -> None:
        engine = self._engine
        self.mark.records += len(batch)
        self._flush()  # before these records are judged, not after
        whole = [each for each in batch if isinstance(each, Whole) and self._counts(volume, each)]
        for group in _groups(whole):
            bad: set[int] = set()
            verifying = _verify(engine.volumes.disk, volume, group, bad)
            while count := await engine.in_pool(next, verifying, 0):
                await self._spent(count)
            for each in group:
                self._settle(volume, each, each.place.position in bad)
        for other in batch:
            if isinstance(other, Whole):
                if not self._counts(volume, other):
                    self._forget(volume, other.place.position)
            elif quarantine(engine, volume, other, "scrub"):
                self._hurt()
                if isinstance(other, Unreadable):
                    self._illegible.append(Place(volume.number, other.position, other.stop - other.position))
            else:
                self._forget(volume, position_of(other))
        await self._spent(0)

    def _forget(self, volume: Volume, position: int) -> None:
        """What does not count any more, or verifies now, must not keep its volume from being compacted."""
        with self._engine.index.read() as tables:
            known = tables.damage_count() > 0 and tables.is_damaged(volume.number, position)
        if known:
            with self._engine.index.write() as tables:
                tables.clear_damage(volume.number, position)

    def _counts(self, volume: Volume, found: Whole) -> bool:
        return not found.footer.void and lives(self._engine, volume, found)

    def _settle(self, volume: Volume, found: Whole, bad: bool) -> None:
        """Note what does not verify, and forget what was noted of one that does."""
        if not bad:
            self._forget(volume, found.place.position)
        elif self._counts(volume, found):
            self._hurt()
            note_damage(self._engine, found.place, found.header.key, "does not match its hash", "scrub")

    def _hurt(self) -> None:
        self.mark.found += 1
        self.found_total += 1

    async def _spent(self, count: int) -> None:
        self.mark.bytes += count
        self.bytes_total += count
        await self._pace.spent(count)

    async def _name(self) -> None:
        """Say which objects lie where nothing is legible: only the index knows."""
        if not self._illegible:
            return
        async for place, key in keys_within(self._engine.index, self._illegible):
            note = {"length": place.length, "key": key, "what": "no record is legible here", "by": "scrub"}
            with self._engine.index.write() as tables:
                tables.add_damage(place.volume, place.position, note)
        self._illegible.clear()

    def status(self) -> dict[str, Any]:
        """For the admin API. `total_bytes` is of all volumes, dead space included."""
        volumes = self._engine.volumes.volumes.values()
        passed = sum(each.end for each in volumes if each.number < self.mark.volume)
        total = sum(each.end for each in volumes)
        done = passed + self.mark.position if self.mark.started_ns else total if self.mark.round else 0
        running = bool(self.mark.started_ns) and not self.mark.stopped
        return asdict(self.mark) | {
            "running": running,
            "done_bytes": min(done, total),
            "total_bytes": total,
            "bytes_per_s": self._pace.bytes_per_s,
            "period_s": self._period_s,
        }


def _verify(disk: Disk, volume: Volume, group: list[Whole], bad: set[int]) -> Iterator[int]:
    """Verify bodies; gives the bytes read, at least one, after each BATCH_BYTES or so. Positions of those that do not
    verify are added to `bad`."""
    count = 1
    for each in group:
        try:
            for piece in body_pieces(disk, volume, each):
                count += piece
                if count >= BATCH_BYTES:
                    yield count
                    count = 1
        except CorruptData:
            bad.add(each.place.position)
    yield count


def _groups(found: list[Whole]) -> Iterator[list[Whole]]:
    """In order, as many together as make BATCH_BYTES."""
    group: list[Whole] = []
    size = 0
    for each in found:
        if group and size + each.header.body_len > BATCH_BYTES:
            yield group
            group, size = [], 0
        group.append(each)
        size += each.header.body_len
    if group:
        yield group
