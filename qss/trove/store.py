"""Buckets and objects of one node: the S3 server's backend (`qss.s3.backend.ObjectBackend`) on volumes and index."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Final

from qss.formats.volume import Kind
from qss.s3.backend import (
    Bucket,
    CreateUpload,
    DeleteOutcome,
    DeleteRequest,
    IncomingBody,
    ListPage,
    ListQuery,
    ObjectReader,
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
from qss.s3.errors import Code, S3Error, to_s3
from qss.s3.listing import page
from qss.trove.engine import Draft, Engine, room_for
from qss.trove.facts import grave_key
from qss.trove.index import Tables
from qss.trove.meta import bucket_of, encode_bucket, encode_object, encode_tags, tags_of
from qss.trove.quotas import Quotas, Usage
from qss.trove.reader import Records, TroveReader, open_object, stored
from qss.trove.rows import ObjectRow, decode_object
from qss.trove.uploads import Uploads

TENANT: Final = 0
"""The one there is, until tenants come."""


class TroveStore:
    """See `ObjectBackend` for what each verb promises."""

    def __init__(self, engine: Engine, quotas: Quotas | None = None) -> None:
        self.engine = engine
        self._quotas = quotas
        self.records = Records(engine)
        self._uploads = Uploads(engine, self._require_bucket, self.row, self._room)
        self._closing: set[bytes] = set()

    # -- buckets ----------------------------------------------------------------------------------------------------

    async def list_buckets(self) -> Sequence[Bucket]:
        with self.engine.index.read() as tables:
            return [_bucket(name, row.meta) for name, row in tables.buckets(TENANT)]

    async def create_bucket(self, name: str, region: str) -> None:
        key = name.encode()

        def decide() -> None:
            with self.engine.index.read() as tables:
                if tables.bucket(TENANT, key) is not None:
                    raise S3Error(Code.BUCKET_ALREADY_OWNED)

        decide()
        meta = encode_bucket(self.engine.clock.now_ns(), region)
        await self.engine.note(Draft(Kind.BUCKET, key, meta, decide, exclusive=True))

    async def head_bucket(self, name: str) -> Bucket:
        with self.engine.index.read() as tables:
            row = tables.bucket(TENANT, name.encode())
            if row is None or name.encode() in self._closing:
                raise S3Error(Code.NO_SUCH_BUCKET)
            return _bucket(name.encode(), row.meta)

    async def delete_bucket(self, name: str) -> None:
        await self.head_bucket(name)
        key = name.encode()
        self._closing.add(key)  # from here no new record of this bucket is begun
        try:
            await self.engine.committer.idle()
            with self.engine.index.read() as tables:
                number = tables.bucket_id(TENANT, key)
                if number is None:
                    raise S3Error(Code.NO_SUCH_BUCKET)
                if next(tables.tree(number).scan(), None) is not None:
                    raise S3Error(Code.BUCKET_NOT_EMPTY)
            await self._uploads.drop_all(name)
            await self.engine.note(Draft(Kind.BUCKET_GONE, key))
        finally:
            self._closing.discard(key)

    async def get_document(self, bucket: str, name: str) -> bytes | None:
        await self.head_bucket(bucket)
        return None

    async def put_document(self, bucket: str, name: str, content: bytes | None) -> None:
        raise S3Error(Code.NOT_IMPLEMENTED)

    def _require_bucket(self, tables: Tables, name: str) -> int:
        key = name.encode()
        number = tables.bucket_id(TENANT, key)
        if number is None or key in self._closing:
            raise S3Error(Code.NO_SUCH_BUCKET)
        return number

    # -- objects ----------------------------------------------------------------------------------------------------

    def row(self, bucket: str, key: str) -> ObjectRow | None:
        """The index's row of an object. Raises NO_SUCH_BUCKET."""
        with self.engine.index.read() as tables:
            data = tables.tree(self._require_bucket(tables, bucket)).get(_key(key))
            return None if data is None else decode_object(data)

    def _check(self, bucket: str, key: str, condition: WriteCondition) -> None:
        row = self.row(bucket, key)
        condition.check(None if row is None else stored(key, row))

    def _require(self, bucket: str) -> None:
        with self.engine.index.read() as tables:
            self._require_bucket(tables, bucket)

    async def put(self, request: PutRequest, body: IncomingBody) -> StoredObject:
        condition = request.condition
        exclusive = condition.if_match is not None or condition.if_none_match is not None
        decide = partial(self._require, request.bucket)
        if exclusive:
            decide = partial(self._check, request.bucket, request.key, condition)
        decide()
        meta = encode_object(request.attributes)
        draft = Draft(Kind.OBJECT, _full(request.bucket, request.key), meta, decide, exclusive)
        if self._quotas is None or self._quotas.of(request.bucket) is None:
            fact = await self.engine.take(draft, body)
        else:
            old = self.row(request.bucket, request.key)
            size = room_for(body)
            with self._room(request.bucket, Usage(1, size) if old is None else Usage(0, size - old.size)):
                fact = await self.engine.take(draft, body)
        row = ObjectRow(fact.place, fact.body_at, fact.size, fact.version, fact.etag, fact.etag_kind)
        return stored(request.key, row, {}, fact.late)

    def _room(self, bucket: str, adds: Usage, completes: bool = False) -> AbstractContextManager[None]:
        return nullcontext() if self._quotas is None else self._quotas.room(bucket, adds, completes=completes)

    async def open(self, bucket: str, key: str, version_id: str | None = None) -> ObjectReader:
        return self._open(bucket, key, version_id)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> StoredObject:
        reader = self._open(bucket, key, version_id)
        await reader.aclose()
        return reader.info

    def _open(self, bucket: str, key: str, version_id: str | None) -> TroveReader:
        row = self.row(bucket, key)
        if row is None:
            raise S3Error(Code.NO_SUCH_KEY)
        if version_id not in (None, "null"):
            raise S3Error(Code.NO_SUCH_VERSION)
        reader = open_object(self.records, self.engine, (_full(bucket, key), key), row)
        with self.engine.index.read() as tables:
            if not tables.is_empty(tables.dbs.amends):
                amend = tables.amend(grave_key(TENANT, b"o", _full(bucket, key)))
                if amend is not None and amend.number == row.version:
                    reader.amend(tags_of(amend.meta))
        return reader

    async def delete(self, bucket: str, requests: Sequence[DeleteRequest]) -> Sequence[DeleteOutcome]:
        with self.engine.index.read() as tables:
            self._require_bucket(tables, bucket)
        return await asyncio.gather(*(self._delete(bucket, request) for request in requests))

    async def _delete(self, bucket: str, request: DeleteRequest) -> DeleteOutcome:
        full = _full(bucket, request.key)
        try:
            await self.engine.committer.quiet(full)
            row = self.row(bucket, request.key)
            request.condition.check(None if row is None else stored(request.key, row))
            if row is not None:
                await self.engine.note(Draft(Kind.TOMBSTONE, full))
        except S3Error as error:
            return DeleteOutcome(request.key, error)
        except Exception as error:
            return DeleteOutcome(request.key, to_s3(error))
        return DeleteOutcome(request.key)

    async def list_objects(self, query: ListQuery) -> ListPage:
        with self.engine.index.read() as tables:
            tree = tables.tree(self._require_bucket(tables, query.bucket))

            def scan(lower: bytes) -> Iterator[StoredObject]:
                for key, value in tree.scan(lower):
                    yield stored(key.decode(), decode_object(value))

            return page(scan, query)

    async def put_tags(self, bucket: str, key: str, tags: tuple[tuple[str, str], ...]) -> None:
        full = _full(bucket, key)
        await self.engine.committer.quiet(full)
        row = self.row(bucket, key)
        if row is None:
            raise S3Error(Code.NO_SUCH_KEY)

        def decide() -> None:
            now = self.row(bucket, key)
            if now is None or now.version != row.version:
                raise S3Error(Code.CONDITIONAL_CONFLICT)

        meta = struct.pack("<Q", row.version) + encode_tags(tags)
        await self.engine.note(Draft(Kind.AMEND, full, meta, decide, exclusive=True))

    # -- uploads ----------------------------------------------------------------------------------------------------

    async def create_upload(self, request: CreateUpload) -> Upload:
        return await self._uploads.create(request)

    async def get_upload(self, ref: UploadRef) -> Upload:
        return self._uploads.get(ref)

    async def put_part(self, ref: UploadRef, number: int, body: IncomingBody) -> Part:
        return await self._uploads.put_part(ref, number, body)

    async def list_parts(self, ref: UploadRef, after: int = 0, limit: int = 1000) -> tuple[Sequence[Part], bool]:
        return self._uploads.list_parts(ref, after, limit)

    async def list_uploads(self, query: UploadsQuery) -> UploadsPage:
        return self._uploads.list(query)

    async def complete_upload(
        self, ref: UploadRef, wanted: Sequence[WantedPart], condition: WriteCondition
    ) -> StoredObject:
        return await self._uploads.complete(ref, wanted, condition)

    async def abort_upload(self, ref: UploadRef) -> None:
        await self._uploads.abort(ref)

    async def expire_uploads(self, older_than_ns: int) -> int:
        """Abort uploads begun before this time. Returns how many."""
        return await self._uploads.expire(older_than_ns)


def _key(key: str) -> bytes:
    try:
        return key.encode()
    except UnicodeEncodeError:
        raise S3Error(Code.INVALID_URI) from None


def _full(bucket: str, key: str) -> bytes:
    """The key of an object's records."""
    return bucket.encode() + b"/" + _key(key)


def _bucket(name: bytes, meta: bytes) -> Bucket:
    created_ns, region = bucket_of(meta)
    return Bucket(name.decode(), created_ns, region)
