"""What we rely on Granian for: each of these would be a silent loss if it changed."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import ssl
import threading

import pytest

from qss.errors import Refused
from qss.s3.asgi import REQUESTS_IN_FLIGHT_MAX
from qss.s3.message import Response
from qss.s3.rsgi import head_of, send
from qss.s3.serve import listen, run, serve
from tests.harness.s3_server import memory_s3, self_signed, served

MIB = 1 << 20


class Probe:
    """An application that answers by path and remembers what it saw."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.event = threading.Event()

    async def __call__(self, scope, protocol) -> None:
        head = head_of(scope)
        if scope.path == "/put":
            self.seen.append(b"".join([chunk async for chunk in protocol]))
            self.event.set()
        elif scope.path.startswith("/stream"):
            await send(Response(200, stream=self._chunks(scope.path), length=1000 * MIB), "GET", protocol)
            self.event.set()
            return
        else:
            self.seen.append((head.method, head.path, head.query, head.headers.get("x-u")))
        protocol.response_bytes(200, [], b"ok")

    async def _chunks(self, path: str):
        from qss.errors import CorruptData

        for _ in range(1000):
            self.seen.append(MIB)
            yield bytes(MIB)
            if path == "/stream-damaged":
                raise CorruptData("found in the middle")


@pytest.fixture
def probe():
    return Probe()


@pytest.fixture
def port(probe):
    with served(probe) as found:
        yield found


def request(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(data + b"Host: a\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
        return answer


def test_paths_and_headers_come_as_they_are(port, probe) -> None:
    request(port, b"GET /a%2Fb//c/../d%25%C3%A9?x=%2F HTTP/1.1\r\nX-U: \xc3\xa4\r\nx-u: b\r\n")
    assert probe.seen == [("GET", "/a/b//c/../d%é", "x=%2F", "ä,b")]


def test_a_path_that_is_no_text_is_no_path(port, probe) -> None:
    request(port, b"GET /a%FF HTTP/1.1\r\n")
    assert probe.seen == [("GET", "", "", None)]


def test_a_body_cut_short_just_ends(port, probe) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"PUT /put HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
    assert probe.event.wait(10)
    assert probe.seen == [b"abc"]


def test_damage_in_mid_stream_breaks_the_connection(port) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/stream-damaged")
    answer = connection.getresponse()
    with pytest.raises(http.client.IncompleteRead) as caught:
        answer.read()
    assert len(caught.value.partial) <= MIB


def test_a_slow_reader_holds_the_stream_back_and_one_that_leaves_ends_it(port, probe) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        connection.recv(10)
        assert not probe.event.wait(0.5)
        assert len(probe.seen) < 100
    assert probe.event.wait(10)
    assert len(probe.seen) < 200


@pytest.mark.parametrize("secure", [False, True])
def test_idle_connections_keep_nobody_out(secure, tmp_path) -> None:
    """128 of them did, for half a minute."""
    tls = self_signed(tmp_path) if secure else None
    with memory_s3(tls) as server, contextlib.ExitStack() as stack:
        port = int(server.endpoint.rpartition(":")[2])
        for _ in range(2 * REQUESTS_IN_FLIGHT_MAX):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        if secure:
            connection = ssl.create_default_context(cafile=tls.certificate).wrap_socket(
                connection, server_hostname="localhost"
            )
        with connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 403"


def test_100_continue_waits_for_the_signature() -> None:
    with memory_s3() as server:
        address = server.endpoint.removeprefix("http://").split(":")
        with socket.create_connection((address[0], int(address[1]))) as connection:
            head = b"PUT /bucket/k HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
            connection.sendall(head)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 403 ")


def answer_to(connection: socket.socket, data: bytes) -> http.client.HTTPResponse:
    connection.sendall(data)
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    answer.read()
    return answer


def test_a_body_nobody_read_is_never_taken_for_the_next_request(port, probe) -> None:
    """boto3 waits for 100 Continue, gets the answer instead, and sends its next request on the same connection."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        answer = answer_to(
            connection, b"PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
        )
        assert answer.status == 200
        assert answer.getheader("connection") == "close"
        assert connection.recv(10) == b""
    with socket.create_connection(
        ("127.0.0.1", port)
    ) as connection:  # sent without waiting: taken, the connection lives
        for path in (b"/b", b"/c"):
            head = b"PUT " + path + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n"
            assert answer_to(connection, head + bytes(300_000)).status == 200
    assert [seen[:2] for seen in probe.seen] == [("PUT", "/a"), ("PUT", "/b"), ("PUT", "/c")]


def test_an_address_in_use_is_one_sentence(port) -> None:
    with pytest.raises(Refused, match=f"127.0.0.1:{port}"):
        listen("127.0.0.1", port)


def test_stop_lets_requests_finish_and_frees_the_port() -> None:
    async def main() -> None:
        stop, inside, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
        port: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def app(_, protocol) -> None:
            inside.set()
            await go_on.wait()
            protocol.response_bytes(200, [], b"finished")

        async def client() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", await port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            await inside.wait()
            stop.set()
            go_on.set()
            answer = await reader.read()
            writer.close()
            return answer

        serving = serve(app, ("127.0.0.1", 0), stop=stop, on_ready=lambda _, number: port.set_result(number))
        _, answer = await asyncio.gather(serving, client())
        assert answer.endswith(b"finished")
        listen("127.0.0.1", port.result()).close()

    run(main())
