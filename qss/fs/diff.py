"""What has changed between two states of one file system: names by place, files by inode number. Pure, over rows.

An inode number is never given to another file, so a file is the same in both states if its number is. Names that
differ are found by walking the two ENTRIES tables side by side, inodes that differ by their `ctime`, which every
change of content or attributes moves. Memory grows with directories and changes, not with files.
"""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from qss.formats.tables import EntryRow, InodeRow, Table, pair_key, u64_key, u64_of_key
from qss.ids import ROOT_INO

Row = tuple[bytes, bytes]


class Rows(Protocol):
    """The index of one state."""

    def get(self, table: Table, key: bytes) -> bytes | None: ...

    def scan(self, table: Table, start: bytes, stop: bytes | None = None) -> Iterator[Row]: ...


class What(enum.StrEnum):
    ADDED = "added"
    REMOVED = "removed"
    MODIFIED = "modified"
    RENAMED = "renamed"


@dataclass(frozen=True, slots=True)
class Difference:
    """One name that is not as it was. Paths begin with a slash, bytes as the kernel has them."""

    what: What
    path: bytes  # in the newer state; of what was removed, in the older
    before: bytes | None = None  # renamed: where it was
    content: bool = False  # modified: bytes, length or target
    attributes: bool = False  # modified: mode, owner, device, extended attributes

    def to_json(self) -> dict[str, Any]:
        """Paths that are no UTF-8 carry surrogates, as os.fsdecode makes them."""
        found: dict[str, Any] = {"what": str(self.what), "path": os.fsdecode(self.path)}
        if self.before is not None:
            found["before"] = os.fsdecode(self.before)
        if self.what is What.MODIFIED:
            found |= {"content": self.content, "attributes": self.attributes}
        return found


def compare(older: Rows, newer: Rows) -> Iterator[Difference]:
    """Everything that differs, in no order of its own. A directory whose names change is not modified by that; one that
    moved is renamed, and what is in it is not. Raises CorruptData."""
    modified = dict(_modified(older, newer))
    before, after = _Directories(older), _Directories(newer)
    gone: dict[int, list[bytes]] = {}  # keys of ENTRIES, by inode
    come: dict[int, list[bytes]] = {}
    for key, old, new in side_by_side(older.scan(Table.ENTRIES, b""), newer.scan(Table.ENTRIES, b"")):
        old_ino = None if old is None else EntryRow.unpack(old).ino
        new_ino = None if new is None else EntryRow.unpack(new).ino
        if new_ino in modified:
            yield _as_modified(after.path(key), *modified[new_ino])
        if old_ino == new_ino:
            continue
        replaced = _replaced(older, newer, old_ino, new_ino)
        if replaced is not None:
            yield _as_modified(after.path(key), *replaced)
        else:
            if old_ino is not None:
                gone.setdefault(old_ino, []).append(key)
            if new_ino is not None:
                come.setdefault(new_ino, []).append(key)
    if ROOT_INO in modified:
        yield _as_modified(b"/", *modified[ROOT_INO])
    for ino in sorted(gone.keys() | come.keys()):
        left, arrived = gone.get(ino, []), come.get(ino, [])
        moved = min(len(left), len(arrived))
        for old_key, new_key in zip(left[:moved], arrived[:moved], strict=True):
            yield Difference(What.RENAMED, after.path(new_key), before.path(old_key))
        for key in left[moved:]:
            yield Difference(What.REMOVED, before.path(key))
        for key in arrived[moved:]:
            yield Difference(What.ADDED, after.path(key))


def side_by_side(one: Iterator[Row], other: Iterator[Row]) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """Two tables in key order as one: (key, value in the one, value in the other)."""
    left, right = next(one, None), next(other, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[0] < right[0]):
            assert left is not None
            yield left[0], left[1], None
            left = next(one, None)
        elif left is None or right[0] < left[0]:
            yield right[0], None, right[1]
            right = next(other, None)
        else:
            yield left[0], left[1], right[1]
            left, right = next(one, None), next(other, None)


def _as_modified(path: bytes, content: bool, attributes: bool) -> Difference:
    return Difference(What.MODIFIED, path, content=content, attributes=attributes)


def _modified(older: Rows, newer: Rows) -> Iterator[tuple[int, tuple[bool, bool]]]:
    """(inode, (content differs, attributes differ)) of those that are in both."""
    for key, old, new in side_by_side(older.scan(Table.INODES, b""), newer.scan(Table.INODES, b"")):
        if old is None or new is None or old == new:
            continue
        one, other = InodeRow.unpack(old), InodeRow.unpack(new)
        if one.ctime_ns == other.ctime_ns:
            continue  # no more than its access time
        ino = u64_of_key(key)
        is_dir = stat.S_ISDIR(other.mode)
        content = not is_dir and (one.size != other.size or _differ(older, newer, Table.EXTENTS, ino))
        touched = not is_dir and not content and one.mtime_ns != other.mtime_ns
        attributes = touched or _attributes(one) != _attributes(other) or _differ(older, newer, Table.XATTRS, ino)
        if content or attributes:
            yield ino, (content, attributes)


def _replaced(older: Rows, newer: Rows, old_ino: int | None, new_ino: int | None) -> tuple[bool, bool] | None:
    """A name that stands for another file of the same type, neither of which is in both states: most programs save so.
    (Content, attributes) differ; None: it is something else."""
    if old_ino is None or new_ino is None:
        return None
    old, new = older.get(Table.INODES, u64_key(old_ino)), newer.get(Table.INODES, u64_key(new_ino))
    if old is None or new is None or older.get(Table.INODES, u64_key(new_ino)) is not None:
        return None
    if newer.get(Table.INODES, u64_key(old_ino)) is not None:
        return None
    one, other = InodeRow.unpack(old), InodeRow.unpack(new)
    if stat.S_IFMT(one.mode) != stat.S_IFMT(other.mode) or stat.S_ISDIR(one.mode):
        return None
    return True, _attributes(one) != _attributes(other)


def _attributes(row: InodeRow) -> tuple[int, ...]:
    return row.mode, row.uid, row.gid, row.rdev


def _differ(older: Rows, newer: Rows, table: Table, ino: int) -> bool:
    """Whether rows of one inode do. Extents differ too when content was only moved (compaction) since another change
    of the inode: then a file seems to be modified that is not, never the other way round."""
    start, stop = (
        (pair_key(ino, 0), pair_key(ino + 1, 0)) if table is Table.EXTENTS else (u64_key(ino), u64_key(ino + 1))
    )
    pairs = side_by_side(older.scan(table, start, stop), newer.scan(table, start, stop))
    return any(old != new for _, old, new in pairs)


class _Directories:
    """Where each directory of one state hangs."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._places: dict[int, bytes] | None = None  # directory → its key in ENTRIES

    def path(self, key: bytes) -> bytes:
        """The whole path of an entry."""
        if self._places is None:
            self._places = {}
            for each, value in self._rows.scan(Table.ENTRIES, b""):
                entry = EntryRow.unpack(value)
                if entry.type == stat.S_IFDIR >> 12:
                    self._places[entry.ino] = each
        parts = [key[8:]]
        seen = {parent := u64_of_key(key)}
        while parent != ROOT_INO and parent in self._places:
            above = self._places[parent]
            parts.append(above[8:])
            parent = u64_of_key(above)
            if parent in seen:
                break  # a circle: fsck's business
            seen.add(parent)
        return b"/" + b"/".join(reversed(parts))
