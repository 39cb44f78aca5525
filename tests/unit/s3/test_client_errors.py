"""Servers that misbehave, and what the client makes of it: never wrong bytes, always the right kind of error."""

from __future__ import annotations

import errno
import functools
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio

from qss.errors import (
    AccessDenied,
    Busy,
    ConfigInvalid,
    CorruptData,
    ObjectMissing,
    PreconditionFailed,
    QssError,
    Refused,
    Retryable,
    Unreachable,
)
from qss.host import SystemClock
from qss.s3.answers import Answer, Peer, error_of
from qss.s3.client import ClientOptions, S3Client
from qss.s3.http1 import reason
from tests.harness.memory_store import body_of

PEER = Peer("http://h/b", "AKID")


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[S3Client]:
    """A client whose server answers each request with the same bytes and hangs up."""

    async def handler(stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = await stream.receive_some()
            if not piece:
                return
            head += piece
        await stream.send_all(answer)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        serving = functools.partial(trio.serve_tcp, host="127.0.0.1")
        listeners = await nursery.start(serving, handler, 0)
        port = listeners[0].socket.getsockname()[1]
        client = S3Client(
            f"http://127.0.0.1:{port}",
            "b",
            access_key="AKID",
            secret_key="secret",
            clock=SystemClock(),
            options=ClientOptions(connect_s_max=5, read_s_max=5),
        )
        yield client
        await client.aclose()
        nursery.cancel_scope.cancel()


def http(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    "answer",
    [
        http("206 Partial Content", b"abc", "Content-Range: bytes 2-4/9"),  # shorter than asked
        http("206 Partial Content", b"abcde", "Content-Range: bytes 2-6/9"),  # longer
        http("206 Partial Content", b"abcd", "Content-Range: bytes 3-6/9"),  # another place
        http("206 Partial Content", b"abcd"),  # says not which
        http("206 Partial Content", b"ab", "Content-Range: bytes 2-5/9", length=4),  # breaks off
        http("200 OK", b"0123456789"),  # ignores the range
        http("200 OK", b"0123"),
        http("416 Range Not Satisfiable"),
        b"HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
    ],
)
async def test_not_the_range_asked_for_is_corrupt(answer: bytes) -> None:
    async with answering(answer) as client:
        with pytest.raises(CorruptData):
            await client.get("k", 2, 6)


async def test_a_server_that_hangs_up_is_unreachable() -> None:
    async with answering(b"") as client:
        for call in (client.get("k"), client.head("k"), client.delete("k"), client.put("k", body_of(b"x"))):
            with pytest.raises(Unreachable):
                await call


async def test_a_server_that_speaks_no_http_is_unreachable() -> None:
    async with answering(b"SSH-2.0-OpenSSH\r\n") as client:
        with pytest.raises(Unreachable):
            await client.get("k")


@pytest.mark.parametrize("body", [b"", b"<html>", b"<a><IsTruncated>true</IsTruncated></a>",
    b"<a><Contents><Key>k</Key><Size>x</Size></Contents></a>",
    "<a><Contents><Key>k</Key><Size>\u00b2</Size></Contents></a>".encode(),
    b"<a><Contents><Key>k</Key><Size>" + b"9" * 5000 + b"</Size></Contents></a>",
    b"<a><Contents><Key>k</Key><Size>1</Size><LastModified>x</LastModified></Contents></a>"])  # fmt: skip
async def test_a_listing_that_is_none_is_corrupt(body: bytes) -> None:
    async with answering(http("200 OK", body)) as client:
        with pytest.raises(CorruptData):
            _ = [info async for info in client.list()]


async def test_busy_says_when_to_come_back() -> None:
    async with answering(http("503 Slow Down", b"", "Retry-After: 17")) as client:
        with pytest.raises(Busy) as caught:
            await client.put("k", body_of(b"x"))
        assert caught.value.retry_after_s == 17


async def test_silence_is_unreachable_after_the_deadline(autojump_clock) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    silent = S3Client(f"http://127.0.0.1:{port}", "b", access_key="a", secret_key="s", clock=SystemClock())
    with pytest.raises(Unreachable):
        await silent.get("k")
    await silent.aclose()
    await listener.aclose()


def xml(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>said</Message></Error>".encode()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "NoSuchKey", ObjectMissing),
        (404, "", ObjectMissing),
        (404, "NoSuchBucket", Refused),
        (403, "SignatureDoesNotMatch", AccessDenied),
        (403, "", AccessDenied),
        (400, "AuthorizationHeaderMalformed", AccessDenied),
        (412, "PreconditionFailed", PreconditionFailed),
        (409, "ConditionalRequestConflict", Busy),
        (400, "RequestTimeout", Busy),
        (500, "InternalError", Busy),
        (500, "ObjectDamaged", CorruptData),
        (503, "SlowDown", Busy),
        (429, "", Busy),
        (502, "", Busy),
        (504, "", Busy),
        (400, "BadDigest", Retryable),
        (400, "IncompleteBody", Retryable),
        (416, "InvalidRange", CorruptData),
        (507, "StorageFull", Refused),
        (507, "", Refused),
        (403, "QuotaExceeded", Refused),
        (301, "PermanentRedirect", Refused),
        (400, "InvalidArgument", Refused),
        (501, "NotImplemented", Refused),
    ],
)
def test_answers(status: int, code: str, kind: type[QssError]) -> None:
    error = error_of(Answer(status, {}, xml(code) if code else b"not xml"), "key", PEER)
    assert type(error) is kind
    assert "http://h/b" in str(error)


@pytest.mark.parametrize("url", ["", "host:9000", "ftp://h", "http://", "http://h/path", "http://h:x", "http://h?a"])
def test_endpoints_to_refuse(url: str) -> None:
    with pytest.raises(ConfigInvalid):
        S3Client(url, "b", access_key="a", secret_key="s", clock=SystemClock())


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_refused_connection_is_told_in_the_systems_words(scheme: str) -> None:
    """And not as "all attempts to connect to 127.0.0.1:1 failed (1 sub-exception)"."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        url = f"{scheme}://127.0.0.1:{taken.getsockname()[1]}"
        client = S3Client(url, "b", access_key="AKID", secret_key="secret", clock=SystemClock())
        with pytest.raises(Unreachable) as raised:
            await client.head("k")
        await client.aclose()
    assert str(raised.value) == f"{url}/b does not answer: Connection refused"


@pytest.mark.parametrize("how", ["from", "inside"])
def test_of_several_addresses_each_thing_they_said_is_told_once(how: str) -> None:
    refused = OSError(errno.ECONNREFUSED, "Error connecting to ('::1', 1)")
    tried = ExceptionGroup("all failed", [refused, OSError(errno.ENETUNREACH, "x"), refused, ValueError("odd")])
    error = httpx.ConnectError("all failed")
    if how == "from":
        error.__cause__ = OSError("all failed")
        error.__cause__.__cause__ = tried
    else:
        error.__context__ = tried
    assert reason(error) == "Connection refused; Network is unreachable; odd"


def test_without_a_group_the_first_words_are_told() -> None:
    silent = httpx.ConnectError("")
    silent.__cause__ = trio.BrokenResourceError()
    assert reason(silent) == "ConnectError"
    silent.__cause__.__cause__ = OSError(errno.ECONNRESET, "Connection reset by peer")
    assert reason(silent) == "[Errno 104] Connection reset by peer"
