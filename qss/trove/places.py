"""Walks over all of the index, a slice at a time: what versions, documents and parts there are, and which lie where."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import islice
from typing import Final

from qss.trove.facts import PART_KEY
from qss.trove.index import Index
from qss.trove.keyversions import scan_versions
from qss.trove.rows import TENANT, NamedRow, ObjectRow, Place, decode_part

SLICE_ROWS: Final = 500
"""Looked at before requests have their turn again."""


async def walk_versions(index: Index) -> AsyncIterator[tuple[bytes, bytes, ObjectRow]]:
    """(bucket, key, row) of every version of every object, delete markers included. Changes made meanwhile may be seen
    or not."""
    with index.read() as tables:
        buckets = [(name, row.number) for name, row in tables.buckets(TENANT)]
    for bucket, number in buckets:
        lower, below = b"", None
        more = True
        while more:
            with index.read() as tables:
                rows = list(islice(scan_versions(tables, number, lower, below), SLICE_ROWS))
            for key, row in rows:
                yield bucket, key, row
                lower, below = key, row.version
            more = len(rows) == SLICE_ROWS
            await asyncio.sleep(0)


async def walk_documents(index: Index) -> AsyncIterator[tuple[bytes, bytes, NamedRow]]:
    """(bucket, name, row) of every document of a bucket."""
    with index.read() as tables:
        buckets = [name for name, _ in tables.buckets(TENANT)]
    for bucket in buckets:
        with index.read() as tables:
            found = list(tables.documents(TENANT, bucket))
        for name, row in found:
            yield bucket, name, row
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
    """(place, `bucket/key` or words for what has no key) of all that lies in these stretches of the volumes."""

    def hit(place: Place) -> bool:
        return any(
            each.volume == place.volume and each.position <= place.position < each.position + each.length
            for each in stretches
        )

    async for bucket, name, row in walk_versions(index):
        if hit(row.place):
            yield row.place, (bucket + b"/" + name).decode("utf-8", "replace")
    async for bucket, name, document in walk_documents(index):
        if hit(document.place):
            yield document.place, f"{name.decode()} of bucket {bucket.decode()}"
    async for upload, number, place in walk_parts(index):
        if hit(place):
            yield place, f"part {number} of upload {upload.hex()}"
