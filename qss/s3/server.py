"""Request → operation → backend → response. Authenticates, authorises, numbers requests; knows no HTTP server.

The order for each request: verify the signature, parse, authorise, and only then look at the body. Whatever goes wrong
is an answer; `handle` raises nothing but cancellation.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from qss.errors import QssError
from qss.s3 import inplace, render, room
from qss.s3 import operations as op
from qss.s3.access import configure
from qss.s3.access.context import Caller
from qss.s3.backend import (
    READ_WHOLE_BYTES_MAX,
    Chunk,
    CopiesItself,
    CreateUpload,
    DeleteOutcome,
    EtagMode,
    KnowsRoom,
    ObjectBackend,
    ObjectReader,
    PutRequest,
    StoredObject,
    UploadRef,
)
from qss.s3.body import BodyClaims, CheckedBody, claims_of
from qss.s3.documents import complete_body, delete_body, location_body, tags_body
from qss.s3.errors import Code, S3Error, to_s3
from qss.s3.exchange import Exchange
from qss.s3.handlers import HANDLERS, Handler, Place, version_headers
from qss.s3.lock import check_future
from qss.s3.message import RequestHead, Response
from qss.s3.parse import check_bucket_name, is_form, parse_at, put_request, split_path
from qss.s3.plan import plan_read
from qss.s3.post import answer, read_form
from qss.s3.sigv4 import Verified, Verifier
from qss.s3.xml import XML_BYTES_MAX
from qss.values import quick

log = logging.getLogger(__name__)

_ID_BYTES: Final = 8
_IDS_AT_ONCE: Final = 64
COPY_BYTES_MAX: Final = 5 * 1024**3
_MARKER_SOURCE: Final = "The source of a copy request may not specifically refer to a delete marker by version id."


class Clock(Protocol):
    """qss.host.Clock is one."""

    def now_ns(self) -> int: ...


Authorizer = Callable[[Caller, op.Operation], Awaitable[None]]
"""(who sends it, operation) → raises S3Error unless it is allowed. qss.s3.access.gate.Gate is one."""


async def signed_only(caller: Caller, _: op.Operation) -> None:
    """Everything to those whose signature holds, nothing to others."""
    if caller.access_key is None:
        raise S3Error(Code.ACCESS_DENIED)


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    region: str = "us-east-1"
    domains: tuple[str, ...] = ()  # for virtual-host style: <bucket>.<domain>


@quick
@dataclass(frozen=True, slots=True)
class _Call:
    """One request on its way."""

    head: RequestHead
    raw: AsyncIterator[Chunk]
    verified: Verified | None
    acts_for: str | None = None

    @property
    def caller(self) -> Caller:
        return Caller(self.head, self.verified, acts_for=self.acts_for)

    def body(self, etag_mode: EtagMode = EtagMode.MD5, want_checksum: str | None = None) -> CheckedBody:
        """The body of a put."""
        claims = claims_of(self.head.headers, self.verified)
        if want_checksum is not None and claims.checksum is None and claims.trailer is None:
            claims = replace(claims, want_checksum=want_checksum)
        return CheckedBody(self.raw, claims, etag_mode, self.verified)

    async def document(self) -> bytes:
        """A whole XML body, checked; empty when there is none."""
        headers = self.head.headers
        if not headers.keys() & {"content-length", "transfer-encoding"}:
            return b""
        claims = claims_of(headers, self.verified, XML_BYTES_MAX)
        body = CheckedBody(self.raw, claims, EtagMode.OPAQUE, self.verified)
        return b"".join([bytes(chunk) async for chunk in body.chunks()])


class S3Service:
    """Serves one backend. `token` gives unguessable bytes (qss.host.Entropy.token)."""

    def __init__(
        self,
        backend: ObjectBackend,
        verifier: Verifier,
        clock: Clock,
        token: Callable[[int], bytes],
        *,
        options: ServiceOptions = ServiceOptions(),
        authorize: Authorizer = signed_only,
    ) -> None:
        self._backend = backend
        self._verifier = verifier
        self._clock = clock
        self._token = token
        self._options = options
        self._authorize = authorize
        self._ids: list[str] = []  # of requests to come

    async def handle(self, head: RequestHead, raw: AsyncIterator[Chunk], exchange: Exchange | None = None) -> Response:
        """Answer one request. `raw` is asked for nothing before the signature of the head has been found good.
        `exchange` learns what it was."""
        request_id = self._request_id()
        exchange = exchange or Exchange()
        exchange.request_id = request_id
        try:
            response = await self._answer(head, raw, exchange)
        except Exception as found:
            told = to_s3(found)
            if told.code in (Code.INTERNAL_ERROR, Code.OBJECT_DAMAGED):
                trace = None if isinstance(found, QssError) else found
                log.error("request %s, %s %s: %s", request_id, head.method, head.path, found, exc_info=trace)
            response = render.error(told, head.path, request_id, with_body=head.method != "HEAD")
        extra: tuple[tuple[str, str], ...] = (("x-amz-request-id", request_id),)
        if "origin" in head.headers and head.method != "OPTIONS":
            extra += await self._cors(head)
        return Response(
            response.status,
            (*response.headers, *extra),
            response.body,
            response.stream,
            response.length,
            response.close,
        )

    def _request_id(self) -> str:
        """16 hex digits. Bytes for many are asked for at once: asking the system lets go of the GIL."""
        if not self._ids:
            fresh = self._token(_ID_BYTES * _IDS_AT_ONCE).hex().upper()
            self._ids = [fresh[at : at + 2 * _ID_BYTES] for at in range(0, len(fresh), 2 * _ID_BYTES)]
        return self._ids.pop()

    async def _cors(self, head: RequestHead) -> tuple[tuple[str, str], ...]:
        """For a page of another origin to be able to read the answer, errors too."""
        try:
            bucket, _ = split_path(head, self._options.domains)
            return await configure.cors_headers(self._backend, bucket, head.headers["origin"], head.method)
        except QssError:
            return ()

    async def _answer(self, head: RequestHead, raw: AsyncIterator[Chunk], exchange: Exchange) -> Response:
        bucket, key = split_path(head, self._options.domains)
        if head.method == "OPTIONS":
            return await configure.preflight_answer(self._backend, bucket, head.headers)
        if is_form(head, bucket, key):
            return await self._post(head, bucket, raw, exchange)
        verified = self._verifier.verify(head, self._clock.now_ns())
        exchange.user = "" if verified is None else verified.access_key
        operation = parse_at(head, bucket, key)
        exchange.operation = type(operation).__name__
        return await self._perform(operation, _Call(head, raw, verified))

    async def permit(self, access_key: str, operation: op.Operation, head: RequestHead) -> None:
        """Raises S3Error unless the user with this key may do this. For fronts that find out themselves who asks."""
        await self._authorize(Caller(head, acts_for=access_key), operation)

    async def perform(
        self, access_key: str, operation: op.Operation, head: RequestHead, raw: AsyncIterator[Chunk]
    ) -> Response:
        """Authorise an operation as `permit` does, and do it. Raises what goes wrong."""
        return await self._perform(operation, _Call(head, raw, None, access_key))

    async def _perform(self, operation: op.Operation, call: _Call) -> Response:
        await self._authorize(call.caller, operation)
        configure.check_encryption(call.head.headers)
        if type(operation) in _WITH_ACL:
            configure.check_acl(call.head.headers)
        try:
            return await _HANDLERS[type(operation)](self, operation, call)
        except S3Error as error:
            await self._hide_absence(error, operation, call)
            raise

    async def _hide_absence(self, error: S3Error, operation: op.Operation, call: _Call) -> None:
        """That a key is not there is told, as by AWS, to those who may list the bucket. Raises ACCESS_DENIED."""
        if error.code in (Code.NO_SUCH_KEY, Code.NO_SUCH_VERSION) and isinstance(operation, op.GetObject):
            await self._authorize(call.caller, op.HeadBucket(operation.bucket))

    async def _post(self, head: RequestHead, bucket: str, raw: AsyncIterator[Chunk], exchange: Exchange) -> Response:
        """A browser's form: read up to its file, then a put like others."""
        exchange.operation = "PostObject"
        form = await read_form(head, bucket, raw, self._verifier, self._clock.now_ns())
        operation = op.PutObject(put_request(bucket, form.key, form.head.headers))
        await self._authorize(Caller(form.head, form.verified, by_form=True), operation)
        configure.check_encryption(form.head.headers)
        configure.check_acl(form.head.headers)
        self._check_lock(operation.request)
        exchange.user = "" if form.verified is None else form.verified.access_key
        body = CheckedBody(form.file, form.claims, operation.request.etag_mode)
        return answer(form, await self._backend.put(operation.request, body))

    # -- buckets
    async def _list_buckets(self, asked: op.ListBuckets, _: _Call) -> Response:
        return render.buckets(asked, await self._backend.list_buckets())

    async def _create_bucket(self, asked: op.CreateBucket, call: _Call) -> Response:
        check_bucket_name(asked.bucket)
        region = location_body(await call.document(), self._options.region)
        if region != self._options.region:
            raise S3Error(Code.INVALID_LOCATION)
        configure.check_create(call.head.headers)
        await self._backend.create_bucket(asked.bucket, region, lock=asked.lock)
        await configure.create_with(self._backend, asked.bucket, call.head.headers)
        return Response(200, (("location", f"/{asked.bucket}"),))

    async def _head_bucket(self, asked: op.HeadBucket, call: _Call) -> Response:
        bucket = await self._backend.head_bucket(asked.bucket)
        headers: tuple[tuple[str, str], ...] = (("x-amz-bucket-region", bucket.region),)
        if call.verified is not None and isinstance(self._backend, KnowsRoom):
            headers += ((room.HEADER, str(self._backend.free_bytes(asked.bucket))),)
        return Response(200, headers)

    async def _delete_bucket(self, asked: op.DeleteBucket, _: _Call) -> Response:
        await self._backend.delete_bucket(asked.bucket)
        return Response(204)

    async def _get_location(self, asked: op.GetLocation, _: _Call) -> Response:
        return render.location(await self._backend.head_bucket(asked.bucket))

    async def _get_config(self, asked: op.GetConfig, _: _Call) -> Response:
        return await configure.get_config(self._backend, asked)

    async def _put_config(self, asked: op.PutConfig, call: _Call) -> Response:
        return await configure.put_config(self._backend, asked, await call.document())

    async def _delete_config(self, asked: op.DeleteConfig, _: _Call) -> Response:
        return await configure.delete_config(self._backend, asked)

    async def _get_acl(self, asked: op.GetAcl, _: _Call) -> Response:
        await self._backend.head_bucket(asked.bucket)
        if asked.key:
            await self._backend.head(asked.bucket, asked.key, asked.version_id)
        return configure.acl()

    async def _put_acl(self, asked: op.PutAcl, call: _Call) -> Response:
        await self._get_acl(op.GetAcl(asked.bucket, asked.key, asked.version_id), call)
        raise S3Error(Code.ACL_NOT_SUPPORTED)

    async def _list_objects(self, asked: op.ListObjects, _: _Call) -> Response:
        return render.listing(asked, await self._backend.list_objects(asked.query))

    # -- objects
    async def _get(self, asked: op.GetObject, _: _Call) -> Response:
        if asked.head:
            found = await self._backend.head(asked.bucket, asked.key, asked.version_id)
            status, start, stop, headers = plan_read(asked, found)
            if asked.hash_spans:
                headers += ((inplace.HEADER, await self._hashes(asked)),)
            return Response(status, headers, length=stop - start)
        reader = await self._backend.open(asked.bucket, asked.key, asked.version_id)
        try:
            status, start, stop, headers = plan_read(asked, reader.info)
            if stop - start <= READ_WHOLE_BYTES_MAX:
                response = Response(status, headers, await reader.read(start, stop), length=stop - start)
            else:
                stream = reader.chunks(start, stop)
                return Response(status, headers, stream=stream, length=stop - start, close=reader.aclose)
        except BaseException:
            await reader.aclose()
            raise
        await reader.aclose()
        return response

    async def _hashes(self, asked: op.GetObject) -> str:
        reader = await self._backend.open(asked.bucket, asked.key, asked.version_id)
        try:
            return await inplace.answer(reader, reader.info.size, asked.hash_spans)
        finally:
            await reader.aclose()

    def _check_lock(self, request: PutRequest | CreateUpload) -> None:
        retention = request.attributes.lock.retention
        if retention is not None:
            check_future(retention, self._clock.now_ns())

    async def _put(self, asked: op.PutObject, call: _Call) -> Response:
        self._check_lock(asked.request)
        found = await self._backend.put(asked.request, call.body(asked.request.etag_mode))
        return Response(200, tuple(render.stored_headers(found)))

    async def _copy(self, asked: op.CopyObject, call: _Call) -> Response:
        self._check_lock(asked.request)
        reader = await self._source(asked.source)
        try:
            source, request = reader.info, asked.request
            if source.attributes.tags and not asked.replace_tags:
                await self._authorize(
                    call.caller, op.GetTags(asked.source.bucket, asked.source.key, asked.source.version_id)
                )
                await self._authorize(call.caller, op.PutTags(request.bucket, request.key))
            same = (asked.source.bucket, asked.source.key) == (request.bucket, request.key)
            if same and asked.source.version_id is None and not (asked.replace_metadata or asked.replace_tags):
                raise S3Error(
                    Code.INVALID_REQUEST,
                    "This copy request is illegal: it would copy an object to itself without changing it.",
                )
            kept = request.attributes if asked.replace_metadata else source.attributes
            tags = request.attributes.tags if asked.replace_tags else source.attributes.tags
            own = request.attributes
            attributes = replace(kept, tags=tags, storage_class=own.storage_class, lock=own.lock)
            request = replace(request, attributes=attributes)
            found = await self._store_copy(reader, request, asked.checksum_algorithm)
        finally:
            await reader.aclose()
        return render.copied("CopyObjectResult", found, source)

    async def _store_copy(self, reader: ObjectReader, request: PutRequest, algorithm: str | None) -> StoredObject:
        if isinstance(self._backend, CopiesItself) and algorithm is None:
            return await self._backend.copy(reader, request)
        if algorithm is None and reader.info.checksum is not None:
            algorithm = reader.info.checksum.algorithm
        return await self._backend.put(request, _copied_body(reader, 0, reader.info.size, algorithm))

    async def _source(self, source: op.CopySource) -> ObjectReader:
        """Open what is to be copied. Reading it needs the same right as a get."""
        try:
            reader = await self._backend.open(source.bucket, source.key, source.version_id)
        except S3Error as error:
            if error.code is Code.METHOD_NOT_ALLOWED:
                raise S3Error(Code.INVALID_REQUEST, _MARKER_SOURCE) from error
            raise
        try:
            source.condition.check_copy(reader.info)
        except BaseException:
            await reader.aclose()
            raise
        return reader

    async def _delete(self, asked: op.DeleteObject, _: _Call) -> Response:
        outcome = (await self._backend.delete(asked.bucket, [asked.request]))[0]
        if outcome.error is not None:
            raise outcome.error
        return Response(204, render.deletion_headers(outcome))

    async def _delete_many(self, asked: op.DeleteObjects, call: _Call) -> Response:
        """Each key is allowed or denied by itself."""
        requests, quiet = delete_body(await call.document())
        if asked.bypass:
            requests = [replace(each, bypass=True) for each in requests]
        denied = [await self._refusal(call, op.DeleteObject(asked.bucket, request)) for request in requests]
        done = iter(
            await self._backend.delete(asked.bucket, [r for r, d in zip(requests, denied, strict=True) if not d])
        )
        outcomes = [
            next(done) if error is None else DeleteOutcome(request.key, error, request.version_id)
            for request, error in zip(requests, denied, strict=True)
        ]
        return render.deleted(requests, outcomes, quiet=quiet)

    async def _refusal(self, call: _Call, operation: op.Operation) -> S3Error | None:
        try:
            await self._authorize(call.caller, operation)
        except S3Error as error:
            return error
        return None

    async def _get_tags(self, asked: op.GetTags, _: _Call) -> Response:
        found = await self._backend.head(asked.bucket, asked.key, asked.version_id)
        response = render.tagging(found.attributes.tags)
        return replace(response, headers=(*response.headers, *version_headers(found.version_id)))

    async def _put_tags(self, asked: op.PutTags, call: _Call) -> Response:
        tags = tags_body(await call.document())
        version_id = await self._backend.put_tags(asked.bucket, asked.key, tags, asked.version_id)
        return Response(200, version_headers(version_id))

    async def _delete_tags(self, asked: op.DeleteTags, _: _Call) -> Response:
        version_id = await self._backend.put_tags(asked.bucket, asked.key, (), asked.version_id)
        return Response(204, version_headers(version_id))

    # -- multipart
    async def _start_upload(self, asked: op.StartUpload, _: _Call) -> Response:
        self._check_lock(asked.request)
        upload = await self._backend.create_upload(asked.request)
        return render.upload_started(UploadRef(asked.request.bucket, asked.request.key, upload.upload_id), upload)

    async def _put_part(self, asked: op.PutPart, call: _Call) -> Response:
        upload = await self._backend.get_upload(asked.ref)
        body = call.body(upload.etag_mode, upload.checksum_algorithm)
        part = await self._backend.put_part(asked.ref, asked.number, body)
        return Response(200, (("etag", f'"{part.etag}"'), *render.checksum_headers(part.checksum)[:1]))

    async def _copy_part(self, asked: op.CopyPart, _: _Call) -> Response:
        upload = await self._backend.get_upload(asked.ref)
        reader = await self._source(asked.source)
        try:
            source = reader.info
            size = source.size
            start, stop = (0, size) if asked.range is None else asked.range.resolve(size)
            if asked.range is not None and asked.range.last is not None and asked.range.last >= size:
                raise S3Error(Code.INVALID_ARGUMENT, "Range specified is not valid for the source object")
            body = _copied_body(reader, start, stop, upload.checksum_algorithm)
            part = await self._backend.put_part(asked.ref, asked.number, body)
        finally:
            await reader.aclose()
        return render.copied("CopyPartResult", part, source)

    async def _complete(self, asked: op.CompleteUpload, call: _Call) -> Response:
        wanted = complete_body(await call.document())
        found = await self._backend.complete_upload(asked.ref, wanted, asked.condition)
        scheme = "https" if call.head.secure else "http"
        place = f"{scheme}://{call.head.headers.get('host', '')}/{asked.ref.bucket}/{asked.ref.key}"
        return render.upload_completed(asked.ref, found, place)

    async def _abort(self, asked: op.AbortUpload, _: _Call) -> Response:
        await self._backend.abort_upload(asked.ref)
        return Response(204)

    async def _list_parts(self, asked: op.ListParts, _: _Call) -> Response:
        parts, more = await self._backend.list_parts(asked.ref, asked.after, asked.limit)
        return render.parts(asked, parts, more=more)

    async def _list_uploads(self, asked: op.ListUploads, _: _Call) -> Response:
        return render.uploads(asked, await self._backend.list_uploads(asked.query))


def _copied_body(reader: ObjectReader, start: int, stop: int, algorithm: str | None) -> CheckedBody:
    if stop - start > COPY_BYTES_MAX:
        raise S3Error(
            Code.INVALID_REQUEST, "The specified copy source is larger than the maximum allowable size: 5 GiB"
        )
    return CheckedBody(reader.chunks(start, stop), BodyClaims(stop - start, want_checksum=algorithm))


def _beside(handler: Handler) -> Callable[[S3Service, Any, _Call], Awaitable[Response]]:
    """A handler of `qss.s3.handlers` as if it were one of ours."""

    async def answer(service: S3Service, asked: Any, call: _Call) -> Response:
        return await handler(Place(service._backend, service._clock.now_ns()), asked, call)

    return answer


_WITH_ACL: Final = frozenset({op.PutObject, op.CopyObject, op.StartUpload})
_HANDLERS: Final[dict[type, Callable[[S3Service, Any, _Call], Awaitable[Response]]]] = {
    op.ListBuckets: S3Service._list_buckets,
    op.CreateBucket: S3Service._create_bucket,
    op.HeadBucket: S3Service._head_bucket,
    op.DeleteBucket: S3Service._delete_bucket,
    op.GetLocation: S3Service._get_location,
    op.ListObjects: S3Service._list_objects,
    op.ListUploads: S3Service._list_uploads,
    op.DeleteObjects: S3Service._delete_many,
    op.GetObject: S3Service._get,
    op.PutObject: S3Service._put,
    op.CopyObject: S3Service._copy,
    op.DeleteObject: S3Service._delete,
    op.GetTags: S3Service._get_tags,
    op.PutTags: S3Service._put_tags,
    op.DeleteTags: S3Service._delete_tags,
    op.StartUpload: S3Service._start_upload,
    op.PutPart: S3Service._put_part,
    op.CopyPart: S3Service._copy_part,
    op.CompleteUpload: S3Service._complete,
    op.AbortUpload: S3Service._abort,
    op.ListParts: S3Service._list_parts,
    op.GetConfig: S3Service._get_config,
    op.PutConfig: S3Service._put_config,
    op.DeleteConfig: S3Service._delete_config,
    op.GetAcl: S3Service._get_acl,
    op.PutAcl: S3Service._put_acl,
    **{kind: _beside(handler) for kind, handler in HANDLERS.items()},
}
"""Total over `Operation`, by test."""
