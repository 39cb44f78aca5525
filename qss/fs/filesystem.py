"""FileSystem: a POSIX file system on a SegmentCache. No FUSE in it; the public class of qss.fs.

Lives on one trio thread and is the sole writer of its tables. Everything but reads that miss, fsync, truncation and
waiting for room is synchronous. Checks of permission are the kernel's (mounted with default_permissions).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import trio

from qss.errors import FsError, NoSpace
from qss.formats.tables import InodeRow
from qss.fs import directories, locality
from qss.fs.attrs import (
    Attributes,
    Caller,
    Held,
    SetAttributes,
    SpaceFigures,
    attributes,
    is_dir,
    is_file,
    relatime_due,
    without_privileges,
)
from qss.fs.directories import Entry
from qss.fs.files import Files
from qss.fs.handles import Handle, Handles
from qss.fs.inodes import Inodes, Transaction
from qss.fs.namespace import Namespace, Place
from qss.fs.orphans import Orphans
from qss.fs.quota import UNLIMITED, Quota
from qss.fs.store import Store
from qss.fs.xattrs import VIRTUAL_PREFIX, Xattrs
from qss.host.clock import Clock
from qss.ids import Ino


@dataclass(frozen=True, slots=True)
class FsOptions:
    read_only: bool = False
    atime: str = "relatime"  # or "noatime"
    root_mode: int = 0o755  # of a new file system
    root_owner: tuple[int, int] = (0, 0)  # likewise: user, group
    quota: Quota = UNLIMITED


class FileSystem:
    def __init__(self, cache: Store, clock: Clock, options: FsOptions = FsOptions()) -> None:
        """On an open cache. Makes the root directory of a new file system; queues what a crash left unlinked."""
        self._cache = cache
        self._clock = clock
        self._options = options
        self._closed = options.read_only
        self._inodes = Inodes(cache, clock, root_mode=options.root_mode, root_owner=options.root_owner)
        self._handles = Handles()
        self._orphans = Orphans(self._inodes, self._handles)
        self._names = Namespace(self._inodes, self._orphans, options.quota)
        self._files = Files(self._inodes, options.quota)
        self._xattrs = Xattrs(self._inodes)
        self.find = self._names.find
        """find(parent, name) -> Ino | None. Raises FsError: ENOENT (no such directory), ENOTDIR, ENAMETOOLONG."""
        self.lookup = self._names.lookup
        """lookup(parent, name) -> Ino. Raises FsError: ENOENT, ENOTDIR, ENAMETOOLONG."""
        self.remember = self._handles.remember
        """remember(ino): its number was given out once more; `forget` takes it back."""
        self.without_capability = self._xattrs.without_capability
        """Inodes known to have no security.capability. Read only."""
        self.stale: set[int] = set()
        """Inodes whose mode has changed and nobody was told; whoever keeps copies empties it."""
        self._relatime = options.atime == "relatime" and not options.read_only
        if not options.read_only:
            self._orphans.adopt()

    # -- life

    async def run(self) -> None:
        """Background work: collects deleted files. For as long as the file system is in use."""
        if self._options.read_only:
            await trio.sleep_forever()
        await self._orphans.run()

    def detach(self) -> None:
        """The mount has ended: no handle or lookup is left. What was only kept for them goes with the next run."""
        self._handles.clear()
        self._orphans.all_unused()
        if not self._options.read_only:
            self._inodes.write_atimes()
            with contextlib.suppress(NoSpace):  # the next start collects
                self.collect()

    def collect(self, slices_max: int = 16) -> bool:
        """Remove rows of deleted files now, at most so many slices of about 1,000; True: there is more."""
        return all(self._orphans.collect() for _ in range(slices_max))

    @property
    def read_only(self) -> bool:
        return self._closed

    def turn_read_only(self) -> None:
        """From now on every change is EROFS, through handles that are open for writing too."""
        self._closed = True

    # -- attributes

    def getattr(self, ino: int) -> Attributes:
        """Raises FsError(ENOENT)."""
        return attributes(ino, self._inodes.get(ino))

    async def setattr(self, ino: int, change: SetAttributes) -> Attributes:
        """Raises FsError: ENOENT, EROFS, EISDIR, EINVAL, EFBIG, NoSpace."""
        self._check_writable()
        if change.size is not None:
            await self._files.truncate(ino, change.size)
            if change == SetAttributes(size=change.size):  # done, and in one transaction
                return self.getattr(ino)
        with Transaction(self._inodes) as tx:
            row = tx.inode(ino)
            now = self._clock.now_ns()
            self._apply(tx, ino, row, change)
            row.ctime_ns = now if change.ctime_ns is None else change.ctime_ns
            if ino not in self._inodes.ghosts:
                tx.put_inode(ino, row)
        return attributes(ino, row)

    def _apply(self, tx: Transaction, ino: int, row: InodeRow, change: SetAttributes) -> None:
        if change.uid is not None or change.gid is not None:
            row.uid = row.uid if change.uid is None else change.uid
            row.gid = row.gid if change.gid is None else change.gid
            if change.mode is None:
                row.mode = without_privileges(row.mode)
        elif change.size is not None and change.unprivileged:
            row.mode = without_privileges(row.mode)
        if change.mode is not None:
            row.mode = stat.S_IFMT(row.mode) | stat.S_IMODE(change.mode)
            self._xattrs.chmod(tx, ino, row.mode)
        if change.atime_ns is not None:
            row.atime_ns = change.atime_ns
        if change.mtime_ns is not None:
            row.mtime_ns = change.mtime_ns

    # -- names

    def create(self, parent: int, name: bytes, mode: int, caller: Caller) -> Attributes:
        """A new regular file. Raises FsError: EEXIST, ENOENT, ENOTDIR, ENAMETOOLONG, EDQUOT, EROFS, NoSpace."""
        made = self.mknod(parent, name, stat.S_IFREG | stat.S_IMODE(mode), 0, caller)
        self._xattrs.note_without_capability(made.ino)
        return made

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Attributes:
        """A file, fifo, socket or device. Raises FsError as `create`; EINVAL for a directory or a link."""
        self._check_growing()
        if stat.S_IFMT(mode) in {stat.S_IFDIR, stat.S_IFLNK}:
            raise FsError(errno.EINVAL)
        return self.getattr(self._names.create(parent, name, mode, caller, rdev=rdev))

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Attributes:
        """Raises FsError as `create`."""
        self._check_growing()
        return self.getattr(self._names.create(parent, name, stat.S_IFDIR | stat.S_IMODE(mode), caller))

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Attributes:
        """Raises FsError as `create`; ENAMETOOLONG for a target over 4,095 bytes."""
        self._check_growing()
        return self.getattr(self._names.symlink(parent, name, target, caller))

    def link(self, ino: int, parent: int, name: bytes) -> Attributes:
        """Raises FsError: EPERM, EMLINK, ENOENT, EEXIST, EROFS, NoSpace."""
        self._check_growing()
        self._names.link(ino, parent, name)
        return self.getattr(ino)

    def unlink(self, parent: int, name: bytes) -> None:
        """Raises FsError: ENOENT, EISDIR, ENOTDIR, EROFS."""
        self._check_writable()
        self._names.unlink(parent, name)

    def rmdir(self, parent: int, name: bytes) -> None:
        """Raises FsError: ENOENT, ENOTDIR, ENOTEMPTY, EROFS."""
        self._check_writable()
        self._names.rmdir(parent, name)

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        """As renameat2(2) with RENAME_NOREPLACE and RENAME_EXCHANGE.

        Raises FsError: ENOENT, EEXIST, EINVAL, EISDIR, ENOTDIR, ENOTEMPTY, EROFS.
        """
        self._check_writable()
        self._names.rename(Place(parent, name), Place(new_parent, new_name), flags)

    def readdir(self, ino: int, after: int = 0) -> Iterator[Entry]:
        """Entries whose cookies are above `after`, `.` and `..` first. To be used up before any await."""
        if self._relatime and not after:
            self._accessed(ino)
        return directories.entries(self._inodes, ino, after)

    def readlink(self, ino: int) -> bytes:
        """Raises FsError(EINVAL)."""
        target = self._names.readlink(ino)
        if self._relatime:
            self._accessed(ino)
        return target

    # -- open files

    async def open(self, ino: int, flags: int, *, unprivileged: bool = False) -> int:
        """A handle, with the access mode, O_APPEND and O_TRUNC of `flags`.

        `unprivileged`: truncating and writing take setuid and setgid away; then the inode is in `stale`.

        Raises FsError: ENOENT, EISDIR (writing a directory), EROFS, EINVAL.
        """
        row = self._inodes.get(ino)
        access = flags & os.O_ACCMODE
        if is_dir(row) and access != os.O_RDONLY:
            raise FsError(errno.EISDIR)
        if not is_dir(row) and row.nlink == 0 and not self._handles.is_open(ino) and ino in self._inodes.ghosts:
            raise FsError(errno.ENOENT)
        if access != os.O_RDONLY or flags & os.O_TRUNC:
            self._check_writable()
        handle = Handle(
            ino, access != os.O_WRONLY, access != os.O_RDONLY, bool(flags & os.O_APPEND) and access != os.O_RDONLY,
            unprivileged,
        )  # fmt: skip
        number = self._handles.open(handle)
        if flags & os.O_TRUNC and is_file(row):
            try:
                if unprivileged:
                    self._drop_privileges(ino)
                await self._files.truncate(ino, 0)
            except BaseException:
                self.release(number)
                raise
        return number

    def release(self, handle: int) -> None:
        """Close. The last close of an unlinked file gives its space back. Raises FsError(EBADF)."""
        self._orphans.unused(self._handles.close(handle))

    def forget(self, ino: int, count: int) -> None:
        """The kernel has dropped `count` references to the inode's number."""
        self._handles.forget(ino, count)
        self._orphans.unused(ino)

    def inode_of(self, handle: int) -> Ino:
        """Raises FsError(EBADF)."""
        return Ino(self._handles.get(handle).ino)

    def read_now(self, handle: int, offset: int, count: int) -> bytes | memoryview | None:
        """Up to `count` bytes; fewer only at the end of the file; None when some are not cached on this machine.

        Never waits. Raises FsError: EBADF, EISDIR, EINVAL.
        """
        opened = self._handles.get(handle)
        if not opened.readable or offset < 0:
            raise FsError(errno.EBADF if offset >= 0 else errno.EINVAL)
        ino = opened.ino
        data = self._files.read_now(ino, offset, count)
        if self._relatime:
            self._accessed(ino)
        return data

    async def read(self, handle: int, offset: int, count: int) -> bytes | memoryview:
        """As `read_now`, and what is not cached is fetched. Raises FsError(EIO) when it cannot be had in time."""
        data = self.read_now(handle, offset, count)
        if data is not None:
            return data
        return await self._files.read(self._handles.get(handle).ino, offset, count)

    def _accessed(self, ino: int) -> None:
        now = self._clock.now_ns()
        row = self._inodes.get(ino)
        if relatime_due(row, now):
            self._inodes.touch_atime(ino, row, now)

    async def write(self, handle: int, offset: int, data: bytes | memoryview) -> int:
        """Write all of `data`, at the end of the file for an O_APPEND handle; the count.

        Waits for room while the cache is over its limit. Raises FsError: EBADF, EFBIG, EDQUOT, EROFS, EINVAL; NoSpace.
        """
        opened = self._handles.get(handle)
        if not opened.writable or offset < 0:
            raise FsError(errno.EBADF if offset >= 0 else errno.EINVAL)
        await self._cache.admit(len(data))
        self._check_writable()
        if opened.unprivileged:
            self._drop_privileges(opened.ino)
        if opened.ino not in self.without_capability:
            self._xattrs.lose_capability(opened.ino)
        return await self._files.write(opened.ino, None if opened.append else offset, data)

    def _drop_privileges(self, ino: int) -> None:
        """Somebody unprivileged is about to change the content."""
        mode = self._inodes.get(ino).mode
        if mode == without_privileges(mode):
            return
        with Transaction(self._inodes) as tx:
            row = tx.inode(ino)
            row.mode = without_privileges(mode)
            row.ctime_ns = self._clock.now_ns()
            tx.put_inode(ino, row)
        self.stale.add(ino)

    async def fsync(self) -> None:
        """Return when everything done before the call survives a power cut: every file, every directory."""
        if not self._options.read_only:
            await self._cache.sync_local()

    # -- extended attributes

    def getxattr(self, ino: int, name: bytes) -> bytes:
        """Raises FsError: ENODATA, ENOENT. `user.qss.state` and `user.qss.locations` are made up on the spot."""
        if name.startswith(VIRTUAL_PREFIX):
            return locality.describe(self._cache, ino, self._inodes.get(ino), name)
        return self._xattrs.get(ino, name)

    def listxattr(self, ino: int) -> list[bytes]:
        """Stored names only: copying programs must not copy what describes this place. Raises FsError(ENOENT)."""
        return self._xattrs.names(ino)

    def setxattr(self, ino: int, name: bytes, value: bytes, flags: int = 0, *, in_group: bool = True) -> None:
        """`flags`: XATTR_CREATE, XATTR_REPLACE. `in_group`: setgid survives a new access list.

        Raises FsError: EEXIST, ENODATA, E2BIG, ERANGE, ENOSPC, EOPNOTSUPP, EPERM, EINVAL, EROFS.
        """
        self._check_growing()
        self._xattrs.set(ino, name, value, flags, in_group=in_group)

    def removexattr(self, ino: int, name: bytes) -> None:
        """Raises FsError: ENODATA, ENOENT, EPERM, EROFS, EOPNOTSUPP, EINVAL."""
        self._check_writable()
        self._xattrs.remove(ino, name)

    # -- facts

    def statfs(self) -> SpaceFigures:
        """Used: what files hold, wherever it is. Free: what the cache disk can still take."""
        return self._options.quota.shown(locality.space(self._cache))

    def held(self) -> Held:
        """What handles and the kernel's memory still keep."""
        handles = self._handles
        return Held(handles.open_count, handles.known_count, self._orphans.count, len(self._inodes.ghosts))

    def invalidate(self, inos: Iterable[int]) -> None:
        """Rows of these files' extents were moved by the cache itself (compaction)."""
        for ino in inos:
            self._files.forget_place(ino)

    def _check_growing(self) -> None:
        """Before something is made. Raises FsError: EROFS; NoSpace when the rest of the disk is kept for deleting."""
        self._check_writable()
        self._cache.check_names()

    def _check_writable(self) -> None:
        if self._closed:
            raise FsError(errno.EROFS)
