"""Shard objects on the wire, and uploads that do not go well."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
from blake3 import blake3

from qss.errors import Retryable, TooFewShards
from qss.formats.manifest import block_bytes
from qss.formats.shard import HEADER_BYTES, ShardHeader, unpack_table
from qss.ids import LocationId, SegmentId, ShardNo, StripeNo
from qss.limits import STRIPE_BYTES
from qss.offload.uploader import PIECE_BYTES, even_pieces
from qss.segments import Receipt, SealedSegment
from tests.harness.vault import Machine, PlainShelf, World

S1 = SegmentId(1)


async def test_an_object_can_be_verified_from_itself_alone(tmp_path: Path) -> None:
    world = World.of(2, 1)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "s")
    sealed = shelf.add(1, b"data" * (STRIPE_BYTES // 4 + 100))
    receipt = await machine.vault.store(sealed, await shelf.path_of(S1))
    for shard, home in enumerate(receipt.placed):
        ((name, data),) = world.objects(home).items()
        assert name == machine.keys.shard_name(S1, 0, home)
        header = ShardHeader.unpack(data, machine.keys.header, S1, home)
        assert (header.shard, header.seal, header.total) == (shard, receipt.seal, len(data))
        rows = unpack_table(data[header.table_offset : header.manifest_offset], header)
        assert rows[0].offset == HEADER_BYTES
        manifest = machine.vault.manifests.open(S1, data[header.manifest_offset :])
        assert manifest.placed == receipt.placed
        for stripe, row in enumerate(rows):
            block = data[row.offset : row.offset + row.length]
            assert row.hash == blake3(block).digest() == manifest.hash_of(StripeNo(stripe), ShardNo(shard))
            assert row.offset == manifest.block_offset(StripeNo(stripe))


@pytest.mark.parametrize("length", [1, 136, PIECE_BYTES, *(block_bytes(STRIPE_BYTES, k) for k in (1, 2, 3, 4, 5, 10))])
def test_no_piece_is_a_short_rest_of_another(length: int) -> None:
    part = memoryview(os.urandom(length))
    pieces = list(even_pieces(part))
    assert b"".join(pieces) == part
    assert max(map(len, pieces)) <= PIECE_BYTES * 3 // 2
    assert min(map(len, pieces)) >= min(length, PIECE_BYTES // 2)


async def stored(machine: Machine, shelf: PlainShelf, sealed: SealedSegment) -> Receipt:
    """As the courier does: again and again."""
    with trio.fail_after(10):
        while True:
            try:
                return await machine.vault.store(sealed, await shelf.path_of(sealed.id))
            except (Retryable, TooFewShards):
                await trio.sleep(0.02)


async def test_retries_send_the_whole_body_again(tmp_path: Path) -> None:
    world = World.of(2, 1, attempts=8)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "s")
    for each in world.stores.values():
        each.faults.cut = 0.3
        each.faults.busy = 0.2
        each.faults.lost_answer = 0.2
    for number in range(1, 11):
        sealed = shelf.add(number, bytes([number]) * 5000)
        assert (await stored(machine, shelf, sealed)).complete
    assert sum(each.injected.total() for each in world.stores.values()) > 5
    for each in world.stores.values():
        each.faults.cut = each.faults.busy = each.faults.lost_answer = 0.0
    for number in range(1, 11):
        await machine.vault.fetch_segment(SegmentId(number), tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == bytes([number]) * 5000


async def test_a_straggler_is_left_to_repair_once_enough_are_placed(tmp_path: Path, autojump_clock) -> None:
    world = World.of(2, 2, margin=1)
    machine, shelf = world.machine(tmp_path / "a"), PlainShelf(tmp_path / "s")
    slow = LocationId("trove-2")
    world.stores[slow].hung = True
    sealed = shelf.add(1, b"data" * 100)
    receipt = await machine.vault.store(sealed, await shelf.path_of(S1))
    assert receipt.missing == 1
    assert slow not in receipt.placed
    assert machine.vault.buffers.leased_bytes == 0
