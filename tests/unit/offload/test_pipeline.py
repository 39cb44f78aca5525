"""Coded stripes and the buffers they live in."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio
from blake3 import blake3

from qss.errors import CorruptData
from qss.ids import SegmentId, ShardNo, StripeNo
from qss.limits import KIB, STRIPE_BYTES
from qss.offload import erasure
from qss.offload.buffers import Buffers
from qss.offload.pipeline import Pipeline, coded_bytes
from qss.offload.seal import AES_256_GCM, SealContext, open_stripe
from qss.segments import SealedSegment, SegmentKind


def context(stripes: int) -> SealContext:
    return SealContext(bytes(16), SegmentId(1), bytes(16), bytes(32), AES_256_GCM, 3, 2, stripes)


def segment(length: int) -> SealedSegment:
    return SealedSegment(SegmentId(1), SegmentKind.DATA, length, 0, SegmentId(0))


@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize("length", [0, 1, 1000, STRIPE_BYTES, STRIPE_BYTES + 1])
async def test_any_k_blocks_open(tmp_path: Path, length: int, forgets: bool) -> None:
    data = random.Random(length).randbytes(length)
    (tmp_path / "s").write_bytes(data)
    sealed = segment(length)
    pipeline = Pipeline(Buffers(1 << 30, tmp_path), 1, forgets=forgets)
    async with pipeline.coded(sealed, tmp_path / "s", context(sealed.stripe_count)) as coded:
        parts = []
        for number, stripe in enumerate(coded.stripes):
            assert stripe.hashes == b"".join(blake3(block).digest() for block in stripe.blocks)
            have = {ShardNo(n): bytes(stripe.blocks[n]) for n in (1, 3, 4)}
            buffer = bytearray(3 * stripe.facts.block)
            out = [memoryview(buffer)[n * stripe.facts.block :][: stripe.facts.block] for n in range(3)]
            erasure.code(3, 2).decode_into(have, out)
            plain = open_stripe(
                coded.context, StripeNo(number), stripe.facts, memoryview(buffer), memoryview(bytearray(STRIPE_BYTES))
            )
            parts.append(bytes(plain))
        assert b"".join(parts) == data
    assert (tmp_path / "s").read_bytes() == data


async def test_a_file_that_is_too_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"short")
    pipeline = Pipeline(buffers := Buffers(1 << 30, tmp_path), 1)
    with pytest.raises(CorruptData, match="shorter"):
        async with pipeline.coded(segment(1000), tmp_path / "s", context(1)):
            pytest.fail("must not get here")
    assert buffers.leased_bytes == 0


async def test_leases_wait_their_turn_and_memory_stays_in_its_bound(tmp_path: Path, autojump_clock) -> None:
    buffers = Buffers(100 * KIB, tmp_path)
    order: list[int] = []
    most = 0

    async def user(number: int, size: int) -> None:
        nonlocal most
        await trio.sleep(number / 1000)
        async with buffers.lease([size] * 2) as views:
            assert [len(view) for view in views] == [size, size]
            order.append(number)
            most = max(most, buffers.held_bytes)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for number, size in enumerate([40 * KIB, 30 * KIB, 1 * KIB, 45 * KIB, 5 * KIB]):
            nursery.start_soon(user, number, size)
    # Those admitted at the same moment run in any order.
    assert [order[0], set(order[1:3]), set(order[3:])] == [0, {1, 2}, {3, 4}], "a small one does not overtake for ever"
    assert most <= 100 * KIB
    assert buffers.leased_bytes == 0


async def test_cancelled_waiters_leave_no_trace(tmp_path: Path, autojump_clock) -> None:
    buffers = Buffers(10, tmp_path)
    async with buffers.lease([10]):
        with trio.move_on_after(1):
            async with buffers.lease([10]):
                pytest.fail("must wait")
    async with buffers.lease([10]):
        assert buffers.leased_bytes == 10
    assert buffers.leased_bytes == 0
    buffers.trim()
    assert buffers.held_bytes == 0


async def test_more_than_the_budget_is_a_file_without_a_name(tmp_path: Path) -> None:
    buffers = Buffers(10, tmp_path / "spill")
    async with buffers.lease([20, 30]) as (first, second):
        first[:], second[:] = b"a" * 20, b"b" * 30
        assert bytes(first) + bytes(second) == b"a" * 20 + b"b" * 30
        assert not list((tmp_path / "spill").iterdir())
        assert buffers.held_bytes == 0


def test_what_a_stripe_takes() -> None:
    assert coded_bytes(1, 4, 2) == 6 * 64
    assert coded_bytes(STRIPE_BYTES, 4, 2) == 6 * (STRIPE_BYTES // 4 + 64)
