"""Verifying objects where they lie: every byte is read and compared, and hashes of the content come back.

`blake3` is plain BLAKE3 of the object's bytes, as `b3sum` gives it. `root` is BLAKE3 of the table of BLAKE3s of each
64 KiB (the one entry itself where there is one; empty for an empty object): for an object that is one record, the root
its record carries (docs/formats/volume.md). So whoever keeps either can compare without moving the bytes.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

from blake3 import blake3

from qss.errors import Damaged, Retryable
from qss.formats.volume import root_of
from qss.limits import BLOCK_BYTES
from qss.s3.backend import VersionsQuery
from qss.s3.errors import S3Error
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


async def verify_object(store: TroveStore, bucket: str, key: str, version: str | None = None) -> dict[str, Any]:
    """Read one object, or one version, whole. Its hashes if it verifies, what is wrong if not; of an encrypted one
    those of what is stored. Raises S3Error when it is not there."""
    name = {"bucket": bucket, "key": key} | ({} if version is None else {"version": version})
    hashes = _Hashes()
    try:
        reader = await store.open_stored(bucket, key, version)
        try:
            etag = reader.info.etag
            async for chunk in reader.chunks(0, reader.stored_bytes):
                hashes.take(chunk)
                await asyncio.sleep(0)
        finally:
            await reader.aclose()
    except (Damaged, Retryable) as error:
        store.records.flush_damage()
        return name | {"sound": False, "error": str(error)}
    return name | {"sound": True, "etag": etag} | hashes.result()


async def verify_page(store: TroveStore, query: VersionsQuery) -> dict[str, Any]:
    """The objects of one page of a listing, each as `verify_object` gives it: where there is versioning, all versions.

    `next` and `next_version` are the query's `key_after` and `version_after` for the next page.
    """
    named = (await store.head_bucket(query.bucket)).versioning is not None
    page = await store.list_versions(query)
    objects = []
    for entry in page.entries:
        if not entry.marker:
            with suppress(S3Error):  # deleted since
                version = entry.object.version_id if named else None
                objects.append(await verify_object(store, query.bucket, entry.object.key, version))
    key, version = page.next_after or (None, None)
    return {"objects": objects, "next": key} | ({"next_version": version} if named else {})


async def verify_all(store: TroveStore, only: str | None) -> dict[str, Any]:
    """Read every version of every object whole, or those of one bucket. Lists the first DAMAGED_LISTED_MAX that are not
    sound."""
    sound, damaged = 0, []
    for bucket in await store.list_buckets():
        key: str | None = "" if only in (None, bucket.name) else None
        version: str | None = None
        while key is not None:
            found = await verify_page(store, VersionsQuery(bucket.name, key_after=key, version_after=version))
            sound += sum(each["sound"] for each in found["objects"])
            damaged += [each for each in found["objects"] if not each["sound"]]
            key, version = found["next"], found.get("next_version")
    more = {"damaged_objects": len(damaged)} if len(damaged) > DAMAGED_LISTED_MAX else {}
    return {"sound": sound, "damaged": damaged[:DAMAGED_LISTED_MAX]} | more
