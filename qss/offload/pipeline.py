"""From a segment file to coded stripes in reused buffers: one thread call for each stripe does all of it.

pread → compress → encrypt into the data blocks → code the parity blocks behind them → hash every block
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import trio

from qss.errors import CorruptData
from qss.formats.manifest import StripeFacts, block_bytes
from qss.host.page_cache import forget, read_once
from qss.ids import ShardNo, StripeNo
from qss.limits import STRIPE_BYTES
from qss.offload import erasure
from qss.offload.buffers import Buffers
from qss.offload.seal import SealContext, hash_of, seal_stripe
from qss.segments import SealedSegment

THREADS_MAX: Final = 2
"""Stripes sealed at the same time: coding must leave processor time to the network."""


@dataclass(frozen=True, slots=True)
class CodedStripe:
    """One stripe, sealed and coded. Blocks are views of a leased buffer."""

    facts: StripeFacts
    blocks: tuple[memoryview, ...]  # k+m, by shard number
    hashes: bytes  # k+m times BLAKE3


@dataclass(frozen=True, slots=True)
class CodedSegment:
    context: SealContext
    stripes: tuple[CodedStripe, ...]

    @property
    def hashes(self) -> bytes:
        return b"".join(stripe.hashes for stripe in self.stripes)

    @property
    def facts(self) -> tuple[StripeFacts, ...]:
        return tuple(stripe.facts for stripe in self.stripes)


class Pipeline:
    def __init__(self, buffers: Buffers, level: int, *, forgets: bool = False) -> None:
        """`level`: of zstd, 0 for none. `forgets`: what has been read goes from the page cache, so that what is written
        next finds its memory warm (docs/adr/0155)."""
        self._buffers = buffers
        self._level = level
        self._forgets = forgets
        self._threads = trio.CapacityLimiter(THREADS_MAX)
        self._plain: list[bytearray] = []  # one stripe each, for the threads

    @asynccontextmanager
    async def coded(self, sealed: SealedSegment, path: Path, context: SealContext) -> AsyncIterator[CodedSegment]:
        """The coded segment while the block runs; then its buffers are used for the next.

        Raises CorruptData if the file is not as long as the segment is said to be, OSError if it cannot be read.
        """
        stripes = [StripeNo(number) for number in range(sealed.stripe_count)]
        sizes = [coded_bytes(sealed.stripe_bytes(stripe), context.k, context.m) for stripe in stripes]
        async with self._buffers.lease(sizes) as buffers:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                done = await self._code_all(file, sealed, context, buffers)
            finally:
                os.close(file)
            yield CodedSegment(context, done)

    async def _code_all(
        self, file: int, sealed: SealedSegment, context: SealContext, buffers: Sequence[memoryview]
    ) -> tuple[CodedStripe, ...]:
        done: dict[int, CodedStripe] = {}
        failures: list[Exception] = []

        async def code(stripe: StripeNo) -> None:
            work = partial(self._code, file, context, stripe, sealed.stripe_bytes(stripe), buffers[stripe])
            try:
                done[stripe] = await trio.to_thread.run_sync(work, limiter=self._threads)
            except (CorruptData, OSError) as error:
                failures.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for number in range(sealed.stripe_count):
                nursery.start_soon(code, StripeNo(number))
        if failures:
            raise failures[0]
        return tuple(done[number] for number in range(sealed.stripe_count))

    def _code(self, file: int, context: SealContext, stripe: StripeNo, length: int, out: memoryview) -> CodedStripe:
        """In a thread."""
        buffer = self._plain.pop() if self._plain else bytearray(STRIPE_BYTES)
        try:
            plain = memoryview(buffer)[:length]
            read_whole(file, plain, stripe * STRIPE_BYTES)
            if self._forgets:
                forget(file, stripe * STRIPE_BYTES, length)
            return code_stripe(context, stripe, plain, self._level, out)
        finally:
            self._plain.append(buffer)


def code_stripe(context: SealContext, stripe: StripeNo, plain: memoryview, level: int, out: memoryview) -> CodedStripe:
    """Seal and code one stripe into `out`, which has room for coded_bytes(len(plain), k, m). Synchronous."""
    facts = seal_stripe(context, stripe, plain, level, out)
    blocks = cut_blocks(out, facts.block, context.k + context.m)
    erasure.code(context.k, context.m).encode_into(blocks[: context.k], blocks[context.k :])
    return CodedStripe(facts, blocks, b"".join(map(hash_of, blocks)))


def cut_blocks(buffer: memoryview, block: int, count: int) -> tuple[memoryview, ...]:
    return tuple(buffer[number * block : (number + 1) * block] for number in range(count))


def coded_bytes(plain: int, k: int, m: int) -> int:
    """What all blocks of a stripe take at most, in bytes."""
    return block_bytes(plain, k) * (k + m)


def read_whole(file: int, into: memoryview, position: int) -> None:
    """Raises CorruptData at an early end of the file."""
    done = 0
    while done < len(into):
        count = read_once(file, into[done:], position + done)
        if count == 0:
            raise CorruptData("a segment file is shorter than it was when it was sealed")
        done += count


def blocks_of(coded: CodedSegment, shard: ShardNo) -> list[memoryview]:
    """One shard's blocks, in stripe order."""
    return [stripe.blocks[shard] for stripe in coded.stripes]
