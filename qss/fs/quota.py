"""How much a file system may hold: pure checks of what is used against what is allowed."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

from qss.errors import FsError
from qss.fs.attrs import SpaceFigures


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits of the whole file system; None: none."""

    bytes_max: int | None = None  # of content, holes not counted; before compression and coding
    inodes_max: int | None = None

    def check_bytes(self, used: int, growth: int) -> None:
        """Whether `growth` bytes (0 or less: always) may come to `used`. Raises FsError(EDQUOT)."""
        if self.bytes_max is not None and growth > 0 and used + growth > self.bytes_max:
            raise FsError(errno.EDQUOT)

    def check_inode(self, used: int) -> None:
        """Whether there may be one more inode. Raises FsError(EDQUOT)."""
        if self.inodes_max is not None and used >= self.inodes_max:
            raise FsError(errno.EDQUOT)

    def shown(self, figures: SpaceFigures) -> SpaceFigures:
        """What statfs says under these limits: never more than the disk has, never more than is allowed."""
        total, free, available, inodes, free_inodes = figures
        used, used_inodes = total - free, inodes - free_inodes
        if self.bytes_max is not None:
            free = min(free, max(self.bytes_max - used, 0))
            available = min(available, free)
            total = used + free
        if self.inodes_max is not None:
            free_inodes = min(free_inodes, max(self.inodes_max - used_inodes, 0))
            inodes = used_inodes + free_inodes
        return SpaceFigures(total, free, available, inodes, free_inodes)


UNLIMITED: Final = Quota()
