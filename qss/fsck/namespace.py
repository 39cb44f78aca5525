"""Names: entries against inodes, the order of listing against entries, every directory below the root."""

from __future__ import annotations

import contextlib
from typing import Final

from qss.errors import CorruptData, FsError
from qss.formats.tables import EntryRow, InodeRow, OrderRow, Table, name_key, pair_key, pair_of_key, u64_key, u64_of_key
from qss.fs.attrs import check_name, entry_type, is_dir
from qss.fs.namespace import COOKIE_FIRST
from qss.fsck.findings import Check, Finding, Kind, Where
from qss.fsck.rows import Rows, inode_of, pages
from qss.ids import ROOT_INO
from qss.limits import NAME_BYTES_MAX

KNOWN_GOOD_MAX: Final = 100_000
"""Directories remembered to lie below the root."""

_KEY_BYTES: Final = 8


def shown(name: bytes) -> str:
    """A name for a person: never raw bytes, never a line break."""
    return repr(name.decode("utf-8", "backslashreplace"))


def is_name(name: bytes) -> bool:
    try:
        check_name(name)
    except FsError:
        return False
    return True


def check_entries(rows: Rows) -> Check:
    """ENTRIES → their directory, their inode, their place in ORDER."""
    for page in pages(rows, Table.ENTRIES):
        for key, value in page:
            with contextlib.suppress(CorruptData):  # of an inode: found by check_inodes
                yield from entry_findings(rows, key, value)
        yield len(page)


def entry_findings(rows: Rows, key: bytes, value: bytes) -> list[Finding]:
    """What is wrong with one entry. Raises CorruptData when an inode it needs cannot be read."""
    parent, name = u64_of_key(key), key[_KEY_BYTES:]
    where = Where(Table.ENTRIES, key)
    subject = f"name {shown(name)} in directory {parent}"
    try:
        entry = EntryRow.unpack(value)
    except CorruptData:
        return [Finding(Kind.ENTRY_INVALID, subject, f"The {subject} cannot be read.", where)]
    if not is_name(name):
        return [Finding(Kind.ENTRY_NAME, subject, f"The {subject} is not one a file may have.", where)]
    folder = inode_of(rows, parent)
    if folder is None or not is_dir(folder):
        return [Finding(Kind.ENTRY_PARENT, subject, f"The {subject} is in what is not a directory.", where)]
    target = inode_of(rows, entry.ino)
    if target is None:
        sentence = f"The {subject} stands for inode {entry.ino}, which is not there."
        return [Finding(Kind.ENTRY_WITHOUT_INODE, subject, sentence, where)]
    return _against(rows, where, entry, folder, target)


def _against(rows: Rows, where: Where, entry: EntryRow, folder: InodeRow, target: InodeRow) -> list[Finding]:
    """An entry whose directory and inode are there."""
    parent, name = u64_of_key(where.key), where.key[_KEY_BYTES:]
    subject = f"name {shown(name)} in directory {parent}"
    found = []
    if entry.type != entry_type(target.mode):
        sentence = f"The {subject} says another type than its inode {entry.ino}."
        found.append(Finding(Kind.ENTRY_TYPE, subject, sentence, where))
    order = rows.get(Table.ORDER, pair_key(parent, entry.cookie))
    if entry.cookie < COOKIE_FIRST or order != OrderRow(entry.ino, entry.type, name).pack():
        found.append(Finding(Kind.ENTRY_ORDER, subject, f"The {subject} is not listed where it should be.", where))
    if entry.cookie >= folder.next_cookie:
        sentence = f"Directory {parent} would give the place of {shown(name)} to the next name."
        found.append(Finding(Kind.COOKIE_NEXT, f"directory {parent}", sentence, where))
    if is_dir(target) and target.parent != parent:
        sentence = f"Directory {entry.ino} is named in directory {parent}, but its `..` is {target.parent}."
        found.append(Finding(Kind.DIR_PARENT, f"directory {entry.ino}", sentence, where))
    return found


def check_order(rows: Rows) -> Check:
    """ORDER → ENTRIES: nothing is listed that has no name."""
    for page in pages(rows, Table.ORDER):
        for key, value in page:
            if not order_holds(rows, key, value):
                parent, cookie = pair_of_key(key)
                subject = f"place {cookie} in directory {parent}"
                sentence = f"Directory {parent} lists something at place {cookie} that has no such name."
                yield Finding(Kind.ORDER_WITHOUT_ENTRY, subject, sentence, Where(Table.ORDER, key))
        yield len(page)


def order_holds(rows: Rows, key: bytes, value: bytes) -> bool:
    """Whether a place in the listing belongs to an entry. (That they agree is check_entries'.)"""
    parent, cookie = pair_of_key(key)
    try:
        order = OrderRow.unpack(value)
        if len(order.name) > NAME_BYTES_MAX:
            return False
        entry = rows.get(Table.ENTRIES, name_key(parent, order.name))
        return entry is not None and EntryRow.unpack(entry).cookie == cookie
    except CorruptData:
        return False


def check_tree(rows: Rows) -> Check:
    """Every directory lies below the root; what lies below one that does not is not reported by itself."""
    good: set[int] = {ROOT_INO}
    root = rows.get(Table.INODES, u64_key(ROOT_INO))
    if root is None or not is_dir(InodeRow.unpack(root)):
        where = Where(Table.INODES, u64_key(ROOT_INO))
        yield Finding(Kind.ROOT_MISSING, "the root directory", "There is no root directory.", where)
        return
    for page in pages(rows, Table.INODES):
        for key, value in page:
            ino = u64_of_key(key)
            with contextlib.suppress(CorruptData):
                row = InodeRow.unpack(value)
                if is_dir(row) and row.nlink and ino != ROOT_INO and not hangs_well(rows, ino, good):
                    sentence = f"Directory {ino} cannot be reached from the root."
                    yield Finding(Kind.DIR_UNREACHABLE, f"directory {ino}", sentence, Where(Table.INODES, key))
        if len(good) > KNOWN_GOOD_MAX:
            good = {ROOT_INO}
        yield len(page)


def hangs_well(rows: Rows, ino: int, good: set[int]) -> bool:
    """False for a directory that is part of a circle, or whose `..` is not a directory. Raises CorruptData."""
    way: set[int] = set()
    at = ino
    while at not in good:
        if at in way:
            return at != ino  # another's circle, further up
        way.add(at)
        row = inode_of(rows, at)
        if row is None or not is_dir(row) or not row.nlink:
            first = inode_of(rows, ino)
            return first is None or at != first.parent
        at = row.parent
    good |= way
    return True
