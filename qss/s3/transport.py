"""How an httpx request gets to a location: by httpx's own transport, or over plain HTTP by ours, whose bodies pass
between the socket and the caller's memory (docs/adr/0035). With the client the only importer of httpx.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit

import httpx

from qss.errors import ConfigInvalid, Unreachable
from qss.limits import KIB
from qss.s3.http1 import Http, HttpLimits, Origin, Reply
from qss.s3.store import Body

PIECE_BYTES: Final = 64 * KIB
"""How a body is read that nobody has given memory for."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Whom to trust, and who we are; PEM files."""

    ca_file: Path | None = None  # None: what the system trusts
    client_cert: Path | None = None
    client_key: Path | None = None  # None: in `client_cert`

    def context(self) -> ssl.SSLContext:
        """Raises ConfigInvalid when a file cannot be read or does not hold; never shows what is in it."""
        try:
            trusted = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigInvalid(f"{self.ca_file} has no certificates that can be read (PEM)") from error
        if self.client_cert is not None:
            try:
                # An encrypted key would make OpenSSL ask at the terminal: an empty passphrase fails at once.
                trusted.load_cert_chain(self.client_cert, self.client_key, password="")
            except (OSError, ssl.SSLError) as error:
                raise ConfigInvalid(
                    f"{self.client_cert} has no certificate with its key that can be read (PEM, not encrypted)"
                ) from error
        return trusted


SYSTEM_TRUST: Final = TlsFiles()


def transport_to(scheme: str, host: str, limits: HttpLimits, tls: TlsFiles) -> httpx.AsyncBaseTransport:
    """The transport for one server; `host` as the Host header has it. Raises ConfigInvalid for TLS files."""
    if scheme == "http":
        parts = urlsplit(f"//{host}")
        assert parts.hostname is not None
        return PlainTransport(Origin(parts.hostname, parts.port or 80), limits)
    pool = httpx.Limits(max_connections=limits.connections_max, keepalive_expiry=limits.idle_s_max)
    return httpx.AsyncHTTPTransport(verify=tls.context(), trust_env=False, http1=True, http2=False, limits=pool)


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


class UploadStream(httpx.AsyncByteStream):
    """The body of a request, for either transport."""

    def __init__(self, body: Body) -> None:
        self.body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return cast("AsyncIterator[bytes]", self.body.chunks())  # what takes bytes takes views of them


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
    return request.stream.body if isinstance(request.stream, UploadStream) else None
