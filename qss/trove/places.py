"""Walks over all of the index, a slice at a time: what objects and parts there are, and which lie where."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import islice
from typing import Final

from qss.trove.facts import PART_KEY
from qss.trove.index import Index
from qss.trove.rows import ObjectRow, Place, decode_object, decode_part

TENANT: Final = 0
SLICE_ROWS: Final = 500
"""Looked at before requests have their turn again."""


async def walk_objects(index: Index) -> AsyncIterator[tuple[str, str, ObjectRow]]:
    """(bucket, key, row) of every object. Changes made meanwhile may be seen or not."""
    with index.read() as tables:
        buckets = [(name.decode("utf-8", "replace"), row.number) for name, row in tables.buckets(TENANT)]
    for bucket, number in buckets:
        after: bytes | None = b""
        while after is not None:
            with index.read() as tables:
                rows = list(islice(tables.tree(number).scan(after), SLICE_ROWS))
            for key, value in rows:
                yield bucket, key.decode("utf-8", "replace"), decode_object(value)
            after = rows[-1][0] + b"\0" if len(rows) == SLICE_ROWS else None
            await asyncio.sleep(0)


async def walk_parts(index: Index) -> AsyncIterator[tuple[bytes, int, Place]]:
    """(upload, number, place) of every part, of uploads in progress and of objects."""
    after: bytes | None = b""
    while after is not None:
        with index.read() as tables:
            rows = list(islice(tables.scan(tables.dbs.parts, after), SLICE_ROWS))
        for key, value in rows:
            upload, number = PART_KEY.unpack(key)
            yield upload, number, decode_part(value).place
        after = rows[-1][0] + b"\0" if len(rows) == SLICE_ROWS else None
        await asyncio.sleep(0)


async def keys_within(index: Index, stretches: Sequence[Place]) -> AsyncIterator[tuple[Place, str]]:
    """(place, `bucket/key` or words for a part) of all that lies in these stretches of the volumes."""

    def hit(place: Place) -> bool:
        return any(
            each.volume == place.volume and each.position <= place.position < each.position + each.length
            for each in stretches
        )

    async for bucket, name, row in walk_objects(index):
        if hit(row.place):
            yield row.place, f"{bucket}/{name}"
    async for upload, number, place in walk_parts(index):
        if hit(place):
            yield place, f"part {number} of upload {upload.hex()}"
