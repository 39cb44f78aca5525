"""Multipart uploads. A part is a record like any other; completing writes a list of parts and copies nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

from qss.formats.sse import Envelope
from qss.formats.volume import Kind, PartRef, encode_parts
from qss.s3.backend import (
    PART_NUMBER_MAX,
    CreateUpload,
    IncomingBody,
    Part,
    StoredObject,
    Upload,
    UploadRef,
    UploadsPage,
    UploadsQuery,
    WantedPart,
    WriteCondition,
)
from qss.s3.errors import Code, S3Error
from qss.s3.multipart import assemble
from qss.s3.sse import CustomerKey, Encryption, KeyNotApplicable
from qss.trove.buckets import Buckets, with_lock
from qss.trove.engine import Draft, Engine, room_for
from qss.trove.facts import PART_KEY, UPLOAD_ID_BYTES, part_row, parts_of
from qss.trove.meta import (
    attributes_of,
    checksum_of,
    encode_object,
    encode_part,
    encode_upload,
    envelope_of,
    load,
    upload_of,
)
from qss.trove.quotas import Usage
from qss.trove.reader import named, stored
from qss.trove.rows import NamedRow, ObjectRow, PartRow, decode_named, decode_object, decode_part, decode_upload
from qss.trove.sealing import SealedBody, Sealer, sse_of


class Uploads:
    """Uploads in progress of one node. State is the index; nothing is kept here.

    Of completing, aborting and the putting of a part each waits until commits of the others are through before it
    looks: what is completed has all its parts, and they are those that were listed.
    """

    def __init__(
        self,
        engine: Engine,
        buckets: Buckets,
        sealer: Sealer,
        room: Callable[..., AbstractContextManager[None]],
        describe: Callable[[str, str, ObjectRow], StoredObject],
    ) -> None:
        """`room` holds room in a bucket's quota, `describe` says what a row under bucket and key is: `TroveStore`'s."""
        self._engine = engine
        self._buckets = buckets
        self._room = room
        self._sealer = sealer
        self._describe = describe

    async def create(self, request: CreateUpload) -> Upload:
        upload = self._engine.entropy.token(UPLOAD_ID_BYTES)

        def decide() -> None:
            with_lock(self._buckets.now(request.bucket).info, request.attributes, self._engine.clock)

        decide()
        key = request.bucket.encode() + b"/" + request.key.encode()
        encryption = request.encryption
        if encryption is None and self._buckets.now(request.bucket).info.encrypted:
            encryption = Encryption()
        seal = None if encryption is None else await self._sealer.new(key, encryption)
        meta = encode_upload(request, None if seal is None else seal.envelope)
        await self._engine.note(Draft(Kind.UPLOAD, key, upload + meta, decide))
        return self.get(UploadRef(request.bucket, request.key, upload.hex()))

    def get(self, ref: UploadRef) -> Upload:
        """Raises NO_SUCH_BUCKET, NO_SUCH_UPLOAD."""
        return self._find(ref)[0]

    def _find(self, ref: UploadRef) -> tuple[Upload, Envelope | None]:
        with self._engine.index.read() as tables:
            self._buckets.state(tables, ref.bucket)
            data = tables.get(tables.dbs.uploads, _upload_id(ref))
        if data is None:
            raise S3Error(Code.NO_SUCH_UPLOAD)
        row = decode_named(data)
        bucket, upload = _bucket_and_upload(_upload_id(ref), row)
        if bucket != ref.bucket or upload.key != ref.key:
            raise S3Error(Code.NO_SUCH_UPLOAD)
        return upload, None if upload.sse is None else envelope_of(load(decode_upload(row.meta)[1]))

    async def put_part(
        self, ref: UploadRef, number: int, body: IncomingBody, customer: CustomerKey | None = None
    ) -> Part:
        if not 1 <= number <= PART_NUMBER_MAX:
            raise S3Error(Code.INVALID_ARGUMENT)
        envelope = self._find(ref)[1]

        def decide() -> None:
            self.get(ref)

        draft = Draft(Kind.PART, PART_KEY.pack(_upload_id(ref), number), decide=decide, after=(_full(ref),))
        stored_body = body
        if envelope is not None:
            seal, salt = self._sealer.open(envelope, _full(ref), customer), self._sealer.part_salt()
            draft, stored_body = draft.as_sealed(encode_part(salt)), SealedBody(body, seal.body(salt, number))
        elif customer is not None:
            raise KeyNotApplicable
        with self._room(ref.bucket, lambda: Usage(0, room_for(body))):
            fact = await self._engine.take(draft, stored_body)
        return _part(number, part_row(fact))

    def list_parts(self, ref: UploadRef, after: int, limit: int) -> tuple[Sequence[Part], bool]:
        self.get(ref)
        parts: list[Part] = []
        with self._engine.index.read() as tables:
            for number, row in parts_of(tables, _upload_id(ref), after):
                if len(parts) == limit:
                    return parts, True
                parts.append(_part(number, row))
        return parts, False

    def list(self, query: UploadsQuery) -> UploadsPage:
        """Uploads in progress are few: collect, sort, cut."""
        self._buckets.now(query.bucket)
        mine = (upload for _, upload, bucket in self._all() if bucket == query.bucket)
        found = [upload for upload in mine if upload.key.startswith(query.prefix)]
        found.sort(key=lambda upload: (upload.key.encode(), upload.started_ns))
        return _page(found, query)

    async def complete(self, ref: UploadRef, wanted: Sequence[WantedPart], condition: WriteCondition) -> StoredObject:
        """Once more for an upload that has become what is there says so again: an answer may have been lost."""
        try:
            return await self._complete(ref, wanted, condition)
        except S3Error as error:
            done = self._completed(ref, wanted) if error.code is Code.NO_SUCH_UPLOAD else None
            if done is None:
                raise
            return done

    def _completed(self, ref: UploadRef, wanted: Sequence[WantedPart]) -> StoredObject | None:
        """What is there, if it was made by this upload of these parts."""
        upload = _upload_id(ref)
        with self._engine.index.read() as tables:
            data = tables.tree(self._buckets.state(tables, ref.bucket).number).get(ref.key.encode())
            row = None if data is None else decode_object(data)
            if row is None or not row.parts or tables.owner_of(row.place) != upload:
                return None
            parts = [(number, part.etag.hex()) for number, part in parts_of(tables, upload)]
        if parts != [(part.number, part.etag) for part in wanted]:
            return None
        return self._describe(ref.bucket, ref.key, row)

    async def _complete(self, ref: UploadRef, wanted: Sequence[WantedPart], condition: WriteCondition) -> StoredObject:
        upload, envelope = self._find(ref)
        with self._engine.index.read() as tables:
            rows = dict(parts_of(tables, _upload_id(ref)))
        result = assemble(upload, [_part(number, row) for number, row in rows.items()], wanted)

        def decide() -> bool:
            self.get(ref)
            with self._engine.index.read() as tables:
                state = self._buckets.state(tables, ref.bucket)
                for part in wanted:
                    data = tables.get(tables.dbs.parts, PART_KEY.pack(_upload_id(ref), part.number))
                    if data is None or decode_part(data).version != rows[part.number].version:
                        raise S3Error(Code.INVALID_PART)
                data = tables.tree(state.number).get(ref.key.encode())
            condition.check(None if data is None else stored(ref.key, decode_object(data)))
            return state.numbered

        refs = [PartRef(part.number, rows[part.number].size, rows[part.number].etag) for part in wanted]
        key = _full(ref)
        bucket = self._buckets.now(ref.bucket).info
        attributes = with_lock(bucket, upload.attributes, self._engine.clock)
        meta = encode_object(attributes, result.checksum, envelope)
        listed = (PART_KEY.pack(_upload_id(ref), part.number) for part in wanted)
        draft = Draft(Kind.COMPOSITE, key, meta, decide, (key, _upload_id(ref), *listed))
        etag = bytes.fromhex(result.etag.partition("-")[0])
        size = sum(part.size for part in refs)
        adds = partial(self._buckets.adds, ref.bucket, ref.key.encode(), size)
        with self._room(ref.bucket, adds, completes=True):
            fact = await self._engine.note(draft, encode_parts(_upload_id(ref), refs), etag)
        row = ObjectRow(fact.place, fact.body_at, size, fact.version, etag, fact.etag_kind, len(refs))
        found = stored(ref.key, row, load(meta))
        if not fact.numbered and bucket.versioning is None:
            return found
        return named(found, replace(row, numbered=fact.numbered))

    async def abort(self, ref: UploadRef) -> None:
        self.get(ref)
        await self._drop(_upload_id(ref), _full(ref))

    async def _drop(self, upload: bytes, full: bytes) -> None:
        """`full`: the key of the record that would complete it. Raises NO_SUCH_UPLOAD."""

        def decide() -> None:
            with self._engine.index.read() as tables:
                if tables.get(tables.dbs.uploads, upload) is None:
                    raise S3Error(Code.NO_SUCH_UPLOAD)

        await self._engine.note(Draft(Kind.UPLOAD_GONE, upload, decide=decide, after=(full, upload)))

    async def drop_all(self, bucket: str) -> None:
        """Abort all uploads of a bucket."""
        await self._drop_those(lambda _, found: found == bucket)

    async def expire(self, older_than_ns: int) -> int:
        """Abort uploads begun before a time. Returns how many."""
        return await self._drop_those(lambda upload, _: upload.started_ns < older_than_ns)

    async def _drop_those(self, wanted: Callable[[Upload, str], bool]) -> int:
        dropped = 0
        for key, upload, bucket in self._all():
            if wanted(upload, bucket):
                try:
                    await self._drop(key, f"{bucket}/{upload.key}".encode())
                except S3Error as error:
                    if error.code is not Code.NO_SUCH_UPLOAD:  # completed or aborted meanwhile
                        raise
                else:
                    dropped += 1
        return dropped

    def _all(self) -> Sequence[tuple[bytes, Upload, str]]:
        with self._engine.index.read() as tables:
            rows = [
                (key, _bucket_and_upload(key, decode_named(value))) for key, value in tables.scan(tables.dbs.uploads)
            ]
        return [(key, upload, bucket) for key, (bucket, upload) in rows]


def _upload_id(ref: UploadRef) -> bytes:
    try:
        upload = bytes.fromhex(ref.upload_id)
    except ValueError:
        raise S3Error(Code.NO_SUCH_UPLOAD) from None
    if len(upload) != UPLOAD_ID_BYTES:
        raise S3Error(Code.NO_SUCH_UPLOAD)
    return upload


def _full(ref: UploadRef) -> bytes:
    return ref.bucket.encode() + b"/" + ref.key.encode()


def _bucket_and_upload(upload: bytes, row: NamedRow) -> tuple[str, Upload]:
    """Bucket and upload of a row of the uploads table; `upload` is its key."""
    name, data = decode_upload(row.meta)
    bucket, _, key = name.decode().partition("/")
    value: dict[str, Any] = load(data)
    algorithm, composite, mode = upload_of(value)
    sse = sse_of(envelope_of(value))
    return bucket, Upload(key, upload.hex(), row.version, attributes_of(value), algorithm, composite, mode, sse)


def _part(number: int, row: PartRow) -> Part:
    return Part(number, row.size, row.etag.hex(), row.version, checksum_of(load(row.late)))


def _page(found: Sequence[Upload], query: UploadsQuery) -> UploadsPage:
    uploads: list[Upload] = []
    prefixes: list[str] = []
    last: tuple[str, str] | None = None
    for upload in found:
        cut = upload.key.find(query.delimiter, len(query.prefix)) if query.delimiter else -1
        group = upload.key[: cut + len(query.delimiter)] if cut >= 0 else ""
        if not _is_after(group or upload.key, upload, query, found) or group in prefixes:
            continue
        if len(uploads) + len(prefixes) >= query.limit:
            return UploadsPage(tuple(uploads), tuple(prefixes), last)
        if group:
            prefixes.append(group)
            last = (group, "")
        else:
            uploads.append(upload)
            last = (upload.key, upload.upload_id)
    return UploadsPage(tuple(uploads), tuple(prefixes), None)


def _is_after(name: str, upload: Upload, query: UploadsQuery, found: Sequence[Upload]) -> bool:
    """Behind the marker: a greater key, or the same key and begun after the upload the marker names."""
    if not query.key_after:
        return True
    if name.encode() != query.key_after.encode():
        return name.encode() > query.key_after.encode()
    if not query.upload_id_after:
        return False
    begun = next((one.started_ns for one in found if one.upload_id == query.upload_id_after), None)
    return begun is not None and upload.started_ns > begun
