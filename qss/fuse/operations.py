"""Requests of the kernel → calls of FileSystem. Translates, and nothing else.

Every handler is wrapped: an exception that escaped would end the mount (pyfuse3), so whatever is raised becomes an
errno, and what nobody expected is logged and counted.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import stat
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, NoReturn, TypeVar

import pyfuse3
import trio
from pyfuse3 import FileHandleT, FileInfo, FileNameT, FlagT, InodeT, ModeT, RequestContext, XAttrNameT

from qss.errors import FsError, QssError
from qss.fs import acl
from qss.fs.attrs import Attributes
from qss.fs.filesystem import FileSystem
from qss.fs.namespace import COOKIE_FIRST
from qss.fs.xattrs import CAPABILITY, TRUSTED_PREFIX
from qss.fuse.attrs import change_of, entry_of, negative_entry, owned_by, statvfs_of
from qss.fuse.errnos import errno_of
from qss.fuse.unsaid import Unsaid

log = logging.getLogger(__name__)

T = TypeVar("T")

_HOW: Final = os.O_ACCMODE | os.O_TRUNC | os.O_APPEND | os.O_DSYNC

REMOTE_WAITS_MAX: Final = 64
"""Reads that wait for other machines at the same time. More queue; they hold a request, never a cached read's way."""


class Failures:
    """What went wrong that should not have; each kind is logged once with its traceback."""

    def __init__(self) -> None:
        self.unexpected = 0
        self.expected = 0  # damage, locations out of reach: answered with EIO, reported elsewhere
        self._seen: set[tuple[str, str]] = set()

    def errno_of(self, error: Exception, operation: str) -> int:
        if not isinstance(error, FsError):
            if isinstance(error, QssError):
                self.expected += 1
            else:
                self.unexpected += 1
            kind = (operation, type(error).__name__)
            if kind not in self._seen:
                self._seen.add(kind)
                log.error("%s failed and was answered with EIO: %s", operation, error, exc_info=error)
        return errno_of(error)


def answered(handler: Callable[..., T]) -> Callable[..., Coroutine[Any, Any, T]]:
    """The wrapper of handlers that never wait: plain functions."""
    operation = handler.__name__

    @functools.wraps(handler)
    async def wrapped(self: Operations, *args: Any) -> T:
        try:
            return handler(self, *args)
        except FsError as error:
            raise pyfuse3.FUSEError(error.errno) from None
        except pyfuse3.FUSEError:
            raise
        except Exception as error:
            raise pyfuse3.FUSEError(self.failures.errno_of(error, operation)) from None

    wrapped.guarded = True  # type: ignore[attr-defined]
    return wrapped


def awaited(handler: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., Coroutine[Any, Any, T]]:
    """The wrapper of handlers that may wait."""
    operation = handler.__name__

    @functools.wraps(handler)
    async def wrapped(self: Operations, *args: Any) -> T:
        try:
            return await handler(self, *args)
        except FsError as error:
            raise pyfuse3.FUSEError(error.errno) from None
        except pyfuse3.FUSEError:
            raise
        except Exception as error:
            raise pyfuse3.FUSEError(self.failures.errno_of(error, operation)) from None

    wrapped.guarded = True  # type: ignore[attr-defined]
    return wrapped


class Operations(pyfuse3.Operations):
    supports_dot_lookup = True

    def __init__(
        self, fs: FileSystem, *, writeback: bool = False, acl: bool = True,
        owner: tuple[int | None, int | None] | None = None, unsaid: Unsaid | None = None,
    ) -> None:  # fmt: skip
        """`owner`: user and group shown for everything, whatever is stored."""
        super().__init__()
        self._shown = entry_of if owner is None else owned_by(*owner)
        self._fs = fs
        self.enable_writeback_cache = writeback
        self.enable_acl = acl
        self.failures = Failures()
        self.ready = trio.Event()
        """Set when the kernel has shaken hands."""
        self._remote_waits = trio.CapacityLimiter(REMOTE_WAITS_MAX)
        self._negative = negative_entry()
        self._unsaid = unsaid or Unsaid()
        self._direct: set[int] = set()  # handles whose writes go past the kernel's memory

    def init(self) -> None:
        self.ready.set()

    # -- names

    @answered
    def lookup(self, parent: InodeT, name: FileNameT, ctx: RequestContext) -> pyfuse3.EntryAttributes:
        ino = self._fs.find(parent, name)
        if ino is None:
            return self._negative
        return self._entry(self._fs.getattr(ino))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Has no answer, so nothing may be raised."""
        try:
            for ino, count in inode_list:
                self._fs.forget(ino, count)
        except Exception as error:
            self.failures.errno_of(error, "forget")

    forget.guarded = True  # type: ignore[attr-defined]

    @answered
    def mknod(
        self, parent: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._entry(self._fs.mknod(parent, name, mode, rdev, ctx))

    @answered
    def mkdir(self, parent: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext) -> pyfuse3.EntryAttributes:
        return self._entry(self._fs.mkdir(parent, name, mode, ctx))

    @answered
    def symlink(
        self, parent: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._entry(self._fs.symlink(parent, name, target, ctx))

    @answered
    def link(
        self, inode: InodeT, new_parent: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> pyfuse3.EntryAttributes:
        return self._entry(self._fs.link(inode, new_parent, new_name))

    @answered
    def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        return FileNameT(self._fs.readlink(inode))

    @answered
    def unlink(self, parent: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        self._fs.unlink(parent, name)

    @answered
    def rmdir(self, parent: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        self._fs.rmdir(parent, name)

    @answered
    def rename(
        self, old: InodeT, old_name: FileNameT, new: InodeT, new_name: FileNameT, flags: FlagT, ctx: RequestContext
    ) -> None:
        self._fs.rename(old, old_name, new, new_name, flags)

    # -- attributes

    @answered
    def getattr(self, inode: InodeT, ctx: RequestContext) -> pyfuse3.EntryAttributes:
        return self._shown(self._fs.getattr(inode))

    @awaited
    async def setattr(
        self,
        inode: InodeT,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> pyfuse3.EntryAttributes:
        writeback = self.enable_writeback_cache
        change = change_of(attr, fields, kernel_keeps_times=writeback, unprivileged=ctx.uid != 0)
        return self._shown(await self._fs.setattr(inode, change))

    @answered
    def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        return statvfs_of(self._fs.statfs())

    @answered
    def access(self, inode: InodeT, mode: ModeT, ctx: RequestContext) -> bool:
        raise FsError(errno.ENOSYS)  # the kernel checks (default_permissions), and asks no more

    # -- extended attributes

    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        # The kernel asks for this one before every write(2).
        if name == CAPABILITY and inode in self._fs.without_capability:
            raise pyfuse3.FUSEError(errno.ENODATA)
        return await self._getxattr(inode, name)

    getxattr.guarded = True  # type: ignore[attr-defined]

    @answered
    def _getxattr(self, inode: InodeT, name: XAttrNameT) -> bytes:
        return self._fs.getxattr(inode, name)

    @answered
    def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        names = self._fs.listxattr(inode)
        if ctx.uid != 0:  # the kernel guards the values of trusted ones, and leaves hiding their names to us
            names = [name for name in names if not name.startswith(TRUSTED_PREFIX)]
        return [XAttrNameT(name) for name in names]

    @answered
    def setxattr(self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext) -> None:
        # pyfuse3 has dealt with the flags.
        self._fs.setxattr(inode, name, value, in_group=name != acl.ACCESS or self._in_group(inode, ctx))

    @answered
    def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        self._fs.removexattr(inode, name)

    # -- files

    @awaited
    async def create(
        self, parent: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[FileInfo, pyfuse3.EntryAttributes]:
        attributes = self._fs.create(parent, name, mode, ctx)
        opening = self._flags(flags) & ~os.O_TRUNC
        handle = await self._fs.open(attributes.ino, opening, unprivileged=ctx.uid != 0)
        return self._info(handle, flags | os.O_TRUNC), self._entry(attributes)

    @awaited
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        handle = await self._fs.open(inode, self._flags(flags), unprivileged=ctx.uid != 0)
        self._tell_stale()
        return self._info(handle, flags)

    @awaited
    async def read(  # type: ignore[override]  # pyfuse3 takes any buffer
        self, fh: FileHandleT, off: int, size: int
    ) -> bytes | memoryview:
        data = self._fs.read_now(fh, off, size)
        if data is not None:
            return data
        async with self._remote_waits:
            return await self._fs.read(fh, off, size)

    @awaited
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        synced = fh in self._direct and self._unsaid.wants_sync(fh, off, len(buf))
        done = await self._fs.write(fh, off, buf)
        self._tell_stale()
        if synced:  # else the kernel asks for it
            await self._fs.fsync()
        return done

    @answered
    def flush(self, fh: FileHandleT) -> NoReturn:
        raise FsError(errno.ENOSYS)  # nothing is held back, so the kernel need not ask again

    @answered
    def release(self, fh: FileHandleT) -> None:
        self._direct.discard(fh)
        self._fs.release(fh)

    @awaited
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        await self._fs.fsync()

    # -- directories

    @awaited
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        return FileHandleT(await self._fs.open(inode, os.O_RDONLY))

    @answered
    def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        fs = self._fs
        for cookie, name, ino, _ in fs.readdir(fs.inode_of(fh), start_id):
            if not pyfuse3.readdir_reply(token, FileNameT(name), self._shown(fs.getattr(ino)), cookie):
                return
            if cookie >= COOKIE_FIRST:  # the kernel counts no lookup for . and ..
                fs.remember(ino)

    @answered
    def releasedir(self, fh: FileHandleT) -> None:
        self._fs.release(fh)

    @awaited
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        await self._fs.fsync()

    # --

    def _tell_stale(self) -> None:
        """The kernel keeps modes that are not so any more. Telling it takes no lock of the inode's: attributes only."""
        stale = self._fs.stale
        while stale:
            with contextlib.suppress(OSError):  # ENOENT: it has forgotten the inode
                pyfuse3.invalidate_inode(InodeT(stale.pop()), attr_only=True)

    def _in_group(self, inode: InodeT, ctx: RequestContext) -> bool:
        """Whether who asks is privileged or of the file's group."""
        row = self._fs.getattr(inode)
        if not row.mode & stat.S_ISGID or ctx.uid == 0 or ctx.gid == row.gid:
            return True
        try:
            return row.gid in pyfuse3.get_sup_groups(ctx.pid)
        except OSError:  # it is gone, or in another process name space
            return False

    def _entry(self, attributes: Attributes) -> pyfuse3.EntryAttributes:
        """An answer that gives the inode's number to the kernel."""
        entry = self._shown(attributes)
        self._fs.remember(attributes.ino)
        return entry

    def _info(self, handle: int, flags: FlagT) -> FileInfo:
        """Who makes a file anew and only writes it needs no copy of it in the kernel's memory: each write is one
        request then, wherever it begins, and reaches us without a copy more. docs/adr/0088."""
        direct = flags & _HOW == os.O_WRONLY | os.O_TRUNC and not self.enable_writeback_cache and self._unsaid.known
        if direct:
            self._direct.add(handle)
        return FileInfo(fh=FileHandleT(handle), direct_io=direct)

    def _flags(self, flags: int) -> int:
        """With its writeback cache the kernel reads through handles opened for writing, and appends by itself."""
        if self.enable_writeback_cache and flags & os.O_ACCMODE == os.O_WRONLY:
            flags = (flags & ~os.O_ACCMODE) | os.O_RDWR
        return flags & ~os.O_APPEND if self.enable_writeback_cache else flags
