"""The disk as an argument: what the logs ask of a directory tree, so that a test can cut the power.

`PosixDisk` is the real one. A crash disk (tests/harness) records every change and forgets what was not synced.
File handles are plain integers. All calls are synchronous and may block for as long as the disk does;
callers hand the slow ones (`sync_data`, `sync_dir`) to a thread.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NewType, Protocol

from qss.errors import NoSpace
from qss.host.page_cache import begin_writeback, read_once
from qss.limits import KIB

Handle = NewType("Handle", int)

_PAGE_BYTES: Final = 4096

DIRECT_BYTES: Final = 4096
"""Alignment that direct writes keep; covers the block sizes of all common disks."""
CACHED_WRITE_BYTES: Final = 64 * KIB
"""What one call writes into the page cache. The kernel takes memory in pieces of up to the length of the call, and
large pieces are, on a virtual machine that gives free memory back to its host, memory that has to be faulted in again:
10 ms for 4 MiB instead of 1. Nor does a processor leave such a call for anybody else (docs/adr/0124)."""
ONCE_BYTES: Final = 128 * KIB
"""Reads of this size are worth telling the kernel that they are not repeated."""


class Disk(Protocol):
    def create(self, path: Path) -> Handle:
        """A new empty file, open for reading and appending. Raises FileExistsError."""
        ...

    def open(self, path: Path, *, write: bool = False) -> Handle:
        """An existing file. Raises FileNotFoundError."""
        ...

    def open_direct(self, path: Path) -> Handle | None:
        """A second handle of an existing file, for writes past the page cache; None where there is no such thing.

        Memory address, length and position of what is written must be multiples of DIRECT_BYTES; the write may
        still be refused with EINVAL. It needs `sync_data` as any other.
        """
        ...

    def close(self, handle: Handle) -> None: ...

    def pwrite(self, handle: Handle, parts: list[bytes | memoryview], position: int) -> int:
        """Write all parts one behind the other at `position`; returns the bytes written, always all.

        Raises NoSpace when the disk is full, OSError when it fails; then part of it may have been written.
        """
        ...

    def begin_sync(self, handle: Handle, position: int, count: int) -> None:
        """Have the disk begin to write these bytes: a later `sync_data` waits less. A hint, it promises nothing."""
        ...

    def pread(self, handle: Handle, count: int, position: int) -> bytes:
        """Up to `count` bytes; fewer only at the end of the file."""
        ...

    def pread_once(self, handle: Handle, count: int, position: int) -> memoryview:
        """As `pread`, of what is not read here again soon: the page cache need not keep what it does not hold."""
        ...

    def size(self, handle: Handle) -> int: ...

    def truncate(self, handle: Handle, length: int) -> None: ...

    def sync_data(self, handle: Handle) -> None:
        """fdatasync: what was written and the length survive a power cut from here on."""
        ...

    def sync_dir(self, path: Path) -> None:
        """Make creations, renames and removals in a directory survive a power cut."""
        ...

    def rename(self, source: Path, target: Path) -> None: ...

    def remove(self, path: Path) -> None: ...

    def listdir(self, path: Path) -> list[str]: ...

    def makedirs(self, path: Path) -> None: ...

    def exists(self, path: Path) -> bool: ...

    def mtime_ns(self, path: Path) -> int:
        """When the file was last written, nanoseconds since 1970."""
        ...

    def free_bytes(self, path: Path) -> tuple[int, int]:
        """(available to us, total) bytes of the file system that holds `path`."""
        ...


def write_in_pieces(file: int, parts: Iterable[bytes | memoryview], position: int) -> None:
    """Write all parts, one behind the other, into the page cache. Raises OSError."""
    batch: list[memoryview] = []
    room = CACHED_WRITE_BYTES - position % _PAGE_BYTES  # the pieces behind the first are whole pages
    for part in parts:
        rest = memoryview(part)
        while rest:
            batch.append(rest[:room])
            rest, room = rest[room:], room - len(batch[-1])
            if not room:
                position = _write_all(file, batch, position)
                batch, room = [], CACHED_WRITE_BYTES
    if batch:
        _write_all(file, batch, position)


def _write_all(file: int, parts: Sequence[bytes | memoryview], position: int) -> int:
    """Returns where the next byte goes."""
    written = os.pwritev(file, parts, position)
    total = sum(map(len, parts))
    if written < total:
        _write_rest(file, parts, written, position)
    return position + total


def _write_rest(file: int, parts: Sequence[bytes | memoryview], written: int, position: int) -> None:
    """Rare: a signal came in between, or the disk is nearly full."""
    rest = memoryview(b"".join(parts))
    while written < len(rest):
        written += os.pwrite(file, rest[written:], position + written)


class PosixDisk:
    """The real disk."""

    _direct: frozenset[Handle] = frozenset()  # past the page cache

    def create(self, path: Path) -> Handle:
        return Handle(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def open(self, path: Path, *, write: bool = False) -> Handle:
        return Handle(os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC))

    def open_direct(self, path: Path) -> Handle | None:
        try:
            handle = Handle(os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC))
        except OSError as error:
            if error.errno == errno.EINVAL:
                return None
            raise
        self._direct |= {handle}
        return handle

    def close(self, handle: Handle) -> None:
        self._direct -= {handle}
        os.close(handle)

    def pwrite(self, handle: Handle, parts: list[bytes | memoryview], position: int) -> int:
        try:
            total = sum(map(len, parts))
            if total > CACHED_WRITE_BYTES and handle not in self._direct:
                write_in_pieces(handle, parts, position)
                return total
            written = os.pwritev(handle, parts, position) if len(parts) > 1 else os.pwrite(handle, parts[0], position)
            if written < total:
                _write_rest(handle, parts, written, position)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace("the cache disk is full") from error
            raise
        return total

    def begin_sync(self, handle: Handle, position: int, count: int) -> None:
        begin_writeback(handle, position, count)

    def pread(self, handle: Handle, count: int, position: int) -> bytes:
        data = os.pread(handle, count, position)
        if len(data) == count or not data:
            return data
        parts: list[bytes] = [data]
        while data and count > sum(map(len, parts)):
            have = sum(map(len, parts))
            data = os.pread(handle, count - have, position + have)
            parts.append(data)
        return b"".join(parts)

    def pread_once(self, handle: Handle, count: int, position: int) -> memoryview:
        if count < ONCE_BYTES:
            return memoryview(self.pread(handle, count, position))
        done = 0
        view = memoryview(bytearray(count))
        while done < count and (got := read_once(handle, view[done:], position + done)):
            done += got
        return view[:done]

    def size(self, handle: Handle) -> int:
        return os.fstat(handle).st_size

    def truncate(self, handle: Handle, length: int) -> None:
        os.ftruncate(handle, length)

    def sync_data(self, handle: Handle) -> None:
        os.fdatasync(handle)

    def sync_dir(self, path: Path) -> None:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        os.rename(source, target)

    def remove(self, path: Path) -> None:
        os.unlink(path)

    def listdir(self, path: Path) -> list[str]:
        return os.listdir(path)

    def makedirs(self, path: Path) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def exists(self, path: Path) -> bool:
        return path.exists()

    def mtime_ns(self, path: Path) -> int:
        return os.stat(path).st_mtime_ns

    def free_bytes(self, path: Path) -> tuple[int, int]:
        stat = os.statvfs(path)
        return stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize
