"""Buckets and objects of one node: the S3 server's backend (`qss.s3.backend.ObjectBackend`) on volumes and index."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Final

from qss.formats.volume import Kind
from qss.s3.backend import (
    Bucket,
    Checksum,
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
    VersionEntry,
    Versioning,
    VersionsPage,
    VersionsQuery,
    WantedPart,
    WriteCondition,
    marker_headers,
)
from qss.s3.errors import Code, S3Error, to_s3
from qss.s3.listed import ListedObjects
from qss.s3.listing import grouped, in_a_row
from qss.s3.lock import DefaultRetention, LockChange
from qss.s3.sse import CustomerKey, Encryption, KeyNotApplicable
from qss.s3.versions import NULL, parse_version, version_text, versions_page
from qss.trove.buckets import Buckets, BucketState, with_lock
from qss.trove.engine import Draft, Engine, room_for
from qss.trove.facts import VERSION, version_key
from qss.trove.keyversions import KeyVersions, scan_versions
from qss.trove.meta import amend_lock, amend_tags, amended, checksum_of, encode_object, load
from qss.trove.quotas import Quotas, Usage
from qss.trove.reader import Records, TroveReader, describe, named, open_object, stored, version_of
from qss.trove.room import free_bytes
from qss.trove.rows import TENANT, ObjectRow, decode_object, listed
from qss.trove.sealing import NodeKeys, SealedBody, Sealer, sse_of
from qss.trove.tables import Tables
from qss.trove.unsealing import PlainReader
from qss.trove.uploads import Uploads

_MANAGED: Final = Encryption()


class TroveStore:
    """See `ObjectBackend` for what each verb promises."""

    def __init__(self, engine: Engine, keys: NodeKeys, quotas: Quotas | None = None) -> None:
        self.engine = engine
        self._sealer = Sealer(keys, engine.entropy.token)
        self._quotas = quotas
        self.records = Records(engine)
        self.buckets = Buckets(engine, self._drop_uploads)
        self._uploads = Uploads(engine, self.buckets, self._sealer, self._room, self._open_now)

    # -- buckets ----------------------------------------------------------------------------------------------------

    async def list_buckets(self) -> Sequence[Bucket]:
        return self.buckets.all()

    async def create_bucket(self, name: str, region: str, *, lock: bool = False) -> None:
        await self.buckets.create(name, region, lock=lock)

    async def head_bucket(self, name: str) -> Bucket:
        return self.buckets.now(name).info

    def free_bytes(self, bucket: str) -> int:
        return free_bytes(self.engine.volumes)

    async def delete_bucket(self, name: str) -> None:
        await self.buckets.delete(name)

    async def set_versioning(self, bucket: str, versioning: Versioning) -> None:
        await self.buckets.set_versioning(bucket, versioning)

    async def set_lock(self, bucket: str, default: DefaultRetention | None) -> None:
        await self.buckets.set_lock(bucket, default)

    async def get_document(self, bucket: str, name: str) -> bytes | None:
        return self.buckets.document(bucket, name)

    async def put_document(self, bucket: str, name: str, content: bytes | None) -> None:
        await self.buckets.put_document(bucket, name, content)

    # -- objects ----------------------------------------------------------------------------------------------------

    def row(self, bucket: str, key: str) -> ObjectRow | None:
        """The index's row of the object that is there. Raises NO_SUCH_BUCKET."""
        with self.engine.index.read() as tables:
            data = tables.tree(self.buckets.state(tables, bucket).number).get(_key(key))
            return None if data is None else decode_object(data)

    def _check(self, bucket: str, key: str, condition: WriteCondition) -> bool:
        row = self.row(bucket, key)
        condition.check(None if row is None else stored(key, row))
        return self._stand(bucket)

    def _stand(self, bucket: str) -> bool:
        """Whether what is written now is a version of its own. Raises NO_SUCH_BUCKET."""
        return self.buckets.now(bucket).numbered

    async def put(self, request: PutRequest, body: IncomingBody) -> StoredObject:
        condition = request.condition
        full = _full(request.bucket, request.key)
        after: tuple[bytes, ...] = ()
        decide = partial(self._stand, request.bucket)
        if condition.if_match is not None or condition.if_none_match is not None:
            after = (full,)
            decide = partial(self._check, request.bucket, request.key, condition)
            decide()
        state = self.buckets.now(request.bucket)
        attributes = with_lock(state.info, request.attributes, self.engine.clock)
        adds = partial(self.buckets.adds, request.bucket, _key(request.key), room_for(body))
        encryption = request.encryption or (_MANAGED if state.info.encrypted else None)
        if encryption is None:
            draft = Draft(Kind.OBJECT, full, encode_object(attributes), decide, after, state.numbered)
        else:
            seal = await self._sealer.new(full, encryption)
            meta = encode_object(attributes, envelope=seal.envelope)
            draft = Draft(Kind.OBJECT, full, meta, decide, after, state.numbered, sealed=True)
            body = SealedBody(body, seal.body())
        with self._room(request.bucket, adds):
            fact = await self.engine.take(draft, body)
        row = ObjectRow(fact.place, fact.body_at, fact.plain_size, fact.version, fact.etag, fact.etag_kind)
        found = stored(request.key, row, {}, fact.late)
        if encryption is not None:
            found = replace(found, sse=sse_of(seal.envelope))
        if not fact.numbered and state.info.versioning is None:
            return found
        return named(found, replace(row, numbered=fact.numbered))

    def _room(self, bucket: str, adds: Callable[[], Usage], *, completes: bool = False) -> AbstractContextManager[None]:
        """Hold room in the bucket's quota; `completes`: for what has it as parts."""
        if self._quotas is None or self._quotas.of(bucket) is None:
            return nullcontext()
        return self._quotas.room(bucket, adds(), completes=completes)

    async def set_encryption(self, bucket: str, encrypted: bool) -> None:
        await self.buckets.set_encryption(bucket, encrypted)

    async def open(self, bucket: str, key: str, version_id: str | None = None) -> ObjectReader:
        stored_bytes = self._open(bucket, key, version_id)
        return stored_bytes if stored_bytes.envelope is None else await self._plain(bucket, stored_bytes, None)

    async def open_with(self, bucket: str, key: str, version_id: str | None, customer: CustomerKey) -> ObjectReader:
        return await self._plain(bucket, self._open(bucket, key, version_id), customer)

    async def open_stored(self, bucket: str, key: str, version_id: str | None = None) -> TroveReader:
        """As `open`, but of a sealed object the bytes as they are stored: without any key they can be verified."""
        return self._open(bucket, key, version_id)

    async def part_checksums(self, bucket: str, key: str, version_id: str | None) -> Sequence[Checksum | None]:
        reader = self._open(bucket, key, version_id)
        await reader.aclose()
        return [checksum_of(load(segment.late)) for segment in reader.segments if segment.number]

    async def _plain(self, bucket: str, reader: TroveReader, customer: CustomerKey | None) -> PlainReader:
        try:
            if reader.envelope is None:
                raise KeyNotApplicable
            key = self._sealer.open(reader.envelope, _full(bucket, reader.info.key), customer)
            return PlainReader(reader, key, self.engine)
        except BaseException:
            await reader.aclose()
            raise

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> StoredObject:
        reader = self._open(bucket, key, version_id)
        await reader.aclose()
        return reader.info

    def _open(self, bucket: str, key: str, version_id: str | None) -> TroveReader:
        full = _full(bucket, key)
        state = self.buckets.now(bucket)
        with self.engine.index.read() as tables:
            row = find(tables, state, key, version_id)
            amend = _amendment(tables, full, row)
        reader = open_object(self.records, self.engine, (full, key), row)
        try:
            if state.info.versioning is not None:
                reader.name_version(row)
            if amend:
                reader.amend(amend)
        except BaseException:
            reader.unpin()
            raise
        return reader

    async def delete(self, bucket: str, requests: Sequence[DeleteRequest]) -> Sequence[DeleteOutcome]:
        self.buckets.now(bucket)
        return await asyncio.gather(*(self._delete(bucket, request) for request in requests))

    async def _delete(self, bucket: str, request: DeleteRequest) -> DeleteOutcome:
        full = _full(bucket, request.key)
        try:
            await self.engine.committer.quiet(full)
            # From here to the append in `note` nothing else runs: what is looked at is what is deleted.
            state = self.buckets.now(bucket)
            if request.version_id is not None:
                return await self._delete_version(state, request)
            row = self.row(bucket, request.key)
            request.condition.check(None if row is None else stored(request.key, row))
            if state.info.versioning is None:
                if row is not None:
                    await self.engine.note(Draft(Kind.TOMBSTONE, full))
                return DeleteOutcome(request.key)
            fact = await self.engine.note(Draft(Kind.MARKER, full, numbered=state.numbered))
        except S3Error as error:
            return DeleteOutcome(request.key, error)
        except Exception as error:
            return DeleteOutcome(request.key, to_s3(error))
        marker = version_text(fact.version) if fact.numbered else NULL
        return DeleteOutcome(request.key, version_id=marker, delete_marker=True)

    async def _delete_version(self, state: BucketState, request: DeleteRequest) -> DeleteOutcome:
        """Begun in the same step as the look at what is there."""
        assert request.version_id is not None
        bucket, full = state.info.name, _full(state.info.name, request.key)
        with self.engine.index.read() as tables:
            row = version_row(tables, state, request.key, request.version_id)
        request.condition.check(None if row is None else stored(request.key, row))
        if row is None:
            return DeleteOutcome(request.key, version_id=request.version_id)
        if state.info.lock and not row.marker:
            lock = self._open_now(bucket, request.key, row).attributes.lock
            lock.check_delete(self.engine.clock.now_ns(), bypass=request.bypass)
        kind, meta = (Kind.VERSION_GONE, VERSION.pack(row.version)) if row.numbered else (Kind.TOMBSTONE, b"")
        await self.engine.note(Draft(kind, full, meta))
        return DeleteOutcome(request.key, version_id=request.version_id, delete_marker=row.marker)

    def _open_now(self, bucket: str, key: str, row: ObjectRow) -> StoredObject:
        """What one version says of itself, without a wait."""
        full = _full(bucket, key)
        info = describe(self.records, (full, key), row)
        with self.engine.index.read() as tables:
            if self.buckets.state(tables, bucket).info.versioning is not None:
                info = named(info, row)
            amend = _amendment(tables, full, row)
        return replace(info, attributes=amended(info.attributes, amend)) if amend else info

    async def list_objects(self, query: ListQuery) -> ListPage:
        with self.engine.index.read() as tables:
            tree = tables.tree(self.buckets.state(tables, query.bucket).number)
            found, prefixes, next_after = grouped(tree.scan, query) if query.delimiter else in_a_row(tree.some, query)
            return ListPage(ListedObjects(listed(found)), prefixes, next_after)

    async def list_versions(self, query: VersionsQuery) -> VersionsPage:
        with self.engine.index.read() as tables:
            state = self.buckets.state(tables, query.bucket)
            return versions_page(partial(_entries, tables, state), query)

    async def put_tags(
        self, bucket: str, key: str, tags: tuple[tuple[str, str], ...], version_id: str | None = None
    ) -> str | None:
        return await self._amend(bucket, key, version_id, lambda _, amend: amend_tags(amend, tags))

    async def put_lock(self, bucket: str, key: str, change: LockChange, version_id: str | None = None) -> str | None:
        if not self.buckets.now(bucket).info.lock:
            raise S3Error(Code.INVALID_REQUEST, "Bucket is missing Object Lock Configuration")

        def changed(row: ObjectRow, amend: bytes) -> bytes:
            lock = self._open_now(bucket, key, row).attributes.lock
            return amend_lock(amend, change.apply(lock, self.engine.clock.now_ns()))

        return await self._amend(bucket, key, version_id, changed)

    async def _amend(
        self, bucket: str, key: str, version_id: str | None, change: Callable[[ObjectRow, bytes], bytes]
    ) -> str | None:
        """Write what `change` makes of what amended the version so far. Returns the version's id."""
        full = _full(bucket, key)
        await self.engine.committer.quiet(full)
        # From here to the append in `note` nothing else runs: what is changed is what was looked at.
        with self.engine.index.read() as tables:
            state = self.buckets.state(tables, bucket)
            row = find(tables, state, key, version_id)
            before = _amendment(tables, full, row)
        meta = VERSION.pack(row.version) + change(row, before)
        await self.engine.note(Draft(Kind.AMEND, full, meta, numbered=row.numbered))
        return None if state.info.versioning is None else version_of(row)

    # -- uploads ----------------------------------------------------------------------------------------------------

    async def create_upload(self, request: CreateUpload) -> Upload:
        return await self._uploads.create(request)

    async def get_upload(self, ref: UploadRef) -> Upload:
        return self._uploads.get(ref)

    async def put_part(self, ref: UploadRef, number: int, body: IncomingBody) -> Part:
        return await self._uploads.put_part(ref, number, body)

    async def put_part_with(self, ref: UploadRef, number: int, body: IncomingBody, customer: CustomerKey) -> Part:
        return await self._uploads.put_part(ref, number, body, customer)

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

    async def _drop_uploads(self, bucket: str) -> None:
        await self._uploads.drop_all(bucket)


def _key(key: str) -> bytes:
    try:
        return key.encode()
    except UnicodeEncodeError:
        raise S3Error(Code.INVALID_URI) from None


def _full(bucket: str, key: str) -> bytes:
    """The key of an object's records."""
    return bucket.encode() + b"/" + _key(key)


def find(tables: Tables, state: BucketState, key: str, version_id: str | None) -> ObjectRow:
    """The version asked for, or what is there. Raises S3Error; a delete marker is said in the error's headers."""
    name = _key(key)
    if version_id is not None:
        row = version_row(tables, state, key, version_id)
        if row is None:
            raise S3Error(Code.NO_SUCH_VERSION)
        if row.marker:
            headers = (*marker_headers(version_of(row)), ("allow", "DELETE"))
            raise S3Error(Code.METHOD_NOT_ALLOWED, headers=headers)
        return row
    data = tables.tree(state.number).get(name)
    if data is not None:
        return decode_object(data)
    newest = KeyVersions(tables, state.number, name).newest()
    raise S3Error(Code.NO_SUCH_KEY, headers=() if newest is None else marker_headers(version_of(newest)))


def version_row(tables: Tables, state: BucketState, key: str, version_id: str) -> ObjectRow | None:
    """The version with an id, also a delete marker. Raises INVALID_ARGUMENT for what is no id."""
    wanted = parse_version(version_id)
    versions = KeyVersions(tables, state.number, _key(key))
    if wanted is None:
        return versions.null()
    row = versions.find(wanted)
    return row if row is not None and row.numbered else None


def _amendment(tables: Tables, full: bytes, row: ObjectRow) -> bytes:
    """What has amended a version since its record was written; b"": nothing."""
    if tables.no_amends():
        return b""
    amend = tables.amend(version_key(TENANT, full, row.version, numbered=row.numbered))
    return amend.meta if amend is not None and amend.number == row.version else b""


def _entries(tables: Tables, state: BucketState, lower: bytes, after: str | None) -> Iterator[VersionEntry]:
    below = None
    if after is not None:
        row = version_row(tables, state, lower.decode(), after)
        # A marker that is gone keeps its place by its id; the null version's place is known only while it is there.
        below = row.version if row is not None else parse_version(after)
    last: bytes | None = None
    if below is not None:
        newest = KeyVersions(tables, state.number, lower).newest()
        last = lower if newest is not None and newest.version >= below else None
    for key, row in scan_versions(tables, state.number, lower, below):
        found = replace(stored(key.decode(), row), version_id=version_of(row))
        yield VersionEntry(found, latest=key != last, marker=row.marker)
        last = key
