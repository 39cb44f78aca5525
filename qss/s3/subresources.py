"""Requests about what hangs on a bucket or an object, as typed values: versions, locks, lifecycle, defaults."""

from __future__ import annotations

from dataclasses import dataclass

from qss.s3.backend import VersionsQuery


@dataclass(frozen=True, slots=True)
class GetVersioning:
    bucket: str


@dataclass(frozen=True, slots=True)
class PutVersioning:
    """Body: VersioningConfiguration."""

    bucket: str


@dataclass(frozen=True, slots=True)
class ListVersions:
    query: VersionsQuery
    encode: bool  # encoding-type=url


@dataclass(frozen=True, slots=True)
class GetLockSettings:
    bucket: str


@dataclass(frozen=True, slots=True)
class PutLockSettings:
    """Body: ObjectLockConfiguration."""

    bucket: str


@dataclass(frozen=True, slots=True)
class GetRetention:
    bucket: str
    key: str
    version_id: str | None = None


@dataclass(frozen=True, slots=True)
class PutRetention:
    """Body: Retention."""

    bucket: str
    key: str
    version_id: str | None = None
    bypass: bool = False


@dataclass(frozen=True, slots=True)
class GetLegalHold:
    bucket: str
    key: str
    version_id: str | None = None


@dataclass(frozen=True, slots=True)
class PutLegalHold:
    """Body: LegalHold."""

    bucket: str
    key: str
    version_id: str | None = None


Subresource = (
    GetVersioning
    | PutVersioning
    | ListVersions
    | GetLockSettings
    | PutLockSettings
    | GetRetention
    | PutRetention
    | GetLegalHold
    | PutLegalHold
)
