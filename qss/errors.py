"""The exception tree, sorted by what the caller may do next.

    QssError
    ├── Retryable   nothing is wrong with the request: send the same again later
    ├── Damaged     bytes do not verify, or are not there: repair from elsewhere
    ├── Refused     the user must act; the message is one sentence that says what to do
    └── FsError     a POSIX answer; `errno` says which

There are no other bases. An `assert` is for our own bugs. Nothing logs *and* raises.
"""

from __future__ import annotations

import errno as _errno
import os


class QssError(Exception):
    """Root of every error this project raises on purpose."""


class Retryable(QssError):
    """Nothing is wrong with the request: send the same bytes again later."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unreachable(Retryable):
    """The other side did not answer: connection refused, reset, or a deadline passed."""


class Busy(Retryable):
    """The other side asks us to come back later (503, 429, SlowDown)."""


class Damaged(QssError):
    """Bytes do not verify or are gone: repair, never return them as data."""


class CorruptData(Damaged):
    """A checksum, MAC, AEAD tag or length does not hold."""


class ObjectMissing(Damaged):
    """An object that should be at a location is not there."""


class TooFewShards(Damaged):
    """Fewer than k verified shards can be had; says which were tried."""


class Refused(QssError):
    """The user must act: wrong key, bad configuration, no permission, no space."""


class ConfigInvalid(Refused):
    """The configuration does not hold; the message names the key and what to write."""


class WrongKey(Refused):
    """The key does not open this file system."""


class AccessDenied(Refused):
    """A location refuses our credentials or the request."""


class PreconditionFailed(Refused):
    """A conditional write lost: somebody else has written first."""


class FsError(QssError):
    """A POSIX answer. Raised as `FsError(errno.ENOENT)`; the message is the system's own."""

    def __init__(self, errno: int, detail: str = "") -> None:
        super().__init__(f"{os.strerror(errno)}{': ' + detail if detail else ''}")
        self.errno = errno
        self.detail = detail


class NoSpace(FsError):
    """The cache disk is at its hard limit and nothing can be evicted."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(_errno.ENOSPC, detail)
