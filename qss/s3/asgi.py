"""RSGI applications over an ASGI connection (docs/adr/0040): the surface of one, the back-pressure of the other.

Granian's RSGI streams queue without bound for a client that reads slowly; its ASGI `send` waits. ASGI also tells the
path as it was sent, header bytes as they are, and that a client has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import Any, Final
from urllib.parse import unquote

from qss.s3.exchange import Exchange, Observer
from qss.s3.message import join_headers
from qss.s3.rsgi import RsgiApp

DRAIN_BYTES_MAX: Final = 4 * 1024 * 1024
DRAIN_S_MAX: Final = 5.0
"""An answer given before the body has been read: so much of the body is still taken, so that the connection lives on
and no reset swallows the answer. Beyond it, and where the client waits for `100 Continue`, the connection is closed."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class _Headers:
    __slots__ = ("_items", "_joined")

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        try:
            self._items = [(name.decode(), value.decode()) for name, value in raw]
        except UnicodeDecodeError:
            self._items = [(_text(name), _text(value)) for name, value in raw]
        first = dict(self._items)
        self._joined = first if len(first) == len(self._items) else None

    def items(self) -> list[tuple[str, str]]:
        return self._items

    def joined(self) -> dict[str, str]:
        """ASGI's names are in lower case already."""
        return join_headers(self._items) if self._joined is None else dict(self._joined)

    def get(self, key: str, default: str | None = None) -> str | None:
        if self._joined is not None:
            return self._joined.get(key, default)
        return next((value for name, value in self._items if name == key), default)


def _text(raw: bytes) -> str:
    """UTF-8 as S3's metadata; what is not that is taken byte by byte."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


class _Scope:
    __slots__ = ("authority", "client", "headers", "method", "query_string", "raw_path", "scheme")

    @property
    def path(self) -> str:
        return unquote(self.raw_path)

    def __init__(self, scope: Message) -> None:
        self.method: str = scope["method"]
        self.raw_path: str = scope["raw_path"].decode("latin-1")
        self.query_string: str = scope["query_string"].decode("latin-1")
        self.scheme: str = scope["scheme"]
        self.client = str((scope.get("client") or ("",))[0])
        self.authority: str | None = None
        self.headers = _Headers(scope["headers"])


class _Protocol:
    """`response_*` only note what to send; `asgi_app` sends it when the application returns."""

    __slots__ = ("_receive", "_send", "_unread", "_waits", "exchange", "stream", "whole")

    def __init__(self, headers: _Headers, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._unread = headers.get("content-length", "0") != "0" or headers.get("transfer-encoding") is not None
        self._waits = headers.get("expect") is not None
        self.whole: tuple[int, list[tuple[str, str]], bytes] | None = None
        self.stream: _Stream | None = None
        self.exchange = Exchange()

    async def __call__(self) -> bytes:
        if not self._unread:
            return b""
        self._waits = False
        message = await self._receive()
        if message["type"] != "http.request":
            return b""
        self._unread = message["more_body"]
        first: bytes = message["body"]
        self.exchange.bytes_in += len(first)
        return first if not self._unread else b"".join([first, *[chunk async for chunk in self]])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Just ends when the client has gone: whoever reads must know the length."""
        self._waits = False
        while self._unread:
            message = await self._receive()
            if message["type"] != "http.request":
                return
            self._unread = message["more_body"]
            if message["body"]:
                self.exchange.bytes_in += len(message["body"])
                yield message["body"]

    @property
    def unread(self) -> bool:
        return self._unread

    async def settle(self) -> list[tuple[str, str]]:
        """Headers to add to an answer. A body left unread would be taken for the next request: take or close."""
        if self._unread and not self._waits:
            left = DRAIN_BYTES_MAX
            try:
                async with asyncio.timeout(DRAIN_S_MAX):
                    async for chunk in self:
                        left -= len(chunk)
                        if left < 0:
                            break
            except TimeoutError:
                pass
        return [("connection", "close")] if self._unread else []

    async def client_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.whole = (status, headers, b"")

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.whole = (status, headers, body)

    def response_stream(self, status: int, headers: list[tuple[str, str]]) -> _Stream:
        close = [("connection", "close")] if self._unread else []
        length = dict(headers).get("content-length")
        self.exchange.status = status
        self.stream = _Stream(self._send, _start(status, [*headers, *close]), length, self.exchange)
        return self.stream


class _Stream:
    __slots__ = ("_exchange", "_left", "_send", "_start")

    def __init__(self, send: Send, start: Message, length: str | None, exchange: Exchange) -> None:
        self._exchange = exchange
        self._send = send
        self._start: Message | None = start
        self._left = None if length is None else int(length)

    async def send_bytes(self, data: bytes) -> None:
        """Waits while the client is behind."""
        await self._head()
        if self._left is not None:
            self._left -= len(data)
        await self._send({"type": "http.response.body", "body": _flat(data), "more_body": True})
        self._exchange.bytes_out += len(data)

    async def _head(self) -> None:
        if self._start is not None:
            start, self._start = self._start, None
            await self._send(start)

    async def end(self) -> None:
        """A stream that is shorter than announced is not ended: the connection breaks, and the client notices."""
        await self._head()
        if not self._left:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _flat(data: bytes) -> bytes:
    """Granian takes a memoryview item by item, 27 ms for 4 MiB; a copy costs 0.4 ms."""
    return data if isinstance(data, bytes) else bytes(data)


def _start(status: int, headers: list[tuple[str, str]]) -> Message:
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return {"type": "http.response.start", "status": status, "headers": encoded}


def asgi_app(app: RsgiApp, observe: Observer | None = None) -> Callable[[Message, Receive, Send], Awaitable[None]]:
    """An RSGI application as an ASGI one; http only, no lifespan. `observe` is told when a request is over."""

    async def run(scope: Message, receive: Receive, send: Send) -> None:
        asked = _Scope(scope)
        protocol = _Protocol(asked.headers, receive, send)
        if observe is None:
            await _answer(app, asked, protocol, send)
            return
        begun = perf_counter()
        try:
            await _answer(app, asked, protocol, send)
        finally:
            protocol.exchange.seconds = perf_counter() - begun
            observe(asked, protocol.exchange)

    return run


async def _answer(app: RsgiApp, asked: _Scope, protocol: _Protocol, send: Send) -> None:
    await app(asked, protocol)
    if protocol.stream is not None:
        await protocol.stream.end()
    elif protocol.whole is not None:
        status, headers, body = protocol.whole
        protocol.exchange.status = status
        if protocol.unread:
            headers = [*headers, *await protocol.settle()]
        await send(_start(status, headers))
        await send({"type": "http.response.body", "body": _flat(body), "more_body": False})
        protocol.exchange.bytes_out += len(body)
