"""Which objects and parts lie in given stretches of the volumes: asked of the index, where a record cannot say it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import islice
from typing import Final

from qss.trove.facts import PART_KEY
from qss.trove.index import Index
from qss.trove.rows import Place, decode_object, decode_part

TENANT: Final = 0
SLICE_ROWS: Final = 500
"""Looked at before requests have their turn again."""


async def keys_within(index: Index, stretches: Sequence[Place]) -> AsyncIterator[tuple[Place, str]]:
    """(place, `bucket/key` or words for a part) of all that lies there. Reads the whole index, a slice at a time."""

    def hit(place: Place) -> bool:
        return any(
            each.volume == place.volume and each.position <= place.position < each.position + each.length
            for each in stretches
        )

    with index.read() as tables:
        buckets = [(name.decode("utf-8", "replace"), row.number) for name, row in tables.buckets(TENANT)]
    for bucket, number in buckets:
        after: bytes | None = b""
        while after is not None:
            with index.read() as tables:
                rows = list(islice(tables.tree(number).scan(after), SLICE_ROWS))
            for key, value in rows:
                if hit(place := decode_object(value).place):
                    yield place, f"{bucket}/{key.decode('utf-8', 'replace')}"
            after = rows[-1][0] + b"\0" if len(rows) == SLICE_ROWS else None
            await asyncio.sleep(0)
    after = b""
    while after is not None:
        with index.read() as tables:
            rows = list(islice(tables.scan(tables.dbs.parts, after), SLICE_ROWS))
        for key, value in rows:
            if hit(place := decode_part(value).place):
                upload, number = PART_KEY.unpack(key)
                yield place, f"part {number} of upload {upload.hex()}"
        after = rows[-1][0] + b"\0" if len(rows) == SLICE_ROWS else None
        await asyncio.sleep(0)
