"""A rebuild reads volume after volume, not in the order in which things happened: what counts must not depend on it.

Long bodies have volumes of their own (SMALL_BODY_BYTES_MAX), so what is written about them is read before or after.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qss.errors import Retryable
from qss.s3.backend import (
    ALWAYS,
    CreateUpload,
    DeleteRequest,
    Part,
    PutRequest,
    UploadRef,
    UploadsQuery,
    Versioning,
    VersionsQuery,
    WantedPart,
)
from qss.trove.facts import apply, version_key
from qss.trove.index import Index
from qss.trove.keyversions import scan_versions
from qss.trove.node import Node
from qss.trove.scan import Whole, fact_of, scan
from qss.trove.volumes import SMALL_BODY_BYTES_MAX
from tests.harness.trove_node import Bytes, content, node

LONG = b"long " * (SMALL_BODY_BYTES_MAX // 5 + 1)
TAGS = (("colour", "red"),)


async def _rebuilt(opened: Node, directory: Path) -> Node:
    await opened.aclose()
    shutil.rmtree(directory / "index")
    again = node(directory)
    assert again.report.rebuilt
    return again


def test_tags_put_on_what_replaced_another_object_stay(tmp_path: Path) -> None:
    """The tags are read first; then the object that was replaced, whose own they are not."""

    async def work() -> None:
        opened = node(tmp_path)
        store = opened.store
        await store.create_bucket("bkt", "r")
        await store.put(PutRequest("bkt", "k"), Bytes(LONG))
        await store.put(PutRequest("bkt", "k"), Bytes(LONG + b"!"))
        await store.put_tags("bkt", "k", TAGS)
        opened = await _rebuilt(opened, tmp_path)
        assert (await opened.store.head("bkt", "k")).attributes.tags == TAGS
        await opened.aclose()

    asyncio.run(work())


def test_an_upload_that_was_completed_is_not_in_progress_again(tmp_path: Path) -> None:
    """What replaced its object is read before the upload and its object are."""

    async def work() -> None:
        opened = node(tmp_path)
        store = opened.store
        await store.create_bucket("bkt", "r")
        await store.put(PutRequest("bkt", "other"), Bytes(LONG))
        await opened.aclose()
        opened = node(tmp_path)  # long bodies go to the first volume now, short ones to the second
        store = opened.store
        await _complete(store, "k")
        await store.put(PutRequest("bkt", "k"), Bytes(LONG))
        opened = await _rebuilt(opened, tmp_path)
        assert (await opened.store.list_uploads(UploadsQuery("bkt"))).uploads == ()
        with opened.engine.index.read() as tables:
            assert tables.is_empty(tables.dbs.parts)
        assert await content(opened.store, "bkt", "k") == LONG
        await opened.aclose()

    asyncio.run(work())


async def _parts(store: Any, key: str, bucket: str = "bkt") -> tuple[UploadRef, list[Part]]:
    upload = await store.create_upload(CreateUpload(bucket, key))
    ref = UploadRef(bucket, key, upload.upload_id)
    return ref, [await store.put_part(ref, 1, Bytes(b"a part"))]


def _wanted(parts: list[Part]) -> list[WantedPart]:
    return [WantedPart(each.number, each.etag) for each in parts]


async def _complete(store: Any, key: str) -> None:
    ref, parts = await _parts(store, key)
    await store.complete_upload(ref, _wanted(parts), ALWAYS)


@pytest.mark.parametrize("versioning", [None, Versioning.ENABLED])
def test_an_upload_completed_twice_keeps_its_parts(tmp_path: Path, versioning: Versioning | None) -> None:
    """The first time the index failed behind the record, and the client was told to send it again."""

    async def work() -> None:
        opened = node(tmp_path)
        store = opened.store
        await store.create_bucket("bkt", "r")
        if versioning is not None:
            await store.set_versioning("bkt", versioning)
        ref, parts = await _parts(store, "k")
        index = opened.engine.index
        write = index.write

        @contextmanager
        def failing() -> Any:
            raise OSError("no space for the index")
            yield

        index.write = failing  # type: ignore[method-assign]
        with pytest.raises(Retryable):
            await store.complete_upload(ref, _wanted(parts), ALWAYS)
        index.write = write  # type: ignore[method-assign]
        done = await store.complete_upload(ref, _wanted(parts), ALWAYS)
        opened = await _rebuilt(opened, tmp_path)
        assert await content(opened.store, "bkt", "k") == b"a part"
        assert (await opened.store.head("bkt", "k")).version_id == done.version_id
        if versioning is not None:  # the record of the first time is no version of its own, and takes nothing with it
            page = await opened.store.list_versions(VersionsQuery("bkt"))
            assert [each.object.version_id for each in page.entries] == [done.version_id]
        await opened.aclose()

    asyncio.run(work())


RECORDS_PER_LIFE = 160


async def _life(store: Any, rng: random.Random) -> None:
    """Everything that may be said of a few keys, in one bucket whose versioning changes and one without."""
    for bucket in ("one", "two"):
        await store.create_bucket(bucket, "r")
    for _ in range(RECORDS_PER_LIFE):
        bucket, key = rng.choice(("one", "two")), rng.choice("abc")
        page = await store.list_versions(VersionsQuery(bucket, key))
        found = [each for each in page.entries if not each.marker]
        match rng.randrange(9):
            case 0:
                await store.delete(bucket, [DeleteRequest(key)])
            case 1 if page.entries:
                named = rng.choice(page.entries).object.version_id
                await store.delete(bucket, [DeleteRequest(key, named)])
            case 2 | 3 if found:
                tags = (("n", str(rng.random())),)
                await store.put_tags(bucket, key, tags, rng.choice(found).object.version_id)
            case 4 | 5:
                ref, parts = await _parts(store, key, bucket)
                if rng.randrange(4):
                    await store.complete_upload(ref, _wanted(parts), ALWAYS)
                elif rng.randrange(2):
                    await store.abort_upload(ref)
            case 6:
                await store.set_versioning("one", rng.choice((Versioning.ENABLED, Versioning.SUSPENDED)))
            case 7:
                await store.put_document(bucket, "tagging", rng.choice((b"a", b"b", None)))
            case _:
                await store.put(PutRequest(bucket, key), Bytes(rng.randbytes(20)))


def _said(index: Index) -> dict[str, Any]:
    """What counts. Numbers of buckets are given as they come, and amendments of what is gone may be kept."""
    with index.read() as tables:
        found: dict[str, Any] = {"objects": (index.totals.objects, index.totals.object_bytes)}
        for name, bucket in tables.buckets(0):
            found[name.decode()] = bucket.meta
            rows = list(scan_versions(tables, bucket.number, b""))
            found[f"versions of {name.decode()}"] = rows
            tags = [
                tables.amend(version_key(0, name + b"/" + key, row.version, numbered=row.numbered)) for key, row in rows
            ]
            found[f"tags of {name.decode()}"] = [
                (amend.version, amend.meta) if amend is not None and amend.number == row.version else None
                for amend, (_, row) in zip(tags, rows, strict=True)
            ]
            found[f"documents of {name.decode()}"] = list(tables.documents(0, name))
            found[f"usage of {name.decode()}"] = tables.usage(bucket.number)
        for table in ("uploads", "parts", "owners"):
            found[table] = dict(tables.scan(getattr(tables.dbs, table)))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_records_say_the_same_in_any_order(tmp_path: Path, seed: int) -> None:
    """Each of them once or twice."""
    rng = random.Random(seed)

    async def work() -> None:
        opened = node(tmp_path / "n")
        await _life(opened.store, rng)
        volumes = opened.engine.volumes
        facts = [
            fact_of(volumes.disk, volume, each)
            for volume in volumes.volumes.values()
            for each in scan(volumes.disk, volume)
            if isinstance(each, Whole) and not each.footer.void
        ]
        expected = _said(opened.engine.index)
        assert expected["uploads"]
        assert expected["owners"]
        for turn in range(10):
            index = Index(tmp_path / str(turn), "boot")
            rng.shuffle(facts)
            with index.write() as tables:
                for fact in [*facts, *facts[: rng.randrange(len(facts))]]:
                    apply(tables, fact)
            assert _said(index) == expected
            index.close()
        await opened.aclose()

    asyncio.run(work())
