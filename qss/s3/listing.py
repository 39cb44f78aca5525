"""One page of a listing from an ordered scan: grouping by delimiter for backends that have no better way."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import TypeVar

from qss.s3.backend import ListPage, ListQuery, StoredObject

T = TypeVar("T")
Cut = tuple[list[tuple[bytes, T]], tuple[str, ...], str | None]
"""What one page shows: keys, common prefixes, and `after` of the next page."""


def behind(prefix: bytes) -> bytes:
    """The least byte string greater than all that start with `prefix`; UTF-8 never holds 0xff."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def group_of(key: bytes, prefix: bytes, delimiter: bytes) -> bytes:
    """The common prefix that hides `key`; empty if none."""
    cut = key.find(delimiter, len(prefix)) if delimiter else -1
    return b"" if cut < 0 else key[: cut + len(delimiter)]


def page(scan: Callable[[bytes], Iterator[StoredObject]], query: ListQuery) -> ListPage:
    """`scan(lower)` gives objects with key >= lower in UTF-8 byte order. Jumps behind each common prefix, so a page
    costs what it shows, not what it hides. A common prefix counts as one entry and is listed iff it is > `after`."""

    def rows(lower: bytes) -> Iterator[tuple[bytes, StoredObject]]:
        return ((found.key.encode(), found) for found in scan(lower))

    found, prefixes, next_after = grouped(rows, query)
    return ListPage(tuple(each for _, each in found), prefixes, next_after)


def grouped(scan: Callable[[bytes], Iterator[tuple[bytes, T]]], query: ListQuery) -> Cut[T]:
    """As `page`, of keys with anything beside them."""
    if query.limit <= 0:
        return [], (), None
    prefix, after, delimiter = query.prefix.encode(), query.after.encode(), query.delimiter.encode()
    objects: list[tuple[bytes, T]] = []
    prefixes: list[str] = []
    last = b""
    lower: bytes | None = max(prefix, after)
    while lower is not None:
        start, lower = lower, None
        for key, found in scan(start):
            if not key.startswith(prefix):
                break
            group = group_of(key, prefix, delimiter)
            if (group or key) > after:
                if len(objects) + len(prefixes) == query.limit:
                    return objects, tuple(prefixes), last.decode()
                last = group or key
                if group:
                    prefixes.append(last.decode())
                else:
                    objects.append((key, found))
            if group:
                lower = behind(group)
                break
    return objects, tuple(prefixes), None


def in_a_row(some: Callable[[bytes, int], list[tuple[bytes, T]]], query: ListQuery) -> Cut[T]:
    """As `grouped` without a delimiter, taken in one go: `some(lower, count)` gives the first `count` with key >= lower
    in byte order, fewer only where there are no more."""
    if query.limit <= 0:
        return [], (), None
    prefix, after = query.prefix.encode(), query.after.encode()
    found = some(max(prefix, after), query.limit + 2)  # the first may be `after` itself, the last says: there is more
    if found and after and found[0][0] == after:
        del found[0]
    if prefix and found and not found[-1][0].startswith(prefix):
        del found[bisect_left(found, behind(prefix), key=itemgetter(0)) :]
    if len(found) <= query.limit:
        return found, (), None
    del found[query.limit :]
    return found, (), found[-1][0].decode()
