"""The mover: brings shards to where they belong when locations are drained or weights have changed.

One move, and what a crash leaves:

    1. the shard at its new place, read back   crash: twice there; the next run finds it and goes on behind 1
    2. manifest here, receipt at the shelf     crash: an object nobody names at the old place; `_sweep` deletes it
    3. the old object deleted

Shards at locations that are configured no more are the mender's to rebuild: it is told, and what is left is counted.

Nothing is remembered: what is to be done is a query (qss.offload.moves). A shard is read from its own old place (once
its size in traffic) and verified; only what does not verify or answer is rebuilt from k others. docs/adr/0114.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio

from qss.errors import Damaged, QssError, TooFewShards
from qss.formats.manifest import Manifest
from qss.ids import LocationId, SegmentId, StripeNo, segment_text
from qss.offload.bandwidth import Pace
from qss.offload.census import GENERATION
from qss.offload.moves import Loss, Move, Why, due, loss_of, shard_bytes, target_of, unbalanced
from qss.offload.plan import Source
from qss.offload.repair import rebuild_stripe
from qss.offload.tenure import Tenure
from qss.offload.vault import Vault
from qss.segments import SegmentShelf

_log = logging.getLogger(__name__)

MOVES_AT_ONCE: Final = 2
"""Segments."""
AGAIN_S: Final = 2.0
"""Between two looks while something is left to be moved."""
CALM_S: Final = 15.0
"""The same while a location is draining and holds nothing any more: what was under way may still have put something."""

Claim = Callable[[SegmentId], AbstractContextManager[bool]]


@dataclass(slots=True)
class Progress:
    """What is left at one location that is drained (or is gone), since the newest look."""

    shards: int = 0
    bytes: int = 0
    stuck: str = ""  # why the newest move failed; empty: it went well


@dataclass(slots=True)
class Moving:
    """What the mover knows of itself."""

    left: dict[LocationId, Progress] = field(default_factory=dict)
    balance: Progress | None = None  # None: nobody asked for it
    looked: int = 0  # times all segments were looked at
    moved_shards: int = 0  # since start
    moved_bytes: int = 0


class Mover:
    """Lives on the vault's trio thread."""

    def __init__(
        self, shelf: SegmentShelf, vault: Vault, tenure: Tenure, claim: Claim, bytes_per_s: int | None = None
    ) -> None:
        """`claim(segment)`: while it holds nobody else touches shards of the segment. `bytes_per_s`: of moves."""
        self._shelf = shelf
        self._vault = vault
        self._tenure = tenure
        self._claim = claim
        self._pace = Pace(bytes_per_s)
        self._wake = trio.Event()
        self._news = trio.Event()
        self._swept: set[LocationId] = set()
        self._rebalance = False
        self.facts = Moving()
        self.rebuild: Callable[[Collection[LocationId]], str] = lambda _gone: ""
        """Tells the mender of locations that are configured no more; why it gets no further, empty: it does."""

    def look(self) -> None:
        """The locations have changed."""
        self._wake.set()

    def rebalance(self) -> None:
        """Move what weights would put elsewhere."""
        self._rebalance, self.facts.balance = True, Progress()
        self._wake.set()

    async def news(self) -> None:
        """Return when there is something new in `facts`."""
        await self._news.wait()

    async def run(self) -> None:
        """Until cancelled, or fenced."""
        while await self._tenure.granted(lambda: self._tenure.may_change):
            again_s = 0.0
            try:
                with self._tenure.work():
                    again_s = await self.round()
            except (QssError, OSError) as error:
                _log.warning("shards cannot be moved now: %s", error)
                again_s = AGAIN_S
            with trio.move_on_after(again_s):
                await self._wake.wait()
            self._wake = trio.Event()

    async def round(self) -> float:
        """Look at all segments, move what is due; seconds until the next look is worth it."""
        moves = sorted(await self._due(), key=lambda move: move.order)
        gone = self._tell_of_gone()
        self._tell()
        failed = await self._carry_out(moves)
        leaving = [name for name, node in self._vault.nodes.items() if node.draining]
        if self._rebalance and not moves:
            self._rebalance, self.facts.balance = False, None
            self._tell()
        if moves or gone:
            return 0.0 if moves and not failed else AGAIN_S
        for location in leaving:
            await self._sweep(location)
        self._swept &= set(leaving)
        return CALM_S if leaving else float("inf")

    async def holdings(self, location: LocationId) -> Loss:
        """What it would mean to do without this location now; counts on locations that answer."""
        nodes = self._vault.nodes
        manifests = [manifest async for manifest in self._manifests()]
        return loss_of(location, manifests, [name for name, node in nodes.items() if node.up])

    async def held(self) -> dict[LocationId, tuple[int, int]]:
        """Shards and bytes of their blocks at each location, as the manifests say."""
        found = dict.fromkeys(self._vault.nodes, (0, 0))
        async for manifest in self._manifests():
            size = shard_bytes(manifest)
            for home in manifest.placed:
                if home is not None:
                    count, total = found.get(home, (0, 0))
                    found[home] = count + 1, total + size
        return found

    # -- looking
    async def _manifests(self) -> AsyncIterator[Manifest]:
        """Of the dead whose shards are not deleted yet, too: they may be needed by an older root, and are there."""
        for sealed in await self._shelf.held_segments():
            await trio.lowlevel.checkpoint()
            try:
                yield await self._vault.manifest_of(sealed.id)
            except Damaged as error:  # fewer than k shards: nothing to move; status and fsck say so
                _log.info("segment %s: %s", segment_text(sealed.id), error)

    async def _due(self) -> list[Move]:
        """What is to be moved; counts that, and what is to be rebuilt."""
        nodes = self._vault.nodes
        facts = {each.location: each for each in nodes.placement()}
        stuck = {name: each.stuck for name, each in self.facts.left.items()}
        left = {name: Progress(stuck=stuck.get(name, "")) for name, each in facts.items() if each.leaving}
        moves: list[Move] = []
        alive = {each.segment.id for each in await self._shelf.stored_segments()}  # the dead are not rebuilt
        async for manifest in self._manifests():
            moves += (move for move in due(manifest, facts) if move.why is not Why.GONE or move.segment in alive)
            if self._rebalance:
                moves += unbalanced(manifest, list(facts.values()), self._vault.policy)
        balance = Progress() if self._rebalance else None
        for move in moves:
            count = left.setdefault(move.source, Progress()) if move.why is not Why.BALANCE else balance
            if count is not None:
                count.shards += 1
                count.bytes += move.size
        self.facts.left, self.facts.balance = left, balance
        self.facts.looked += 1
        return [move for move in moves if move.why is not Why.GONE]

    def _tell_of_gone(self) -> bool:
        """Whether there are shards to be rebuilt."""
        gone = {name: each for name, each in self.facts.left.items() if each.shards and name not in self._vault.nodes}
        if gone:
            trouble = self.rebuild(gone)
            for progress in gone.values():
                progress.stuck = trouble
        return bool(gone)

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    # -- moving
    async def _carry_out(self, moves: list[Move]) -> int:
        """How many of them failed."""
        slots = trio.CapacityLimiter(MOVES_AT_ONCE)
        failed = 0

        async def one(move: Move) -> None:
            nonlocal failed
            async with slots:
                progress = self.facts.balance if move.why is Why.BALANCE else self.facts.left.get(move.source)
                try:
                    moved = await self._move(move)
                except (QssError, OSError) as error:
                    failed += 1
                    if progress is not None:
                        progress.stuck = str(error)
                    _log.info("shard %d of segment %s: %s", move.shard, segment_text(move.segment), error)
                else:
                    failed += not moved
                    if progress is not None and moved:
                        progress.stuck = ""
                        progress.shards -= 1
                        progress.bytes -= move.size
                self._tell()

        async with trio.open_nursery() as nursery:
            for move in moves:
                nursery.start_soon(one, move)
                if len(nursery.child_tasks) > 4 * MOVES_AT_ONCE:  # not one task for each of a million
                    async with slots:
                        pass
        return failed

    async def _move(self, move: Move) -> bool:
        """False: there is no place for it, or somebody works on the segment now."""
        with self._claim(move.segment) as mine:
            if not mine:
                return False
            manifest = await self._vault.manifest_of(move.segment)
            node = self._vault.nodes.get(move.source)
            if manifest.placed[move.shard] != move.source or (move.why is Why.DRAINING and node and not node.draining):
                return True  # somebody was faster, or it is drained no more
            target = target_of(move, manifest, self._vault.nodes.placement(), self._vault.policy)
            if target is None:
                raise TooFewShards("no other location may take it now")
            await self._carry(move, manifest, target)
            self.facts.moved_shards += 1
            self.facts.moved_bytes += move.size
            return True

    async def _carry(self, move: Move, manifest: Manifest, target: LocationId) -> None:
        vault = self._vault
        places = list(manifest.placed)
        places[move.shard] = target
        planned = manifest.with_placed(tuple(places))
        if not await self._is_there(move, manifest, target):
            async with vault.buffers.lease([facts.block for facts in manifest.stripes]) as blocks:
                for number, into in enumerate(blocks):
                    await self._pace.wait(len(into))
                    await self._block(move, manifest, StripeNo(number), into)
                box = vault.manifests.seal(planned)
                await vault.uploader.put(planned, box, move.shard, target, blocks)  # 1.
                await vault.repairer.prove(planned, move.shard, target)
        receipt = vault.adopt(planned)  # 2.
        await self._shelf.mark_offloaded(receipt)
        name = vault.keys.shard_name(move.segment, GENERATION, move.source)
        try:
            await vault.nodes[move.source].delete(name)  # 3.
        except QssError as error:  # the sweep finds it
            _log.info("an old shard stays at %s for now: %s", move.source, error)

    async def _is_there(self, move: Move, manifest: Manifest, target: LocationId) -> bool:
        """Whether an earlier run has come past 1."""
        try:
            await self._vault.repairer.prove(manifest, move.shard, target)
        except Damaged:
            return False
        return True

    async def _block(self, move: Move, manifest: Manifest, stripe: StripeNo, into: memoryview) -> None:
        """From its old place, if it verifies; else rebuilt from k others. Where reading costs money, the other way."""
        node = self._vault.nodes[move.source]
        ways = [self._rebuild, self._copy] if node.metered else [self._copy, self._rebuild]
        if not node.up:
            ways.remove(self._copy)
        for way in ways:
            try:
                await way(move, manifest, stripe, into)
            except QssError as error:
                if way is ways[-1]:
                    raise
                _log.info("a block of a shard at %s is had another way: %s", move.source, error)
            else:
                return

    async def _copy(self, move: Move, manifest: Manifest, stripe: StripeNo, into: memoryview) -> None:
        await self._vault.fetcher.block(manifest, stripe, Source(move.shard, move.source), into)

    async def _rebuild(self, move: Move, manifest: Manifest, stripe: StripeNo, into: memoryview) -> None:
        fetcher = self._vault.fetcher
        with fetcher.room(manifest) as room:
            have = await fetcher.gather(manifest, stripe, room, avoid=frozenset({move.shard}))
            work = partial(rebuild_stripe, manifest, stripe, have, {move.shard: into})
            await trio.to_thread.run_sync(work)

    async def _sweep(self, location: LocationId) -> None:
        """Delete what a crash between 2 and 3 has left at a location that is drained. Once, as long as it is."""
        if location in self._swept:
            return
        vault = self._vault
        names = {
            vault.keys.shard_name(sealed.id, GENERATION, location): sealed.id
            for sealed in await self._shelf.held_segments()
        }
        node = vault.nodes[location]
        left = [info.key async for info in node.list() if info.key in names]
        for key in left:
            segment = names[key]
            with self._claim(segment) as mine:
                if not mine or location in (await vault.manifest_of(segment)).placed:
                    return  # a new look will move it first
                await node.delete(key)
        self._swept.add(location)
