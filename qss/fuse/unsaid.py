"""What the kernel says with a write and pyfuse3 3.5.0 does not pass on: is this one to be synced?

The kernel syncs what goes through its memory; of a write that goes past it (docs/adr/0088) it only says that the
program wants it durable (RWF_DSYNC, a mount with `sync`). That word stands in the request, which libfuse has read into
a buffer of the task that answers it: a C structure among the variables of pyfuse3's session loop, a Python object.

    object head 16 | struct fuse_buf 40: size 8, flags 8, mem 8, … | int max_tasks, min_tasks | name | nursery | int res

With another version, or where the size of the whole is not what that makes, nothing is known, and nothing goes past the
kernel's memory.
Source of the request's format: include/uapi/linux/fuse.h (struct fuse_in_header, fuse_write_in).
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import struct
from contextvars import ContextVar
from typing import Any, Final

import pyfuse3

log = logging.getLogger(__name__)

FUSE_WRITE: Final = 16  # opcode
_REQUEST: Final = struct.Struct("<4xI32xQQI12xI4x")  # opcode, then of fuse_write_in: fh, offset, size, flags
_VERSION: Final = "3.5.0"  # of pyfuse3: another may keep its variables elsewhere
_SCOPE_BYTES: Final = 88
_MEM_AT: Final = 32

_buffer: ContextVar[int] = ContextVar("request buffer")
"""Where this task's session loop keeps the address of its requests; 0: not known."""


def asked(request: bytes, handle: int, offset: int, count: int) -> int | None:
    """The flags, as of open(2), of the write request that starts here; None: it is not this write."""
    if len(request) < _REQUEST.size:
        return None
    opcode, *which, flags = _REQUEST.unpack_from(request)
    return int(flags) if (opcode, which) == (FUSE_WRITE, [handle, offset, count]) else None


class Unsaid:
    """Of the session of this process."""

    def install(self) -> None:
        """Before the session begins; once."""
        module: Any = pyfuse3  # its stubs do not name these
        raw = module._session_loop.__wrapped__

        async def session_loop(*args: object) -> None:
            loop = raw(*args)
            _buffer.set(_buffer_of(loop))
            await loop

        module._session_loop = session_loop

    @property
    def known(self) -> bool:
        """Whether requests can be looked at, by the task that answers one."""
        return _buffer.get(0) != 0

    def wants_sync(self, handle: int, offset: int, count: int) -> bool:
        """Whether the write that the calling task answers is to be durable; in doubt yes. Before any await."""
        place = _buffer.get(0)
        memory = ctypes.c_void_p.from_address(place).value if place else None
        if memory is None:
            return True
        flags = asked(ctypes.string_at(memory, _REQUEST.size), handle, offset, count)
        return flags is None or bool(flags & os.O_DSYNC)


def _buffer_of(loop: object) -> int:
    if pyfuse3.__version__ == _VERSION and struct.calcsize("P") == 8:
        for each in gc.get_referents(loop):
            kind = type(each)
            if kind.__name__.endswith("__session_loop") and kind.__basicsize__ == _SCOPE_BYTES:
                return id(each) + _MEM_AT
    log.warning("another pyfuse3 than known: new files are written through the kernel's memory")
    return 0
