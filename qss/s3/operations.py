"""Every S3 request this server understands, as a typed value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from qss.s3.backend import (
    CreateUpload,
    DeleteRequest,
    ListQuery,
    PutRequest,
    UploadRef,
    UploadsQuery,
    WriteCondition,
)
from qss.s3.conditions import ByteRange, ReadCondition
from qss.s3.subresources import Subresource
from qss.values import quick


@dataclass(frozen=True, slots=True)
class ListBuckets:
    prefix: str = ""
    after: str = ""  # what the continuation token stands for
    limit: int | None = None  # None: all of them
    region: str | None = None


@dataclass(frozen=True, slots=True)
class CreateBucket:
    """Body: CreateBucketConfiguration or nothing."""

    bucket: str
    lock: bool = False  # x-amz-bucket-object-lock-enabled


@quick
@dataclass(frozen=True, slots=True)
class HeadBucket:
    bucket: str


@dataclass(frozen=True, slots=True)
class DeleteBucket:
    bucket: str


@dataclass(frozen=True, slots=True)
class GetLocation:
    bucket: str


@quick
@dataclass(frozen=True, slots=True)
class ListObjects:
    """Version 1 or 2. In v1 `query.after` is the marker."""

    query: ListQuery
    v2: bool
    encode: bool  # encoding-type=url
    start_after: str | None = None  # as sent (v2)
    token: str | None = None  # continuation-token as sent (v2)
    fetch_owner: bool = False


@dataclass(frozen=True, slots=True)
class ListUploads:
    query: UploadsQuery
    encode: bool


@dataclass(frozen=True, slots=True)
class DeleteObjects:
    """Body: Delete."""

    bucket: str
    bypass: bool = False  # GOVERNANCE does not hold


@quick
@dataclass(frozen=True, slots=True)
class GetObject:
    """Get, or head when `head`."""

    bucket: str
    key: str
    head: bool
    range: ByteRange | None = None
    part_number: int | None = None
    condition: ReadCondition = field(default_factory=ReadCondition)
    overrides: Mapping[str, str] = field(default_factory=dict)  # response header → value
    checksum_mode: bool = False
    version_id: str | None = None
    hash_spans: tuple[tuple[int, int], ...] = ()  # of a head: to be hashed in place (qss.s3.inplace)


@quick
@dataclass(frozen=True, slots=True)
class PutObject:
    request: PutRequest


@dataclass(frozen=True, slots=True)
class CopySource:
    bucket: str
    key: str
    version_id: str | None
    condition: ReadCondition


@dataclass(frozen=True, slots=True)
class CopyObject:
    request: PutRequest
    source: CopySource
    replace_metadata: bool
    replace_tags: bool
    checksum_algorithm: str | None = None


@quick
@dataclass(frozen=True, slots=True)
class DeleteObject:
    bucket: str
    request: DeleteRequest


@dataclass(frozen=True, slots=True)
class GetTags:
    bucket: str
    key: str
    version_id: str | None = None


@dataclass(frozen=True, slots=True)
class PutTags:
    """Body: Tagging."""

    bucket: str
    key: str
    version_id: str | None = None


@dataclass(frozen=True, slots=True)
class DeleteTags:
    bucket: str
    key: str
    version_id: str | None = None


@dataclass(frozen=True, slots=True)
class StartUpload:
    request: CreateUpload


@quick
@dataclass(frozen=True, slots=True)
class PutPart:
    ref: UploadRef
    number: int


@dataclass(frozen=True, slots=True)
class CopyPart:
    ref: UploadRef
    number: int
    source: CopySource
    range: ByteRange | None


@dataclass(frozen=True, slots=True)
class CompleteUpload:
    """Body: CompleteMultipartUpload."""

    ref: UploadRef
    condition: WriteCondition


@dataclass(frozen=True, slots=True)
class AbortUpload:
    ref: UploadRef


@dataclass(frozen=True, slots=True)
class ListParts:
    ref: UploadRef
    after: int
    limit: int
    encode: bool


class Config(Enum):
    """Documents of a bucket's configuration about access; the value is the subresource."""

    POLICY = "policy"
    POLICY_STATUS = "policyStatus"  # computed
    PUBLIC_ACCESS = "publicAccessBlock"
    OWNERSHIP = "ownershipControls"
    CORS = "cors"
    ENCRYPTION = "encryption"

    @property
    def document(self) -> str:
        """The name that a backend keeps it by."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class GetConfig:
    bucket: str
    config: Config


@dataclass(frozen=True, slots=True)
class PutConfig:
    """Body: the document."""

    bucket: str
    config: Config


@dataclass(frozen=True, slots=True)
class DeleteConfig:
    bucket: str
    config: Config


@dataclass(frozen=True, slots=True)
class GetAcl:
    """Of the bucket when `key` is empty."""

    bucket: str
    key: str = ""
    version_id: str | None = None


@dataclass(frozen=True, slots=True)
class PutAcl:
    """Body: AccessControlPolicy, or nothing."""

    bucket: str
    key: str = ""
    version_id: str | None = None


Operation = (
    ListBuckets
    | CreateBucket
    | HeadBucket
    | DeleteBucket
    | GetLocation
    | ListObjects
    | ListUploads
    | DeleteObjects
    | GetObject
    | PutObject
    | CopyObject
    | DeleteObject
    | GetTags
    | PutTags
    | DeleteTags
    | StartUpload
    | PutPart
    | CopyPart
    | CompleteUpload
    | AbortUpload
    | ListParts
    | GetConfig
    | PutConfig
    | DeleteConfig
    | GetAcl
    | PutAcl
    | Subresource
)
