"""A node that holds a record of every kind, and all that a client can see of it."""

from __future__ import annotations

from qss.s3.backend import (
    Attributes,
    CreateUpload,
    DeleteRequest,
    PutRequest,
    UploadRef,
    VersionEntry,
    Versioning,
    VersionsQuery,
    WantedPart,
    WriteCondition,
)
from qss.s3.lock import DefaultRetention, LockChange, Mode
from qss.trove.store import TroveStore
from tests.harness.trove_node import Bytes


async def fill(store: TroveStore) -> None:
    """A record of every kind, and of most things that end one."""
    for bucket in ("open", "held", "gone"):
        await store.create_bucket(bucket, "us-east-1", lock=bucket == "held")
    await store.set_lock("held", DefaultRetention(Mode.GOVERNANCE, days=1))
    for name in ("lifecycle", "cors"):
        await store.put_document("open", name, name.encode() * 10)
        await store.put_document("gone", name, b"x")
    await store.put_document("open", "cors", None)
    await store.delete_bucket("gone")

    async def put(key: str, data: bytes, bucket: str = "open") -> str | None:
        return (await store.put(PutRequest(bucket, key), Bytes(data))).version_id

    async def delete(key: str, *ids: str | None) -> None:
        for outcome in await store.delete("open", [DeleteRequest(key, each) for each in ids]):
            assert outcome.error is None

    await put("k", b"null 0")
    await store.put_tags("open", "k", (("null", "1"),))
    await store.set_versioning("open", Versioning.ENABLED)
    first, second, third = [await put("k", b"%d" % number) for number in range(3)]
    await store.put_tags("open", "k", (("t", "1"),), first)
    await store.put_tags("open", "k", (("t", "2"),), second)
    await store.put_tags("open", "k", (("t", "2 again"),), second)
    await store.put_tags("open", "k", (("t", "3"),), third)
    await delete("k", third, None)
    await put("large", b"L" * 1_500_000)
    await put("large", b"M" * 1_500_000)
    for key in ("upload", "upload", "part-gone"):
        upload = await store.create_upload(CreateUpload("open", key, Attributes({"content-type": "a/b"})))
        ref = UploadRef("open", key, upload.upload_id)
        part = await store.put_part(ref, 7, Bytes(key.encode()))
        version = (await store.complete_upload(ref, [WantedPart(7, part.etag)], WriteCondition())).version_id
    await delete("part-gone", version)
    marked = (await store.delete("open", [DeleteRequest("marked")]))[0].version_id
    await delete("marked", None)
    await delete("marked", marked)
    await put("back", b"back")
    await delete("back", (await store.delete("open", [DeleteRequest("back")]))[0].version_id)
    await store.set_versioning("open", Versioning.SUSPENDED)
    await put("k", b"null 1")
    await put("suspended", b"gone")
    await delete("suspended", None)
    await put("null-gone", b"gone")
    await delete("null-gone", "null")
    await put("locked", b"locked", "held")
    await put("locked", b"locked too", "held")
    await store.put_lock("held", "locked", LockChange(legal_hold=True))


async def told(store: TroveStore) -> dict[str, object]:
    """Everything a client can see."""
    seen: dict[str, object] = {"buckets": await store.list_buckets()}
    for bucket in ("open", "held"):
        for name in ("lifecycle", "cors"):
            seen[f"{bucket} {name}"] = await store.get_document(bucket, name)
        for each in (await store.list_versions(VersionsQuery(bucket))).entries:
            name = f"{bucket}/{each.object.key} {each.object.version_id}"
            seen[name] = each
            if not each.marker:
                reader = await store.open(bucket, each.object.key, each.object.version_id)
                data = b"".join([bytes(chunk) async for chunk in reader.chunks(0, reader.info.size)])
                seen[name] = each, reader.info, data
                await reader.aclose()
    totals = store.engine.index.totals
    seen["totals"] = totals.objects, totals.object_bytes
    return seen


async def versions_of(store: TroveStore, bucket: str) -> tuple[VersionEntry, ...]:
    return (await store.list_versions(VersionsQuery(bucket))).entries
