"""Slow clients and very many of them: each has its end, memory has a bound, and others are answered meanwhile.

Bounds: qss/s3/patience.py. The node here waits two seconds where others wait 30 and 60.
"""

from __future__ import annotations

import resource
import socket
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from qss.s3.sigv4 import Credentials
from qss.trove.testing import TroveServer
from tests.harness.hostile import WAIT_S_MAX, Answer, Site, patiently, read_answer
from tests.harness.waiting import STEP_S

pytestmark = pytest.mark.live

CLIENT_WAIT_S = 2
CONNECTIONS = 10_000
FILES_MORE = 1_500  # what the node keeps back, and what it and the test have open besides
BYTES_A_CONNECTION = 48 * 1024
OBJECT_BYTES = 64 << 20
KIB = 1024


def running(folder: Path, *, wait: bool) -> Iterator[Site]:
    config = folder / "trove.toml"
    config.write_text(f'client_wait = "{CLIENT_WAIT_S}s"\n' if wait else "")
    with TroveServer(extra=("--config", str(config)), access_key="ROOTKEY") as server:
        site = Site(server, {"root": Credentials("ROOTKEY", server.secret_key)})
        assert site.ask("root", "PUT", "/bucket").status == 200
        yield site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """With little patience."""
    yield from running(tmp_path_factory.mktemp("crowd"), wait=True)


def connected(site: Site, *, receive_bytes: int | None = None, front: str = "s3") -> socket.socket:
    made = socket.socket()
    if receive_bytes is not None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    made.settimeout(WAIT_S_MAX)
    made.connect(("127.0.0.1", site.port(front)))
    return made


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes; fails when it does not."""
    found = b""
    try:
        while piece := connection.recv(65_536):
            found += piece
    except ConnectionResetError:
        pass
    return found


def drip(connection: socket.socket, piece: bytes) -> bytes:
    """Send a piece twice a second until the server has enough; what it has said."""
    connection.settimeout(0.5)
    for _ in range(int(2 * WAIT_S_MAX)):
        try:
            connection.sendall(piece)
            said = connection.recv(65_536)
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            return b""
        connection.settimeout(WAIT_S_MAX)
        return said and said + rest(connection)
    raise AssertionError("the server waits for ever")


def told(site: Site, request: bytes, then: Callable[[socket.socket], bytes] = rest, *, front: str = "s3") -> Answer:
    """What is answered on a connection of its own. Once more where the server let us go before it heard a word."""

    def ask() -> Answer:
        with closing(connected(site, front=front)) as connection:
            try:
                connection.sendall(request)
            except (ConnectionResetError, BrokenPipeError):
                return read_answer(b"")
            return read_answer(then(connection))

    return patiently(ask, but="")


def slow_put(site: Site, size: int = 100_000) -> bytes:
    """The head of a good put, and the first bytes of its body."""
    wire = site.signed("root", "PUT", "/bucket/slow", body=b"x" * size, payload="UNSIGNED-PAYLOAD")
    wire.body = b"x"
    return wire.bytes()


def test_a_client_that_says_nothing_is_let_go(site: Site) -> None:
    with closing(connected(site)) as connection:
        assert rest(connection) == b""


def test_a_head_that_drips_is_let_go(site: Site) -> None:
    with closing(connected(site)) as connection:
        connection.sendall(b"GET /bucket/k HTTP/1.1\r\nHost: a\r\n")
        assert b"200" not in drip(connection, b"X-A: b\r\n")


def test_a_kept_connection_that_is_idle_is_let_go(site: Site) -> None:
    wire = site.signed("root", "GET", "/bucket").bytes().replace(b"Connection: close\r\n", b"")
    assert told(site, wire).status == 200


def test_a_body_that_stops_is_answered_and_let_go(site: Site) -> None:
    answer = told(site, slow_put(site))
    assert (answer.status, answer.code) == (400, "RequestTimeout")
    assert answer.header("connection") == "close"


def test_a_body_that_drips_is_answered_and_let_go(site: Site) -> None:
    answer = told(site, slow_put(site), lambda connection: drip(connection, b"x"))
    assert (answer.status, answer.code) == (400, "RequestTimeout")
    assert site.ask("root", "HEAD", "/bucket/slow").status == 404, "nothing of it is there"


def test_a_body_for_the_admin_api_that_stops_is_let_go(site: Site) -> None:
    request = b"POST /users HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{"
    assert told(site, request, front="admin").status == 400


def test_an_answer_that_nobody_takes_is_broken_off(site: Site) -> None:
    """Longer than what the system's buffers of both sides take."""
    put = site.ask("root", "PUT", "/bucket/long", body=bytes(OBJECT_BYTES))
    assert put.status == 200
    with closing(connected(site, receive_bytes=4096)) as connection:
        connection.sendall(site.signed("root", "GET", "/bucket/long").bytes())
        _until_gone(connection.getsockname()[1], site.port())
        assert len(rest(connection)) < OBJECT_BYTES


def _until_gone(client_port: int, port: int) -> None:
    """Until the server's side of a connection is no longer established."""
    row = f"0100007F:{port:04X} 0100007F:{client_port:04X} 01"
    end = time.monotonic() + WAIT_S_MAX
    while row in Path("/proc/net/tcp").read_text():
        assert time.monotonic() < end, "the connection is still there"
        time.sleep(STEP_S)


def test_more_slow_bodies_than_requests_in_flight_keep_nobody_out(site: Site) -> None:
    """They have given their turn away: good requests pass while all of them wait."""
    with ExitStack() as stack:
        slow = [stack.enter_context(closing(connected(site))) for _ in range(300)]
        for connection in slow:
            connection.sendall(slow_put(site))
        assert site.ask("root", "PUT", "/bucket/good", body=b"x").status == 200
        assert site.ask("root", "GET", "/bucket/good").body == b"x"


def anonymous_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def test_ten_thousand_open_connections(tmp_path: Path) -> None:
    """Each has sent half a head. Memory stays bounded, good requests are answered."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CONNECTIONS + FILES_MORE:
        warnings.warn(f"10,000 CONNECTIONS NOT TRIED: no more than {hard} open files are allowed", stacklevel=1)
        pytest.skip(f"the system allows {hard} open files; {CONNECTIONS + FILES_MORE} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    slow: list[socket.socket] = []
    try:
        for site in running(tmp_path, wait=False):
            before = anonymous_kib(site.server.pid)
            for _ in range(CONNECTIONS):
                slow.append(connected(site))
                slow[-1].sendall(b"GET /bucket/k HTTP/1.1\r\nHost: a\r\nX-A: ")
            for number in range(20):
                assert site.ask("root", "PUT", f"/bucket/{number}", body=b"good").status == 200
                assert site.ask("root", "GET", f"/bucket/{number}").body == b"good"
            grown = anonymous_kib(site.server.pid) - before
            assert grown * KIB < CONNECTIONS * BYTES_A_CONNECTION
            for connection in slow:  # with a reset: no port waits for what may still be under way
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()
            assert site.ask("root", "GET", "/bucket/0").body == b"good"
    finally:
        for connection in slow:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
