"""A repair of pyfuse3 3.5.0: what touch(1) asks for is the present, not the kernel's last tick.

To say "now" the kernel sets two flags, "this time" with the time of its last tick, and "now". pyfuse3 looks for the
first flag first, so a file touched after a write looks up to 10 ms older than what was written, which we stamp to the
nanosecond: make(1) builds it again, every time. Here the first flag is taken away where the second one is set.

The flags are in a C structure that pyfuse3 hands to its own coroutine as a Python object (handlers.pxi, _Container):
object head 16 bytes, rdev 8, fuse_file_info 40, ino 8, parent 8, req 8, flags. Where the size of the whole is not what
that makes, nothing is changed. docs/adr/0086.
"""

from __future__ import annotations

import ctypes
import logging
from typing import Any, Final

import pyfuse3

log = logging.getLogger(__name__)

ATIME: Final = 1 << 4  # FUSE_SET_ATTR_*, fuse_lowlevel.h
MTIME: Final = 1 << 5
ATIME_NOW: Final = 1 << 7
MTIME_NOW: Final = 1 << 8

_FLAGS_AT: Final = 88
_SIZES: Final = (264, 248)  # struct stat is 144 bytes on x86-64, 128 on arm64


def meant(flags: int) -> int:
    """Which fields of a setattr are to be set, "now" instead of "the time of your last tick"."""
    if flags & ATIME_NOW:
        flags &= ~ATIME
    if flags & MTIME_NOW:
        flags &= ~MTIME
    return flags


def install() -> None:
    """From now on, in this process; once."""
    module: Any = pyfuse3  # its stubs do not name these
    if module._Container.__basicsize__ not in _SIZES:
        log.warning("another pyfuse3 than known: touch(1) may set times some milliseconds back")
        return
    handle_setattr = module.fuse_setattr_async

    async def fuse_setattr_async(request: Any, handle: int | None) -> None:
        flags = ctypes.c_int.from_address(id(request) + _FLAGS_AT)
        flags.value = meant(flags.value)
        await handle_setattr(request, handle)

    module.fuse_setattr_async = fuse_setattr_async
