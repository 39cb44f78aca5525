"""Bringing one stripe back: ranged GETs from k locations, verified, decoded, decrypted, written beside and renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio

from qss.errors import CorruptData, ObjectMissing, QssError, TooFewShards
from qss.formats.manifest import Manifest, block_bytes
from qss.ids import LocationId, ShardNo, StripeNo, segment_text
from qss.limits import STRIPE_BYTES
from qss.offload import erasure
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


class Scratch:
    """Reused buffers for threads, as many as there are threads."""

    def __init__(self) -> None:
        self._free: list[tuple[bytearray, bytearray]] = []

    @contextmanager
    def two(self, sealed: int) -> Iterator[tuple[memoryview, memoryview]]:
        """One for `sealed` bytes, one for a stripe. Thread-safe."""
        first, second = self._free.pop() if self._free else (bytearray(), bytearray(STRIPE_BYTES))
        if len(first) < sealed:
            first = bytearray(sealed)
        try:
            yield memoryview(first), memoryview(second)
        finally:
            self._free.append((first, second))


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
        self._scratch = Scratch()

    async def fetch(self, manifest: Manifest, stripe: StripeNo, into: Path) -> None:
        """Write the stripe's plaintext to `into` (0600), whole or not at all.

        Raises TooFewShards when fewer than k blocks verify, CorruptData when k do and the stripe does not open.
        """
        async with self._stripes:
            have = await self.gather(manifest, stripe)
            work = partial(self._rebuild, manifest, stripe, have, into)
            await trio.to_thread.run_sync(work, limiter=self._threads)

    async def fetch_to(self, manifest: Manifest, stripe: StripeNo, file: int) -> None:
        """As `fetch`, but write the stripe at its place in an open segment file."""
        async with self._stripes:
            have = await self.gather(manifest, stripe)
            work = partial(self._rebuild_at, manifest, stripe, have, file)
            await trio.to_thread.run_sync(work, limiter=self._threads)

    async def gather(
        self, manifest: Manifest, stripe: StripeNo, avoid: frozenset[ShardNo] = frozenset()
    ) -> dict[ShardNo, bytes]:
        """k verified blocks of one stripe, none of them of the shards in `avoid`. Raises TooFewShards."""
        plan = FetchPlan(manifest.k, [source for source in self._sources(manifest) if source.shard not in avoid])
        have: dict[ShardNo, bytes] = {}
        troubles: list[str] = []
        answers, inbox = trio.open_memory_channel[tuple[Source, bytes | QssError]](len(manifest.placed))

        async def ask(source: Source) -> None:
            try:
                answer: bytes | QssError = await self.block(manifest, stripe, source)
            except QssError as error:
                answer = error
            answers.send_nowait((source, answer))

        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + self._options.fetch_deadline_s
            for source in plan.start():
                nursery.start_soon(ask, source)
            while not (plan.done or plan.hopeless):
                more: Source | None = None
                with trio.move_on_after(self._options.hedge_delay_s) as hedge:
                    source, answer = await inbox.receive()
                    if isinstance(answer, QssError):
                        troubles.append(f"{source.location}: {answer}")
                        more = plan.on_bad(source.shard)
                    else:
                        have[source.shard] = answer
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

    async def block(self, manifest: Manifest, stripe: StripeNo, source: Source) -> bytes:
        """One verified block. Raises ObjectMissing, CorruptData (both are noted as damage), Retryable."""
        start = manifest.block_offset(stripe)
        stop = start + manifest.stripes[stripe].block
        damaged = DamagedShard(manifest.segment.id, source.shard, source.location)
        name = self._keys.shard_name(manifest.segment.id, GENERATION, source.location)
        try:
            data = await self._nodes[source.location].get(name, start, stop)
            if len(data) != stop - start or hash_of(data) != manifest.hash_of(stripe, source.shard):
                raise CorruptData(f"the block of stripe {stripe} does not verify")
        except (CorruptData, ObjectMissing) as error:
            self._damage.report(damaged, str(error))
            raise
        return data

    def _sources(self, manifest: Manifest) -> list[Source]:
        up = {location: node.up for location, node in self._nodes.items()}
        latency = {location: node.latency_s for location, node in self._nodes.items() if node.latency_s is not None}
        return rank_sources(manifest.placed, manifest.k, up, latency)

    def _rebuild(self, manifest: Manifest, stripe: StripeNo, have: Mapping[ShardNo, bytes], into: Path) -> None:
        """In a thread."""
        with self._scratch.two(block_bytes(STRIPE_BYTES, manifest.k) * manifest.k) as (sealed, scratch):
            replace_file(into, decode_stripe(manifest, stripe, have, sealed, scratch))

    def _rebuild_at(self, manifest: Manifest, stripe: StripeNo, have: Mapping[ShardNo, bytes], file: int) -> None:
        """In a thread."""
        with self._scratch.two(block_bytes(STRIPE_BYTES, manifest.k) * manifest.k) as (sealed, scratch):
            plain = memoryview(decode_stripe(manifest, stripe, have, sealed, scratch))
            done = 0
            while done < len(plain):
                done += os.pwrite(file, plain[done:], stripe * STRIPE_BYTES + done)


def decode_stripe(
    manifest: Manifest,
    stripe: StripeNo,
    have: Mapping[ShardNo, bytes],
    sealed: memoryview,
    scratch: memoryview,
) -> bytes | memoryview:
    """The plaintext from k verified blocks; `sealed` and `scratch` are working memory. Raises CorruptData."""
    facts = manifest.stripes[stripe]
    blocks: Sequence[memoryview] = cut_blocks(sealed, facts.block, manifest.k)
    erasure.code(manifest.k, manifest.m).decode_into(have, blocks)
    return open_stripe(SealContext.of(manifest), stripe, facts, sealed, scratch)
