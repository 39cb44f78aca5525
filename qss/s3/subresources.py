"""Requests about what hangs on a bucket or an object, as typed values: versions, locks, lifecycle, defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qss.s3.backend import VersionsQuery

ATTRIBUTE_NAMES: Final = frozenset({"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of an object's attributes."""

    names: frozenset[str]
    parts_max: int = 1000
    after_part: int = 0


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


@dataclass(frozen=True, slots=True)
class GetLifecycle:
    bucket: str


@dataclass(frozen=True, slots=True)
class PutLifecycle:
    """Body: LifecycleConfiguration."""

    bucket: str


@dataclass(frozen=True, slots=True)
class DeleteLifecycle:
    bucket: str


@dataclass(frozen=True, slots=True)
class GetBucketTags:
    bucket: str


@dataclass(frozen=True, slots=True)
class PutBucketTags:
    """Body: Tagging."""

    bucket: str


@dataclass(frozen=True, slots=True)
class DeleteBucketTags:
    bucket: str


@dataclass(frozen=True, slots=True)
class GetObjectAttributes:
    bucket: str
    key: str
    wanted: Wanted
    version_id: str | None = None


@dataclass(frozen=True, slots=True)
class GetUnset:
    """Of `qss.s3.unset.UNSET`."""

    bucket: str
    name: str
    with_id: bool = False


@dataclass(frozen=True, slots=True)
class DeleteUnset:
    bucket: str
    name: str


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
    | GetLifecycle
    | PutLifecycle
    | DeleteLifecycle
    | GetBucketTags
    | PutBucketTags
    | DeleteBucketTags
    | GetObjectAttributes
    | GetUnset
    | DeleteUnset
)
