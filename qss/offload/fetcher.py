"""Bringing one stripe back: ranged GETs from k locations, verified, decoded, decrypted, written beside and renamed.

Blocks come from the sockets into their places in one reused room of k+m blocks; the data blocks that came need no
decoding, and the ciphertext lies end to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio

from qss.errors import CorruptData, ObjectMissing, QssError, TooFewShards
from qss.formats.manifest import Manifest, block_bytes
from qss.host.disk import write_in_pieces
from qss.ids import LocationId, ShardNo, StripeNo, segment_text
from qss.limits import STRIPE_BYTES
from qss.offload import erasure
from qss.offload.buffers import Buffer, buffer_of
from qss.offload.census import GENERATION
from qss.offload.damage import DamagedShard, DamageList
from qss.offload.files import replace_file
from qss.offload.keys import FsKeys
from qss.offload.nodes import Node
from qss.offload.options import OffloadOptions
from qss.offload.pipeline import cut_blocks
from qss.offload.plan import FetchPlan, Source, rank_sources
from qss.offload.seal import SealContext, hash_of, open_stripe

THREADS_MAX: Final = 2
"""Stripes decoded at the same time."""


class Room:
    """Reused memory of one length, as many pieces as are in use at the same time."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: list[Buffer] = []

    @contextmanager
    def one(self) -> Iterator[memoryview]:
        """With anything in it. Thread-safe."""
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = buffer_of(self._size)
        try:
            yield memoryview(buffer)
        finally:
            self._free.append(buffer)

    def trim(self) -> None:
        """Give back what nobody uses."""
        self._free.clear()


class Fetcher:
    def __init__(
        self, nodes: Mapping[LocationId, Node], keys: FsKeys, options: OffloadOptions, damage: DamageList
    ) -> None:
        self._nodes = nodes
        self._keys = keys
        self._options = options
        self._damage = damage
        self._threads = trio.CapacityLimiter(THREADS_MAX)
        self._stripes = trio.CapacityLimiter(options.fetches_in_flight)
        self._rooms: dict[tuple[int, int], Room] = {}  # (k, m): room for the blocks of one stripe
        self._scratch = Room(STRIPE_BYTES)

    async def fetch(self, manifest: Manifest, stripe: StripeNo, into: Path) -> None:
        """Write the stripe's plaintext to `into` (0600), whole or not at all.

        Raises TooFewShards when fewer than k blocks verify, CorruptData when k do and the stripe does not open.
        """
        async with self._stripes:
            with self.room(manifest) as room:
                have = await self.gather(manifest, stripe, room)
                work = partial(self._rebuild, manifest, stripe, have, room, into)
                await trio.to_thread.run_sync(work, limiter=self._threads)

    async def fetch_to(self, manifest: Manifest, stripe: StripeNo, file: int) -> None:
        """As `fetch`, but write the stripe at its place in an open segment file."""
        async with self._stripes:
            with self.room(manifest) as room:
                have = await self.gather(manifest, stripe, room)
                work = partial(self._rebuild_at, manifest, stripe, have, room, file)
                await trio.to_thread.run_sync(work, limiter=self._threads)

    def room(self, manifest: Manifest) -> AbstractContextManager[memoryview]:
        """Memory for the k+m blocks of any one stripe."""
        k, m = manifest.k, manifest.m
        if (k, m) not in self._rooms:
            self._rooms[k, m] = Room(block_bytes(STRIPE_BYTES, k) * (k + m))
        return self._rooms[k, m].one()

    def trim(self) -> None:
        """Give back memory that is not in use."""
        self._scratch.trim()
        for room in self._rooms.values():
            room.trim()

    async def gather(
        self, manifest: Manifest, stripe: StripeNo, room: memoryview, avoid: frozenset[ShardNo] = frozenset()
    ) -> dict[ShardNo, memoryview]:
        """k verified blocks of one stripe, each in its place in `room` (block s begins at s times the length of a
        block), none of them of the shards in `avoid`. Raises TooFewShards."""
        plan = FetchPlan(manifest.k, [source for source in self._sources(manifest) if source.shard not in avoid])
        blocks = cut_blocks(room, manifest.stripes[stripe].block, manifest.k + manifest.m)
        have: dict[ShardNo, memoryview] = {}
        troubles: list[str] = []
        answers, inbox = trio.open_memory_channel[tuple[Source, QssError | None]](len(manifest.placed))

        async def ask(source: Source) -> None:
            trouble: QssError | None = None
            try:
                await self.block(manifest, stripe, source, blocks[source.shard])
            except QssError as error:
                trouble = error
            answers.send_nowait((source, trouble))

        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + self._options.fetch_deadline_s
            for source in plan.start():
                nursery.start_soon(ask, source)
            while not (plan.done or plan.hopeless):
                more: Source | None = None
                with trio.move_on_after(self._options.hedge_delay_s) as hedge:
                    source, trouble = await inbox.receive()
                    if trouble is not None:
                        troubles.append(f"{source.location}: {trouble}")
                        more = plan.on_bad(source.shard)
                    else:
                        have[source.shard] = blocks[source.shard]
                        plan.on_good(source.shard)
                if hedge.cancelled_caught:
                    more = plan.on_slow()
                if more is not None:
                    nursery.start_soon(ask, more)
            nursery.cancel_scope.cancel()
        if not plan.done:
            where = f"stripe {stripe} of segment {segment_text(manifest.segment.id)}"
            why = "; ".join(troubles) or "no answer within the deadline"
            raise TooFewShards(f"{where}: {len(have)} of {manifest.k} needed blocks ({why})")
        return have

    async def block(self, manifest: Manifest, stripe: StripeNo, source: Source, into: memoryview) -> None:
        """Fill `into`, as long as a block of this stripe, with one that verifies. Raises ObjectMissing, CorruptData
        (both are noted as damage), Retryable."""
        start = manifest.block_offset(stripe)
        damaged = DamagedShard(manifest.segment.id, source.shard, source.location)
        name = self._keys.shard_name(manifest.segment.id, GENERATION, source.location)
        try:
            await self._nodes[source.location].get_into(name, start, into)
            if hash_of(into) != manifest.hash_of(stripe, source.shard):
                raise CorruptData(f"the block of stripe {stripe} does not verify")
        except (CorruptData, ObjectMissing) as error:
            self._damage.report(damaged, str(error))
            raise

    def _sources(self, manifest: Manifest) -> list[Source]:
        up = {location: node.up for location, node in self._nodes.items()}
        latency = {location: node.latency_s for location, node in self._nodes.items() if node.latency_s is not None}
        metered = {location for location, node in self._nodes.items() if node.metered}
        return rank_sources(manifest.placed, manifest.k, up, latency, metered)

    def _rebuild(
        self, manifest: Manifest, stripe: StripeNo, have: Mapping[ShardNo, memoryview], room: memoryview, into: Path
    ) -> None:
        """In a thread."""
        with self._scratch.one() as scratch:
            replace_file(into, decode_stripe(manifest, stripe, have, room, scratch))

    def _rebuild_at(
        self, manifest: Manifest, stripe: StripeNo, have: Mapping[ShardNo, memoryview], room: memoryview, file: int
    ) -> None:
        """In a thread."""
        with self._scratch.one() as scratch:
            plain = decode_stripe(manifest, stripe, have, room, scratch)
            write_in_pieces(file, [plain], stripe * STRIPE_BYTES)


def decode_stripe(
    manifest: Manifest,
    stripe: StripeNo,
    have: Mapping[ShardNo, memoryview],
    room: memoryview,
    scratch: memoryview,
) -> bytes | memoryview:
    """The plaintext from k verified blocks that lie in their places in `room`, whose other data blocks are filled;
    `scratch` is working memory of the length of a stripe. Raises CorruptData."""
    facts = manifest.stripes[stripe]
    blocks = cut_blocks(room, facts.block, manifest.k)
    lost = [None if number in have else block for number, block in enumerate(blocks)]
    erasure.code(manifest.k, manifest.m).decode_into(have, lost)
    return open_stripe(SealContext.of(manifest), stripe, facts, room, scratch)
