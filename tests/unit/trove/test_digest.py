"""Hashing in place: what a node says of its bytes, from the disk, in any span, of objects in one piece and in parts."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from blake3 import blake3

from qss.limits import KIB, MIB
from qss.s3 import inplace
from qss.s3.backend import ALWAYS, CreateUpload, PutRequest, UploadRef, WantedPart
from qss.trove.node import Node
from tests.harness.trove_node import Bytes, node

BODY = random.Random(3).randbytes(6 * MIB + 1234)
EDGES = (0, 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 200_000, MIB, 5 * MIB - 1, 5 * MIB, 5 * MIB + 70_000, len(BODY))


async def _put(made: Node) -> None:
    store = made.store
    await store.create_bucket("bkt", "us-east-1")
    await store.put(PutRequest("bkt", "whole"), Bytes(BODY))
    await store.put(PutRequest("bkt", "small"), Bytes(BODY[: 70 * KIB]))
    ref = UploadRef("bkt", "parts", (await store.create_upload(CreateUpload("bkt", "parts"))).upload_id)
    parts = [
        await store.put_part(ref, number, Bytes(part))
        for number, part in enumerate((BODY[: 5 * MIB], BODY[5 * MIB :]), 1)
    ]
    await store.complete_upload(ref, [WantedPart(part.number, part.etag) for part in parts], ALWAYS)


def test_any_span_is_hashed_and_read_as_it_is(tmp_path: Path) -> None:
    async def go() -> None:
        made = node(tmp_path)
        await _put(made)
        for key, size in (("whole", len(BODY)), ("parts", len(BODY)), ("small", 70 * KIB)):
            edges = [edge for edge in EDGES if edge <= size]
            spans = [(start, stop) for start in edges for stop in edges if start < stop]
            reader = await made.store.open("bkt", key)
            for at in range(0, len(spans), inplace.SPANS_MAX):
                some = spans[at : at + inplace.SPANS_MAX]
                said = inplace.answered(await inplace.answer(reader, size, some), len(some))
                assert said == [blake3(BODY[start:stop]).digest() for start, stop in some]
                for start, stop in some:
                    assert bytes(await reader.read(start, stop)) == BODY[start:stop]
            await reader.aclose()
        await made.aclose()

    asyncio.run(go())


def test_a_flipped_bit_anywhere_in_the_blocks_of_a_span_is_said(tmp_path: Path) -> None:
    """Also in a part of its first and last block that was not asked for: the node looks after whole blocks."""

    async def fill() -> None:
        made = node(tmp_path)
        await _put(made)
        await made.aclose()

    asyncio.run(fill())
    start, stop = 100_000, 300_000
    for flipped in (70_000, 100_000, 200_000, 299_999, 320_000):
        (volume,) = [each for each in (tmp_path / "volumes").iterdir() if BODY[:MIB] in each.read_bytes()]
        data = bytearray(volume.read_bytes())
        at = data.find(BODY[:MIB]) + flipped  # the one that was put first
        data[at] ^= 1
        volume.write_bytes(data)

        async def look() -> str:
            made = node(tmp_path)
            reader = await made.store.open("bkt", "whole")
            said = await inplace.answer(reader, len(BODY), [(start, stop), (MIB, 2 * MIB)])
            await reader.aclose()
            await made.aclose()
            return said

        first, second = asyncio.run(look()).split(",")
        assert (first, second) == ("-", blake3(BODY[MIB : 2 * MIB]).hexdigest())
        data[at] ^= 1
        volume.write_bytes(data)
