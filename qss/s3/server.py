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
from qss.s3 import inplace, render, sse
from qss.s3 import operations as op
from qss.s3.access import configure
from qss.s3.access.context import Caller
from qss.s3.backend import (
    READ_WHOLE_BYTES_MAX,
    Chunk,
    CopiesItself,
    DeleteOutcome,
    ObjectBackend,
    ObjectReader,
    PutRequest,
    StoredObject,
)
from qss.s3.bucket_handlers import BUCKETS
from qss.s3.call import Call
from qss.s3.documents import delete_body, tags_body
from qss.s3.encryption import Encryptor, to_store
from qss.s3.errors import Code, S3Error, to_s3
from qss.s3.exchange import Exchange
from qss.s3.expiry import Expiry
from qss.s3.handlers import HANDLERS, Handler, Place
from qss.s3.hoisted import with_hoisted
from qss.s3.lock import DAY_NS, check_future
from qss.s3.message import Headers, RequestHead, Response
from qss.s3.parse import REDIRECT, is_form, parse_at, put_request, split_path
from qss.s3.post import answer, read_form
from qss.s3.reading import copied_body, plan_read
from qss.s3.sigv4 import Verifier
from qss.s3.subresources import GetObjectAttributes
from qss.s3.uploading import UPLOADING, open_source

log = logging.getLogger(__name__)

TAGS_BYTES_MAX: Final = 64 * 1024
"""Of the document of an object's tags: it is read before it is known whether they may be set."""
_ID_BYTES: Final = 8
_IDS_AT_ONCE: Final = 64
_CHANGING: Final = frozenset({REDIRECT, "x-amz-storage-class"})
"""Headers that make a copy of an object onto itself one that changes it, beside metadata, tags and encryption."""
_COPY_OF_ITSELF: Final = "This copy request is illegal: it would copy an object to itself without changing it."
_ANONYMOUS_OVERRIDE: Final = "Request specific response headers cannot be used for anonymous GET requests."


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
    keys_over_http: bool = False  # customers' keys are taken without TLS, which AWS refuses
    day_ns: int = DAY_NS  # what a day is to lifecycle rules


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
        self._encryptor = Encryptor(backend, options.keys_over_http)
        self._expiry = Expiry(backend, options.day_ns)
        self._ids: list[str] = []  # of requests to come

    async def handle(self, head: RequestHead, raw: AsyncIterator[Chunk], exchange: Exchange | None = None) -> Response:
        """Answer one request. `raw` is asked for nothing before the signature of the head has been found good; of a
        browser's form, whose fields hold the signature, for its fields. `exchange` learns what it was."""
        request_id = self._request_id()
        exchange = exchange or Exchange()
        exchange.request_id = request_id
        try:
            response = await self._answer(head, raw, exchange)
        except Exception as found:
            response = _failed(found, head, request_id)
        extra: Headers = (("x-amz-request-id", request_id),)
        if "origin" in head.headers and head.method != "OPTIONS":
            extra += await self._cors(head)
        return response.and_headers(extra)

    def _request_id(self) -> str:
        """16 hex digits. Bytes for many are asked for at once: asking the system lets go of the GIL."""
        if not self._ids:
            fresh = self._token(_ID_BYTES * _IDS_AT_ONCE).hex().upper()
            self._ids = [fresh[at : at + 2 * _ID_BYTES] for at in range(0, len(fresh), 2 * _ID_BYTES)]
        return self._ids.pop()

    async def _cors(self, head: RequestHead) -> Headers:
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
        head = head if verified is None else with_hoisted(head)
        operation = parse_at(head, bucket, key)
        exchange.operation = type(operation).__name__
        if verified is None and isinstance(operation, op.GetObject) and operation.overrides:
            raise S3Error(Code.INVALID_REQUEST, _ANONYMOUS_OVERRIDE)
        return await self._perform(operation, Call(head, raw, verified))

    async def permit(self, access_key: str, operation: op.Operation, head: RequestHead) -> None:
        """Raises S3Error unless the user with this key may do this. For fronts that find out themselves who asks."""
        await self._authorize(Caller(head, acts_for=access_key), operation)

    async def perform(
        self, access_key: str, operation: op.Operation, head: RequestHead, raw: AsyncIterator[Chunk]
    ) -> Response:
        """Authorise an operation as `permit` does, and do it. Raises what goes wrong."""
        return await self._perform(operation, Call(head, raw, None, access_key))

    async def _allowed(self, operation: op.Operation, call: Call) -> Call:
        """The call with what it asks of encryption. Raises S3Error for what may not be or cannot be had."""
        if not isinstance(operation, op.PutTags):  # which is allowed or not by what its body says
            await self._authorize(call.caller, operation)
        asked = self._encryptor.asked(operation, call.head.headers, secure=call.head.secure)
        if asked is not sse.NOTHING:
            call = replace(call, sse=asked)
        if type(operation) in _WITH_ACL:
            configure.check_acl(call.head.headers)
        return call

    async def _perform(self, operation: op.Operation, call: Call) -> Response:
        call = await self._allowed(operation, call)
        try:
            return await _HANDLERS[type(operation)](self, operation, call)
        except S3Error as error:
            await self._hide_absence(error, operation, call)
            raise

    async def _hide_absence(self, error: S3Error, operation: op.Operation, call: Call) -> None:
        """That a key is not there is told, as by AWS, to those who may list the bucket. Raises ACCESS_DENIED."""
        if error.code not in (Code.NO_SUCH_KEY, Code.NO_SUCH_VERSION):
            return
        if isinstance(operation, op.GetObject | GetObjectAttributes):
            await self._authorize(call.caller, op.HeadBucket(operation.bucket))
        elif isinstance(operation, op.CopyObject | op.CopyPart):
            await self._authorize(call.caller, op.HeadBucket(operation.source.bucket))

    async def _post(self, head: RequestHead, bucket: str, raw: AsyncIterator[Chunk], exchange: Exchange) -> Response:
        """A browser's form: read up to its file, then a put like others."""
        exchange.operation = "PostObject"
        form = await read_form(head, bucket, raw, self._verifier, self._clock.now_ns())
        exchange.user = "" if form.verified is None else form.verified.access_key
        operation = op.PutObject(put_request(bucket, form.key, form.head.headers))
        call = await self._allowed(operation, Call(form.head, form.file, form.verified, by_form=True))
        found, headers = await self._store(operation, call)
        return answer(form, found).and_headers(headers)

    # -- objects
    async def _get(self, asked: op.GetObject, call: Call) -> Response:
        if asked.head:
            found = await self._encryptor.head(asked.bucket, asked.key, asked.version_id, call.sse.customer)
            status, start, stop, headers = plan_read(asked, found)
            headers += call.sse.answer(found.sse) + await self._told(asked, found)
            if asked.hash_spans:
                headers += ((inplace.HEADER, await self._hashes(asked, call)),)
            return Response(status, headers, length=stop - start)
        reader = await self._encryptor.open(asked.bucket, asked.key, asked.version_id, call.sse.customer)
        try:
            status, start, stop, headers = plan_read(asked, reader.info)
            headers += call.sse.answer(reader.info.sse) + await self._told(asked, reader.info)
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

    async def _told(self, asked: op.GetObject, found: StoredObject) -> Headers:
        if asked.version_id is not None:
            return ()
        return await self._expiry.told(asked.bucket, found, found.attributes.tags)

    async def _hashes(self, asked: op.GetObject, call: Call) -> str:
        reader = await self._encryptor.open(asked.bucket, asked.key, asked.version_id, call.sse.customer)
        try:
            inplace.check_cost(reader.info.size, asked.hash_spans)
            return await inplace.answer(reader, reader.info.size, asked.hash_spans)
        finally:
            await reader.aclose()

    def _check_lock(self, request: PutRequest) -> None:
        check_future(request.attributes.lock.retention, self._clock.now_ns())

    async def _put(self, asked: op.PutObject, call: Call) -> Response:
        found, headers = await self._store(asked, call)
        return Response(200, (*render.stored_headers(found), *headers))

    async def _store(self, asked: op.PutObject, call: Call) -> tuple[StoredObject, Headers]:
        """What is stored, and what an answer tells of it besides its etag."""
        self._check_lock(asked.request)
        request = to_store(asked.request, call.sse)
        found = await self._backend.put(request, call.body(request.etag_mode))
        told = await self._expiry.told(request.bucket, found, request.attributes.tags)
        return found, call.sse.answer(found.sse) + told

    async def _copy(self, asked: op.CopyObject, call: Call) -> Response:
        self._check_lock(asked.request)
        reader = await open_source(self._encryptor, asked.source, call.sse.source)
        try:
            source, request = reader.info, to_store(asked.request, call.sse)
            if source.attributes.tags and not asked.replace_tags:
                await self._authorize(
                    call.caller, op.GetTags(asked.source.bucket, asked.source.key, asked.source.version_id)
                )
                taking = call.setting(source.attributes.tags)
                await self._authorize(taking, op.PutTags(request.bucket, request.key))
            same = (asked.source.bucket, asked.source.key) == (request.bucket, request.key)
            changes = asked.replace_metadata or asked.replace_tags or call.sse.store is not None
            changes = changes or not _CHANGING.isdisjoint(call.head.headers)
            if same and asked.source.version_id is None and not changes:
                raise S3Error(Code.INVALID_REQUEST, _COPY_OF_ITSELF)
            kept = request.attributes if asked.replace_metadata else source.attributes
            tags = request.attributes.tags if asked.replace_tags else source.attributes.tags
            own = request.attributes
            headers = {name: value for name, value in kept.headers.items() if name != REDIRECT}
            headers |= {name: value for name, value in own.headers.items() if name == REDIRECT}
            attributes = replace(kept, headers=headers, tags=tags, storage_class=own.storage_class, lock=own.lock)
            request = replace(request, attributes=attributes)
            found = await self._store_copy(reader, request, asked.checksum_algorithm)
        finally:
            await reader.aclose()
        told = await self._expiry.told(request.bucket, found, request.attributes.tags)
        return render.copied("CopyObjectResult", found, source).and_headers(call.sse.answer(found.sse) + told)

    async def _store_copy(self, reader: ObjectReader, request: PutRequest, algorithm: str | None) -> StoredObject:
        if isinstance(self._backend, CopiesItself) and algorithm is None:
            return await self._backend.copy(reader, request)
        if algorithm is None and reader.info.checksum is not None:
            algorithm = reader.info.checksum.algorithm
        body = copied_body(reader, 0, reader.info.size, algorithm, request.etag_mode)
        return await self._backend.put(request, body)

    async def _delete(self, asked: op.DeleteObject, _: Call) -> Response:
        outcome = (await self._backend.delete(asked.bucket, [asked.request]))[0]
        if outcome.error is not None:
            raise outcome.error
        return Response(204, render.deletion_headers(outcome))

    async def _delete_many(self, asked: op.DeleteObjects, call: Call) -> Response:
        """Each key is allowed or denied by itself."""
        requests, quiet = delete_body(await call.document())
        if asked.bypass:
            requests = [replace(each, bypass=True) for each in requests]
        denied = [await self._refusal(call, op.DeleteObject(asked.bucket, request)) for request in requests]
        done = iter(
            await self._backend.delete(asked.bucket, [r for r, d in zip(requests, denied, strict=True) if not d])
        )
        outcomes = [
            next(done) if error is None else DeleteOutcome(request.key, error)
            for request, error in zip(requests, denied, strict=True)
        ]
        return render.deleted(requests, outcomes, quiet=quiet)

    async def _refusal(self, call: Call, operation: op.Operation) -> S3Error | None:
        try:
            await self._authorize(call.caller, operation)
        except S3Error as error:
            return error
        return None

    async def _put_tags(self, asked: op.PutTags, call: Call) -> Response:
        try:
            tags = tags_body(await call.document(TAGS_BYTES_MAX))
        except S3Error:
            await self._authorize(call.caller, asked)  # who may not at all is told so first
            raise
        await self._authorize(call.setting(tags), asked)
        version_id = await self._backend.put_tags(asked.bucket, asked.key, tags, asked.version_id)
        return Response(200, render.version_headers(version_id))


def noted(found: Exception, what: str, *said: object) -> S3Error:
    """What a request that failed is answered; whoever runs the server reads of what the client can do nothing about.
    `what`: the request, for %; `said`: what stands in it."""
    error = to_s3(found)
    if error.code in (Code.INTERNAL_ERROR, Code.OBJECT_DAMAGED):
        trace = None if isinstance(found, QssError) else found
        log.error(f"{what}: %s", *said, found, exc_info=trace)
    return error


def _failed(found: Exception, head: RequestHead, request_id: str) -> Response:
    """The answer to a request that failed. Nothing that outlives it may name the exception: with its traceback it would
    keep the body, and a body that is kept keeps its connection open until the garbage collector comes by."""
    error = noted(found, "request %s, %.16r %.256r", request_id, head.method, head.path)
    return render.error(error, head.path, request_id, with_body=head.method != "HEAD")


def _beside(handler: Handler) -> Callable[[S3Service, Any, Call], Awaitable[Response]]:
    """A handler that needs no more than a `Place`, as if it were one of ours."""

    async def answer(service: S3Service, asked: Any, call: Call) -> Response:
        place = Place(
            service._backend, service._clock.now_ns(), service._encryptor, service._expiry, service._options.region
        )
        return await handler(place, asked, call)

    return answer


_WITH_ACL: Final = frozenset({op.PutObject, op.CopyObject, op.StartUpload})
_HANDLERS: Final[dict[type, Callable[[S3Service, Any, Call], Awaitable[Response]]]] = {
    op.DeleteObjects: S3Service._delete_many,
    op.GetObject: S3Service._get,
    op.PutObject: S3Service._put,
    op.CopyObject: S3Service._copy,
    op.DeleteObject: S3Service._delete,
    op.PutTags: S3Service._put_tags,
    **{kind: _beside(handler) for kind, handler in {**BUCKETS, **HANDLERS, **UPLOADING}.items()},
}
"""Total over `Operation`, by test."""
