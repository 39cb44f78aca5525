"""Pages of listings over keys of up to 1,024 bytes, in byte order, against sorted()."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qss.errors import CorruptData
from qss.formats.volume import EtagKind
from qss.s3.backend import ListQuery
from qss.trove.facts import Fact, Kind, apply
from qss.trove.node import Node
from qss.trove.rows import ObjectRow, Place, listed
from tests.harness.trove_node import node

KEY_BYTES_MAX = 1024

# Long common beginnings around where keys are cut into pieces, letters of one to four bytes, delimiters.
stems = st.sampled_from(["", "a" * 495, "a" * 496, "a" * 497, "é" * 248, "a" * 992, "a/" * 300, "日" * 165, "x" * 1000])
ends = st.text(alphabet="ab/é日\U0001f600~!", min_size=1, max_size=12)
keys = st.builds(lambda stem, end: stem + end, stems, ends).filter(lambda key: len(key.encode()) <= KEY_BYTES_MAX)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    made = node(tmp_path_factory.mktemp("listing"))
    yield made
    asyncio.run(made.aclose())


_buckets = iter(range(10**6))


def _bucket_with(opened: Node, wanted: set[str]) -> str:
    """A bucket of its own, straight into the index."""
    name = f"bkt{next(_buckets)}"
    with opened.engine.index.write() as tables:
        place = Place(1, 128, 64)
        apply(tables, Fact(Kind.BUCKET, name.encode(), 1, place))
        for number, key in enumerate(wanted):
            at = Place(1, 1024 * (number + 1), 64)
            apply(tables, Fact(Kind.OBJECT, f"{name}/{key}".encode(), 2, at, size=number, etag_kind=EtagKind.MD5))
    return name


def _in_order(found: set[str]) -> list[str]:
    return sorted(found, key=str.encode)


@given(st.sets(keys, max_size=40), st.integers(1, 7), st.sampled_from(["", "a", "a" * 496, "é", "x" * 1000, "a/a/"]))
@settings(max_examples=120, deadline=None)
def test_pages_are_the_sorted_keys(opened: Node, wanted: set[str], limit: int, prefix: str) -> None:
    bucket = _bucket_with(opened, wanted)

    async def pages(delimiter: str) -> tuple[list[str], list[str]]:
        objects: list[str] = []
        prefixes: list[str] = []
        after: str | None = ""
        while after is not None:
            query = ListQuery(bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
            page = await opened.store.list_objects(query)
            assert len(page.objects) + len(page.prefixes) <= limit
            objects += [each.key for each in page.objects]
            prefixes += page.prefixes
            after = page.next_after
        return objects, prefixes

    within = {key for key in wanted if key.startswith(prefix)}
    assert asyncio.run(pages("")) == (_in_order(within), [])
    rest = {key: key[len(prefix) :] for key in within}
    groups = {prefix + tail.partition("/")[0] + "/" for tail in rest.values() if "/" in tail}
    plain = {key for key, tail in rest.items() if "/" not in tail}
    assert asyncio.run(pages("/")) == (_in_order(plain), _in_order(groups))


@given(st.sets(keys, min_size=1, max_size=30), keys)
@settings(max_examples=60, deadline=None)
def test_a_page_begins_behind_any_key(opened: Node, wanted: set[str], after: str) -> None:
    bucket = _bucket_with(opened, wanted)
    page = asyncio.run(opened.store.list_objects(ListQuery(bucket, after=after)))
    assert [each.key for each in page.objects] == [key for key in _in_order(wanted) if key.encode() > after.encode()]
    assert [each.size for each in page.objects] == [
        list(wanted).index(each.key) for each in page.objects
    ]  # and each with what is its own


@given(st.sets(keys, max_size=40), st.integers(1, 50), keys)
@settings(max_examples=80, deadline=None)
def test_rows_taken_at_once_are_those_of_the_walk(opened: Node, wanted: set[str], count: int, start: str) -> None:
    with opened.engine.index.write() as tables:
        trees = [tables.tree(tables.new_node()) for _ in range(2)]  # the second one's rows stand right behind
        for number, key in enumerate(wanted):
            for tree in trees:
                tree.put(key.encode(), ObjectRow(Place(1, 2, 3), 4, number, 5, bytes(16), EtagKind.MD5).encode())
    with opened.engine.index.read() as tables:
        tree = tables.tree(trees[0]._root)
        for lower in (b"", start.encode(), max(wanted, default="").encode()):
            assert tree.some(lower, count) == list(islice(tree.scan(lower), count))


rows_of = st.builds(
    ObjectRow,
    st.just(Place(7, 128, 4096)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**63),
    st.integers(0, 2**64 - 1),
    st.binary(min_size=16, max_size=16),
    st.sampled_from(EtagKind),
    st.integers(0, 10_000),
    st.booleans(),
    st.booleans(),
)


@given(st.lists(st.tuples(keys.map(str.encode), rows_of), max_size=5))
def test_what_a_listing_says_is_what_the_row_says(found: list[tuple[bytes, ObjectRow]]) -> None:
    assert listed([(key, row.encode()) for key, row in found]) == [
        (key.decode(), row.size, row.etag_text, row.version) for key, row in found
    ]


@pytest.mark.parametrize("bad", [b"", bytes(59), bytes(61), bytes(21) + b"\x10" + bytes(38)])
def test_a_row_that_does_not_decode_is_not_listed(bad: bytes) -> None:
    good = ObjectRow(Place(1, 2, 3), 4, 5, 6, bytes(16), EtagKind.MD5).encode()
    with pytest.raises(CorruptData):
        listed([(b"a", good), (b"b", bad)])
