"""Completing an upload, aborting it and putting its parts, all at once: one comes first, and what is there is whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from qss.s3.backend import ALWAYS, CreateUpload, PutRequest, UploadRef, UploadsQuery, WantedPart
from qss.s3.errors import Code, S3Error
from qss.trove.node import Node
from tests.harness.trove_node import Bytes, content, node

LISTED, OTHER = b"the part that was listed", b"another part of the same number"


async def _ready(opened: Node, key: str) -> tuple[UploadRef, list[WantedPart]]:
    ref = UploadRef("bkt", key, (await opened.store.create_upload(CreateUpload("bkt", key))).upload_id)
    part = await opened.store.put_part(ref, 1, Bytes(LISTED))
    return ref, [WantedPart(1, part.etag)]


def _run(directory: Path, work: Callable[[Node], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        opened = node(directory)
        await opened.store.create_bucket("bkt", "r")
        await work(opened)
        await opened.aclose()

    asyncio.run(all_of_it())


async def _outcomes(works: list[Awaitable[Any]]) -> list[Any]:
    """Results; of what was refused, the code."""
    found = await asyncio.gather(*works, return_exceptions=True)
    for each in found:
        if isinstance(each, BaseException) and not isinstance(each, S3Error):
            raise each
    return [each.code if isinstance(each, S3Error) else each for each in found]


@pytest.mark.parametrize("first", ["abort", "complete"])
def test_complete_and_abort(tmp_path: Path, first: str) -> None:
    async def work(opened: Node) -> None:
        store = opened.store
        ref, wanted = await _ready(opened, "k")
        works = [store.abort_upload(ref), store.complete_upload(ref, wanted, ALWAYS)]
        found = await _outcomes(works if first == "abort" else works[::-1])
        assert found[1] is Code.NO_SUCH_UPLOAD
        if first == "complete":
            assert await content(store, "bkt", "k") == LISTED
        else:
            assert store.row("bkt", "k") is None
        assert (await store.list_uploads(UploadsQuery("bkt"))).uploads == ()

    _run(tmp_path, work)


@pytest.mark.parametrize("first", ["part", "complete"])
def test_complete_and_a_part_put_again(tmp_path: Path, first: str) -> None:
    async def work(opened: Node) -> None:
        store = opened.store
        ref, wanted = await _ready(opened, "k")
        works = [store.put_part(ref, 1, Bytes(OTHER)), store.complete_upload(ref, wanted, ALWAYS)]
        found = await _outcomes(works if first == "part" else works[::-1])
        if first == "complete":
            assert found[1] is Code.NO_SUCH_UPLOAD
            assert await content(store, "bkt", "k") == LISTED
        else:
            assert found[1] is Code.INVALID_PART
            assert store.row("bkt", "k") is None

    _run(tmp_path, work)


def test_uploads_that_are_too_old_are_dropped_unless_they_are_completed(tmp_path: Path) -> None:
    async def work(opened: Node) -> None:
        store = opened.store
        ref, wanted = await _ready(opened, "k")
        await _ready(opened, "old")
        await store.put(PutRequest("bkt", "old"), Bytes(b"an object of that key is another thing"))
        completed, dropped = await asyncio.gather(
            store.complete_upload(ref, wanted, ALWAYS), store.expire_uploads(2**63)
        )
        assert (completed.size, dropped) == (len(LISTED), 1)
        assert await content(store, "bkt", "k") == LISTED
        assert (await store.list_uploads(UploadsQuery("bkt"))).uploads == ()

    _run(tmp_path, work)
