"""The mender: finds segments with fewer whole shards than they should have, and brings them back to k+m.

What to do is a query: receipts with gaps, damage that was found (in the book), shards at locations that have been down
for longer than `repair_grace` or are no longer configured. So nothing is lost by a restart, and nothing is dropped. The
order is that of qss.offload.repair_queue. A segment counts as repaired when every one of its shards has been verified
by hash where it lies.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final

import trio

from qss.errors import QssError
from qss.formats.manifest import Manifest
from qss.ids import LocationId, SegmentId, segment_text
from qss.offload.bandwidth import Pace
from qss.offload.census import GENERATION
from qss.offload.damage import DamagedShard
from qss.offload.repair import choose_targets
from qss.offload.repair_queue import RepairQueue
from qss.offload.vault import Vault
from qss.offload.verifier import Verdict
from qss.segments import Receipt, SegmentShelf, StoredSegment

_log = logging.getLogger(__name__)

TICK_S: Final = 1.0
"""Between looks at which locations are down."""
SCAN_S: Final = 60.0
"""Between looks at all segments, when nothing calls for one."""
MANIFESTS_A_STEP: Final = 32
"""Read from disk at a time while scanning, before others have a turn."""


@dataclass(frozen=True, slots=True)
class MenderFacts:
    queued: int  # segments, those under way included
    in_flight: int
    least_spare: int | None  # shards the segment closest to loss may still lose; below 0: it cannot be read now
    given_up: tuple[LocationId, ...]  # their shards are rebuilt elsewhere
    repaired_segments: int  # since start, verified as a whole
    repaired_bytes: int  # of content in them


class Mender:
    """Lives on the courier's thread. `busy`: segments somebody works on, shared with the courier; `dying`: segments
    being deleted. `on_mended` hears of each new receipt."""

    def __init__(
        self,
        shelf: SegmentShelf,
        vault: Vault,
        busy: set[SegmentId],
        dying: Collection[SegmentId],
        jitter: Callable[[], float],
        on_mended: Callable[[Receipt], Awaitable[None]],
    ) -> None:
        self._shelf = shelf
        self._vault = vault
        self._busy = busy
        self._dying = dying
        self._jitter = jitter
        self._on_mended = on_mended
        self._book = vault.book
        self._mending: set[SegmentId] = set()
        self._wake = trio.Event()
        self._scan_at_s = float("-inf")
        self._pace = Pace(vault.options.repair_bytes_per_s)
        self._sweeping: set[LocationId] = set()
        self._repaired = self._repaired_bytes = 0
        self.queue = RepairQueue()
        self.lost: frozenset[LocationId] = frozenset()
        self.trouble = ""
        vault.damage.on_new = self._on_damage

    @property
    def facts(self) -> MenderFacts:
        return MenderFacts(
            queued=len(self.queue),
            in_flight=len(self._mending),
            least_spare=self.queue.least_spare,
            given_up=tuple(sorted(self.lost)),
            repaired_segments=self._repaired,
            repaired_bytes=self._repaired_bytes,
        )

    def note(self, receipt: Receipt) -> None:
        """A segment has just been stored with gaps: from here on it is ours."""
        self.queue.put(receipt.segment, receipt.m - receipt.missing, trio.current_time())
        self.queue.failed(receipt.segment, trio.current_time(), self._jitter())

    def give_up(self, names: Collection[LocationId]) -> str:
        """Manifests name these locations, and they are configured no more: also such as were never seen from here, as
        after a recovery. Why the newest repair failed; empty: it went well."""
        if not self.lost.issuperset(names):
            self._book.facts.known |= set(names)
            self.hurry()
        return self.trouble

    def hurry(self) -> None:
        """A location is back, or something else has changed: look now."""
        self.queue.wake()
        self._scan_at_s = float("-inf")
        self._wake.set()

    async def run(self, foreground: Callable[[], bool]) -> None:
        """Until cancelled. While `foreground` says that new segments wait, one segment at a time."""
        async with trio.open_nursery() as nursery:
            while True:
                await self.look()
                for location in self._to_sweep():
                    nursery.start_soon(self._sweep, location)
                limit = 1 if foreground() else self._vault.options.repairs_in_flight
                while len(self._mending) < limit and (segment := self._next()) is not None:
                    self._begin(segment)
                    nursery.start_soon(self._mend, segment)
                with trio.move_on_after(min(TICK_S, self.queue.next_in_s(trio.current_time()) or TICK_S)):
                    await self._wake.wait()
                self._wake = trio.Event()

    async def round(self) -> None:
        """Look, and try everything that is due once, one after the other."""
        self._scan_at_s = float("-inf")
        await self.look()
        tried: set[SegmentId] = set()
        while (segment := self._next(tried)) is not None:
            tried.add(segment)
            self._begin(segment)
            await self._mend(segment)

    # -- what is to be done
    async def look(self) -> None:
        """Which locations are given up, which segments are short of shards; what must be remembered is written down."""
        if self._watch_locations():
            self.hurry()
        try:
            if trio.current_time() >= self._scan_at_s:
                await self._scan()
                self._scan_at_s = trio.current_time() + SCAN_S
            self._book.facts.damaged = self._vault.damage.reasons
            self._book.save()
        except (QssError, OSError) as error:
            self.trouble = str(error)

    def _watch_locations(self) -> bool:
        """Since when who is down, by the wall clock; whether other locations than before are given up now."""
        nodes, facts = self._vault.nodes, self._book.facts
        now_ns = self._vault.clock.now_ns()
        grace_ns = int(self._vault.options.repair_grace_s * 1e9)
        lost = facts.known - set(nodes)  # no longer configured
        facts.known |= set(nodes)
        for location, node in nodes.items():
            if not node.up:
                if now_ns - facts.down_since_ns.setdefault(location, now_ns) >= grace_ns:
                    lost.add(location)
            elif node.latency_s is not None:  # it has answered, not only not yet failed
                facts.down_since_ns.pop(location, None)
        for location in lost - self.lost:
            _log.warning("location %s is given up: its shards are rebuilt elsewhere", location)
        facts.sweep |= lost & set(nodes)
        changed, self.lost = lost != self.lost, frozenset(lost)
        return changed

    async def _scan(self) -> None:
        """Every segment that is short of shards, into the queue; those that are not, out of it."""
        stored = await self._shelf.stored_segments()
        there = {each.segment.id for each in stored}
        for segment in self._vault.damage.segments():
            if segment not in there and self._vault.manifests.load(segment) is None:
                self._vault.damage.forget(segment)  # deleted, while somebody looked at it
        damaged = Counter(one.segment for one in self._vault.damage.open)
        for segment in set(self.queue) - there:
            self.queue.done(segment)
        elsewhere = set(self.lost)
        for count, each in enumerate(stored):
            if count % MANIFESTS_A_STEP == 0:
                await trio.lowlevel.checkpoint()
            segment = each.segment.id
            missing = self._missing(each, elsewhere) + damaged[segment]
            if missing:
                self.queue.put(segment, each.m - missing, trio.current_time())
            elif segment not in self._mending:
                self.queue.done(segment)
        gone = elsewhere - set(self._vault.nodes)  # no longer configured, and no manifest names them
        self._book.facts.known -= gone
        self.lost -= gone

    def _missing(self, each: StoredSegment, unnamed: set[LocationId]) -> int:
        """Shards that are nowhere, as far as is known here. Takes from `unnamed` what its manifest names."""
        missing = each.k + each.m - each.placed
        if not self.lost:
            return missing
        manifest = self._vault.manifests.load(each.segment.id)
        if manifest is None:  # the locations would have to be asked: the first read or scrub does
            return missing
        unnamed.difference_update(place for place in manifest.placed if place is not None)
        return sum(1 for place in manifest.placed if place is None or place in self.lost)

    def _on_damage(self, damaged: DamagedShard) -> None:
        self._scan_at_s = float("-inf")
        self._wake.set()

    def _next(self, tried: Collection[SegmentId] = ()) -> SegmentId | None:
        return self.queue.take(trio.current_time(), {*self._busy, *self._dying, *tried})

    # -- doing it
    def _begin(self, segment: SegmentId) -> None:
        self._busy.add(segment)
        self._mending.add(segment)

    async def _mend(self, segment: SegmentId) -> None:
        try:
            if await self._repair(segment):
                self.queue.done(segment)
                self._repaired += 1
                self.trouble = ""
            else:
                self.queue.failed(segment, trio.current_time(), self._jitter())
        except (QssError, OSError) as error:
            self.trouble = f"segment {segment_text(segment)}: {error}"
            _log.info("repair: %s", self.trouble)
            self.queue.failed(segment, trio.current_time(), self._jitter())
        finally:
            self._busy.discard(segment)
            self._mending.discard(segment)
            self._wake.set()

    async def _repair(self, segment: SegmentId) -> bool:
        """Whether all its shards are there now, each verified as a whole."""
        known = self._vault.manifests.load(segment)
        if known is not None and not self._can_help(known):
            return False
        if known is not None:
            await self._pace.wait(known.segment.length)
        receipt = await self._vault.complete(segment, self.lost)
        await self._shelf.mark_offloaded(receipt)
        await self._on_mended(receipt)
        manifest = await self._vault.manifest_of(segment)
        looks = await self._vault.verifier.look(manifest)
        sound = [look for look in looks if look.verdict is Verdict.SOUND and look.location not in self.lost]
        self.queue.put(segment, len(sound) - manifest.k, trio.current_time())
        if len(sound) < manifest.k + manifest.m:
            return False
        self._repaired_bytes += manifest.segment.length
        return True

    def _can_help(self, manifest: Manifest) -> bool:
        """Whether some shard has a place to go to now, or all are placed. If not it waits, and costs nothing."""
        damaged = self._vault.damage.where(manifest.segment.id, manifest.placed)
        return bool(
            choose_targets(manifest, damaged, self._vault.nodes.placement(), self._vault.policy, self.lost)
        ) or (None not in manifest.placed and not damaged and not self.lost.intersection(manifest.placed))

    # -- locations that come back after they were given up
    def _to_sweep(self) -> list[LocationId]:
        nodes = self._vault.nodes
        ready = [
            location
            for location in self._book.facts.sweep - self.lost - self._sweeping
            if location in nodes and nodes[location].up and nodes[location].latency_s is not None
        ]
        self._sweeping.update(ready)
        return ready

    async def _sweep(self, location: LocationId) -> None:
        """Delete its shards of segments that are whole without them. Begun again when it does not end."""
        left = False
        try:
            for each in await self._shelf.stored_segments():
                segment = each.segment.id
                known = self._vault.manifests.load(segment)
                if known is not None and location in known.placed:
                    continue
                if known is None or None in known.placed or segment in self.queue or segment in self._busy:
                    left = True
                    continue
                name = self._vault.keys.shard_name(segment, GENERATION, location)
                await self._vault.nodes[location].delete(name)
        except (QssError, OSError) as error:
            _log.info("the sweep of location %s is put off: %s", location, error)
            left = True
        finally:
            self._sweeping.discard(location)
        if left:
            await trio.sleep(TICK_S)
        else:
            self._book.facts.sweep.discard(location)
