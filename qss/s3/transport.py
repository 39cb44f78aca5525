"""How an httpx request gets to a location: by httpx's own transport, or over plain HTTP by ours, whose bodies pass
between the socket and the caller's memory (docs/adr/0035). With the client the only importer of httpx.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from typing import Final
from urllib.parse import urlsplit

import httpx

from qss.errors import Unreachable
from qss.limits import KIB
from qss.s3.http1 import Http, HttpLimits, Origin, Reply
from qss.s3.store import Body

PIECE_BYTES: Final = 64 * KIB
"""How a body is read that nobody has given memory for."""


def transport_to(scheme: str, host: str, limits: HttpLimits, *, verify_tls: bool = True) -> httpx.AsyncBaseTransport:
    """The transport for one server; `host` as the Host header has it. https trusts what the system trusts."""
    if scheme == "http":
        parts = urlsplit(f"//{host}")
        assert parts.hostname is not None
        return PlainTransport(Origin(parts.hostname, parts.port or 80), limits)
    trusted = ssl.create_default_context()
    if not verify_tls:
        trusted.check_hostname = False
        trusted.verify_mode = ssl.CERT_NONE
    pool = httpx.Limits(max_connections=limits.connections_max, keepalive_expiry=limits.idle_s_max)
    return httpx.AsyncHTTPTransport(verify=trusted, trust_env=False, http1=True, http2=False, limits=pool)


class PlainTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 without TLS to one server. Needs `extensions["target"]`; deadlines are those of its limits."""

    def __init__(self, origin: Origin, limits: HttpLimits) -> None:
        self._http = Http(origin, limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises httpx.NetworkError; CorruptData when the body to send is not as long as it says."""
        exchange = AsyncExitStack()
        headers = {name: value for name, value in request.headers.items() if name != "connection"}
        try:
            reply = await exchange.enter_async_context(
                self._http.exchange(request.method, request.extensions["target"], headers, _body_of(request))
            )
        except Unreachable as error:
            raise httpx.NetworkError(str(error), request=request) from error
        return httpx.Response(reply.status, headers=reply.headers, stream=ReplyStream(reply, exchange))

    async def aclose(self) -> None:
        self._http.close()


class ReplyStream(httpx.AsyncByteStream):
    """The body of an answer. To be closed, which gives the connection back."""

    def __init__(self, reply: Reply, exchange: AsyncExitStack) -> None:
        self._reply = reply
        self._exchange = exchange

    async def read_into(self, into: memoryview) -> int:
        """The next bytes, at the front of `into`; 0: the end. Raises httpx.NetworkError, httpx.RemoteProtocolError."""
        try:
            count = await self._reply.read_into(into)
        except Unreachable as error:
            raise httpx.NetworkError(str(error)) from error
        if not count and self._reply.to_come:
            raise httpx.RemoteProtocolError(f"the answer broke off, {self._reply.to_come} bytes before its end")
        return count

    async def __aiter__(self) -> AsyncIterator[bytes]:
        piece = memoryview(bytearray(PIECE_BYTES))
        while count := await self.read_into(piece):
            yield bytes(piece[:count])

    async def aclose(self) -> None:
        await self._exchange.aclose()


def _body_of(request: httpx.Request) -> Body | None:
    length = request.headers.get("content-length")
    stream = request.stream
    if length is None or not isinstance(stream, httpx.AsyncByteStream):
        return None

    async def chunks() -> AsyncGenerator[bytes | memoryview, None]:
        async for chunk in stream:
            yield chunk

    return Body(int(length), chunks)
