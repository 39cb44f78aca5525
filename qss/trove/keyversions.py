"""All versions of one key in the index, inside one transaction.

The bucket's key tree holds a key iff its newest version is an object, and then holds that one: an unversioned bucket
has nothing else, and a listing steps over no delete markers. Everything else, older versions and markers, is in
the tree of older versions: rows `key 0x00 (2^64-1 - version, big endian)`, so the versions of a key stand together (no
key holds a NUL), newest first. The last row of a key, `key 0x00 ff…ff`, is the version of its null version, if that
one is among them (docs/adr/0130).
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterator
from typing import Final

from qss.trove.keytree import KeyTree
from qss.trove.rows import ObjectRow, decode_object, decode_u64, encode_u64
from qss.trove.tables import Tables

_AT: Final = struct.Struct(">Q")
_TOP: Final = 2**64 - 1
_TAIL_BYTES: Final = 1 + _AT.size
_NULL_AT: Final = b"\0" + _AT.pack(_TOP)


class KeyVersions:
    """The versions of one key. Rows are told apart by their version, which no two records of a key share."""

    __slots__ = ("_any", "_current", "_key", "_tables", "_tree", "bucket")

    def __init__(self, tables: Tables, bucket: int, key: bytes) -> None:
        self._tables = tables
        self.bucket = bucket
        self._key = key
        self._tree = tables.tree(bucket)
        self._any = tables.has_older(bucket)
        data = self._tree.get(key)
        self._current = None if data is None else decode_object(data)

    @property
    def _older(self) -> KeyTree:
        return self._tables.older_tree(self.bucket)

    def current(self) -> ObjectRow | None:
        """The newest version, if it is an object."""
        return self._current

    def newest(self) -> ObjectRow | None:
        """The newest version, also if it is a delete marker."""
        return self.current() or next(self._others(), None)

    def find(self, version: int) -> ObjectRow | None:
        current = self.current()
        if current is not None and current.version == version:
            return current
        data = self._older.get(self._at(version)) if self._any else None
        return None if data is None else decode_object(data)

    def null(self) -> ObjectRow | None:
        """The null version, an object or a marker."""
        current = self.current()
        if current is not None and not current.numbered:
            return current
        data = self._older.get(self._key + _NULL_AT) if self._any else None
        return None if data is None else self.find(decode_u64(data))

    def older(self) -> Iterator[ObjectRow]:
        """All but `current`, newest first."""
        return self._others()

    def all(self) -> Iterator[ObjectRow]:
        """Every version and marker."""
        if self._current is not None:
            yield self._current
        yield from self._others()

    def put(self, row: ObjectRow, old: ObjectRow | None) -> None:
        """Add a version, in place of `old` if given: a null version, or this version at another place."""
        current = self._current
        if old is not None and (current is None or current.version != old.version):
            if old.version == row.version:
                self._older.put(self._at(row.version), row.encode())
                return
            self._forget(old)
        replaced = current is not None and old is not None and current.version == old.version
        newest = None if replaced else current or next(self._others(), None)
        if newest is not None and newest.version > row.version:
            self._shelve(row)
            return
        if current is not None and not replaced:
            self._shelve(current)
        if not row.marker:
            self._show(row)
            return
        if current is not None:
            self._tree.delete(self._key)
            self._current = None
        self._shelve(row)

    def remove(self, row: ObjectRow) -> None:
        """Take a version away; the one behind it may become what is there."""
        current = self._current
        if current is None or current.version != row.version:
            self._forget(row)
        else:
            self._tree.delete(self._key)
            self._current = None
        newest = None if self._current is not None else next(self._others(), None)
        if newest is not None and not newest.marker:
            self._forget(newest)
            self._show(newest)

    def _show(self, row: ObjectRow) -> None:
        self._tree.put(self._key, row.encode())
        self._current = row

    def _others(self) -> Iterator[ObjectRow]:
        if not self._any:
            return
        prefix = self._key + b"\0"
        for at, value in self._older.scan(prefix):
            if not at.startswith(prefix) or at.endswith(_NULL_AT):
                return
            yield decode_object(value)

    def _at(self, version: int) -> bytes:
        return self._key + b"\0" + _AT.pack(_TOP - version)

    def _shelve(self, row: ObjectRow) -> None:
        self._tables.will_have_older(self.bucket)
        self._any = True
        self._older.put(self._at(row.version), row.encode())
        if not row.numbered:
            self._older.put(self._key + _NULL_AT, encode_u64(row.version))

    def _forget(self, row: ObjectRow) -> None:
        self._older.delete(self._at(row.version))
        if not row.numbered:
            self._older.delete(self._key + _NULL_AT)


def scan_versions(
    tables: Tables, bucket: int, lower: bytes, below: int | None = None
) -> Iterator[tuple[bytes, ObjectRow]]:
    """(key, version) with key >= `lower` in order of keys, newest first; of `lower` itself only those older than
    `below`, if given."""
    objects = ((key, decode_object(value)) for key, value in tables.tree(bucket).scan(lower))
    current = ((key, row) for key, row in objects if below is None or key != lower or row.version < below)
    if not tables.has_older(bucket):
        return current
    start = lower if below is None else lower + b"\0" + _AT.pack(_TOP - below + 1)
    rows = tables.older_tree(bucket).scan(start)
    others = ((at[:-_TAIL_BYTES], decode_object(value)) for at, value in rows if not at.endswith(_NULL_AT))
    return heapq.merge(current, others, key=lambda one: (one[0], _TOP - one[1].version))
