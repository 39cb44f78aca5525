"""Extended attributes, access control lists among them."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from qss.errors import CorruptData, FsError
from qss.formats.tables import InodeRow, Table, name_key, u64_key
from qss.fs import acl
from qss.fs.attrs import is_dir
from qss.fs.inodes import Inodes, Transaction
from qss.limits import NAME_BYTES_MAX, XATTR_LIST_BYTES_MAX, XATTR_VALUE_BYTES_MAX

CAPABILITY: Final = b"security.capability"
VIRTUAL_PREFIX: Final = b"user.qss."
TRUSTED_PREFIX: Final = b"trusted."
"""Names shown to the privileged only (xattr(7))."""
NO_CAPABILITY_MAX: Final = 65_536  # inodes remembered to have no capability

_KEY_BYTES: Final = 8  # inode number before the name
_LISTS: Final = frozenset({acl.ACCESS, acl.DEFAULT})
_PREFIXES: Final = (b"user.", TRUSTED_PREFIX, b"security.")


def check_name(name: bytes) -> None:
    """Raises FsError: ERANGE (length), EOPNOTSUPP (a name space there is not), EINVAL (nothing after the prefix)."""
    if not 0 < len(name) <= NAME_BYTES_MAX:
        raise FsError(errno.ERANGE)
    if name not in _LISTS:
        if not name.startswith(_PREFIXES):
            raise FsError(errno.EOPNOTSUPP)
        if name in _PREFIXES:
            raise FsError(errno.EINVAL)


class Xattrs:
    def __init__(self, inodes: Inodes) -> None:
        self._inodes = inodes
        self.without_capability: set[int] = set()
        """Inodes known to have no `security.capability`: the kernel asks before every write."""

    def get(self, ino: int, name: bytes) -> bytes:
        """Raises FsError: ENODATA, ENOENT, EOPNOTSUPP, EINVAL, ERANGE."""
        if not 0 < len(name) <= NAME_BYTES_MAX:
            raise FsError(errno.ERANGE)
        value = self._inodes.cache.get(Table.XATTRS, name_key(ino, name))
        if value is not None:
            return value
        check_name(name)
        self._inodes.get(ino)
        if name == CAPABILITY:
            self.note_without_capability(ino)
        raise FsError(errno.ENODATA)

    def note_without_capability(self, ino: int) -> None:
        """Of an inode that is known to have none: looked up and not found, or just made."""
        if len(self.without_capability) >= NO_CAPABILITY_MAX:
            self.without_capability.clear()
        self.without_capability.add(ino)

    def lose_capability(self, ino: int) -> None:
        """The content is about to change, and what was granted was granted to the old one. The kernel sees to it only
        for what goes through its memory. Raises FsError(ENOENT); NoSpace."""
        if self._inodes.cache.get(Table.XATTRS, name_key(ino, CAPABILITY)) is not None:
            self.remove(ino, CAPABILITY)
        self.note_without_capability(ino)

    def names(self, ino: int) -> list[bytes]:
        """Raises FsError(ENOENT)."""
        self._inodes.get(ino)
        rows = self._inodes.cache.scan(Table.XATTRS, u64_key(ino), u64_key(ino + 1))
        return [key[_KEY_BYTES:] for key, _ in rows]

    def set(self, ino: int, name: bytes, value: bytes, flags: int = 0, *, in_group: bool = True) -> None:
        """`in_group`: who asks is privileged or of the file's group, so that setgid survives a new access list.

        Raises FsError: ERANGE (name), E2BIG (value), ENOSPC (list), EEXIST, ENODATA, EOPNOTSUPP, EPERM, EINVAL.
        """
        check_name(name)
        if name.startswith(VIRTUAL_PREFIX):
            raise FsError(errno.EPERM)
        if len(value) > XATTR_VALUE_BYTES_MAX:
            raise FsError(errno.E2BIG)
        with Transaction(self._inodes) as tx:
            row = self._changeable(tx, ino)
            key = name_key(ino, name)
            before = tx.change.get(Table.XATTRS, key)
            if before is not None and flags & os.XATTR_CREATE:
                raise FsError(errno.EEXIST)
            if before is None and flags & os.XATTR_REPLACE:
                raise FsError(errno.ENODATA)
            if before is None and sum(len(n) + 1 for n in self.names(ino)) + len(name) >= XATTR_LIST_BYTES_MAX:
                raise FsError(errno.ENOSPC)
            stored = self._set_acl(row, name, value) if name in _LISTS else value
            if name == acl.ACCESS and not in_group:
                row.mode &= ~stat.S_ISGID
            if stored is None:
                tx.delete(Table.XATTRS, key)
            else:
                tx.put(Table.XATTRS, key, stored)
            self._changed(tx, ino, row, name)

    def remove(self, ino: int, name: bytes) -> None:
        """Removing an access list that is not there succeeds, and none changes the mode (as ext4).

        Raises FsError: ENODATA, ENOENT, EPERM, EOPNOTSUPP, EINVAL, ERANGE.
        """
        check_name(name)
        if name.startswith(VIRTUAL_PREFIX):
            raise FsError(errno.EPERM)
        with Transaction(self._inodes) as tx:
            row = self._changeable(tx, ino)
            key = name_key(ino, name)
            before = tx.change.get(Table.XATTRS, key)
            if before is None:
                if name in _LISTS:
                    return
                raise FsError(errno.ENODATA)
            tx.delete(Table.XATTRS, key)
            self._changed(tx, ino, row, name)

    def chmod(self, tx: Transaction, ino: int, mode: int) -> None:
        """Keep the access list in step with a change of mode."""
        key = name_key(ino, acl.ACCESS)
        stored = tx.change.get(Table.XATTRS, key)
        if stored is not None:
            tx.put(Table.XATTRS, key, acl.encode(acl.with_mode(acl.decode(stored), mode)))

    def _changeable(self, tx: Transaction, ino: int) -> InodeRow:
        row = tx.inode(ino)
        if ino in self._inodes.ghosts:
            raise FsError(errno.ENOENT)
        return row

    def _changed(self, tx: Transaction, ino: int, row: InodeRow, name: bytes) -> None:
        row.ctime_ns = self._inodes.clock.now_ns()
        tx.put_inode(ino, row)
        if name == CAPABILITY:
            self.without_capability.discard(ino)

    def _set_acl(self, row: InodeRow, name: bytes, value: bytes) -> bytes | None:
        """What to store; None: nothing, the mode says it all."""
        if name == acl.DEFAULT and not is_dir(row):
            raise FsError(errno.EACCES)
        try:
            entries = acl.decode(value)
        except CorruptData as error:
            raise FsError(errno.EINVAL) from error
        if name == acl.DEFAULT:
            return value
        row.mode = acl.mode_of(entries, row.mode)
        return None if acl.minimal(entries) else value
