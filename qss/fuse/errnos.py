"""Errors of ours → errno of the kernel's answer. Total: whatever is raised has an answer."""

from __future__ import annotations

import errno

from qss.errors import FsError


def errno_of(error: BaseException) -> int:
    """FsError says it itself; everything else, expected or not, is an input/output error to a program."""
    if isinstance(error, FsError):
        return error.errno
    return errno.EIO
