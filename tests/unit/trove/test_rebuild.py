"""The volumes are all there is to a node: an index made from them says what the old one said, of everything."""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path
from typing import Any

from qss.s3.backend import (
    ALWAYS,
    Attributes,
    CreateUpload,
    DeleteRequest,
    PutRequest,
    UploadRef,
    UploadsQuery,
    WantedPart,
)
from qss.trove.compaction import compact_one
from qss.trove.node import Node
from tests.harness.trove_node import Bytes, node

PART = 5 * 2**20


async def _live_through(opened: Node, rng: random.Random) -> None:
    store = opened.store
    for name in ("first", "second", "gone"):
        await store.create_bucket(name, "us-east-1")
    keys = [f"{'d' * rng.randrange(3)}/k{number}" for number in range(20)] + ["é" * 400, "é" * 400 + "x"]
    for number in range(200):
        bucket, key = rng.choice(("first", "second")), rng.choice(keys)
        match rng.randrange(10):
            case 0 | 1:
                await store.delete(bucket, [DeleteRequest(key)])
            case 2 if store.row(bucket, key) is not None:
                await store.put_tags(bucket, key, (("n", str(number)),))
            case 3 if number % 4 == 0:
                await _upload(opened, bucket, key, rng, complete=True)
            case 4:
                await _upload(opened, bucket, f"open{number}", rng, complete=False)
            case 5 if number % 3 == 0:
                await compact_one(opened.engine, 0.1, 0)
            case _:
                attributes = Attributes(metadata=(("n", str(number)),))
                size = rng.choice((0, 10, 5000, 70_000))
                await store.put(PutRequest(bucket, key, attributes), Bytes(rng.randbytes(size)))
    await store.delete_bucket("gone")


async def _upload(opened: Node, bucket: str, key: str, rng: random.Random, *, complete: bool) -> None:
    upload = await opened.store.create_upload(CreateUpload(bucket, key))
    ref = UploadRef(bucket, key, upload.upload_id)
    sizes = (PART, 100) if complete else (10, 1000)
    parts = [await opened.store.put_part(ref, n, Bytes(rng.randbytes(size))) for n, size in enumerate(sizes, 1)]
    if complete:
        await opened.store.complete_upload(ref, [WantedPart(each.number, each.etag) for each in parts], ALWAYS)


async def _all_of(opened: Node) -> dict[str, Any]:
    """Everything a client can ask for, and what is counted."""
    store = opened.store
    totals = opened.engine.index.totals
    found: dict[str, Any] = {"objects": totals.objects, "bytes": totals.object_bytes, "buckets": {}}
    with opened.engine.index.read() as tables:
        rows = {
            (name, key): value for name, bucket in tables.buckets(0) for key, value in tables.tree(bucket.number).scan()
        }
        parts = dict(tables.scan(tables.dbs.parts))
        found |= {"rows": rows, "parts": parts, "uploads": dict(tables.scan(tables.dbs.uploads))}
        found["owners"] = dict(tables.scan(tables.dbs.owners))
    for bucket in await store.list_buckets():
        uploads = (await store.list_uploads(UploadsQuery(bucket.name))).uploads
        heads = [await store.head(bucket.name, key.decode()) for name, key in rows if name == bucket.name.encode()]
        found["buckets"][bucket] = (uploads, heads)
    return found


def test_a_rebuilt_index_says_what_the_old_one_said(tmp_path: Path) -> None:
    async def work() -> None:
        for seed in range(3):
            directory = tmp_path / str(seed)
            opened = node(directory)
            await _live_through(opened, random.Random(seed))
            await opened.aclose()
            opened = node(directory)
            before = await _all_of(opened)
            assert not opened.report.rebuilt
            await opened.aclose()
            shutil.rmtree(directory / "index")
            opened = node(directory)
            assert opened.report.rebuilt
            assert await _all_of(opened) == before
            assert len(before["rows"]) > 10
            await opened.aclose()

    asyncio.run(work())
