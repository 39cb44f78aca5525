"""Paths and inodes: which inode a path leads to, what lies below it, which paths lead to an inode.

Reads the tables page by page, so that others get their turn between two pages; what changes meanwhile is seen or not.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from itertools import islice
from typing import Final, Protocol

from qss.cache.store import SegmentCache
from qss.errors import FsError
from qss.formats.tables import EntryRow, ExtentRow, InodeRow, Table, name_key, pair_key, u64_key, u64_of_key
from qss.fs.attrs import is_dir, is_file
from qss.ids import ROOT_INO, Ino
from qss.limits import NAME_BYTES_MAX

PAGE_ROWS: Final = 256
"""Rows read without a pause: some 300 µs."""
_DIR: Final = 0o040000 >> 12
_FILE: Final = 0o100000 >> 12
_KEY_END: Final = b"\0"

Pause = Callable[[], Awaitable[None]]


class Rows(Protocol):
    """A cache, or the index of a restore point."""

    def scan(self, table: Table, start: bytes, stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]: ...


def resolve(cache: SegmentCache, path: bytes) -> Ino:
    """The inode of a path from the root; symbolic links are not followed. Raises FsError: ENOENT, ENOTDIR."""
    ino = ROOT_INO
    for name in path.split(b"/"):
        if not name:
            continue
        packed = cache.get(Table.ENTRIES, name_key(ino, name)) if len(name) <= NAME_BYTES_MAX else None
        if packed is None:
            raise FsError(errno.ENOENT)
        ino = EntryRow.unpack(packed).ino
    return ino


def inode(cache: SegmentCache, ino: int) -> InodeRow | None:
    """The row of an inode as the index has it; None: there is none."""
    packed = cache.get(Table.INODES, u64_key(ino))
    return None if packed is None else InodeRow.unpack(packed)


async def files_below(cache: SegmentCache, root: int, leave_out: Collection[int], pause: Pause) -> AsyncIterator[Ino]:
    """Regular files at or below an inode, once for each name. Directories in `leave_out` are not entered."""
    row = inode(cache, root)
    if row is None:
        return
    if is_file(row):
        yield Ino(root)
    stack = [root] if is_dir(row) else []
    while stack:
        directory = stack.pop()
        async for page in pages(cache, Table.ENTRIES, u64_key(directory), u64_key(directory + 1), pause):
            entries = [EntryRow.unpack(value) for _, value in page]
            stack += [entry.ino for entry in entries if entry.type == _DIR and entry.ino not in leave_out]
            for entry in entries:
                if entry.type == _FILE:
                    yield entry.ino


async def extents_of(cache: SegmentCache, ino: int, pause: Pause) -> AsyncIterator[ExtentRow]:
    """The extents of a file."""
    first = list(islice(_extents(cache, ino, 0), PAGE_ROWS))
    for _, row in first:
        yield row
    if len(first) == PAGE_ROWS:  # rare: no pause for most files
        start = pair_key(ino, first[-1][0] + 1)
        async for page in pages(cache, Table.EXTENTS, start, pair_key(ino + 1, 0), pause):
            for _, value in page:
                yield ExtentRow.unpack(value)


def _extents(cache: SegmentCache, ino: int, offset: int) -> Iterator[tuple[int, ExtentRow]]:
    for key, value in cache.scan(Table.EXTENTS, pair_key(ino, offset), pair_key(ino + 1, 0)):
        yield u64_of_key(key[8:]), ExtentRow.unpack(value)


async def paths_of(cache: Rows, inos: Collection[int], pause: Pause) -> dict[int, list[bytes]]:
    """All paths that lead to these inodes. Looks at every name there is: for rare questions."""
    parents: dict[int, tuple[int, bytes]] = {}
    names: list[tuple[int, int, bytes]] = []
    async for page in pages(cache, Table.ENTRIES, b"", None, pause):
        for key, value in page:
            entry, parent, name = EntryRow.unpack(value), u64_of_key(key), key[8:]
            if entry.type == _DIR:
                parents[entry.ino] = (parent, name)
            if entry.ino in inos:
                names.append((entry.ino, parent, name))
    found: dict[int, list[bytes]] = {ino: [b"/"] if ino == ROOT_INO else [] for ino in inos}
    for ino, directory, name in names:
        parts, at = [name], directory
        while at != ROOT_INO and at in parents and len(parts) <= len(parents) + 1:
            at, above = parents[at]
            parts.append(above)
        if at == ROOT_INO:
            found[ino].append(b"/" + b"/".join(reversed(parts)))
    return found


async def inodes_in(cache: Rows, wanted: Callable[[ExtentRow], bool], pause: Pause) -> set[int]:
    """Files with an extent that is wanted. Looks at every extent there is: for rare questions."""
    found = set()
    async for page in pages(cache, Table.EXTENTS, b"", None, pause):
        found |= {u64_of_key(key) for key, value in page if wanted(ExtentRow.unpack(value))}
    return found


async def pages(
    cache: Rows, table: Table, start: bytes, stop: bytes | None, pause: Pause
) -> AsyncIterator[list[tuple[bytes, bytes]]]:
    """Rows with start <= key < stop, so many at a time; others get their turn in between."""
    while True:
        page = list(islice(cache.scan(table, start, stop), PAGE_ROWS))
        if page:
            yield page
        if len(page) < PAGE_ROWS:
            return
        start = page[-1][0] + _KEY_END
        await pause()
