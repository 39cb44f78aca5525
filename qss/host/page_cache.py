"""What we tell Linux about its page cache, where it listens."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from pathlib import Path
from typing import Final

_DONTCACHE: Final = 0x80  # RWF_DONTCACHE of linux/fs.h, since Linux 6.14
_RANGE_WRITE: Final = 2  # SYNC_FILE_RANGE_WRITE of linux/fs.h

_BALLOONS: Final = Path("/sys/bus/virtio/drivers/virtio_balloon")
_REPORTING: Final = 5  # VIRTIO_BALLOON_F_REPORTING of linux/virtio_balloon.h

_deaf: set[int] = set()  # devices whose file systems know no RWF_DONTCACHE


def read_once(file: int, into: memoryview, position: int) -> int:
    """preadv whose pages are given back at once if it had to bring them in; returns the bytes read, 0 at the end.

    A page that is used again at once is worth ten that are new: the latter cost a virtual machine that gives free
    memory back to its host 1.5 ms for each MiB read instead of 0.2. Where the kernel or the file system does not know
    this it is a plain preadv.
    """
    device = os.fstat(file).st_dev
    if device not in _deaf:
        try:
            return os.preadv(file, [into], position, _DONTCACHE)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            _deaf.add(device)
    return os.preadv(file, [into], position)


def begin_writeback(file: int, position: int, count: int) -> None:
    """sync_file_range(2): the kernel begins to write these dirty pages to the disk. A hint; elsewhere nothing."""
    with contextlib.suppress(OSError, AttributeError):
        call = ctypes.CDLL(None).sync_file_range
        call(file, ctypes.c_int64(position), ctypes.c_int64(count), _RANGE_WRITE)


def memory_is_lent(balloons: Path = _BALLOONS) -> bool:
    """Whether the host of this machine takes back at once what is free (free page reporting). Then a page that the page
    cache takes anew costs some 10 µs, and one that was in use a moment ago ten times less (docs/adr/0155).

    `balloons`: the driver's devices, one directory each, whose `features` are a digit for each bit, lowest first.
    """
    with contextlib.suppress(OSError):
        return any(each.read_text()[_REPORTING : _REPORTING + 1] == "1" for each in balloons.glob("virtio*/features"))
    return False


def forget(file: int, position: int, count: int) -> None:
    """The page cache need not keep these bytes; what is not on the disk yet it keeps. A hint; elsewhere nothing."""
    with contextlib.suppress(OSError, AttributeError):
        os.posix_fadvise(file, position, count, os.POSIX_FADV_DONTNEED)
