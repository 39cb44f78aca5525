"""The port below the S3 server: what a store of buckets and objects offers. Trove, gateway and test memory do.

Loop-neutral. Values here are frozen; text is str (keys are 1 … 1,024 bytes of UTF-8), times are nanoseconds since 1970.

Rules every backend keeps (tests/contracts/s3_backend.py checks them):
- A put, a part, a completion and a delete are all or nothing, and durable when the call returns. If the body iterator
  raises, or the task is cancelled, nothing becomes visible and what was written is given back.
- `WriteCondition.check` is called with the state the commit replaces, in the same atomic step as the commit.
- Bytes that do not verify are never returned: raise CorruptData from `read`/`chunks`; the server answers
  `ObjectDamaged`, or breaks the connection when the headers are out already.
- Absent things raise S3Error with NO_SUCH_BUCKET, NO_SUCH_KEY, NO_SUCH_VERSION, NO_SUCH_UPLOAD; a full disk raises
  qss.errors.NoSpace. Where the newest version is a delete marker, NO_SUCH_KEY says so in its headers; a delete marker
  asked for by its id is METHOD_NOT_ALLOWED (`marker_headers`).
- Under versioning a write replaces nothing (enabled) or the null version (suspended); what it does is decided in the
  step that commits. A version that object lock holds is not deleted: decided in that step, too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol, runtime_checkable

from qss.s3.errors import Code, S3Error
from qss.s3.lock import UNLOCKED, DefaultRetention, LockChange, ObjectLock
from qss.s3.sse import CustomerKey, Encryption, Sse
from qss.values import quick

Chunk = bytes | memoryview

KEY_BYTES_MAX: Final = 1024
DOCUMENT_BYTES_MAX: Final = 1024 * 1024
PART_NUMBER_MAX: Final = 10_000
PART_BYTES_MIN: Final = 5 * 1024 * 1024  # of every part but the last
READ_WHOLE_BYTES_MAX: Final = 4 * 1024 * 1024 + 64 * 1024
"""Answers up to this size are asked for with `read` (verified before the status line goes out), others by `chunks`."""


class EtagMode(Enum):
    MD5 = "md5"
    """S3's own: hex MD5 of the content; `BodyDigests.md5` is set."""
    OPAQUE = "opaque"
    """The client said it does not need MD5 (`x-trove-etag: blake3`): the backend makes up 32 hex digits that change
    with the content, from a hash it computes anyway. `BodyDigests.md5` is None."""


@quick
@dataclass(frozen=True, slots=True)
class Checksum:
    """One of S3's additional checksums."""

    algorithm: str  # "CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"
    value: str  # base64 as on the wire; a composite one has "-<parts>" behind it
    composite: bool = False


@quick
@dataclass(frozen=True, slots=True)
class Attributes:
    """What a put says about an object besides its bytes."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """Content headers by lower-case name: content-type, cache-control, content-disposition, content-encoding,
    content-language, expires. Stored and given back as they are."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """x-amz-meta-*: lower-case names without the prefix."""
    tags: tuple[tuple[str, str], ...] = ()
    storage_class: str = "STANDARD"
    lock: ObjectLock = UNLOCKED


class Versioning(Enum):
    """Of a bucket that was switched on once; None stands for one that never was."""

    ENABLED = "Enabled"
    SUSPENDED = "Suspended"


@quick
@dataclass(frozen=True, slots=True)
class StoredObject:
    """What head, get and list say about an object."""

    key: str
    size: int  # bytes
    etag: str  # without quotes
    modified_ns: int
    attributes: Attributes = field(default_factory=Attributes)
    checksum: Checksum | None = None
    part_bytes: tuple[int, ...] = ()  # sizes of the parts it was made of; () for a single put
    version_id: str | None = None  # None where versioning was never switched on; there is the version "null"
    sse: Sse | None = None  # how it is encrypted; size, parts, checksum are of the plain bytes. Not in listings


@quick
@dataclass(frozen=True, slots=True)
class BodyDigests:
    """Known once the last chunk has been taken and everything announced about the body held."""

    length: int  # bytes
    md5: bytes | None  # 16 bytes; None under EtagMode.OPAQUE
    checksum: Checksum | None  # what the client sent and the server verified


class IncomingBody(Protocol):
    """The bytes of a put. Taken once."""

    @property
    def length(self) -> int | None:
        """Announced bytes, to reserve space by; None when unknown. If chunks() ends without raising, it was exact."""
        ...

    def chunks(self) -> AsyncIterator[Chunk]:
        """Decoded bytes. A memoryview is valid until the next one is asked for. Raises S3Error when length, signature
        or checksum do not hold: at the latest in place of the end, so *end of iteration means verified*."""
        ...

    def digests(self) -> BodyDigests:
        """After chunks() ended; an assertion before."""
        ...


@quick
@dataclass(frozen=True, slots=True)
class WriteCondition:
    """If-Match / If-None-Match of a put, copy, completion or delete."""

    if_match: str | None = None  # an etag without quotes, or "*"
    if_none_match: str | None = None  # only "*" means something to S3 on writes; an etag is honoured too
    if_modified_ns: int | None = None  # only what was stored at this very time; not told by clients
    if_modified_s: int | None = None  # of a delete: only what was stored in this second
    if_size: int | None = None  # of a delete: only what has so many bytes

    def check(self, current: StoredObject | None) -> None:
        """Raise S3Error unless the write may replace `current` (None: there is no object)."""
        if self.if_modified_s is not None or self.if_size is not None:
            self._check_delete(current)
        if self.if_match is not None:
            if current is None:
                raise S3Error(Code.NO_SUCH_KEY)
            if self.if_match not in ("*", current.etag):
                raise S3Error(Code.PRECONDITION_FAILED)
        if self.if_none_match is not None and current is not None and self.if_none_match in ("*", current.etag):
            raise S3Error(Code.PRECONDITION_FAILED)
        if self.if_modified_ns is not None and (current is None or current.modified_ns != self.if_modified_ns):
            raise S3Error(Code.PRECONDITION_FAILED)

    def _check_delete(self, current: StoredObject | None) -> None:
        if current is None:
            raise S3Error(Code.NO_SUCH_KEY)
        if self.if_modified_s not in (None, current.modified_ns // 1_000_000_000):
            raise S3Error(Code.PRECONDITION_FAILED)
        if self.if_size not in (None, current.size):
            raise S3Error(Code.PRECONDITION_FAILED)


ALWAYS: Final = WriteCondition()


@quick
@dataclass(frozen=True, slots=True)
class PutRequest:
    bucket: str
    key: str
    attributes: Attributes = field(default_factory=Attributes)
    condition: WriteCondition = ALWAYS
    etag_mode: EtagMode = EtagMode.MD5
    encryption: Encryption | None = None  # None: what the bucket has for a default. Only told to who `Encrypts`


@quick
@dataclass(frozen=True, slots=True)
class DeleteRequest:
    key: str
    version_id: str | None = None  # None: what is there now, by a delete marker where there is versioning
    condition: WriteCondition = ALWAYS  # of what is there, or of the version named, also if that is a delete marker
    bypass: bool = False  # GOVERNANCE does not hold


@quick
@dataclass(frozen=True, slots=True)
class DeleteOutcome:
    """One for each DeleteRequest, in order. Deleting what is not there succeeds."""

    key: str
    error: S3Error | None = None
    version_id: str | None = None  # of the version that is gone, or of the delete marker that was made
    delete_marker: bool = False  # one was made, or is gone


@dataclass(frozen=True, slots=True)
class ListQuery:
    bucket: str
    prefix: str = ""
    delimiter: str = ""
    after: str = ""  # only keys and common prefixes greater than this, in UTF-8 byte order
    limit: int = 1000  # keys and common prefixes together; 0 gives an empty, not truncated page


@dataclass(frozen=True, slots=True)
class ListPage:
    """`qss.s3.listing.page` makes one from an ordered scan: backends need not group by delimiter themselves."""

    objects: Sequence[StoredObject]
    prefixes: tuple[str, ...]
    next_after: str | None  # `after` of the next page; None: this was the last


@dataclass(frozen=True, slots=True)
class VersionsQuery:
    bucket: str
    prefix: str = ""
    delimiter: str = ""
    key_after: str = ""  # only keys and common prefixes greater than this …
    version_after: str | None = None  # … and of this very key the versions behind this one
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class VersionEntry:
    """`object.version_id` is always set; a delete marker has no size and no etag."""

    object: StoredObject
    latest: bool
    marker: bool = False


@dataclass(frozen=True, slots=True)
class VersionsPage:
    """By key, then newest first. `qss.s3.versions.versions_page` makes one."""

    entries: tuple[VersionEntry, ...]
    prefixes: tuple[str, ...]
    next_after: tuple[str, str | None] | None  # (key_after, version_after) of the next page; None: this was the last


@dataclass(frozen=True, slots=True)
class Bucket:
    name: str
    created_ns: int
    region: str = "us-east-1"
    versioning: Versioning | None = None
    lock: bool = False  # object lock may be used; then versioning is enabled, for good
    default_retention: DefaultRetention | None = None
    encrypted: bool = False  # new objects are, by default, under the server's key


@dataclass(frozen=True, slots=True)
class Upload:
    key: str
    upload_id: str  # unguessable, URL-safe
    started_ns: int
    attributes: Attributes = field(default_factory=Attributes)
    checksum_algorithm: str | None = None
    checksum_composite: bool = True
    etag_mode: EtagMode = EtagMode.MD5
    sse: Sse | None = None


@dataclass(frozen=True, slots=True)
class CreateUpload:
    bucket: str
    key: str
    attributes: Attributes = field(default_factory=Attributes)
    checksum_algorithm: str | None = None  # announced in x-amz-checksum-algorithm
    checksum_composite: bool = True  # x-amz-checksum-type; False = FULL_OBJECT
    etag_mode: EtagMode = EtagMode.MD5
    encryption: Encryption | None = None  # as in PutRequest


@quick
@dataclass(frozen=True, slots=True)
class UploadRef:
    bucket: str
    key: str
    upload_id: str


@dataclass(frozen=True, slots=True)
class Part:
    number: int  # 1 … PART_NUMBER_MAX
    size: int  # bytes
    etag: str
    modified_ns: int
    checksum: Checksum | None = None


@dataclass(frozen=True, slots=True)
class WantedPart:
    """What the client lists in CompleteMultipartUpload."""

    number: int
    etag: str
    checksum: Checksum | None = None


@dataclass(frozen=True, slots=True)
class UploadsQuery:
    bucket: str
    prefix: str = ""
    delimiter: str = ""
    key_after: str = ""
    upload_id_after: str = ""
    limit: int = 1000


@dataclass(frozen=True, slots=True)
class UploadsPage:
    """Ordered by key, then by start."""

    uploads: tuple[Upload, ...]
    prefixes: tuple[str, ...]
    next_after: tuple[str, str] | None  # (key_after, upload_id_after) of the next page


def marker_headers(version_id: str) -> tuple[tuple[str, str], ...]:
    """What an answer says when a delete marker is what was found."""
    return ("x-amz-delete-marker", "true"), ("x-amz-version-id", version_id)


class ObjectReader(Protocol):
    """One version of an object, pinned: a put or delete meanwhile does not change what it gives."""

    @property
    def info(self) -> StoredObject: ...

    async def read(self, start: int, stop: int) -> Chunk:
        """Exactly bytes [start, stop), 0 <= start <= stop <= size, at most READ_WHOLE_BYTES_MAX of them."""
        ...

    def chunks(self, start: int, stop: int) -> AsyncIterator[Chunk]:
        """Exactly bytes [start, stop) in pieces of any size."""
        ...

    async def aclose(self) -> None:
        """Give back what pins it. Called once, also after an error."""
        ...


class ObjectBackend(Protocol):
    """Buckets and objects."""

    async def list_buckets(self) -> Sequence[Bucket]:
        """In order of name."""
        ...

    async def create_bucket(self, name: str, region: str, *, lock: bool = False) -> None:
        """Raises S3Error BUCKET_ALREADY_OWNED. The name has been checked. `lock`: with versioning and object lock."""
        ...

    async def head_bucket(self, name: str) -> Bucket: ...

    async def delete_bucket(self, name: str) -> None:
        """Raises BUCKET_NOT_EMPTY, also for delete markers (uploads in progress do not count; they are dropped with
        it, and so are its documents)."""
        ...

    async def set_versioning(self, bucket: str, versioning: Versioning) -> None:
        """Raises INVALID_BUCKET_STATE when object lock needs what would be suspended."""
        ...

    async def set_lock(self, bucket: str, default: DefaultRetention | None) -> None:
        """Switch object lock on, with what new objects get. Raises INVALID_BUCKET_STATE without versioning."""
        ...

    async def get_document(self, bucket: str, name: str) -> bytes | None:
        """A document of the bucket's configuration (lifecycle, …), as it was put; None: there is none."""
        ...

    async def put_document(self, bucket: str, name: str, content: bytes | None) -> None:
        """Replace it, or None: remove it. Up to DOCUMENT_BYTES_MAX; `name` is of our making: a-z and "-"."""
        ...

    async def put(self, request: PutRequest, body: IncomingBody) -> StoredObject:
        """Check bucket and, early if it likes, condition before taking the body. Returns what is stored now; attributes
        may be left out."""
        ...

    async def open(self, bucket: str, key: str, version_id: str | None = None) -> ObjectReader: ...

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> StoredObject: ...

    async def delete(self, bucket: str, requests: Sequence[DeleteRequest]) -> Sequence[DeleteOutcome]:
        """Up to 1,000. Raises NO_SUCH_BUCKET; everything about one key is in its outcome."""
        ...

    async def list_objects(self, query: ListQuery) -> ListPage: ...

    async def list_versions(self, query: VersionsQuery) -> VersionsPage: ...

    async def put_tags(
        self, bucket: str, key: str, tags: tuple[tuple[str, str], ...], version_id: str | None = None
    ) -> str | None:
        """Replace the tags; () removes them. Etag, time and version stay; returns the version's id. (Read them from
        `head().attributes.tags`.)"""
        ...

    async def put_lock(self, bucket: str, key: str, change: LockChange, version_id: str | None = None) -> str | None:
        """Change retention or legal hold; returns the version's id. Raises INVALID_REQUEST where the bucket has no
        object lock, and what `LockChange.apply` raises, decided in the step that commits."""
        ...

    async def create_upload(self, request: CreateUpload) -> Upload: ...

    async def get_upload(self, ref: UploadRef) -> Upload:
        """Raises NO_SUCH_UPLOAD."""
        ...

    async def put_part(self, ref: UploadRef, number: int, body: IncomingBody) -> Part:
        """Replaces a part of the same number. Raises NO_SUCH_UPLOAD, before taking the body when it can."""
        ...

    async def list_parts(self, ref: UploadRef, after: int = 0, limit: int = 1000) -> tuple[Sequence[Part], bool]:
        """Parts with number > after in order, and whether there are more."""
        ...

    async def list_uploads(self, query: UploadsQuery) -> UploadsPage: ...

    async def complete_upload(
        self, ref: UploadRef, wanted: Sequence[WantedPart], condition: WriteCondition
    ) -> StoredObject:
        """Let `qss.s3.multipart.assemble(upload, stored_parts, wanted)` check the list and compute etag, size and
        checksum, then make the object visible and drop the upload in one step. Once more for what an upload has
        become, as long as it is there, may answer as at first."""
        ...

    async def abort_upload(self, ref: UploadRef) -> None:
        """Raises NO_SUCH_UPLOAD. Parts in flight fail."""
        ...


@runtime_checkable
class CopiesItself(Protocol):
    """Optional: a backend that copies better than by reading and putting. The server does the latter for the others."""

    async def copy(self, source: ObjectReader, request: PutRequest) -> StoredObject:
        """Store the bytes of `source` (from this backend's `open`) under a new name or with new attributes."""
        ...


@runtime_checkable
class Encrypts(Protocol):
    """Optional: a backend that encrypts what it keeps, where a request or a bucket's default says so. Without a key of
    the customer's, `open`, `put_part` raise KeyNeeded for what is under one (qss.s3.sse); `head` tells."""

    async def set_encryption(self, bucket: str, encrypted: bool) -> None:
        """Of new objects, by default."""
        ...

    async def open_with(self, bucket: str, key: str, version_id: str | None, customer: CustomerKey) -> ObjectReader:
        """As `open`. Raises ACCESS_DENIED for a wrong key, KeyNotApplicable for what is not under a customer's."""
        ...

    async def put_part_with(self, ref: UploadRef, number: int, body: IncomingBody, customer: CustomerKey) -> Part:
        """As `put_part`; raises as `open_with`."""
        ...


@runtime_checkable
class KnowsParts(Protocol):
    """Optional: a backend that keeps the checksums of parts."""

    async def part_checksums(self, bucket: str, key: str, version_id: str | None) -> Sequence[Checksum | None]:
        """Of an object's parts, in order; nothing for one that was put whole."""
        ...


@runtime_checkable
class KnowsRoom(Protocol):
    """Optional: a backend that knows how much it can take yet. The server tells those who sign. See qss.s3.room."""

    def free_bytes(self, bucket: str) -> int:
        """Bytes of new objects that this bucket takes before they are refused."""
        ...
