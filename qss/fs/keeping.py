"""Pinned paths and path policies: what the content of each local copy asks for. docs/adr/0096.

The mapping from paths to stripes is never kept up by writers. It is made in the background, before an eviction, by
walking what is pinned and what has a policy of its own: nothing else. A segment holds content of other files as well
exactly if it has more live bytes than the walk has found in it, for the index counts them anyway.

A walk takes a while and files change under it, so a view may be slightly old. It is never wrong about safety, only
about what is worth keeping: content that left too early is brought back.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from qss.cache.options import PathPolicy, RetentionOptions
from qss.cache.retention import GENERAL, NO_PROTECTION, Protection, most_protective
from qss.cache.store import SegmentCache
from qss.errors import FsError, Refused
from qss.formats.tables import PinRow, Table, u64_key, u64_of_key
from qss.fs import tree
from qss.host.clock import Clock
from qss.ids import Ino, SegmentId, StripeNo
from qss.limits import STRIPE_BYTES

PINS_MAX: Final = 1_000
WALK_SHARE: Final = 20
"""After a walk of one second at least so many seconds pass before the next, unless pins or policies change."""
PAUSE_SHARE: Final = 4.0
"""Within a walk nobody waits for: so many times as long for others as for us."""

_Stripe = tuple[SegmentId, StripeNo]


@dataclass(frozen=True, slots=True)
class Pin:
    """A pinned file or directory, as of the last walk."""

    ino: Ino
    path: str
    created_ns: int
    bytes: int  # of content at or below it
    local_bytes: int  # of those, readable without a fetch


@dataclass(slots=True)
class _View:
    """What one walk has found."""

    pinned: dict[_Stripe, int] = field(default_factory=dict)  # → inode of the pin
    pinned_segments: dict[SegmentId, int] = field(default_factory=dict)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)  # pin → content, of that here
    policies: dict[_Stripe, set[int]] = field(default_factory=lambda: defaultdict(set))
    segment_policies: dict[SegmentId, set[int]] = field(default_factory=lambda: defaultdict(set))
    mixed: set[SegmentId] = field(default_factory=set)  # hold other content as well

    def protection(self, segment: SegmentId, stripe: StripeNo | None, options: RetentionOptions) -> tuple[int, int]:
        """(inode of the pin or 0, policy)."""
        if stripe is None:
            pin, policies = self.pinned_segments.get(segment, 0), self.segment_policies.get(segment)
        else:
            pin, policies = self.pinned.get((segment, stripe), 0), self.policies.get((segment, stripe))
        if not policies:
            return pin, GENERAL
        return pin, most_protective(policies | {GENERAL} if segment in self.mixed else policies, options)


class Keeping:
    """The Guard of a cache's eviction, and owner of the pins. Lives on its trio thread."""

    def __init__(self, cache: SegmentCache, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._pins = {
            Ino(u64_of_key(key)): PinRow.unpack(value) for key, value in list(cache.scan(Table.PINS, b""))
        }  # fmt: skip
        self._view = _View()
        self._seen: tuple[object, ...] = ()  # what the view was made from
        self._edits = 0  # of pins, by people
        self._next_s = float("-inf")
        self._sliced_s = 0.0
        self._lock = trio.Lock()

    # -- pins

    def pin(self, path: bytes) -> Ino:
        """Keep what is at a path and below it on this machine. Idempotent. Raises FsError(ENOENT), NoSpace; Refused."""
        ino = tree.resolve(self._cache, path)
        if ino not in self._pins:
            if len(self._pins) >= PINS_MAX:
                raise Refused(f"{PINS_MAX} paths are pinned already: pin a directory above them")
            self._put(ino, PinRow(self._clock.now_ns(), path))
            self._edits += 1
        return ino

    def unpin(self, path: bytes) -> bool:
        """Let the general limits hold again. False: nothing is pinned there. Raises NoSpace."""
        try:
            ino: int = tree.resolve(self._cache, path)
        except FsError:
            ino = next((ino for ino, row in self._pins.items() if row.path == path), 0)
        if ino not in self._pins:
            return False
        self._put(Ino(ino), None)
        self._edits += 1
        return True

    def pins(self) -> list[Pin]:
        """As of the last `refresh`."""
        return [
            Pin(ino, os.fsdecode(row.path), row.created_ns, *self._view.sizes.get(ino, (0, 0)))
            for ino, row in sorted(self._pins.items(), key=lambda each: each[1].path)
        ]

    def _put(self, ino: Ino, row: PinRow | None) -> None:
        change = self._cache.begin()
        if row is None:
            change.delete(Table.PINS, u64_key(ino))
        else:
            change.put(Table.PINS, u64_key(ino), row.pack())
        self._cache.commit(change)
        if row is None:
            self._pins.pop(ino, None)
        else:
            self._pins[ino] = row

    # -- Guard

    def protection(self, segment: SegmentId, stripe: StripeNo | None) -> Protection:
        """As of the last refresh. `stripe` None: the whole segment."""
        if not self._seen:
            return NO_PROTECTION
        ino, policy = self._view.protection(segment, stripe, self._cache.eviction.retention)
        pin = self._pins.get(Ino(ino))
        return Protection(None if pin is None else os.fsdecode(pin.path), policy)

    def wanted(self) -> Sequence[_Stripe]:
        """Stripes with pinned content, wherever they are."""
        return list(self._view.pinned)

    async def refresh(self) -> None:
        """Walk again if anything has changed, but not all the time. Concurrent callers share one walk."""
        async with self._lock:
            policies = self._cache.eviction.retention.paths
            if not self._pins and not policies:
                self._view, self._seen = _View(), ()
                return
            seen = (self._cache.revision, self._edits, policies)
            urgent = self._seen[1:] != seen[1:]
            began = trio.current_time()
            if not urgent and (seen == self._seen or began < self._next_s):
                return
            view = _View()
            pause = trio.lowlevel.checkpoint if urgent else self._pause
            self._sliced_s = began
            await self._follow(pause)
            for ino in list(self._pins):
                await self._walk_pin(view, ino, pause)
            if policies:
                await self._walk_policies(view, policies, pause)
            self._view, self._seen = view, seen
            ended = trio.current_time()
            self._next_s = ended + WALK_SHARE * (ended - began)

    # -- walking

    async def _pause(self) -> None:
        await trio.sleep(PAUSE_SHARE * (trio.current_time() - self._sliced_s))
        self._sliced_s = trio.current_time()

    async def _follow(self, pause: tree.Pause) -> None:
        """Learn where pinned inodes are now. One that is gone lets go of its pin, unless another has its name: many
        programs save a file by replacing it."""
        lost: set[int] = set()
        for ino, row in list(self._pins.items()):
            try:
                there: int = tree.resolve(self._cache, row.path)
            except FsError:
                there = 0
            if there == ino:
                continue
            inode = tree.inode(self._cache, ino)
            if inode is not None and inode.nlink:
                lost.add(ino)
            else:
                self._put(ino, None)
                if there and there not in self._pins:
                    self._put(Ino(there), row)
        if lost:
            for found, paths in (await tree.paths_of(self._cache, lost, pause)).items():
                if paths and Ino(found) in self._pins:
                    self._put(Ino(found), self._pins[Ino(found)]._replace(path=paths[0]))

    async def _walk_pin(self, view: _View, pin: int, pause: tree.Pause) -> None:
        done: set[int] = set()
        size = local = 0
        async for ino in tree.files_below(self._cache, pin, (), pause):
            if ino in done:
                continue
            done.add(ino)
            async for extent in tree.extents_of(self._cache, ino, pause):
                key = (extent.segment, StripeNo(extent.record_position // STRIPE_BYTES))
                view.pinned[key] = view.pinned_segments[extent.segment] = pin
                size += extent.length
                if self._cache.holds(extent.segment, extent.record_position):
                    local += extent.length
        view.sizes[pin] = (size, local)

    async def _walk_policies(self, view: _View, policies: tuple[PathPolicy, ...], pause: tree.Pause) -> None:
        roots: dict[int, int] = {}
        for number, policy in enumerate(policies):
            try:
                roots[tree.resolve(self._cache, os.fsencode(policy.path))] = number
            except FsError:
                continue  # nothing is there now
        covered: dict[SegmentId, int] = defaultdict(int)
        linked: dict[int, list[int]] = defaultdict(list)  # files of several names: a policy for each name found
        for root, number in roots.items():
            async for file in tree.files_below(self._cache, root, roots.keys() - {root}, pause):
                row = tree.inode(self._cache, file)
                if row is not None and row.nlink > 1:
                    linked[file].append(number)
                else:
                    await self._cover(view, covered, file, {number}, pause)
        for ino, numbers in linked.items():
            row = tree.inode(self._cache, ino)
            everywhere = row is not None and len(numbers) >= row.nlink
            await self._cover(view, covered, ino, {*numbers} | (set() if everywhere else {GENERAL}), pause)
        live = self._cache.live_all()
        view.mixed = {segment for segment, count in live.items() if count > covered.get(segment, 0)}

    async def _cover(
        self, view: _View, covered: dict[SegmentId, int], ino: int, numbers: set[int], pause: tree.Pause
    ) -> None:
        async for extent in tree.extents_of(self._cache, ino, pause):
            key = (extent.segment, StripeNo(extent.record_position // STRIPE_BYTES))
            view.policies[key] |= numbers
            view.segment_policies[extent.segment] |= numbers
            covered[extent.segment] += extent.length
