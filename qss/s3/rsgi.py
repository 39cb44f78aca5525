"""RSGI, as far as it is used here: typed shapes of what a server hands an application, and the S3 service as one.

Source: Granian's docs/spec/RSGI.md. Behaviour to know, held by tests/unit/s3/test_serve.py:
- When the client goes away in mid-request, the body just ends: its length must be checked.
- When it goes away in mid-response, `send_bytes` goes on without an error: `client_disconnect` must be asked.
- A response with fewer bytes than its content-length breaks the connection, which is how damage in mid-stream shows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Protocol
from urllib.parse import unquote

from qss.errors import CorruptData
from qss.s3.exchange import Exchange
from qss.s3.message import RequestHead, Response
from qss.s3.scalars import number_of
from qss.s3.server import S3Service

log = logging.getLogger(__name__)

BODY_WHOLE_BYTES_MAX: Final = 256 * 1024
"""Request bodies up to this length are taken in one piece: one wake-up instead of several."""


class Headers(Protocol):
    def items(self) -> list[tuple[str, str]]: ...
    def joined(self) -> dict[str, str]:
        """By lower-case name, repeated ones joined by commas; the caller's own. (Not in RSGI.)"""
        ...

    def get(self, key: str, default: str | None = None) -> str | None: ...


class Scope(Protocol):
    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str:
        """Percent-decoded once; bytes that are not UTF-8 are U+FFFD."""
        ...

    @property
    def raw_path(self) -> str:
        """As sent. (Not in RSGI; `qss.s3.serve` has it.)"""
        ...

    @property
    def query_string(self) -> str: ...
    @property
    def scheme(self) -> str: ...
    @property
    def client(self) -> str: ...
    @property
    def authority(self) -> str | None: ...
    @property
    def headers(self) -> Headers: ...


class Transport(Protocol):
    async def send_bytes(self, data: bytes) -> None: ...


class HttpProtocol(Protocol):
    @property
    def exchange(self) -> Exchange:
        """Where the application says what a request was. (Not in RSGI.)"""
        ...

    async def __call__(self) -> bytes: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def client_disconnect(self) -> None: ...
    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None: ...
    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None: ...
    def response_stream(self, status: int, headers: list[tuple[str, str]]) -> Transport: ...


RsgiApp = Callable[[Scope, HttpProtocol], Awaitable[None]]
"""Any RSGI application; `qss.s3.serve.serve` runs it."""


def s3_app(service: S3Service) -> RsgiApp:
    """The S3 service as an RSGI application."""

    async def app(scope: Scope, protocol: HttpProtocol) -> None:
        head = head_of(scope)
        body = raw_body(head, protocol)
        await send(await service.handle(head, body, protocol.exchange), head.method, protocol)

    return app


def head_of(scope: Scope) -> RequestHead:
    headers = scope.headers.joined()
    if "host" not in headers and scope.authority:
        headers["host"] = scope.authority
    return RequestHead(
        scope.method, path_of(scope.raw_path), scope.query_string, headers, scope.scheme == "https", scope.client
    )


def path_of(raw: str) -> str:
    """Decoded; "" for a path with escapes that are not UTF-8, which no key can have. The parser refuses that."""
    if raw.startswith("http://") or raw.startswith("https://"):  # absolute form, as sent to proxies
        raw = raw[raw.find("/", 8) :]
    try:
        return unquote(raw, errors="strict")
    except UnicodeDecodeError:
        return ""


async def raw_body(head: RequestHead, protocol: HttpProtocol) -> AsyncIterator[bytes]:
    """The body as it comes. Nothing is read (and no 100-continue sent) before the first piece is asked for."""
    length = number_of(head.headers.get("content-length", ""))
    if length is not None and length <= BODY_WHOLE_BYTES_MAX:
        yield await protocol()
        return
    async for chunk in protocol:
        yield chunk


async def send(response: Response, method: str, protocol: HttpProtocol) -> None:
    """Send a response, and close it, whatever happens. When its stream breaks off, so does the connection: the client
    sees fewer bytes than told."""
    try:
        await _send(response, method, protocol)
    finally:
        if response.close is not None:
            await response.close()


async def _send(response: Response, method: str, protocol: HttpProtocol) -> None:
    headers = list(response.headers)
    if response.stream is None:
        if response.body:
            protocol.response_bytes(response.status, headers, response.body)  # type: ignore[arg-type]
        elif method == "HEAD" or response.status in (204, 304):
            if response.length is not None:
                headers.append(("content-length", str(response.length)))
            protocol.response_empty(response.status, headers)
        else:
            protocol.response_empty(response.status, [*headers, ("content-length", "0")])
        return
    headers.append(("content-length", str(response.length)))
    transport = protocol.response_stream(response.status, headers)
    gone = asyncio.ensure_future(protocol.client_disconnect())
    try:
        async for chunk in response.stream:
            if gone.done():
                return
            await transport.send_bytes(chunk)  # type: ignore[arg-type]
    except CorruptData as error:  # the status line is out: all that is left is to stop short
        log.error("stopped a response in its middle: %s", error)
    finally:
        gone.cancel()
