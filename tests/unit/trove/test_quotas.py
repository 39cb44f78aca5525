"""What a bucket may hold is what it gets to hold: by put, side by side, by multipart, over a restart."""

from __future__ import annotations

import asyncio
import random
import shutil
import stat
from pathlib import Path

import pytest

from qss.errors import Refused
from qss.s3.backend import CreateUpload, DeleteRequest, PutRequest, UploadRef, WantedPart, WriteCondition
from qss.s3.errors import Code, S3Error
from qss.trove.compaction import compact_one
from qss.trove.ledger import LEDGER
from qss.trove.node import Node
from qss.trove.quotas import Quota, Usage
from qss.trove.usage import bytes_in_uploads, usage_of
from tests.harness.trove_node import Bytes, drop_dead, node


async def full(work) -> None:
    with pytest.raises(S3Error) as caught:
        await work
    assert caught.value.code is Code.QUOTA_EXCEEDED


def usage(opened: Node, bucket: str = "bkt") -> tuple[int, int]:
    found = usage_of(opened.engine.index, bucket)
    return found.objects, found.bytes


def test_bytes_and_objects_are_limited(tmp_path: Path) -> None:
    async def work() -> None:
        opened = node(tmp_path)
        store, quotas = opened.store, opened.quotas
        await store.create_bucket("bkt", "r")
        await store.create_bucket("other", "r")
        await quotas.set("bkt", Quota(1000, 2))
        await store.put(PutRequest("bkt", "a"), Bytes(b"x" * 600))
        await full(store.put(PutRequest("bkt", "b"), Bytes(b"x" * 401)))
        await store.put(PutRequest("bkt", "b"), Bytes(b"x" * 400))
        await full(store.put(PutRequest("bkt", "c"), Bytes(b"")))
        await store.put(PutRequest("bkt", "a"), Bytes(b"y" * 600))  # in its own place there is room
        await full(store.put(PutRequest("bkt", "a"), Bytes(b"y" * 601)))
        assert usage(opened) == (2, 1000)
        await store.put(PutRequest("other", "c"), Bytes(b"z" * 5000))
        await store.delete("bkt", [DeleteRequest("a")])
        await store.put(PutRequest("bkt", "c"), Bytes(b"x" * 600))
        await quotas.set("bkt", None)
        await store.put(PutRequest("bkt", "d"), Bytes(b"x" * 6000))
        await opened.aclose()

    asyncio.run(work())


def test_side_by_side_no_more_fits_than_one_after_another(tmp_path: Path) -> None:
    async def work() -> None:
        opened = node(tmp_path)
        await opened.store.create_bucket("bkt", "r")
        await opened.quotas.set("bkt", Quota(10_000, None))
        puts = [opened.store.put(PutRequest("bkt", f"k{n}"), Bytes(b"x" * 3000)) for n in range(8)]
        results = await asyncio.gather(*puts, return_exceptions=True)
        assert sum(isinstance(each, S3Error) for each in results) == 5
        assert usage(opened) == (3, 9000)
        broken = Bytes(b"x" * 1000, piece=100, fails_at=500)
        with pytest.raises(ConnectionResetError):
            await opened.store.put(PutRequest("bkt", "k"), broken)
        await opened.store.put(PutRequest("bkt", "k"), Bytes(b"x" * 1000))  # what failed holds no room
        await opened.aclose()

    asyncio.run(work())


def test_parts_count_before_and_after_they_become_an_object(tmp_path: Path) -> None:
    async def work() -> None:
        opened = node(tmp_path)
        store = opened.store
        await store.create_bucket("bkt", "r")
        await opened.quotas.set("bkt", Quota(6_000_000, 1))
        upload = await store.create_upload(CreateUpload("bkt", "big"))
        ref = UploadRef("bkt", "big", upload.upload_id)
        first = await store.put_part(ref, 1, Bytes(b"1" * 5_300_000))
        assert bytes_in_uploads(opened.engine.index, "bkt") == 5_300_000
        await full(store.put_part(ref, 2, Bytes(b"2" * 700_001)))
        await full(store.put(PutRequest("bkt", "small"), Bytes(b"2" * 700_001)))
        second = await store.put_part(ref, 2, Bytes(b"2" * 700_000))
        wanted = [WantedPart(1, first.etag), WantedPart(2, second.etag)]
        await store.complete_upload(ref, wanted, WriteCondition())
        assert usage(opened) == (1, 6_000_000)
        assert bytes_in_uploads(opened.engine.index, "bkt") == 0
        upload = await store.create_upload(CreateUpload("bkt", "more"))
        ref = UploadRef("bkt", "more", upload.upload_id)
        await opened.quotas.set("bkt", Quota(7_000_000, 1))
        part = await store.put_part(ref, 1, Bytes(b"3"))
        await full(store.complete_upload(ref, [WantedPart(1, part.etag)], WriteCondition()))
        await opened.aclose()

    asyncio.run(work())


@pytest.mark.parametrize("end", ["stop", "kill", "kill and no index"])
def test_usage_and_quota_outlive_the_process(tmp_path: Path, end: str) -> None:
    async def work() -> None:
        opened = node(tmp_path)
        rng, expected = random.Random(7), {}
        for bucket in ("one", "two"):
            await opened.store.create_bucket(bucket, "r")
        await opened.quotas.set("two", Quota(123_456, 40))
        for _ in range(120):
            bucket, key = rng.choice(("one", "two")), f"k{rng.randrange(30)}"
            if rng.random() < 0.3:
                await opened.store.delete(bucket, [DeleteRequest(key)])
                expected.pop((bucket, key), None)
            else:
                size = rng.randrange(3000)
                await opened.store.put(PutRequest(bucket, key), Bytes(bytes(size)))
                expected[bucket, key] = size
        await compact_one(opened.engine, 0.0, 0)
        if end == "stop":
            await opened.aclose()
        else:
            drop_dead(opened)
        if end.endswith("index"):
            shutil.rmtree(tmp_path / "index")
        opened = node(tmp_path)
        for bucket in ("one", "two"):
            sizes = [size for (name, _), size in expected.items() if name == bucket]
            assert usage(opened, bucket) == (len(sizes), sum(sizes))
        assert opened.quotas.of("two") == Quota(123_456, 40)
        assert opened.quotas.of("one") is None
        assert usage_of(opened.engine.index, "none") == Usage()
        await opened.aclose()

    asyncio.run(work())


def test_a_damaged_ledger_is_one_clear_sentence(tmp_path: Path) -> None:
    opened = node(tmp_path)
    asyncio.run(opened.aclose())
    path = tmp_path / LEDGER
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"this is not a database, and long enough to be looked at" * 100)
    with pytest.raises(Refused, match="backup"):
        node(tmp_path)
    path.unlink()
    asyncio.run(node(tmp_path).aclose())
