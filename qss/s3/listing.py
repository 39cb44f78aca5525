"""One page of a listing from an ordered scan: grouping by delimiter for backends that have no better way."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from qss.s3.backend import ListPage, ListQuery, StoredObject


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
    if query.limit <= 0:
        return ListPage((), (), None)
    prefix, after, delimiter = query.prefix.encode(), query.after.encode(), query.delimiter.encode()
    objects: list[StoredObject] = []
    prefixes: list[str] = []
    last = ""
    lower: bytes | None = max(prefix, after)
    while lower is not None:
        start, lower = lower, None
        for found in scan(start):
            key = found.key.encode()
            if not key.startswith(prefix):
                break
            group = group_of(key, prefix, delimiter)
            if (group or key) > after:
                if len(objects) + len(prefixes) == query.limit:
                    return ListPage(tuple(objects), tuple(prefixes), last)
                last = (group or key).decode()
                if group:
                    prefixes.append(last)
                else:
                    objects.append(found)
            if group:
                lower = behind(group)
                break
    return ListPage(tuple(objects), tuple(prefixes), None)
