"""An ObjectBackend in dictionaries. Passes tests/contracts/s3_backend.py. Loop-neutral: awaits nothing but bodies."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from blake3 import blake3

from qss.s3.backend import (
    ALWAYS,
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
    WantedPart,
    WriteCondition,
)
from qss.s3.errors import Code, S3Error
from qss.s3.listing import page
from qss.s3.multipart import assemble


@dataclass(slots=True)
class _Upload:
    info: Upload
    parts: dict[int, tuple[Part, bytes]] = field(default_factory=dict)


@dataclass(slots=True)
class _Bucket:
    info: Bucket
    objects: dict[str, tuple[StoredObject, bytes]] = field(default_factory=dict)
    uploads: dict[str, _Upload] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)


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

    def _bucket(self, name: str) -> _Bucket:
        if name not in self.buckets:
            raise S3Error(Code.NO_SUCH_BUCKET)
        return self.buckets[name]

    def _object(self, bucket: str, key: str) -> tuple[StoredObject, bytes]:
        found = self._bucket(bucket).objects.get(key)
        if found is None:
            raise S3Error(Code.NO_SUCH_KEY)
        return found

    def _upload(self, ref: UploadRef) -> _Upload:
        upload = self._bucket(ref.bucket).uploads.get(ref.upload_id)
        if upload is None or upload.info.key != ref.key:
            raise S3Error(Code.NO_SUCH_UPLOAD)
        return upload

    async def list_buckets(self) -> Sequence[Bucket]:
        return [self.buckets[name].info for name in sorted(self.buckets)]

    async def create_bucket(self, name: str, region: str) -> None:
        if name in self.buckets:
            raise S3Error(Code.BUCKET_ALREADY_OWNED)
        self.buckets[name] = _Bucket(Bucket(name, self._now_ns(), region))

    async def head_bucket(self, name: str) -> Bucket:
        return self._bucket(name).info

    async def delete_bucket(self, name: str) -> None:
        if self._bucket(name).objects:
            raise S3Error(Code.BUCKET_NOT_EMPTY)
        del self.buckets[name]

    async def get_document(self, bucket: str, name: str) -> bytes | None:
        return self._bucket(bucket).documents.get(name)

    async def put_document(self, bucket: str, name: str, content: bytes | None) -> None:
        documents = self._bucket(bucket).documents
        if content is None:
            documents.pop(name, None)
        else:
            documents[name] = content

    async def put(self, request: PutRequest, body: IncomingBody) -> StoredObject:
        self._bucket(request.bucket)
        data, etag = await _take(body, request.etag_mode)
        found = StoredObject(request.key, len(data), etag, self._now_ns(), request.attributes, body.digests().checksum)
        return self._commit(request.bucket, found, data, request.condition)

    def _commit(self, bucket: str, found: StoredObject, data: bytes, condition: WriteCondition) -> StoredObject:
        objects = self._bucket(bucket).objects
        current = objects.get(found.key)
        condition.check(None if current is None else current[0])
        objects[found.key] = (found, data)
        return found

    async def open(self, bucket: str, key: str, version_id: str | None = None) -> MemoryReader:
        info, data = self._object(bucket, key)
        self.open_readers += 1

        def closed() -> None:
            self.open_readers -= 1

        return MemoryReader(info, data, closed)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> StoredObject:
        return self._object(bucket, key)[0]

    async def delete(self, bucket: str, requests: Sequence[DeleteRequest]) -> Sequence[DeleteOutcome]:
        objects = self._bucket(bucket).objects
        outcomes = []
        for request in requests:
            current = objects.get(request.key)
            try:
                if request.condition != ALWAYS:
                    request.condition.check(None if current is None else current[0])
            except S3Error as error:
                outcomes.append(DeleteOutcome(request.key, error))
                continue
            objects.pop(request.key, None)
            outcomes.append(DeleteOutcome(request.key))
        return outcomes

    async def list_objects(self, query: ListQuery) -> ListPage:
        objects = self._bucket(query.bucket).objects
        ordered = sorted((key.encode(), found) for key, (found, _) in objects.items())

        def scan(lower: bytes) -> Iterator[StoredObject]:
            return (found for key, found in ordered if key >= lower)

        return page(scan, query)

    async def put_tags(self, bucket: str, key: str, tags: tuple[tuple[str, str], ...]) -> None:
        info, data = self._object(bucket, key)
        tagged = replace(info, attributes=replace(info.attributes, tags=tags))
        self._bucket(bucket).objects[key] = (tagged, data)

    async def create_upload(self, request: CreateUpload) -> Upload:
        bucket = self._bucket(request.bucket)
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
            self._now_ns(),
            upload.info.attributes,
            result.checksum,
            tuple(part.size for part in result.parts),
        )
        self._commit(ref.bucket, found, data, condition)
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
