"""The head of an HTTP request and of a response, as values; what any HTTP server can fill in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from qss.s3.backend import Chunk
from qss.s3.errors import Code, S3Error
from qss.values import quick

Headers = tuple[tuple[str, str], ...]
"""Of an answer: lower-case names and values, in order."""


@quick
@dataclass(frozen=True, slots=True)
class RequestHead:
    """`path` is percent-decoded once, `query` as sent. Header names are lower-case; repeated ones joined by commas."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    secure: bool = False
    client: str = ""  # address of the other side, without its port

    def params(self) -> list[tuple[str, str]]:
        """Query parameters in order, decoded; one without "=" has the value ""."""
        return parse_query(self.query)


@quick
@dataclass(frozen=True, slots=True)
class Response:
    """`body` whole, or `stream` with exactly `length` bytes to come. To HEAD, `length` is told and nothing follows.

    `close` must be awaited once the response has been sent or given up.
    """

    status: int
    headers: Headers = ()
    body: Chunk = b""
    stream: AsyncIterator[Chunk] | None = None
    length: int | None = None
    close: Callable[[], Awaitable[None]] | None = None

    def and_headers(self, more: Headers) -> Response:
        """With these headers as well."""
        if not more:
            return self
        return Response(self.status, (*self.headers, *more), self.body, self.stream, self.length, self.close)


def any_begins(headers: Mapping[str, str], prefix: str | tuple[str, ...]) -> bool:
    """Whether there is a header whose name begins so."""
    for name in headers:  # noqa: SIM110 - a generator costs four times this, and every request comes here
        if name.startswith(prefix):
            return True
    return False


def parse_query(query: str) -> list[tuple[str, str]]:
    """Decode a raw query string. Raises S3Error for escapes that are not UTF-8."""
    if not query:
        return []
    pairs = []
    try:
        for piece in query.split("&"):
            if piece:
                name, _, value = piece.partition("=")
                pairs.append((unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict")))
    except UnicodeDecodeError:
        raise S3Error(Code.INVALID_URI) from None
    return pairs


def join_headers(items: list[tuple[str, str]]) -> dict[str, str]:
    """By lower-case name, repeated ones joined by commas, as SigV4 wants them."""
    joined: dict[str, str] = {}
    for raw_name, value in items:
        name = raw_name.lower()
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined
