"""Values of the file system's interface: attributes, changes of attributes, callers. Pure."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from qss.errors import FsError
from qss.formats.tables import InodeRow
from qss.ids import Ino
from qss.limits import NAME_BYTES_MAX

BLOCK_BYTES: Final = 4096
"""st_blksize and f_frsize."""
DIRECTORY_BYTES: Final = 4096
"""st_size of every directory; it has no meaning, and programs expect something."""
RELATIME_NS: Final = 24 * 3600 * 1_000_000_000

_SECTOR_BYTES: Final = 512
_ENAMETOOLONG: Final = 36
_EINVAL: Final = 22


class Caller(Protocol):
    """Who asks. pyfuse3's request context is one."""

    @property
    def uid(self) -> int: ...
    @property
    def gid(self) -> int: ...
    @property
    def umask(self) -> int: ...


class User(NamedTuple):
    """A caller as a plain value."""

    uid: int = 0
    gid: int = 0
    umask: int = 0


class Attributes(NamedTuple):
    """What stat shows of an inode."""

    ino: Ino
    mode: int  # type and permission bits
    nlink: int
    uid: int
    gid: int
    rdev: int
    generation: int
    size: int  # bytes
    blocks: int  # of 512 bytes, content in the log
    atime_ns: int  # nanoseconds since 1970, may be negative
    mtime_ns: int
    ctime_ns: int


@dataclass(slots=True)
class SetAttributes:
    """What to change; None: leave as it is."""

    mode: int | None = None  # permission bits; a type is ignored
    uid: int | None = None
    gid: int | None = None
    size: int | None = None  # bytes
    atime_ns: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None  # only for a kernel that keeps times itself (writeback cache)
    unprivileged: bool = False  # a change of size takes setuid and setgid away


class SpaceFigures(NamedTuple):
    """What statfs shows. Bytes, and inodes."""

    total_bytes: int
    free_bytes: int
    available_bytes: int
    inodes: int
    free_inodes: int


class Held(NamedTuple):
    """What is kept only because somebody still knows it. Counts."""

    open: int  # handles
    known: int  # inodes whose number is out
    orphans: int  # unlinked, open or waiting to be collected
    ghosts: int  # rows gone, number out


def attributes(ino: int, row: InodeRow) -> Attributes:
    return Attributes(
        Ino(ino), row.mode, row.nlink, row.uid, row.gid, row.rdev, row.generation, row.size,
        -(-row.allocated // _SECTOR_BYTES), row.atime_ns, row.mtime_ns, row.ctime_ns,
    )  # fmt: skip


def check_name(name: bytes) -> bytes:
    """Raises FsError: ENAMETOOLONG, EINVAL for what no directory entry may be called."""
    if len(name) > NAME_BYTES_MAX:
        raise FsError(_ENAMETOOLONG)
    if not name or name in {b".", b".."} or b"/" in name or b"\0" in name:
        raise FsError(_EINVAL)
    return name


def is_dir(row: InodeRow) -> bool:
    return stat.S_ISDIR(row.mode)


def is_file(row: InodeRow) -> bool:
    return stat.S_ISREG(row.mode)


def entry_type(mode: int) -> int:
    """d_type of a directory entry."""
    return stat.S_IFMT(mode) >> 12


def without_privileges(mode: int) -> int:
    """The mode after a change of owner or an unprivileged write: no setuid, no setgid where the group may execute."""
    if stat.S_ISDIR(mode):
        return mode
    if mode & stat.S_IXGRP:
        mode &= ~stat.S_ISGID
    return mode & ~stat.S_ISUID


def relatime_due(row: InodeRow, now_ns: int) -> bool:
    """Whether a read at `now_ns` moves atime under relatime (as Linux: not newer than mtime or ctime, or a day old)."""
    atime = row.atime_ns
    return atime <= row.mtime_ns or atime <= row.ctime_ns or now_ns - atime >= RELATIME_NS
