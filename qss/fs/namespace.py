"""Names: lookup, create, link, unlink, rmdir, rename. Every change is one synchronous transaction."""

from __future__ import annotations

import errno
import stat
from typing import Final, NamedTuple

from qss.errors import FsError
from qss.formats.tables import EntryRow, InodeRow, OrderRow, Table, name_key, pair_key, u64_key
from qss.fs import acl
from qss.fs.attrs import DIRECTORY_BYTES, Caller, check_name, entry_type, is_dir
from qss.fs.inodes import Inodes, Transaction
from qss.fs.orphans import Orphans
from qss.fs.quota import UNLIMITED, Quota
from qss.ids import ROOT_INO, Ino
from qss.limits import LINKS_MAX, NAME_BYTES_MAX, SYMLINK_BYTES_MAX

RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2

COOKIE_DOT: Final = 1
COOKIE_DOTDOT: Final = 2
COOKIE_FIRST: Final = 3


class Place(NamedTuple):
    """A name in a directory."""

    parent: int
    name: bytes


class Namespace:
    def __init__(self, inodes: Inodes, orphans: Orphans, quota: Quota = UNLIMITED) -> None:
        self._inodes = inodes
        self._quota = quota
        self._orphans = orphans

    def find(self, parent: int, name: bytes) -> Ino | None:
        """The inode of a name, None when there is none. Raises FsError: ENOENT (no such directory), ENOTDIR,
        ENAMETOOLONG."""
        if 0 < len(name) <= NAME_BYTES_MAX:
            packed = self._inodes.cache.get(Table.ENTRIES, name_key(parent, name))
            if packed is not None:
                return EntryRow.unpack(packed).ino
        else:
            raise FsError(errno.ENAMETOOLONG if name else errno.ENOENT)
        row = self._directory(parent)
        if name == b".":
            return Ino(parent)
        if name == b"..":
            return Ino(row.parent)
        return None

    def lookup(self, parent: int, name: bytes) -> Ino:
        """As `find`; raises FsError(ENOENT) when there is no such name."""
        ino = self.find(parent, name)
        if ino is None:
            raise FsError(errno.ENOENT)
        return ino

    def create(
        self, parent: int, name: bytes, mode: int, caller: Caller, *, rdev: int = 0, target: bytes | None = None
    ) -> Ino:
        """Make an inode of the type in `mode` (no type: a regular file) under a name that is free.

        Raises FsError: EEXIST, ENOENT (the directory is deleted), ENOTDIR, ENAMETOOLONG, EINVAL, EDQUOT, NoSpace.
        """
        check_name(name)
        if not stat.S_IFMT(mode):
            mode |= stat.S_IFREG
        inodes = self._inodes
        now = inodes.clock.now_ns()
        with Transaction(inodes) as tx:
            directory = self._for_entry(tx, parent)
            if inodes.cache.get(Table.ENTRIES, name_key(parent, name)) is not None:
                raise FsError(errno.EEXIST)
            if self._quota.inodes_max is not None:
                self._quota.check_inode(inodes.cache.count(Table.INODES))
            ino = inodes.new_ino(tx)
            gid = caller.gid
            folder = stat.S_ISDIR(mode)
            if directory.mode & stat.S_ISGID:
                gid = directory.gid
                if folder:
                    mode |= stat.S_ISGID
            mode = self._inherit(tx, parent, ino, mode, caller.umask)
            size = len(target) if target is not None else DIRECTORY_BYTES if folder else 0
            row = InodeRow(
                mode, 2 if folder else 1, caller.uid, gid, rdev, 0, size, 0,
                parent if folder else 0, COOKIE_FIRST if folder else 0, now, now, now,
            )  # fmt: skip
            tx.add_inode(ino, row)
            if target is not None:
                tx.put(Table.SYMLINKS, u64_key(ino), target)
            if folder:
                directory.nlink += 1
            self._add(tx, Place(parent, name), directory, EntryRow(ino, directory.next_cookie, entry_type(mode)))
            directory.mtime_ns = directory.ctime_ns = now
        return ino

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Ino:
        """Raises FsError as `create`; ENAMETOOLONG for a target over 4,095 bytes, ENOENT for an empty one."""
        if len(target) > SYMLINK_BYTES_MAX:
            raise FsError(errno.ENAMETOOLONG)
        if not target:
            raise FsError(errno.ENOENT)
        return self.create(parent, name, stat.S_IFLNK | 0o777, caller, target=target)

    def readlink(self, ino: int) -> bytes:
        """Raises FsError(EINVAL) for what is no symbolic link."""
        target = self._inodes.cache.get(Table.SYMLINKS, u64_key(ino))
        if target is None:
            self._inodes.get(ino)
            raise FsError(errno.EINVAL)
        return target

    def link(self, ino: int, parent: int, name: bytes) -> None:
        """A further name. Raises FsError: ENOTDIR (the parent), EPERM (a directory), EMLINK, EEXIST,
        ENOENT (no name left)."""
        check_name(name)
        now = self._inodes.clock.now_ns()
        with Transaction(self._inodes) as tx:
            row = tx.inode(ino)
            directory = self._for_entry(tx, parent)
            if is_dir(row):
                raise FsError(errno.EPERM)
            if row.nlink == 0:
                raise FsError(errno.ENOENT)
            if row.nlink >= LINKS_MAX:
                raise FsError(errno.EMLINK)
            if tx.change.get(Table.ENTRIES, name_key(parent, name)) is not None:
                raise FsError(errno.EEXIST)
            row.nlink += 1
            row.ctime_ns = now
            tx.put_inode(ino, row)
            self._add(tx, Place(parent, name), directory, EntryRow(Ino(ino), directory.next_cookie, row.mode >> 12))
            directory.mtime_ns = directory.ctime_ns = now

    def unlink(self, parent: int, name: bytes) -> None:
        """Raises FsError: ENOENT, EISDIR, ENOTDIR."""
        check_name(name)
        now = self._inodes.clock.now_ns()
        with Transaction(self._inodes) as tx:
            place = Place(parent, name)
            entry = self._entry(tx, place)
            row = tx.inode(entry.ino)
            if is_dir(row):
                raise FsError(errno.EISDIR)
            self._remove(tx, place, entry, now)
            self._drop_name(tx, entry.ino, row, now)

    def rmdir(self, parent: int, name: bytes) -> None:
        """Raises FsError: ENOENT, ENOTDIR, ENOTEMPTY, EINVAL (`.`)."""
        if name == b"..":
            raise FsError(errno.ENOTEMPTY)
        check_name(name)
        now = self._inodes.clock.now_ns()
        with Transaction(self._inodes) as tx:
            place = Place(parent, name)
            entry = self._entry(tx, place)
            row = tx.inode(entry.ino)
            if not is_dir(row):
                raise FsError(errno.ENOTDIR)
            self._check_empty(entry.ino)
            self._remove(tx, place, entry, now)
            tx.inode(parent).nlink -= 1
            self._drop_name(tx, entry.ino, row, now)

    def rename(self, source: Place, target: Place, flags: int = 0) -> None:
        """As renameat2(2). Raises FsError: ENOENT, EEXIST, EINVAL, EISDIR, ENOTDIR, ENOTEMPTY."""
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE) or flags == RENAME_NOREPLACE | RENAME_EXCHANGE:
            raise FsError(errno.EINVAL)
        check_name(source.name)
        check_name(target.name)
        now = self._inodes.clock.now_ns()
        with Transaction(self._inodes) as tx:
            self._for_entry(tx, target.parent)
            moved = self._entry(tx, source)
            packed = tx.change.get(Table.ENTRIES, name_key(target.parent, target.name))
            there = EntryRow.unpack(packed) if packed is not None else None
            if there is None and flags & RENAME_EXCHANGE:
                raise FsError(errno.ENOENT)
            if there is not None and flags & RENAME_NOREPLACE:
                raise FsError(errno.EEXIST)
            if there is not None and there.ino == moved.ino:
                return
            row = tx.inode(moved.ino)
            if is_dir(row):
                self._check_not_inside(target.parent, moved.ino)
            if there is not None and flags & RENAME_EXCHANGE:
                self._exchange(tx, (source, moved), (target, there), now)
                return
            if there is not None:
                self._make_way(tx, target, there, row, now)
            self._remove(tx, source, moved, now)
            directory = tx.inode(target.parent)
            cookie = there.cookie if there is not None else directory.next_cookie
            self._add(tx, target, directory, moved._replace(cookie=cookie))
            directory.mtime_ns = directory.ctime_ns = now
            self._moved(tx, moved.ino, source.parent, target.parent, now)

    # -- rules

    def _directory(self, ino: int) -> InodeRow:
        row = self._inodes.get(ino)
        if not is_dir(row):
            raise FsError(errno.ENOTDIR)
        return row

    def _for_entry(self, tx: Transaction, ino: int) -> InodeRow:
        """A directory that may get an entry."""
        row = tx.inode(ino)
        if not is_dir(row):
            raise FsError(errno.ENOTDIR)
        if row.nlink == 0:
            raise FsError(errno.ENOENT, "the directory is deleted")
        return row

    def _check_empty(self, ino: int) -> None:
        for _ in self._inodes.cache.scan(Table.ORDER, pair_key(ino, 0), pair_key(ino + 1, 0)):
            raise FsError(errno.ENOTEMPTY)

    def _check_not_inside(self, ino: int, ancestor: int) -> None:
        """A directory may not move into itself."""
        while ino != ancestor:
            if ino == ROOT_INO:
                return
            ino = self._inodes.get(ino).parent
        raise FsError(errno.EINVAL)

    def _inherit(self, tx: Transaction, parent: int, ino: int, mode: int, umask: int) -> int:
        """The mode of a new inode; access lists from its directory's default list, which stands above the umask."""
        if stat.S_ISLNK(mode):
            return mode
        default = tx.change.get(Table.XATTRS, name_key(parent, acl.DEFAULT))
        if default is None:
            return mode & ~umask
        entries, mode = acl.inherited(acl.decode(default), mode)
        if not acl.minimal(entries):
            tx.put(Table.XATTRS, name_key(ino, acl.ACCESS), acl.encode(entries))
        if stat.S_ISDIR(mode):
            tx.put(Table.XATTRS, name_key(ino, acl.DEFAULT), default)
        return mode

    def _make_way(self, tx: Transaction, target: Place, there: EntryRow, moving: InodeRow, now: int) -> None:
        """The inode a rename replaces loses its name."""
        row = tx.inode(there.ino)
        if is_dir(row):
            if not is_dir(moving):
                raise FsError(errno.EISDIR)
            self._check_empty(there.ino)
            tx.inode(target.parent).nlink -= 1
        elif is_dir(moving):
            raise FsError(errno.ENOTDIR)
        self._drop_name(tx, there.ino, row, now)

    def _drop_name(self, tx: Transaction, ino: int, row: InodeRow, now: int) -> None:
        row.nlink = 0 if is_dir(row) else row.nlink - 1
        row.ctime_ns = now
        if row.nlink:
            tx.put_inode(ino, row)
        else:
            self._orphans.let_go(tx, ino, row)

    def _exchange(self, tx: Transaction, one: tuple[Place, EntryRow], other: tuple[Place, EntryRow], now: int) -> None:
        """Two names swap their inodes; each name keeps its cookie."""
        (place_a, entry_a), (place_b, entry_b) = one, other
        if is_dir(tx.inode(entry_b.ino)):
            self._check_not_inside(place_a.parent, entry_b.ino)
        for place, entry, new in ((place_a, entry_a, entry_b), (place_b, entry_b, entry_a)):
            directory = tx.inode(place.parent)
            self._add(tx, place, directory, new._replace(cookie=entry.cookie))
            directory.mtime_ns = directory.ctime_ns = now
        self._moved(tx, entry_a.ino, place_a.parent, place_b.parent, now)
        self._moved(tx, entry_b.ino, place_b.parent, place_a.parent, now)

    def _moved(self, tx: Transaction, ino: int, old: int, new: int, now: int) -> None:
        """An inode's name has moved from one directory to another."""
        row = tx.inode(ino)
        row.ctime_ns = now
        if is_dir(row) and old != new:
            tx.inode(old).nlink -= 1
            tx.inode(new).nlink += 1
            row.parent = new
        tx.put_inode(ino, row)

    # -- rows of entries

    def _entry(self, tx: Transaction, place: Place) -> EntryRow:
        packed = tx.change.get(Table.ENTRIES, name_key(place.parent, place.name))
        if packed is None:
            self._directory(place.parent)
            raise FsError(errno.ENOENT)
        return EntryRow.unpack(packed)

    def _add(self, tx: Transaction, place: Place, directory: InodeRow, entry: EntryRow) -> None:
        if entry.cookie >= directory.next_cookie:
            directory.next_cookie = entry.cookie + 1
        tx.put(Table.ENTRIES, name_key(place.parent, place.name), entry.pack())
        order = OrderRow(entry.ino, entry.type, place.name)
        tx.put(Table.ORDER, pair_key(place.parent, entry.cookie), order.pack())
        tx.put_inode(place.parent, directory)

    def _remove(self, tx: Transaction, place: Place, entry: EntryRow, now: int) -> None:
        directory = tx.inode(place.parent)
        tx.delete(Table.ENTRIES, name_key(place.parent, place.name))
        tx.delete(Table.ORDER, pair_key(place.parent, entry.cookie))
        directory.mtime_ns = directory.ctime_ns = now
        tx.put_inode(place.parent, directory)
