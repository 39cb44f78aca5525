"""Link counts: names of each inode and subdirectories of each directory, counted over the whole table of entries.

The count is made while others change entries. So each page moves a mark; a change of an entry in front of the mark
will be counted when the page comes, one behind it is counted at once (`changed`). The sums are thereby exact at
every moment, not those of some moment that never was. Memory: 8 bytes for each number of a window, not for each name.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

from qss.errors import CorruptData
from qss.formats.journal import Op
from qss.formats.tables import EntryRow, InodeRow, Table, u64_key, u64_of_key
from qss.fs.attrs import is_dir
from qss.fsck.findings import Check, Finding, Kind, Where
from qss.fsck.inodes import next_ino
from qss.fsck.rows import Rows, is_last, pages
from qss.ids import ROOT_INO

WINDOW_INODES: Final = 1 << 22
"""Inode numbers counted in one pass over the entries: 32 MiB of counts."""

_DIRECTORY: Final = 4  # d_type
_AT_END: Final = b"\xff" * 300  # behind every key


class LinkTally:
    """Names and subdirectories of the inodes of one window [base, base + width)."""

    def __init__(self, base: int, width: int) -> None:
        self.base = base
        self.width = width
        self.names = array("I", bytes(4 * width))
        self.subdirectories = array("I", bytes(4 * width))
        self.mark = b""  # entries up to here are counted

    def changed(self, op: Op) -> None:
        if op.table is Table.ENTRIES and op.key <= self.mark:
            parent = u64_of_key(op.key)
            if op.before is not None:
                self.count(parent, op.before, -1)
            if op.after is not None:
                self.count(parent, op.after, 1)

    def count(self, parent: int, value: bytes, one: int) -> None:
        try:
            entry = EntryRow.unpack(value)
        except CorruptData:
            return  # a finding of check_entries
        at = entry.ino - self.base
        if 0 <= at < self.width:
            self.names[at] += one
        at = parent - self.base
        if entry.type == _DIRECTORY and 0 <= at < self.width:
            self.subdirectories[at] += one


def windows(rows: Rows, width: int) -> Iterator[tuple[int, int]]:
    """Windows of numbers that hold inodes: (first, how many numbers). Those given out from now on are left to the
    next run: else a check beside somebody who makes files would never end."""
    limit = next_ino(rows)
    start = 0
    while (first := next(rows.scan(Table.INODES, u64_key(start), u64_key(limit)), None)) is not None:
        base = u64_of_key(first[0])
        start = min(base + width, limit)
        yield base, start - base


def check_links(rows: Rows, tally: LinkTally) -> Check:
    """One window. The caller lets `tally` hear of changes for as long as this runs."""
    base = tally.base
    for page in pages(rows, Table.ENTRIES):
        for key, value in page:
            tally.count(u64_of_key(key), value, 1)
        tally.mark = _AT_END if is_last(page) else page[-1][0]
        yield len(page)
    tally.mark = _AT_END
    for page in pages(rows, Table.INODES, u64_key(base)):
        for key, value in page:
            ino = u64_of_key(key)
            if ino >= base + tally.width:
                return
            try:
                row = InodeRow.unpack(value)
            except CorruptData:
                continue
            finding = link_finding(ino, row, tally.names[ino - base], tally.subdirectories[ino - base])
            if finding is not None:
                yield finding
        yield len(page)


def link_finding(ino: int, row: InodeRow, names: int, subdirectories: int) -> Finding | None:
    """What is wrong with the link count of an inode. Pure."""
    subject, key = f"inode {ino}", u64_key(ino)
    if is_dir(row) and names > (ino != ROOT_INO):
        sentence = f"Directory {ino} has {names} names."
        return Finding(Kind.DIR_NAMED_TWICE, subject, sentence, Where(Table.INODES, key, names))
    if row.nlink and not names and ino != ROOT_INO:
        sentence = f"Inode {ino} says it has {row.nlink} names and has none."
        return Finding(Kind.INODE_UNNAMED, subject, sentence, Where(Table.INODES, key))
    right = names if not is_dir(row) else 2 + subdirectories if names or ino == ROOT_INO else 0
    if row.nlink != right:
        sentence = f"Inode {ino} says its link count is {row.nlink}; it is {right}."
        return Finding(Kind.LINK_COUNT, subject, sentence, Where(Table.INODES, key, right))
    return None
