"""The REST file API, an RSGI application: files by bearer token, one file by share token. Same backend as S3.

GET /files                                 buckets
GET /files/BUCKET?prefix&delimiter&after&limit     a page of files
GET HEAD PUT DELETE /files/BUCKET/KEY      one file: ranges, conditions, streams both ways
GET HEAD /s/TOKEN[/ANY-NAME]               what a share gives

Each request becomes one S3 operation and goes through `S3Service.perform`: who may do what, quotas, checks of bodies
and damage are decided in one place for all fronts. Here are tokens, plain JSON for lists and errors, and nothing else.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from qss.s3 import operations as op
from qss.s3.backend import ObjectBackend
from qss.s3.dates import iso
from qss.s3.errors import Code, S3Error
from qss.s3.message import RequestHead, Response
from qss.s3.parse import parse
from qss.s3.rsgi import head_of, raw_body, send
from qss.s3.server import S3Service, noted
from qss.s3.sse import KeyNeeded
from qss.trove.access_log import redacted_path
from qss.trove.admin_buckets import list_query, page_value
from qss.trove.health import Health
from qss.trove.routes import JSON, Asked, answer
from qss.trove.shares import PATH, Share, Shares
from qss.trove.tokens import FileToken, Tokens

if TYPE_CHECKING:
    from qss.s3.rsgi import HttpProtocol, Scope

FILES: Final = "/files"
_SEALED: Final = "This file is encrypted with a key of its owner's (SSE-C) and can only be had over S3, with that key."
_ADMIN: Final = FileToken("admin", "the admin token")
_HEADERS: Final = frozenset(
    {
        "cache-control", "content-disposition", "content-encoding", "content-language", "content-length", "content-md5",
        "content-type", "expires", "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since",
        "range",
    }
)  # fmt: skip
"""What of a request reaches the S3 operation, with `x-amz-meta-*` and `x-amz-checksum-*`: nothing that would make it
another operation (copy source, ACL, retention)."""
_PASSED: Final = ("x-amz-meta-", "x-amz-checksum-")
GUARDS: Final = (
    ("x-content-type-options", "nosniff"),
    ("content-security-policy", "sandbox; default-src 'none'"),
)
"""On every answer with content of users: a browser that shows it runs nothing of it."""
_TYPES: Final = mimetypes.MimeTypes(filenames=())  # what the system's files say may differ by machine


@dataclass(frozen=True, slots=True)
class Doors:
    """What opens the file API."""

    tokens: Tokens
    shares: Shares
    admits: Callable[[str], bool]  # is this Authorization header the admin's?
    user: str  # access key that the admin token and shares act for


class Files:
    """Requests to S3 operations and answers, for those whom somebody has let in. The console uses it as well."""

    def __init__(self, service: S3Service, backend: ObjectBackend, user: str) -> None:
        self._service = service
        self._backend = backend
        self._user = user

    async def perform(self, token: FileToken, head: RequestHead, path: str, protocol: HttpProtocol) -> Response:
        """`path`: BUCKET/KEY, BUCKET or nothing. Raises S3Error and other QssErrors."""
        bucket, slash, key = path.partition("/")
        if not (slash and key):
            return await self._list(token, head, bucket, protocol)
        head = replace(head, path=f"/{bucket}/{key}", query="", headers=passed(head.headers))
        if head.method == "PUT" and "content-type" not in head.headers:
            kind = _TYPES.guess_type(key, strict=False)[0]
            head = replace(head, headers={**head.headers, "content-type": kind or "application/octet-stream"})
        operation = parse(head)
        _note(protocol, token, operation)
        token.check(operation)
        response = await self._service.perform(token.user or self._user, operation, head, raw_body(head, protocol))
        return response.and_headers(GUARDS)

    async def _list(self, token: FileToken, head: RequestHead, bucket: str, protocol: HttpProtocol) -> Response:
        if head.method != "GET":
            raise S3Error(Code.METHOD_NOT_ALLOWED)
        if not bucket:
            await self._permit(token, head, op.ListBuckets(), protocol)
            buckets = await self._backend.list_buckets()
            return _json({"buckets": [{"name": each.name, "created": iso(each.created_ns)} for each in buckets]})
        query = list_query(bucket, Asked(query=dict(head.params())))
        await self._permit(token, head, op.ListObjects(query, True, False), protocol)
        return _json(page_value(await self._backend.list_objects(query)))

    async def _permit(
        self, token: FileToken, head: RequestHead, operation: op.Operation, protocol: HttpProtocol
    ) -> None:
        _note(protocol, token, operation)
        token.check(operation)
        await self._service.permit(token.user or self._user, operation, head)


def _note(protocol: HttpProtocol, token: FileToken, operation: op.Operation) -> None:
    protocol.exchange.operation = type(operation).__name__
    protocol.exchange.user = token.id


class FilesApp:
    """RSGI around `Files`, with its two kinds of tokens."""

    def __init__(self, files: Files, doors: Doors, health: Health) -> None:
        self._files = files
        self._doors = doors
        self._health = health

    async def __call__(self, scope: Scope, protocol: HttpProtocol) -> None:
        await respond(scope, protocol, self._health, self._answer)

    async def _answer(self, head: RequestHead, protocol: HttpProtocol) -> Response:
        if head.path.startswith(PATH):
            return await self.shared(head, protocol)
        if head.path != FILES and not head.path.startswith(f"{FILES}/"):
            raise S3Error(Code.NOT_FOUND, "There is nothing here; files are under /files.")
        token = self._token(head.headers.get("authorization", ""))
        return await self._files.perform(token, head, head.path[len(FILES) + 1 :], protocol)

    def _token(self, authorization: str) -> FileToken:
        kind, _, text = authorization.partition(" ")
        token = self._doors.tokens.find(text.strip()) if kind.lower() == "bearer" else None
        if token is None and self._doors.admits(authorization):
            token = _ADMIN
        if token is None:
            raise Unknown
        return token

    async def shared(self, head: RequestHead, protocol: HttpProtocol) -> Response:
        """What a path below /s/ gives. Raises S3Error and other QssErrors."""
        text = head.path.removeprefix(PATH).partition("/")[0]
        if head.method not in ("GET", "HEAD"):
            raise S3Error(Code.METHOD_NOT_ALLOWED)
        share = self._doors.shares.open(text)
        grant = share.grant
        token = FileToken(share.id, "share", frozenset({"read"}), grant.bucket, grant.key, user=share.user)
        response = await self._files.perform(token, head, f"{grant.bucket}/{grant.key}", protocol)
        if head.method == "GET" and response.status in (200, 206):
            try:
                await self._doors.shares.use(share.id)
            except BaseException:
                if response.close is not None:
                    await response.close()
                raise
        return _attached(response, share)


class Unknown(S3Error):
    """No token, or one that opens nothing: 401, not 403."""

    def __init__(self) -> None:
        super().__init__(Code.ACCESS_DENIED, "Give a token: Authorization: Bearer …")


async def respond(
    scope: Scope,
    protocol: HttpProtocol,
    health: Health,
    work: Callable[[RequestHead, HttpProtocol], Awaitable[Response]],
) -> None:
    """Answer one request of a front: how the node is, what `work` gives, or what its error becomes."""
    head = head_of(scope)
    found = health.answer(head.method, head.path)
    if found is not None:
        protocol.exchange.operation = "Health"
        response = Response(found.status, (("content-type", found.kind),), found.body)
    else:
        response = await answered(work(head, protocol), head)
    await send(response, head.method, protocol)


async def answered(work: Awaitable[Response], head: RequestHead) -> Response:
    """What `work` gives, or what its error becomes."""
    try:
        return await work
    except Exception as found:
        return _failed(found, head)


def _failed(found: Exception, head: RequestHead) -> Response:
    """By itself for the reason that `qss.s3.server` has: nothing may name the exception for longer."""
    return _refused(noted(found, "%.16r %.256r", head.method, redacted_path(head.path)), head)


def _refused(error: S3Error, head: RequestHead) -> Response:
    headers = [("content-type", JSON), ("cache-control", "no-store")]
    status = error.code.status
    if isinstance(error, Unknown):
        status = 401
        headers.append(("www-authenticate", "Bearer"))
    if error.retry_after_s is not None:
        headers.append(("retry-after", str(max(1, round(error.retry_after_s)))))
    if head.method == "HEAD" or status == 304:
        return Response(status, tuple(headers[1:]))
    text = _SEALED if isinstance(error, KeyNeeded) else str(error)
    return Response(status, tuple(headers), answer({"error": text, "code": error.code.wire}).body)


def _json(value: Any) -> Response:
    content = answer(value).body
    return Response(200, (("content-type", JSON), ("cache-control", "no-store")), content, length=len(content))


def passed(headers: Mapping[str, str]) -> dict[str, str]:
    """Those that say something about a file and its condition, and nothing about who asks or what else is meant."""
    return {name: value for name, value in headers.items() if name in _HEADERS or name.startswith(_PASSED)}


def attachment(key: str) -> tuple[str, str]:
    """The header that makes a browser save an object under its last name (RFC 6266)."""
    name = key.rstrip("/").rpartition("/")[2] or "file"
    return "content-disposition", f"attachment; filename*=UTF-8''{quote(name, safe='')}"


def as_attachment(response: Response, key: str) -> Response:
    """To be saved and not shown, whatever the object says itself."""
    kept = [(name, value) for name, value in response.headers if name != "content-disposition"]
    return replace(response, headers=(*kept, attachment(key), ("cache-control", "private, no-cache")))


def _attached(response: Response, share: Share) -> Response:
    return as_attachment(response, share.grant.key)
