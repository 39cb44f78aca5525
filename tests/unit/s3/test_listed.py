"""The quick way to render a listing gives what the plain way gives, byte for byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qss.s3.backend import ListPage, ListQuery, StoredObject
from qss.s3.listed import ListedObjects
from qss.s3.listing import grouped, in_a_row, page
from qss.s3.operations import ListObjects
from qss.s3.render import listing

texts = st.one_of(
    st.text(alphabet="abc/-_.~09", min_size=1, max_size=20),
    st.text(alphabet="ab&<>\"'é日\U0001f600\x01\x1f\n\t\r +%\xa0\u2028", min_size=1, max_size=12),
)
etags = st.one_of(st.binary(min_size=16, max_size=16).map(bytes.hex), st.just("0" * 32 + "-10000"))
times = st.integers(0, 253_402_300_799 * 10**9)
rows = st.lists(st.tuples(texts, st.integers(0, 2**63), etags, times), max_size=6, unique_by=lambda row: row[0])


@given(rows, st.booleans(), st.booleans(), st.booleans())
def test_rows_are_rendered_as_objects_are(
    found: list[tuple[str, int, str, int]], encode: bool, owner: bool, v2: bool
) -> None:
    asked = ListObjects(ListQuery("bkt"), v2=v2, encode=encode, fetch_owner=owner)
    plain = ListPage(tuple(StoredObject(*row) for row in found), ("p&/",), "next")
    quick = ListPage(ListedObjects(found), ("p&/",), "next")
    assert quick == plain
    assert listing(asked, quick) == listing(asked, plain)


def test_listed_objects_are_a_sequence() -> None:
    found = ListedObjects([("a", 1, "e", 10), ("b", 2, "f", 20), ("c", 3, "g", 30)])
    assert (len(found), found[1], found[-1].key) == (3, StoredObject("b", 2, "f", 20), "c")
    assert found[1:] == (StoredObject("b", 2, "f", 20), StoredObject("c", 3, "g", 30))
    assert found != found[1:]
    assert found != 3


@given(
    st.sets(st.text(alphabet="ab/é", min_size=1, max_size=4), max_size=30),
    st.sampled_from(["", "a", "a/", "é", "b/a"]),
    st.sampled_from(["", "a", "a/b", "é", "zz", "b/a"]),
    st.integers(0, 8),
)
def test_taken_in_one_go_a_page_is_the_same(there: set[str], prefix: str, after: str, limit: int) -> None:
    ordered = sorted(key.encode() for key in there)

    def scan(lower: bytes) -> list[tuple[bytes, int]]:
        return [(key, len(key)) for key in ordered if key >= lower]

    query = ListQuery("bkt", prefix=prefix, after=after, limit=limit)
    found = in_a_row(lambda lower, count: scan(lower)[:count], query)
    assert found == grouped(lambda lower: iter(scan(lower)), query)
    shown = page(lambda lower: (StoredObject(key.decode(), size, "", 0) for key, size in scan(lower)), query)
    assert ([each.key.encode() for each in shown.objects], shown.next_after) == ([key for key, _ in found[0]], found[2])
