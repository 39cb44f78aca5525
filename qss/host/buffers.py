"""Keep the memory of large pieces instead of giving it back to the kernel after each one."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

from qss.limits import MIB

_M_TRIM_THRESHOLD: Final = -1  # malloc.h of glibc
_M_MMAP_THRESHOLD: Final = -3
_MMAP_BYTES: Final = 32 * MIB  # the most glibc takes (HEAP_MAX / 2)
KEPT_BYTES: Final = 64 * MIB
"""Free memory at the end of the heap that stays ours: of the mount, whose answers are up to 1 MiB each and many."""
KEPT_BYTES_LESS: Final = 16 * MIB
"""The same, of processes of which several may run on a machine, or which have large buffers of their own."""


def keep_buffers(kept_bytes: int = KEPT_BYTES) -> None:
    """Pieces of 1 MiB come from memory that is mapped already. For a whole process; once, at its start.

    As it comes, glibc maps and unmaps them: 115,000 page faults and a quarter of the system time for each GiB read.
    Elsewhere than on glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, kept_bytes)
