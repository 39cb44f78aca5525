"""Verifying objects where they lie: every byte is read and compared, and hashes of the content come back.

`blake3` is plain BLAKE3 of the object's bytes, as `b3sum` gives it. `root` is BLAKE3 of the table of BLAKE3s of each
64 KiB (the one entry itself where there is one; empty for an empty object): for an object that is one record, the root
its record carries (docs/formats/volume.md). So whoever keeps either can compare without moving the bytes.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from blake3 import blake3

from qss.errors import Damaged, Retryable
from qss.formats.volume import root_of
from qss.limits import BLOCK_BYTES
from qss.s3.backend import ListQuery
from qss.trove.store import TroveStore

DAMAGED_LISTED_MAX: Final = 1000


class _Hashes:
    """Plain hash and table of a stream of bytes."""

    def __init__(self) -> None:
        self.size = 0
        self._whole = blake3()
        self._block = blake3()
        self._table = bytearray()

    def take(self, chunk: bytes | memoryview) -> None:
        self._whole.update(chunk)
        view = memoryview(chunk)
        while view:
            room = BLOCK_BYTES - self.size % BLOCK_BYTES
            self._block.update(view[:room])
            self.size += len(view[:room])
            view = view[room:]
            if self.size % BLOCK_BYTES == 0:
                self._table += self._block.digest()
                self._block = blake3()

    def result(self) -> dict[str, Any]:
        tail = self._block.digest() if self.size % BLOCK_BYTES else b""
        table = bytes(self._table) + tail
        root = root_of(table).hex() if table else ""
        return {"bytes": self.size, "blake3": self._whole.hexdigest(), "root": root}


async def verify_object(store: TroveStore, bucket: str, key: str) -> dict[str, Any]:
    """Read one object whole. Its hashes if it verifies, what is wrong if not. Raises S3Error when it is not there."""
    hashes = _Hashes()
    try:
        reader = await store.open(bucket, key)
        try:
            etag = reader.info.etag
            async for chunk in reader.chunks(0, reader.info.size):
                hashes.take(chunk)
                await asyncio.sleep(0)
        finally:
            await reader.aclose()
    except (Damaged, Retryable) as error:
        store.records.flush_damage()
        return {"bucket": bucket, "key": key, "sound": False, "error": str(error)}
    return {"bucket": bucket, "key": key, "sound": True, "etag": etag} | hashes.result()


async def verify_page(store: TroveStore, query: ListQuery) -> dict[str, Any]:
    """The objects of one page of a listing, each as `verify_object` gives it; `next` is `after` of the next page."""
    page = await store.list_objects(query)
    objects = [await verify_object(store, query.bucket, each.key) for each in page.objects]
    return {"objects": objects, "next": page.next_after}


async def verify_all(store: TroveStore, only: str | None) -> dict[str, Any]:
    """Read every object whole, or those of one bucket. Lists the first DAMAGED_LISTED_MAX that are not sound."""
    sound, damaged = 0, []
    for bucket in await store.list_buckets():
        after: str | None = "" if only in (None, bucket.name) else None
        while after is not None:
            found = await verify_page(store, ListQuery(bucket.name, after=after))
            sound += sum(each["sound"] for each in found["objects"])
            damaged += [each for each in found["objects"] if not each["sound"]]
            after = found["next"]
    more = {"damaged_objects": len(damaged)} if len(damaged) > DAMAGED_LISTED_MAX else {}
    return {"sound": sound, "damaged": damaged[:DAMAGED_LISTED_MAX]} | more
