"""Inodes one by one, and what hangs on them: link targets, attributes, the list of deleted ones."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from typing import Final

from qss.errors import CorruptData
from qss.formats.tables import InodeRow, Table, pair_key, u64_key, u64_of_key
from qss.fs.attrs import is_file
from qss.fs.inodes import NEXT_INO
from qss.fsck.findings import Check, Finding, Kind, Where
from qss.fsck.rows import Rows, inode_of, pages
from qss.ids import ROOT_INO
from qss.limits import FILE_BYTES_MAX, SYMLINK_BYTES_MAX

_TYPES: Final = {
    stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFBLK, stat.S_IFCHR
}  # fmt: skip


def next_ino(rows: Rows) -> int:
    """No inode may have this number or a higher one."""
    stored = rows.get(Table.META, NEXT_INO)
    return ROOT_INO + 1 if stored is None else int.from_bytes(stored, "big")


def check_inodes(rows: Rows) -> Check:
    for page in pages(rows, Table.INODES):
        limit = next_ino(rows)
        for key, value in page:
            yield from _inode(rows, key, value, limit)
        yield len(page)


def _inode(rows: Rows, key: bytes, value: bytes, limit: int) -> Iterator[Finding]:
    ino = u64_of_key(key)
    subject, where = f"inode {ino}", Where(Table.INODES, key)
    try:
        row = InodeRow.unpack(value)
    except CorruptData:
        yield Finding(Kind.INODE_INVALID, subject, f"Inode {ino} cannot be read.", where)
        return
    if stat.S_IFMT(row.mode) not in _TYPES or row.mode > 0o177777:
        yield Finding(Kind.MODE_INVALID, subject, f"Inode {ino} has the mode {row.mode:o}, of no known type.", where)
    if row.size > FILE_BYTES_MAX:
        yield Finding(Kind.SIZE_INVALID, subject, f"Inode {ino} has an impossible size, {row.size} bytes.", where)
    if ino >= limit:
        yield Finding(Kind.NEXT_INO, subject, f"The number {ino} could be given to another file.", where)
    if row.nlink == 0 and rows.get(Table.ORPHANS, key) is None:
        yield Finding(Kind.INODE_LEAKED, subject, f"Inode {ino} is deleted, but nobody will collect it.", where)
    if stat.S_ISLNK(row.mode):
        yield from _symlink(rows, ino, row)
    elif row.allocated and is_file(row) and not _has_extents(rows, ino):
        sentence = f"Inode {ino} counts {row.allocated} bytes of content and has none."
        yield Finding(Kind.ALLOCATED, subject, sentence, where)


def _has_extents(rows: Rows, ino: int) -> bool:
    return next(rows.scan(Table.EXTENTS, pair_key(ino, 0), pair_key(ino + 1, 0)), None) is not None


def _symlink(rows: Rows, ino: int, row: InodeRow) -> Iterator[Finding]:
    target = rows.get(Table.SYMLINKS, u64_key(ino))
    where = Where(Table.INODES, u64_key(ino))
    if target is None or not 0 < len(target) <= SYMLINK_BYTES_MAX:
        yield Finding(Kind.SYMLINK_MISSING, f"inode {ino}", f"The symbolic link {ino} has no target.", where)
    elif len(target) != row.size:
        sentence = f"The symbolic link {ino} says {row.size} bytes for a target of {len(target)}."
        yield Finding(Kind.SYMLINK_SIZE, f"inode {ino}", sentence, where)


def check_symlinks(rows: Rows) -> Check:
    """SYMLINKS → inodes."""
    for page in pages(rows, Table.SYMLINKS):
        for key, _ in page:
            ino = u64_of_key(key)
            with contextlib.suppress(CorruptData):
                row = inode_of(rows, ino)
                if row is None or not stat.S_ISLNK(row.mode):
                    sentence = f"There is a link target for inode {ino}, which is no symbolic link."
                    yield Finding(Kind.SYMLINK_STRAY, f"inode {ino}", sentence, Where(Table.SYMLINKS, key))
        yield len(page)


def check_xattrs(rows: Rows) -> Check:
    """XATTRS → inodes."""
    for page in pages(rows, Table.XATTRS):
        for key, _ in page:
            ino = u64_of_key(key)
            if rows.get(Table.INODES, u64_key(ino)) is None:
                sentence = f"There is an extended attribute of inode {ino}, which is not there."
                yield Finding(Kind.XATTR_STRAY, f"inode {ino}", sentence, Where(Table.XATTRS, key))
        yield len(page)


def check_orphans(rows: Rows) -> Check:
    """ORPHANS → inodes without names. (Those with content left are normal: somebody has them open.)"""
    for page in pages(rows, Table.ORPHANS):
        for key, _ in page:
            ino, where = u64_of_key(key), Where(Table.ORPHANS, key)
            with contextlib.suppress(CorruptData):
                row = inode_of(rows, ino)
                if row is None:
                    sentence = f"Inode {ino} waits to be collected and is not there."
                    yield Finding(Kind.ORPHAN_STRAY, f"inode {ino}", sentence, where)
                elif row.nlink:
                    sentence = f"Inode {ino} waits to be collected, but has {row.nlink} names: it would be deleted."
                    yield Finding(Kind.ORPHAN_LINKED, f"inode {ino}", sentence, where)
        yield len(page)
