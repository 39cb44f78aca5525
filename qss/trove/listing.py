"""One page of a listing: keys in byte order, those that share a prefix up to the delimiter as one."""

from __future__ import annotations

from qss.s3.backend import ListPage, ListQuery, StoredObject
from qss.trove.keytree import KeyTree
from qss.trove.reader import stored
from qss.trove.rows import decode_object


def page(tree: KeyTree, query: ListQuery) -> ListPage:
    """Walk the tree; behind a common prefix jump, so that a page costs what it shows and not what it hides."""
    prefix, after = query.prefix.encode(), query.after.encode()
    delimiter = query.delimiter.encode()
    objects: list[StoredObject] = []
    prefixes: list[str] = []
    last = ""
    if query.limit <= 0:
        return ListPage((), (), None)
    start: bytes | None = max(prefix, after)
    while start is not None:
        begin, start = start, None
        for key, value in tree.scan(begin):
            if not key.startswith(prefix):
                break
            group = _group(key, prefix, delimiter)
            if (group or key) > after or not query.after:
                if len(objects) + len(prefixes) == query.limit:
                    return ListPage(tuple(objects), tuple(prefixes), last)
                last = (group or key).decode()
                if group:
                    prefixes.append(last)
                else:
                    objects.append(stored(last, decode_object(value)))
            if group:
                start = behind(group)
                break
    return ListPage(tuple(objects), tuple(prefixes), None)


def _group(key: bytes, prefix: bytes, delimiter: bytes) -> bytes:
    """The common prefix a key belongs to; empty if none."""
    if not delimiter:
        return b""
    cut = key.find(delimiter, len(prefix))
    return b"" if cut < 0 else key[: cut + len(delimiter)]


def behind(prefix: bytes) -> bytes:
    """The least byte string greater than all that start with `prefix`. UTF-8 never holds 0xff."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
