"""What is kept of buckets and documents in memory never says other than the index."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from qss.s3.backend import Attributes, PutRequest, Versioning
from qss.s3.errors import Code, S3Error
from qss.trove.node import Node
from qss.trove.rows import NamedRow, Place
from tests.harness.trove_node import Bytes, node


def test_changes_are_seen_at_once(tmp_path: Path) -> None:
    async def work(one: Node) -> None:
        store = one.store
        await store.create_bucket("bkt", "r")
        first = store.buckets.now("bkt")
        assert store.buckets.now("bkt") is first  # kept
        assert await store.get_document("bkt", "policy") is None
        await store.put_document("bkt", "policy", b"one")
        assert await store.get_document("bkt", "policy") == b"one"
        await store.put_document("bkt", "policy", b"x" * 5000)  # longer than what is kept
        assert await store.get_document("bkt", "policy") == b"x" * 5000
        await store.put_document("bkt", "policy", None)
        assert await store.get_document("bkt", "policy") is None
        await store.set_versioning("bkt", Versioning.ENABLED)
        assert store.buckets.now("bkt").numbered

    _with_node(tmp_path, work)


def test_a_bucket_of_the_same_name_is_another(tmp_path: Path) -> None:
    async def work(one: Node) -> None:
        store = one.store
        await store.create_bucket("bkt", "r")
        await store.put_document("bkt", "policy", b"old")
        assert await store.get_document("bkt", "policy") == b"old"
        await store.delete_bucket("bkt")
        for ask in (store.head_bucket("bkt"), store.get_document("bkt", "policy"), store.open("bkt", "k")):
            with pytest.raises(S3Error) as caught:
                await ask
            assert caught.value.code is Code.NO_SUCH_BUCKET
        await store.create_bucket("bkt", "r")
        assert await store.get_document("bkt", "policy") is None

    _with_node(tmp_path, work)


def test_what_is_undone_is_not_kept(tmp_path: Path) -> None:
    """A writing transaction that fails leaves neither its rows nor what was made of them."""

    async def work(one: Node) -> None:
        store = one.store
        await store.create_bucket("bkt", "r")
        before = store.buckets.now("bkt")
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                _begin_and_fail(one)
            with pytest.raises(S3Error):
                store.buckets.now("ghost")
            assert await store.get_document("bkt", "policy") is None
            assert store.buckets.now("bkt") == before
            with one.engine.index.read() as tables:
                assert tables.no_amends()
                assert tables.bucket_id(0, b"ghost") is None
                assert tables.grave(b"g" * 16) == 0
                assert not tables.has_older(before.number)

    _with_node(tmp_path, work)


def test_the_first_amendment_is_seen(tmp_path: Path) -> None:
    async def work(one: Node) -> None:
        store = one.store
        await store.create_bucket("bkt", "r")
        await store.put(PutRequest("bkt", "k", Attributes()), Bytes(b"x"))
        assert not (await store.head("bkt", "k")).attributes.tags
        await store.put_tags("bkt", "k", (("a", "b"),))
        assert (await store.head("bkt", "k")).attributes.tags == (("a", "b"),)

    _with_node(tmp_path, work)
    reopened = node(tmp_path / "n")

    async def again() -> None:
        try:
            assert (await reopened.store.head("bkt", "k")).attributes.tags == (("a", "b"),)
        finally:
            await reopened.aclose()

    asyncio.run(again())


def _with_node(directory: Path, work: Callable[[Node], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        one = node(directory / "n")
        try:
            await work(one)
        finally:
            await one.aclose()

    asyncio.run(all_of_it())


def _begin_and_fail(one: Node) -> None:
    with one.engine.index.write() as tables:
        tables.set_bucket(0, b"ghost", NamedRow(Place(0, 0, 0), 77, 1, b""))
        tables.set_document(0, b"bkt/policy", NamedRow(Place(0, 0, 0), 0, 1, b"ghost"))
        tables.set_amend(b"k" * 16, NamedRow(Place(0, 0, 0), 0, 1, b"{}"))
        tables.set_grave(b"g" * 16, 5)
        tables.will_have_older(77)
        assert tables.bucket_id(0, b"ghost") == 77
        assert tables.grave(b"g" * 16) == 5
        raise ZeroDivisionError


def test_who_reads_across_a_write_goes_on_seeing_what_was_there(tmp_path: Path) -> None:
    async def work(one: Node) -> None:
        index = one.engine.index
        with index.read() as before:
            with index.write() as tables:
                tables.set_bucket(0, b"fresh", NamedRow(Place(0, 0, 0), 77, 1, b""))
            with index.read() as after:
                assert after.bucket_row(0, b"fresh") is not None
            assert before.bucket_row(0, b"fresh") is None

    _with_node(tmp_path, work)
