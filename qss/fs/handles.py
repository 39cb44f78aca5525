"""Who still knows an inode: open handles and the kernel's lookup counts. In memory only: both end with the mount."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from qss.errors import FsError


@dataclass(slots=True)
class Handle:
    """An open file or directory."""

    ino: int
    readable: bool
    writable: bool
    append: bool
    unprivileged: bool = False  # writing takes setuid and setgid away


class Handles:
    def __init__(self) -> None:
        self._open: dict[int, Handle] = {}
        self._opens: dict[int, int] = {}  # inode → open handles
        self._lookups: dict[int, int] = {}  # inode → times its number was given out
        self._next = 1

    def open(self, handle: Handle) -> int:
        """The number of the handle."""
        number = self._next
        self._next = number + 1
        self._open[number] = handle
        self._opens[handle.ino] = self._opens.get(handle.ino, 0) + 1
        return number

    def get(self, number: int) -> Handle:
        """Raises FsError(EBADF)."""
        handle = self._open.get(number)
        if handle is None:
            raise FsError(errno.EBADF)
        return handle

    def close(self, number: int) -> int:
        """Forget a handle; its inode. Raises FsError(EBADF)."""
        ino = self.get(number).ino
        del self._open[number]
        left = self._opens[ino] - 1
        if left:
            self._opens[ino] = left
        else:
            del self._opens[ino]
        return ino

    def remember(self, ino: int) -> None:
        """The inode's number was given out once more."""
        lookups = self._lookups
        lookups[ino] = lookups.get(ino, 0) + 1

    def forget(self, ino: int, count: int) -> None:
        left = self._lookups.get(ino, 0) - count
        if left > 0:
            self._lookups[ino] = left
        else:
            self._lookups.pop(ino, None)

    def is_open(self, ino: int) -> bool:
        return ino in self._opens

    def is_known(self, ino: int) -> bool:
        """Open, or its number is out."""
        return ino in self._opens or ino in self._lookups

    @property
    def open_count(self) -> int:
        return len(self._open)

    @property
    def known_count(self) -> int:
        return len(self._lookups)

    def clear(self) -> None:
        """Nobody is left: the mount has ended."""
        self._open.clear()
        self._opens.clear()
        self._lookups.clear()
