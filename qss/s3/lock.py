"""Object lock: what protects a version, and which changes of the protection are allowed. Pure.

Source: "Locking objects with Object Lock" of the S3 user guide. Times are nanoseconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from qss.s3.errors import Code, S3Error

DAY_NS: Final = 86_400 * 1_000_000_000
YEAR_DAYS: Final = 365
HELD: Final = "Access Denied because object protected by object lock."


class Mode(Enum):
    GOVERNANCE = "GOVERNANCE"
    """Ends early for those who may bypass it and say so."""
    COMPLIANCE = "COMPLIANCE"
    """Ends early for nobody."""


@dataclass(frozen=True, slots=True)
class Retention:
    mode: Mode
    until_ns: int


@dataclass(frozen=True, slots=True)
class DefaultRetention:
    """What a bucket gives new objects that ask for nothing. One of days and years is 0."""

    mode: Mode
    days: int = 0
    years: int = 0

    def from_now(self, now_ns: int) -> Retention:
        return Retention(self.mode, now_ns + (self.days + self.years * YEAR_DAYS) * DAY_NS)


@dataclass(frozen=True, slots=True)
class ObjectLock:
    """The protection of one version."""

    retention: Retention | None = None
    legal_hold: bool | None = None  # None: never said

    def check_delete(self, now_ns: int, *, bypass: bool) -> None:
        """Raise S3Error ACCESS_DENIED while the version must stay."""
        if self.legal_hold or _binds(self.retention, now_ns, bypass=bypass):
            raise S3Error(Code.ACCESS_DENIED, HELD)

    def with_retention(self, wanted: Retention | None, now_ns: int, *, bypass: bool) -> ObjectLock:
        """The lock with another retention (None: none). Raises S3Error ACCESS_DENIED for what would shorten or loosen
        one that still binds; lengthening is always allowed."""
        old = self.retention
        if old is not None and _binds(old, now_ns, bypass=bypass):
            longer = wanted is not None and wanted.until_ns >= old.until_ns and wanted.mode is old.mode
            if not longer:
                raise S3Error(Code.ACCESS_DENIED, HELD)
        return replace(self, retention=wanted)


UNLOCKED: Final = ObjectLock()


def check_future(wanted: Retention | None, now_ns: int) -> None:
    """Raise S3Error INVALID_ARGUMENT for a retention that has ended before it begins."""
    if wanted is not None and wanted.until_ns <= now_ns:
        raise S3Error(Code.INVALID_ARGUMENT, "The retain until date must be in the future!")


def _binds(retention: Retention | None, now_ns: int, *, bypass: bool) -> bool:
    if retention is None or retention.until_ns <= now_ns:
        return False
    return retention.mode is Mode.COMPLIANCE or not bypass


@dataclass(frozen=True, slots=True)
class LockChange:
    """What PutObjectRetention or PutObjectLegalHold asks for: exactly one of the two."""

    retention: Retention | None = None
    legal_hold: bool | None = None  # None: this is about the retention
    bypass: bool = False

    def apply(self, lock: ObjectLock, now_ns: int) -> ObjectLock:
        """Raises S3Error ACCESS_DENIED."""
        if self.legal_hold is not None:
            return replace(lock, legal_hold=self.legal_hold)
        return lock.with_retention(self.retention, now_ns, bypass=self.bypass)
