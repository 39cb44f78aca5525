"""Keys of up to 1,024 bytes in a database whose keys end at 511 bytes, in byte order.

A bucket is a tree of nodes. A row of the database is `node (u64, big endian) + piece`; a key longer than PIECE_BYTES
continues in a child node: the row `node + first PIECE_BYTES + 0x00` holds the child's number, and is told from an
object's row by its length, which no object's row has. A longer key sorts behind the one it begins with and before
everything else that is greater, and the child's rows stand in order: so walking the tree is walking the keys in order
(docs/adr/0051-long-keys.md).
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, Protocol

PIECE_BYTES: Final = 496
_NODE: Final = struct.Struct(">Q")
_LINK_LEN: Final = _NODE.size + PIECE_BYTES + 1
_AT_ONCE: Final = 128  # rows

assert _LINK_LEN <= 511


class Txn(Protocol):
    """What of a database transaction is used here."""

    def get(self, key: bytes, /, *, db: Any) -> Any: ...
    def put(self, key: bytes, value: bytes, /, *, db: Any) -> Any: ...
    def delete(self, key: bytes, /, *, db: Any) -> Any: ...
    def cursor(self, /, *, db: Any) -> Any: ...


class KeyTree:
    """The ordered map of one bucket, inside one transaction."""

    def __init__(self, txn: Txn, db: Any, root: int, new_node: Callable[[], int]) -> None:
        self._txn = txn
        self._db = db
        self._root = root
        self._new_node = new_node

    def get(self, key: bytes) -> bytes | None:
        node = self._root
        while len(key) > PIECE_BYTES:
            child = self._child(node, key)
            if child is None:
                return None
            node, key = child, key[PIECE_BYTES:]
        value: bytes | None = self._txn.get(_NODE.pack(node) + key, db=self._db)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        node = self._root
        while len(key) > PIECE_BYTES:
            child = self._child(node, key)
            if child is None:
                child = self._new_node()
                self._txn.put(_link(node, key), _NODE.pack(child), db=self._db)
            node, key = child, key[PIECE_BYTES:]
        self._txn.put(_NODE.pack(node) + key, value, db=self._db)

    def delete(self, key: bytes) -> None:
        """Remove a key, and links that lead nowhere then."""
        path: list[tuple[int, bytes]] = []
        node = self._root
        while len(key) > PIECE_BYTES:
            child = self._child(node, key)
            if child is None:
                return
            path.append((node, key))
            node, key = child, key[PIECE_BYTES:]
        self._txn.delete(_NODE.pack(node) + key, db=self._db)
        for parent, piece in reversed(path):
            if next(self._walk(node, b"", b""), None) is not None:
                return
            self._txn.delete(_link(parent, piece), db=self._db)
            node = parent

    def scan(self, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """(key, value) from the first key >= `start`, in byte order."""
        return self._walk(self._root, b"", start)

    def some(self, start: bytes, count: int) -> list[tuple[bytes, bytes]]:
        """The first `count` of `scan(start)`, all that there are if fewer: at once, which costs a third."""
        cursor = self._txn.cursor(db=self._db)
        if len(start) > PIECE_BYTES or not cursor.set_range(_NODE.pack(self._root) + start):
            return list(islice(self.scan(start), count))
        rows, behind = cursor.iternext(), (_NODE.pack(self._root + 1),)
        found: list[tuple[bytes, bytes]] = []
        while len(found) < count:
            more = list(islice(rows, min(count - len(found), _AT_ONCE)))
            found += more
            if len(more) < _AT_ONCE or more[-1] >= behind:
                break
        if found and found[-1] >= behind:  # rows of another bucket
            del found[bisect_left(found, behind) :]
        if any(len(row) == _LINK_LEN for row, _ in found):
            return list(islice(self.scan(start), count))
        return [(row[_NODE.size :], value) for row, value in found]

    def _child(self, node: int, key: bytes) -> int | None:
        value = self._txn.get(_link(node, key), db=self._db)
        return None if value is None else int(_NODE.unpack(value)[0])

    def _walk(self, node: int, before: bytes, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows of one node and below. `before` is the part of the key above, `start` is relative to it."""
        prefix = _NODE.pack(node)
        cursor = self._txn.cursor(db=self._db)
        # A start inside a child lies behind that child's link, so begin at the link.
        first = prefix + (start if len(start) <= PIECE_BYTES else start[:PIECE_BYTES] + b"\0")
        if not cursor.set_range(first):
            return
        for row, value in cursor.iternext():
            if row[:8] != prefix:
                return
            piece = row[8:]
            if len(row) == _LINK_LEN:
                piece = piece[:PIECE_BYTES]
                inner = start[PIECE_BYTES:] if start[:PIECE_BYTES] == piece else b""
                yield from self._walk(_NODE.unpack(value)[0], before + piece, inner)
            else:
                yield before + piece, value


def _link(node: int, key: bytes) -> bytes:
    return _NODE.pack(node) + key[:PIECE_BYTES] + b"\0"
