"""Repairs: what can be derived is derived again. One finding, one change, journaled like any other.

Every repair looks at the rows anew and does nothing where an earlier one has put things right. A repair never invents
content and never deletes the last name of anything: what has lost its name is put into /lost+found.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from qss.cache.change import Change
from qss.errors import CorruptData
from qss.formats.tables import (
    EntryRow,
    ExtentRow,
    InodeRow,
    OrderRow,
    Table,
    name_key,
    pair_key,
    pair_of_key,
    u64_key,
    u64_of_key,
)
from qss.fs.attrs import DIRECTORY_BYTES, entry_type, is_dir, is_file
from qss.fs.inodes import NEXT_INO
from qss.fs.namespace import COOKIE_FIRST
from qss.fsck.findings import Finding, Kind, Where
from qss.fsck.inodes import next_ino
from qss.fsck.namespace import hangs_well, is_name, order_holds, shown
from qss.fsck.rows import inode_of
from qss.ids import ROOT_INO, Ino

LOST_FOUND: Final = b"lost+found"
_COUNTED: Final = {Kind.INODE_UNNAMED, Kind.LINK_COUNT}
"""Found by counting all names, so not to be seen from the rows of one repair."""
_NAME_AT: Final = 8  # inode number before the name in a key


@dataclass(slots=True)
class Repair:
    """One repair being made."""

    change: Change
    where: Where
    now_ns: int

    @property
    def key(self) -> bytes:
        return self.where.key

    def inode(self, ino: int) -> InodeRow | None:
        return inode_of(self.change, ino)

    def put_inode(self, ino: int, row: InodeRow) -> None:
        self.change.put(Table.INODES, u64_key(ino), row.pack())


Action = Callable[[Repair], str]
"""Says in one sentence what it does; empty: nothing had to be done any more. Raises CorruptData."""


def repair_rows(
    begin: Callable[[], Change], commit: Callable[[Change], None], findings: list[Finding], now_ns: int
) -> list[str]:
    """Make the repairs of these findings of the index, each as one change; the sentences of those that were made.

    Raises what `commit` does.
    """
    order = list(Kind)
    done: list[str] = []
    others = 0
    for finding in sorted(findings, key=lambda each: order.index(each.kind)):
        action = ACTIONS.get(finding.kind)
        if action is None or finding.where is None or not finding.repairable:
            continue
        if finding.kind in _COUNTED and others:
            continue  # names have changed since they were counted: in the next round
        change = begin()
        try:
            sentence = action(Repair(change, finding.where, now_ns))
        except CorruptData:
            continue  # needs a row that cannot be read
        if sentence:
            commit(change)
            done.append(sentence)
            others += finding.kind not in _COUNTED
    return done


# -- inodes


def _root(repair: Repair) -> str:
    now = repair.now_ns
    row = InodeRow(stat.S_IFDIR | 0o755, 2, 0, 0, 0, 0, DIRECTORY_BYTES, 0, ROOT_INO, COOKIE_FIRST, now, now, now)
    repair.put_inode(ROOT_INO, row)
    return "Made a new root directory."


def _next_ino(repair: Repair) -> str:
    ino = u64_of_key(repair.key)
    if ino < next_ino(repair.change):
        return ""
    repair.change.put(Table.META, NEXT_INO, (ino + 1).to_bytes(8, "big"))
    return f"New files get numbers above {ino}."


def _link_count(repair: Repair) -> str:
    ino = u64_of_key(repair.key)
    row = repair.inode(ino)
    if row is None or row.nlink == repair.where.value:
        return ""
    repair.put_inode(ino, replace(row, nlink=repair.where.value))
    return f"Set the link count of inode {ino} to {repair.where.value}."


def _leaked(repair: Repair) -> str:
    repair.change.put(Table.ORPHANS, repair.key, b"")
    return f"Inode {u64_of_key(repair.key)} will be collected at the next mount."


def _symlink_size(repair: Repair) -> str:
    ino = u64_of_key(repair.key)
    row, target = repair.inode(ino), repair.change.get(Table.SYMLINKS, repair.key)
    if row is None or target is None:
        return ""
    repair.put_inode(ino, replace(row, size=len(target)))
    return f"Set the size of the symbolic link {ino} to {len(target)}."


def _allocated(repair: Repair) -> str:
    ino = u64_of_key(repair.key)
    row = repair.inode(ino)
    if row is None:
        return ""
    right = 0
    for _, packed in repair.change.scan(Table.EXTENTS, pair_key(ino, 0), pair_key(ino + 1, 0)):
        right += ExtentRow.unpack(packed).length
    if row.allocated == right:
        return ""
    repair.put_inode(ino, replace(row, allocated=right))
    return f"Set the content of inode {ino} to {right} bytes."


def _beyond_end(repair: Repair) -> str:
    ino = pair_of_key(repair.key)[0]
    row, end = repair.inode(ino), repair.where.value
    if row is None or not is_file(row) or end <= row.size:
        return ""
    repair.put_inode(ino, replace(row, size=end))
    return f"Set the size of inode {ino} to {end} bytes, where its content ends."


def _delete_row(what: str) -> Action:
    def delete(repair: Repair) -> str:
        if repair.change.get(repair.where.table, repair.key) is None:
            return ""
        repair.change.delete(repair.where.table, repair.key)
        return f"Deleted {what} {u64_of_key(repair.key)}."

    return delete


# -- names


def _entry(repair: Repair) -> tuple[int, bytes, EntryRow] | None:
    """Directory, name and row of the entry in question; None: it is gone, or cannot be read."""
    packed = repair.change.get(Table.ENTRIES, repair.key)
    try:
        row = None if packed is None else EntryRow.unpack(packed)
    except CorruptData:
        row = None
    return None if row is None else (u64_of_key(repair.key), repair.key[_NAME_AT:], row)


def _drop_entry(repair: Repair) -> str:
    """The name goes, and its place in the listing; an inode left without names is found lost in the next round."""
    found = _entry(repair)
    parent, name = u64_of_key(repair.key), repair.key[_NAME_AT:]
    repair.change.delete(Table.ENTRIES, repair.key)
    if found is not None:
        repair.change.delete(Table.ORDER, pair_key(parent, found[2].cookie))
    return f"Removed the name {shown(name)} from directory {parent}."


def _invalid_entry(repair: Repair) -> str:
    """The listing has all an entry says."""
    parent, name = u64_of_key(repair.key), repair.key[_NAME_AT:]
    for key, packed in repair.change.scan(Table.ORDER, pair_key(parent, 0), pair_key(parent + 1, 0)):
        order = _order_row(packed)
        if order is not None and order.name == name:
            entry = EntryRow(order.ino, pair_of_key(key)[1], order.type)
            repair.change.put(Table.ENTRIES, repair.key, entry.pack())
            return f"Restored the name {shown(name)} in directory {parent} from its listing."
    return _drop_entry(repair)


def _order_row(packed: bytes) -> OrderRow | None:
    try:
        return OrderRow.unpack(packed)
    except CorruptData:
        return None


def _stray_order(repair: Repair) -> str:
    """A name that only the listing knows: given back if its inode is there and was not named otherwise."""
    packed = repair.change.get(Table.ORDER, repair.key)
    if packed is None or order_holds(repair.change, repair.key, packed):
        return ""
    parent, cookie = pair_of_key(repair.key)
    order = _order_row(packed)
    if order is not None and _may_be_named(repair, parent, order):
        entry = EntryRow(order.ino, cookie, order.type)
        repair.change.put(Table.ENTRIES, name_key(parent, order.name), entry.pack())
        return f"Restored the name {shown(order.name)} in directory {parent} from its listing."
    repair.change.delete(Table.ORDER, repair.key)
    return f"Removed place {cookie} from the listing of directory {parent}."


def _may_be_named(repair: Repair, parent: int, order: OrderRow) -> bool:
    folder, target = repair.inode(parent), repair.inode(order.ino)
    if folder is None or not is_dir(folder) or target is None or not target.nlink or not is_name(order.name):
        return False
    if repair.change.get(Table.ENTRIES, name_key(parent, order.name)) is not None:
        return False
    if not is_dir(target):
        return True
    return target.parent == parent and not any(entry.ino == order.ino for _, entry in _entries(repair.change, parent))


def _entries(change: Change, parent: int) -> Iterator[tuple[bytes, EntryRow]]:
    """The names of a directory that can be read."""
    for key, packed in change.scan(Table.ENTRIES, u64_key(parent), u64_key(parent + 1)):
        try:
            yield key[_NAME_AT:], EntryRow.unpack(packed)
        except CorruptData:
            continue


def _relist(repair: Repair) -> str:
    """ORDER from ENTRIES; at a new place if another entry rightly has this one."""
    found = _entry(repair)
    if found is None:
        return ""
    parent, name, entry = found
    folder, change = repair.inode(parent), repair.change
    if folder is None:
        return ""
    key = pair_key(parent, entry.cookie)
    there = change.get(Table.ORDER, key)
    other = _order_row(there) if there is not None else None
    taken = other is not None and other.name != name and order_holds(change, key, there or b"")
    if taken or entry.cookie < COOKIE_FIRST:
        entry = entry._replace(cookie=max(folder.next_cookie, COOKIE_FIRST))
        change.put(Table.ENTRIES, repair.key, entry.pack())
        repair.put_inode(parent, replace(folder, next_cookie=entry.cookie + 1))
    order = OrderRow(entry.ino, entry.type, name).pack()
    change.put(Table.ORDER, pair_key(parent, entry.cookie), order)
    return f"Listed the name {shown(name)} in directory {parent} again."


def _next_cookie(repair: Repair) -> str:
    found = _entry(repair)
    folder = repair.inode(found[0]) if found is not None else None
    if found is None or folder is None or found[2].cookie < folder.next_cookie:
        return ""
    repair.put_inode(found[0], replace(folder, next_cookie=found[2].cookie + 1))
    return f"New names in directory {found[0]} are listed behind the others."


def _retype(repair: Repair) -> str:
    found = _entry(repair)
    target = repair.inode(found[2].ino) if found is not None else None
    if found is None or target is None:
        return ""
    parent, name, entry = found
    entry = entry._replace(type=entry_type(target.mode))
    repair.change.put(Table.ENTRIES, repair.key, entry.pack())
    order = OrderRow(entry.ino, entry.type, name)
    repair.change.put(Table.ORDER, pair_key(parent, entry.cookie), order.pack())
    return f"The name {shown(name)} in directory {parent} says the type of its inode."


# -- directories


def _one_name(repair: Repair) -> str:
    """Of a directory with several names the one its `..` leads back to stays, else the first."""
    ino = u64_of_key(repair.key)
    row = repair.inode(ino)
    if row is None:
        return ""
    names = [
        (key, entry)
        for key, packed in repair.change.scan(Table.ENTRIES, b"")
        if len(packed) == len(EntryRow(Ino(0), 0, 0).pack()) and (entry := EntryRow.unpack(packed)).ino == ino
    ]
    right = [key for key, _ in names if u64_of_key(key) == row.parent] or [key for key, _ in names[:1]]
    surplus = [(key, entry) for key, entry in names if key != right[0] or ino == ROOT_INO]
    for key, entry in surplus:
        repair.change.delete(Table.ENTRIES, key)
        repair.change.delete(Table.ORDER, pair_key(u64_of_key(key), entry.cookie))
    return f"Removed {len(surplus)} surplus names of directory {ino}." if surplus else ""


def _parent(repair: Repair) -> str:
    found = _entry(repair)
    row = repair.inode(found[2].ino) if found is not None else None
    if found is None or row is None or not is_dir(row) or row.parent == found[0]:
        return ""
    repair.put_inode(found[2].ino, replace(row, parent=found[0]))
    return f"Directory {found[2].ino} leads back to directory {found[0]}."


def _unreachable(repair: Repair) -> str:
    ino = u64_of_key(repair.key)
    row = repair.inode(ino)
    if row is None or hangs_well(repair.change, ino, {ROOT_INO}):
        return ""
    for name, entry in list(_entries(repair.change, row.parent)):
        if entry.ino == ino:
            repair.change.delete(Table.ENTRIES, name_key(row.parent, name))
            repair.change.delete(Table.ORDER, pair_key(row.parent, entry.cookie))
    return _into_lost_found(repair, ino, row)


def _unnamed(repair: Repair) -> str:
    ino = u64_of_key(repair.key)
    row = repair.inode(ino)
    return "" if row is None or not row.nlink else _into_lost_found(repair, ino, row)


def _into_lost_found(repair: Repair, ino: int, row: InodeRow) -> str:
    """Under the name `#<inode>`. Link counts are set right in the next round."""
    change, lost = repair.change, _lost_found(repair)
    folder = repair.inode(lost)
    assert folder is not None
    name = b"#%d" % ino
    entry = EntryRow(Ino(ino), folder.next_cookie, entry_type(row.mode))
    change.put(Table.ENTRIES, name_key(lost, name), entry.pack())
    change.put(Table.ORDER, pair_key(lost, entry.cookie), OrderRow(entry.ino, entry.type, name).pack())
    more = int(is_dir(row))
    repair.put_inode(lost, replace(folder, next_cookie=entry.cookie + 1, nlink=folder.nlink + more))
    if is_dir(row):
        repair.put_inode(ino, replace(row, parent=lost))
    return f"Put inode {ino} into /lost+found."


def _lost_found(repair: Repair) -> int:
    """The directory, made if it is not there."""
    change = repair.change
    there = change.get(Table.ENTRIES, name_key(ROOT_INO, LOST_FOUND))
    if there is not None:
        ino = EntryRow.unpack(there).ino
        row = repair.inode(ino)
        if row is not None and is_dir(row):
            return ino
        raise CorruptData("lost+found is not a directory")
    root = repair.inode(ROOT_INO)
    if root is None:
        raise CorruptData("there is no root directory")
    new, now = Ino(next_ino(change)), repair.now_ns
    change.put(Table.META, NEXT_INO, (new + 1).to_bytes(8, "big"))
    row = InodeRow(stat.S_IFDIR | 0o700, 2, 0, 0, 0, 0, DIRECTORY_BYTES, 0, ROOT_INO, COOKIE_FIRST, now, now, now)
    repair.put_inode(new, row)
    entry = EntryRow(new, root.next_cookie, entry_type(row.mode))
    change.put(Table.ENTRIES, name_key(ROOT_INO, LOST_FOUND), entry.pack())
    change.put(Table.ORDER, pair_key(ROOT_INO, entry.cookie), OrderRow(new, entry.type, LOST_FOUND).pack())
    repair.put_inode(ROOT_INO, replace(root, next_cookie=entry.cookie + 1, nlink=root.nlink + 1))
    return new


ACTIONS: Final[dict[Kind, Action]] = {
    Kind.ROOT_MISSING: _root,
    Kind.NEXT_INO: _next_ino,
    Kind.ENTRY_INVALID: _invalid_entry,
    Kind.ENTRY_NAME: _drop_entry,
    Kind.ENTRY_PARENT: _drop_entry,
    Kind.ENTRY_WITHOUT_INODE: _drop_entry,
    Kind.ORDER_WITHOUT_ENTRY: _stray_order,
    Kind.ENTRY_TYPE: _retype,
    Kind.COOKIE_NEXT: _next_cookie,
    Kind.ENTRY_ORDER: _relist,
    Kind.DIR_NAMED_TWICE: _one_name,
    Kind.DIR_PARENT: _parent,
    Kind.DIR_UNREACHABLE: _unreachable,
    Kind.INODE_UNNAMED: _unnamed,
    Kind.LINK_COUNT: _link_count,
    Kind.ORPHAN_LINKED: _delete_row("the mark of deletion of inode"),
    Kind.ORPHAN_STRAY: _delete_row("the mark of deletion of inode"),
    Kind.INODE_LEAKED: _leaked,
    Kind.SYMLINK_SIZE: _symlink_size,
    Kind.SYMLINK_STRAY: _delete_row("the link target of inode"),
    Kind.XATTR_STRAY: _delete_row("an extended attribute of inode"),
    Kind.EXTENT_STRAY: _delete_row("an extent of inode"),
    Kind.EXTENT_BEYOND_END: _beyond_end,
    Kind.ALLOCATED: _allocated,
    Kind.DEATH_WRONG: _delete_row("the mark of death of segment"),
}
"""What is done about each kind of the index. Files and LMDB are repaired before the cache is opened: offline.py."""
