"""Exchanges over kept connections, against servers that say exactly what each test wants."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from qss.errors import CorruptData, Unreachable
from qss.s3.http1 import Http, HttpLimits, Origin, Reply
from qss.s3.store import Body
from tests.harness.memory_store import body_of

HEADERS = {"host": "h"}


class Server:
    """Takes connections; `talk` gets each with the number of connections so far."""

    def __init__(self, talk: Callable[[trio.SocketStream, int], Coroutine[None, None, None]]) -> None:
        self.connections = 0
        self._talk = talk

    async def handle(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        with contextlib.suppress(trio.BrokenResourceError):
            await self._talk(stream, self.connections)


@asynccontextmanager
async def talking(server: Server, **limits: float) -> AsyncIterator[Http]:
    async with trio.open_nursery() as nursery:
        serving = functools.partial(trio.serve_tcp, host="127.0.0.1")
        listeners = await nursery.start(serving, server.handle, 0)
        port = listeners[0].socket.getsockname()[1]
        given = {"connect_s_max": 5, "pause_s_max": 5, "connections_max": 2, **limits}
        http = Http(Origin("127.0.0.1", port), HttpLimits(**given))
        yield http
        http.close()
        nursery.cancel_scope.cancel()


async def request_of(stream: trio.SocketStream) -> bytes:
    """The head of the next request; empty when the client is gone."""
    head = b""
    while b"\r\n\r\n" not in head:
        piece = await stream.receive_some()
        if not piece:
            return b""
        head += piece
    return head


def always(answer: bytes) -> Server:
    async def talk(stream: trio.SocketStream, _number: int) -> None:
        while await request_of(stream):
            await stream.send_all(answer)

    return Server(talk)


async def body(reply: Reply) -> bytes:
    memory, found = memoryview(bytearray(7)), b""
    while count := await reply.read_into(memory):
        found += memory[:count]
    return found


async def ask(http: Http, method: str = "GET", sent: Body | None = None) -> tuple[int, bytes]:
    headers = HEADERS if sent is None else {**HEADERS, "content-length": str(sent.length)}
    async with http.exchange(method, b"/x", headers, sent) as reply:
        return reply.status, await body(reply)


SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n"
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED


@pytest.mark.parametrize("answer", [SIZED, CHUNKED, CONTINUED])
async def test_one_connection_carries_one_exchange_after_another(answer: bytes) -> None:
    server = always(answer)
    async with talking(server) as http:
        for _ in range(3):
            assert await ask(http) == (200, b"0123456789")
        assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        SIZED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        SIZED.replace(b"1.1", b"1.0"),
        CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: Close\r\n\r\n", 1),
        CHUNKED + b"more",  # nobody asked for it
    ],
)
async def test_a_server_that_wants_to_close_is_not_asked_again(answer: bytes) -> None:
    server = always(answer)
    async with talking(server) as http:
        for _ in range(2):
            assert await ask(http) == (200, b"0123456789")
        assert server.connections == 2


async def test_a_body_left_unread_never_becomes_the_next_answer() -> None:
    server = always(SIZED)
    async with talking(server) as http:
        async with http.exchange("GET", b"/x", HEADERS, None) as reply:
            assert await reply.read_into(memoryview(bytearray(4))) == 4
        assert await ask(http) == (200, b"0123456789")
        assert server.connections == 2


async def test_head_has_no_body_and_keeps_its_length() -> None:
    server = always(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
    async with talking(server) as http:
        for _ in range(2):
            async with http.exchange("HEAD", b"/x", HEADERS, None) as reply:
                assert reply.headers["content-length"] == "10"
                assert await body(reply) == b""
        assert server.connections == 1


async def test_a_body_without_a_length_ends_with_the_connection() -> None:
    async def talk(stream: trio.SocketStream, _number: int) -> None:
        await request_of(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        await stream.aclose()

    async with talking(Server(talk)) as http:
        assert await ask(http) == (200, b"all of it")


async def test_a_connection_the_server_closed_meanwhile_is_not_used() -> None:
    closed = trio.Event()

    async def talk(stream: trio.SocketStream, number: int) -> None:
        await request_of(stream)
        await stream.send_all(SIZED)
        if number == 1:
            await stream.aclose()
            closed.set()
        else:
            await request_of(stream)

    server = Server(talk)
    async with talking(server) as http:
        assert await ask(http) == (200, b"0123456789")
        await closed.wait()
        assert await ask(http) == (200, b"0123456789")
        assert server.connections == 2


async def test_an_old_connection_is_not_used(autojump_clock) -> None:
    server = always(SIZED)
    async with talking(server) as http:
        await ask(http)
        await trio.sleep(31)
        await ask(http)
        assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n0123",  # more than announced
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n0123",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,  # a head without end
        CHUNKED.replace(b"6\r\n", b"zz\r\n"),
    ],
)
async def test_nonsense_is_unreachable_and_not_asked_again(answer: bytes) -> None:
    server = always(answer)
    async with talking(server) as http:
        with pytest.raises(Unreachable):
            await ask(http)
        with pytest.raises(Unreachable):
            await ask(http)
        assert server.connections == 2


async def test_breaking_off_shows_in_what_is_still_to_come() -> None:
    async def talk(stream: trio.SocketStream, _number: int) -> None:
        await request_of(stream)
        await stream.send_all(SIZED[:-3])
        await stream.aclose()

    async with talking(Server(talk)) as http, http.exchange("GET", b"/x", HEADERS, None) as reply:
        assert await body(reply) == b"0123456"
        assert reply.to_come == 3


async def test_a_refusal_before_the_body_was_read_is_the_answer() -> None:
    async def talk(stream: trio.SocketStream, _number: int) -> None:
        await request_of(stream)
        await stream.send_all(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        await stream.send_eof()
        while await stream.receive_some():
            pass

    async with talking(Server(talk)) as http:
        assert await ask(http, "PUT", body_of(bytes(5_000_000))) == (403, b"no")


async def test_hanging_up_in_the_middle_of_our_body_is_unreachable() -> None:
    async def talk(stream: trio.SocketStream, _number: int) -> None:
        await request_of(stream)
        await stream.aclose()

    async with talking(Server(talk)) as http:
        with pytest.raises(Unreachable):
            await ask(http, "PUT", body_of(bytes(50_000_000)))


@pytest.mark.parametrize("length", [9, 11])
async def test_a_body_of_another_length_than_it_says_is_never_finished(length: int) -> None:
    got: list[bytes] = []

    async def talk(stream: trio.SocketStream, _number: int) -> None:
        got.append(b"".join([piece async for piece in stream]))

    async with talking(Server(talk)) as http:
        with pytest.raises(CorruptData):
            await ask(http, "PUT", Body(length, body_of(b"0123456789").chunks))
        await trio.testing.wait_all_tasks_blocked(0.01)
    assert len(got[0].partition(b"\r\n\r\n")[2]) < length


async def test_silence_has_an_end_in_both_directions(autojump_clock) -> None:
    async def talk(_stream: trio.SocketStream, _number: int) -> None:
        await trio.sleep_forever()

    async with talking(Server(talk), pause_s_max=3) as http:
        for sent in (None, body_of(bytes(50_000_000))):
            began = trio.current_time()
            with pytest.raises(Unreachable, match="3 s"):
                await ask(http, "PUT" if sent else "GET", sent)
            assert trio.current_time() - began == pytest.approx(3, abs=1)


async def test_no_more_connections_than_allowed() -> None:
    inside = 0
    most = 0

    async def talk(stream: trio.SocketStream, _number: int) -> None:
        nonlocal inside, most
        while await request_of(stream):
            inside += 1
            most = max(most, inside)
            await trio.testing.wait_all_tasks_blocked(0.001)
            inside -= 1
            await stream.send_all(SIZED)

    server = Server(talk)
    async with talking(server) as http, trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(ask, http)
    assert most <= server.connections <= 2


async def test_a_header_that_would_be_two_is_never_sent() -> None:
    async with talking(always(SIZED)) as http:
        with pytest.raises(Exception, match=r"[Ii]llegal"):
            async with http.exchange("GET", b"/x", {**HEADERS, "a": "b\r\nc: d"}, None):
                pytest.fail("must not get here")
