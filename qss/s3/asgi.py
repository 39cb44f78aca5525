"""RSGI applications over an ASGI connection (docs/adr/0040): the surface of one, the back-pressure of the other.

Granian's RSGI streams queue without bound for a client that reads slowly; its ASGI `send` waits. ASGI also tells the
path as it was sent, header bytes as they are, and that a client has gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from time import perf_counter
from typing import Any, Final
from urllib.parse import unquote

from qss.s3.border import Refusal, refusal
from qss.s3.errors import Code, S3Error
from qss.s3.exchange import Exchange, Observer
from qss.s3.message import join_headers
from qss.s3.patience import USUAL, Patience, Waiting
from qss.s3.rsgi import RsgiApp
from qss.s3.scalars import number_of

log = logging.getLogger(__name__)

DRAIN_BYTES_MAX: Final = 4 * 1024 * 1024
DRAIN_S_MAX: Final = 5.0
"""An answer given before the body has been read: so much of the body is still taken, so that the connection lives on
and no reset swallows the answer. Beyond it, and where the client waits for `100 Continue`, the connection is closed."""
REQUESTS_IN_FLIGHT_MAX: Final = 128
"""Being worked on, of one front door; others wait their turn. A request that waits for its client (its body has been
asked for, its answer is being streamed) has given its turn away, so slow clients cannot take all of them."""


class BodyTooSlow(S3Error):
    """A client lets us wait for its body for longer than patience lasts. Answered for applications that let it pass."""

    def __init__(self) -> None:
        super().__init__(Code.REQUEST_TIMEOUT)


class TookTooLong(Exception):
    """A client has not taken its answer for longer than patience lasts. The connection is to be broken."""


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


class _Turn:
    """A place among REQUESTS_IN_FLIGHT_MAX; given back once."""

    __slots__ = ("_turns",)

    def __init__(self, turns: asyncio.Semaphore) -> None:
        self._turns: asyncio.Semaphore | None = turns

    def end(self) -> None:
        turns, self._turns = self._turns, None
        if turns is not None:
            turns.release()


class _Protocol:
    """`response_*` only note what to send; `asgi_app` sends it when the application returns."""

    __slots__ = (
        "_length",
        "_patience",
        "_receive",
        "_send",
        "_turn",
        "_unread",
        "_waiting",
        "_waits",
        "exchange",
        "stream",
        "whole",
    )

    def __init__(self, headers: _Headers, receive: Receive, send: Send, patience: Patience, turn: _Turn) -> None:
        self._receive = receive
        self._send = send
        self._patience = patience
        self._waiting = Waiting(patience)
        self._turn = turn
        chunked = headers.get("transfer-encoding") is not None
        self._length = None if chunked else number_of(headers.get("content-length") or "0", 19)
        self._unread = self._length != 0
        self._waits = headers.get("expect") is not None
        self.whole: tuple[int, list[tuple[str, str]], bytes] | None = None
        self.stream: _Stream | None = None
        self.exchange = Exchange()

    async def __call__(self) -> bytes:
        if not self._unread:
            return b""
        self._waits = False
        message = await self._next()
        if message["type"] != "http.request":
            return b""
        first = self._piece(message)
        return first if not self._unread else b"".join([first, *[chunk async for chunk in self]])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Just ends when the client has gone: whoever reads must know the length. Raises BodyTooSlow."""
        self._waits = False
        while self._unread:
            message = await self._next()
            if message["type"] != "http.request":
                return
            if piece := self._piece(message):
                yield piece

    def _piece(self, message: Message) -> bytes:
        """The body ends with its last byte. Granian says so only in a message of its own, for which it would change
        threads twice."""
        piece: bytes = message["body"]
        self.exchange.bytes_in += len(piece)
        self._unread = message["more_body"] and self.exchange.bytes_in != self._length
        return piece

    async def _next(self) -> Message:
        self._turn.end()
        begun = perf_counter()
        try:
            async with asyncio.timeout(self._waiting.allowance_s):
                message = await self._receive()
        except TimeoutError:
            self._waits = True  # no more is taken, the connection is closed after the answer
            raise BodyTooSlow from None
        self._waiting.passed(len(message.get("body", b"")), perf_counter() - begun)
        return message

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
            except (TimeoutError, S3Error):
                pass
        return [("connection", "close")] if self._unread else []

    async def client_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.whole = (status, headers, b"")

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.whole = (status, headers, body)

    def refuse(self, refused: Refusal) -> None:
        """Where a body begins and ends is in doubt: nothing of it is taken, and nothing that follows."""
        self._unread = False
        headers = [("content-type", "text/plain; charset=utf-8"), ("connection", "close")]
        self.whole = (refused.status, headers, refused.why.encode())

    def response_stream(self, status: int, headers: list[tuple[str, str]]) -> _Stream:
        close = [("connection", "close")] if self._unread else []
        length = dict(headers).get("content-length")
        self.exchange.status = status
        self._turn.end()
        waiting = Waiting(self._patience)
        self.stream = _Stream(self._send, _start(status, [*headers, *close]), length, self.exchange, waiting)
        return self.stream


class _Stream:
    __slots__ = ("_exchange", "_left", "_send", "_start", "_waiting")

    def __init__(self, send: Send, start: Message, length: str | None, exchange: Exchange, waiting: Waiting) -> None:
        self._exchange = exchange
        self._send = send
        self._waiting = waiting
        self._start: Message | None = start
        self._left = None if length is None else int(length)

    async def send_bytes(self, data: bytes) -> None:
        """Waits while the client is behind. Raises TookTooLong."""
        await self._head()
        if self._left is not None:
            self._left -= len(data)
        begun = perf_counter()
        try:
            async with asyncio.timeout(self._waiting.allowance_s):
                await self._send({"type": "http.response.body", "body": _flat(data), "more_body": True})
        except TimeoutError:
            raise TookTooLong from None
        self._waiting.passed(len(data), perf_counter() - begun)
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


def asgi_app(
    app: RsgiApp, observe: Observer | None = None, patience: Patience = USUAL
) -> Callable[[Message, Receive, Send], Awaitable[None]]:
    """An RSGI application as an ASGI one; http only, no lifespan. `observe` is told when a request is over."""
    turns = asyncio.Semaphore(REQUESTS_IN_FLIGHT_MAX)

    async def run(scope: Message, receive: Receive, send: Send) -> None:
        asked = _Scope(scope)
        await turns.acquire()
        protocol = _Protocol(asked.headers, receive, send, patience, turn := _Turn(turns))
        begun = perf_counter()
        try:
            await _run_app(app, scope, asked, protocol)
            turn.end()
            await _send_answer(protocol, send)
        except TookTooLong:
            log.debug("a client was let go: it did not take its answer")
        finally:
            turn.end()
            if observe is not None:
                protocol.exchange.seconds = perf_counter() - begun
                observe(asked, protocol.exchange)

    return run


async def _run_app(app: RsgiApp, scope: Message, asked: _Scope, protocol: _Protocol) -> None:
    target_chars = len(asked.raw_path) + len(asked.query_string)
    refused = refusal(scope.get("http_version", "1.1"), target_chars, asked.headers.items())
    if refused is not None:
        protocol.refuse(refused)
        return
    try:
        await app(asked, protocol)
    except BodyTooSlow as error:
        protocol.refuse(Refusal(error.code.status, str(error)))


async def _send_answer(protocol: _Protocol, send: Send) -> None:
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
