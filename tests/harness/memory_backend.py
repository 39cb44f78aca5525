"""An ObjectBackend in dictionaries. Passes tests/contracts/s3_backend.py. Loop-neutral: awaits nothing but bodies."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from blake3 import blake3

from qss.s3.backend import (
    ALWAYS,
    Attributes,
    Bucket,
    Chunk,
    CreateUpload,
    DeleteOutcome,
    DeleteRequest,
    EtagMode,
    IncomingBody,
    ListPage,
    ListQuery,
    Part,
    PutRequest,
    StoredObject,
    Upload,
    UploadRef,
    UploadsPage,
    UploadsQuery,
    VersionEntry,
    Versioning,
    VersionsPage,
    VersionsQuery,
    WantedPart,
    WriteCondition,
    marker_headers,
)
from qss.s3.errors import Code, S3Error
from qss.s3.listing import page
from qss.s3.lock import UNLOCKED, DefaultRetention, LockChange
from qss.s3.multipart import assemble
from qss.s3.versions import NULL, parse_version, version_text, versions_page


@dataclass(slots=True)
class _Upload:
    info: Upload
    parts: dict[int, tuple[Part, bytes]] = field(default_factory=dict)


@dataclass(slots=True)
class _Version:
    info: StoredObject
    data: bytes
    number: int | None  # None: the null version
    marker: bool = False

    @property
    def id(self) -> str:
        return NULL if self.number is None else version_text(self.number)


@dataclass(slots=True)
class _Bucket:
    info: Bucket
    versions: dict[str, list[_Version]] = field(default_factory=dict)  # newest first, never empty
    uploads: dict[str, _Upload] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)

    def current(self, key: str) -> _Version | None:
        """What is there: not a delete marker."""
        versions = self.versions.get(key)
        return None if not versions or versions[0].marker else versions[0]

    def shown(self, version: _Version) -> StoredObject:
        named = None if self.info.versioning is None else version.id
        return replace(version.info, version_id=named)


class MemoryReader:
    def __init__(self, info: StoredObject, data: bytes, on_close: Callable[[], None]) -> None:
        self.info = info
        self._data = data
        self._on_close = on_close

    async def read(self, start: int, stop: int) -> Chunk:
        return memoryview(self._data)[start:stop]

    async def chunks(self, start: int, stop: int) -> AsyncIterator[Chunk]:
        for at in range(start, stop, 65_536):
            yield memoryview(self._data)[at : min(at + 65_536, stop)]

    async def aclose(self) -> None:
        self._on_close()


class MemoryBackend:
    """`open_readers` counts what has not been closed."""

    def __init__(self, now_ns: Callable[[], int] = lambda: 1_700_000_000_000_000_000) -> None:
        self.buckets: dict[str, _Bucket] = {}
        self.open_readers = 0
        self._now_ns = now_ns
        self._numbers = itertools.count(1)
        self._newest = 0

    def _bucket(self, name: str) -> _Bucket:
        if name not in self.buckets:
            raise S3Error(Code.NO_SUCH_BUCKET)
        return self.buckets[name]

    def _version(self, bucket: str, key: str, version_id: str | None) -> _Version:
        found = self._bucket(bucket)
        if version_id is not None:
            wanted = self._named(found, key, version_id)
            if wanted is None:
                raise S3Error(Code.NO_SUCH_VERSION)
            if wanted.marker:
                raise S3Error(Code.METHOD_NOT_ALLOWED, headers=(*marker_headers(wanted.id), ("allow", "DELETE")))
            return wanted
        current = found.current(key)
        if current is None:
            hidden = found.versions.get(key)
            raise S3Error(Code.NO_SUCH_KEY, headers=marker_headers(hidden[0].id) if hidden else ())
        return current

    @staticmethod
    def _named(bucket: _Bucket, key: str, version_id: str) -> _Version | None:
        number = parse_version(version_id)
        return next((each for each in bucket.versions.get(key, ()) if each.number == number), None)

    def _upload(self, ref: UploadRef) -> _Upload:
        upload = self._bucket(ref.bucket).uploads.get(ref.upload_id)
        if upload is None or upload.info.key != ref.key:
            raise S3Error(Code.NO_SUCH_UPLOAD)
        return upload

    async def list_buckets(self) -> Sequence[Bucket]:
        return [self.buckets[name].info for name in sorted(self.buckets)]

    async def create_bucket(self, name: str, region: str, *, lock: bool = False) -> None:
        if name in self.buckets:
            raise S3Error(Code.BUCKET_ALREADY_OWNED)
        self.buckets[name] = _Bucket(Bucket(name, self._now_ns(), region, Versioning.ENABLED if lock else None, lock))

    async def head_bucket(self, name: str) -> Bucket:
        return self._bucket(name).info

    async def delete_bucket(self, name: str) -> None:
        if self._bucket(name).versions:
            raise S3Error(Code.BUCKET_NOT_EMPTY)
        del self.buckets[name]

    async def set_versioning(self, bucket: str, versioning: Versioning) -> None:
        found = self._bucket(bucket)
        if found.info.lock and versioning is not Versioning.ENABLED:
            raise S3Error(Code.INVALID_BUCKET_STATE)
        found.info = replace(found.info, versioning=versioning)

    async def set_lock(self, bucket: str, default: DefaultRetention | None) -> None:
        found = self._bucket(bucket)
        if found.info.versioning is not Versioning.ENABLED:
            raise S3Error(Code.INVALID_BUCKET_STATE)
        found.info = replace(found.info, lock=True, default_retention=default)

    async def get_document(self, bucket: str, name: str) -> bytes | None:
        return self._bucket(bucket).documents.get(name)

    async def put_document(self, bucket: str, name: str, content: bytes | None) -> None:
        documents = self._bucket(bucket).documents
        documents.pop(name, None)
        if content is not None:
            documents[name] = content

    async def put(self, request: PutRequest, body: IncomingBody) -> StoredObject:
        attributes = self._with_lock(request.bucket, request.attributes)
        data, etag = await _take(body, request.etag_mode)
        found = StoredObject(request.key, len(data), etag, self._tick(), attributes, body.digests().checksum)
        return self._commit(request.bucket, found, data, request.condition)

    def _with_lock(self, bucket: str, attributes: Attributes) -> Attributes:
        info = self._bucket(bucket).info
        if not info.lock:
            if attributes.lock != UNLOCKED:
                raise S3Error(Code.INVALID_REQUEST, "Bucket is missing Object Lock Configuration")
            return attributes
        if info.default_retention is None or attributes.lock.retention is not None:
            return attributes
        retention = info.default_retention.from_now(self._now_ns())
        return replace(attributes, lock=replace(attributes.lock, retention=retention))

    def _tick(self) -> int:
        self._newest = max(self._newest + 1, self._now_ns())
        return self._newest

    def _commit(self, bucket: str, found: StoredObject, data: bytes, condition: WriteCondition) -> StoredObject:
        place = self._bucket(bucket)
        current = place.current(found.key)
        condition.check(None if current is None else current.info)
        return place.shown(self._add(place, found, data))

    def _add(self, bucket: _Bucket, found: StoredObject, data: bytes = b"", *, marker: bool = False) -> _Version:
        numbered = bucket.info.versioning is Versioning.ENABLED
        added = _Version(found, data, found.modified_ns if numbered else None, marker)
        kept = [each for each in bucket.versions.get(found.key, []) if numbered or each.number is not None]
        bucket.versions[found.key] = [added, *kept]
        return added

    async def open(self, bucket: str, key: str, version_id: str | None = None) -> MemoryReader:
        version = self._version(bucket, key, version_id)
        self.open_readers += 1

        def closed() -> None:
            self.open_readers -= 1

        return MemoryReader(self._bucket(bucket).shown(version), version.data, closed)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> StoredObject:
        return self._bucket(bucket).shown(self._version(bucket, key, version_id))

    async def delete(self, bucket: str, requests: Sequence[DeleteRequest]) -> Sequence[DeleteOutcome]:
        found = self._bucket(bucket)
        return [self._delete(found, request) for request in requests]

    def _delete(self, bucket: _Bucket, request: DeleteRequest) -> DeleteOutcome:
        current = bucket.current(request.key)
        try:
            if request.version_id is not None:
                return self._delete_version(bucket, request, request.version_id)
            if request.condition != ALWAYS:
                request.condition.check(None if current is None else current.info)
        except S3Error as error:
            return DeleteOutcome(request.key, error)
        if bucket.info.versioning is None:
            bucket.versions.pop(request.key, None)
            return DeleteOutcome(request.key)
        made = self._add(bucket, StoredObject(request.key, 0, "", self._tick()), marker=True)
        return DeleteOutcome(request.key, version_id=made.id, delete_marker=True)

    def _delete_version(self, bucket: _Bucket, request: DeleteRequest, version_id: str) -> DeleteOutcome:
        version = self._named(bucket, request.key, version_id)
        request.condition.check(None if version is None else version.info)
        if version is None:
            return DeleteOutcome(request.key, version_id=version_id)
        version.info.attributes.lock.check_delete(self._now_ns(), bypass=request.bypass)
        bucket.versions[request.key].remove(version)
        if not bucket.versions[request.key]:
            del bucket.versions[request.key]
        return DeleteOutcome(request.key, version_id=version_id, delete_marker=version.marker)

    async def list_objects(self, query: ListQuery) -> ListPage:
        bucket = self._bucket(query.bucket)
        there = ((key, bucket.current(key)) for key in bucket.versions)
        ordered = sorted((key.encode(), bucket.shown(version)) for key, version in there if version is not None)

        def scan(lower: bytes) -> Iterator[StoredObject]:
            return (found for key, found in ordered if key >= lower)

        return page(scan, query)

    async def list_versions(self, query: VersionsQuery) -> VersionsPage:
        bucket = self._bucket(query.bucket)

        def scan(lower: bytes, after: str | None) -> Iterator[VersionEntry]:
            for key, versions in sorted((key.encode(), each) for key, each in bucket.versions.items()):
                skipping = after is not None and key == lower and after in [each.id for each in versions]
                for place, version in enumerate(versions):
                    if key >= lower and not skipping:
                        info = replace(version.info, version_id=version.id)
                        yield VersionEntry(info, place == 0, version.marker)
                    skipping = skipping and version.id != after

        return versions_page(scan, query)

    async def put_tags(
        self, bucket: str, key: str, tags: tuple[tuple[str, str], ...], version_id: str | None = None
    ) -> str | None:
        version = self._version(bucket, key, version_id)
        version.info = replace(version.info, attributes=replace(version.info.attributes, tags=tags))
        return self._bucket(bucket).shown(version).version_id

    async def put_lock(self, bucket: str, key: str, change: LockChange, version_id: str | None = None) -> str | None:
        if not self._bucket(bucket).info.lock:
            raise S3Error(Code.INVALID_REQUEST, "Bucket is missing Object Lock Configuration")
        version = self._version(bucket, key, version_id)
        attributes = version.info.attributes
        lock = change.apply(attributes.lock, self._now_ns())
        version.info = replace(version.info, attributes=replace(attributes, lock=lock))
        return self._bucket(bucket).shown(version).version_id

    async def create_upload(self, request: CreateUpload) -> Upload:
        bucket = self._bucket(request.bucket)
        self._with_lock(request.bucket, request.attributes)
        upload = Upload(
            request.key,
            f"{next(self._numbers):032x}",
            self._now_ns(),
            request.attributes,
            request.checksum_algorithm,
            request.checksum_composite,
            request.etag_mode,
        )
        bucket.uploads[upload.upload_id] = _Upload(upload)
        return upload

    async def get_upload(self, ref: UploadRef) -> Upload:
        return self._upload(ref).info

    async def put_part(self, ref: UploadRef, number: int, body: IncomingBody) -> Part:
        data, etag = await _take(body, self._upload(ref).info.etag_mode)
        part = Part(number, len(data), etag, self._now_ns(), body.digests().checksum)
        self._upload(ref).parts[number] = (part, data)
        return part

    async def list_parts(self, ref: UploadRef, after: int = 0, limit: int = 1000) -> tuple[Sequence[Part], bool]:
        parts = [part for number, (part, _) in sorted(self._upload(ref).parts.items()) if number > after]
        return parts[:limit], len(parts) > limit

    async def list_uploads(self, query: UploadsQuery) -> UploadsPage:
        uploads = [each.info for each in self._bucket(query.bucket).uploads.values()]
        uploads = [each for each in uploads if each.key.startswith(query.prefix)]
        uploads.sort(key=lambda each: (each.key.encode(), each.started_ns, each.upload_id))
        if query.key_after:
            uploads = [each for each in uploads if _behind(each, query)]
        shown = uploads[: query.limit]
        last = (shown[-1].key, shown[-1].upload_id) if shown and len(uploads) > query.limit else None
        return UploadsPage(tuple(shown), (), last)

    async def complete_upload(
        self, ref: UploadRef, wanted: Sequence[WantedPart], condition: WriteCondition
    ) -> StoredObject:
        upload = self._upload(ref)
        result = assemble(upload.info, [part for part, _ in upload.parts.values()], wanted)
        data = b"".join(upload.parts[part.number][1] for part in result.parts)
        found = StoredObject(
            ref.key,
            result.size,
            result.etag,
            self._tick(),
            self._with_lock(ref.bucket, upload.info.attributes),
            result.checksum,
            tuple(part.size for part in result.parts),
        )
        found = self._commit(ref.bucket, found, data, condition)
        del self._bucket(ref.bucket).uploads[ref.upload_id]
        return found

    async def abort_upload(self, ref: UploadRef) -> None:
        self._upload(ref)
        del self._bucket(ref.bucket).uploads[ref.upload_id]


def _behind(upload: Upload, query: UploadsQuery) -> bool:
    if upload.key == query.key_after:
        return bool(query.upload_id_after) and upload.upload_id > query.upload_id_after
    return upload.key.encode() > query.key_after.encode()


async def _take(body: IncomingBody, mode: EtagMode) -> tuple[bytes, str]:
    data = bytearray()
    async for chunk in body.chunks():
        data += chunk
    md5 = body.digests().md5
    if mode is EtagMode.MD5:
        assert md5 is not None
        return bytes(data), md5.hex()
    return bytes(data), blake3(data).hexdigest()[:32]
