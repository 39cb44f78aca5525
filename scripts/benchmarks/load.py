"""Load on an S3 server that costs little itself: requests are signed beforehand, one thread, raw sockets, kept alive.

Each connection has one request under way. What comes back is checked for its status and its length, nothing else.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from qss.s3.message import RequestHead
from qss.s3.sigv4 import Credentials, Payload, SigningKeys, sign

_RECEIVE_BYTES = 1024 * 1024
_SILENCE_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """An S3 server, and who asks."""

    host: str
    port: int
    credentials: Credentials
    region: str = "us-east-1"


@dataclass(frozen=True, slots=True)
class Request:
    """As it goes over the wire. `expect`: bytes of the answer's body; None: whatever comes."""

    head: bytes
    body: bytes = b""
    expect: int | None = None


def signed(target: Target, keys: SigningKeys, method: str, path: str, request: Request) -> Request:
    """The request with a head signed now, of method and path. The body is not part of what is signed."""
    headers = {
        "host": f"{target.host}:{target.port}",
        "user-agent": "scripts-bench",
        "accept-encoding": "identity",
        "x-amz-content-sha256": Payload.UNSIGNED.value,
    }
    asked = RequestHead(method, path, headers=headers)
    more, _ = sign(asked, target.credentials, target.region, time.time_ns(), keys)
    lines = {**headers, **more, **({"content-length": str(len(request.body))} if method == "PUT" else {})}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return Request(f"{method} {quote(path)} HTTP/1.1\r\n{text}\r\n".encode(), request.body, request.expect)


@dataclass(slots=True)
class Outcome:
    wall_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)

    def quantile_ms(self, share: float) -> float:
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)]


class _Connection:
    """One request after another; knows where the answer ends."""

    def __init__(self, target: Target, requests: Iterator[Request], outcome: Outcome) -> None:
        self._target = target
        self._requests = requests
        self._outcome = outcome
        self._buffer = bytearray(_RECEIVE_BYTES)
        self._request = Request(b"")
        self.socket = self._connect()

    def _connect(self) -> socket.socket:
        connection = socket.create_connection((self._target.host, self._target.port), _SILENCE_S_MAX)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def begin(self) -> bool:
        """Send the next request; False: there is none."""
        following = next(self._requests, None)
        if following is None:
            return False
        self._request, self._begun_s = following, time.perf_counter()
        self._head, self._left = b"", -1
        # Blocking: whoever listens takes the whole request before it answers.
        self.socket.sendall(following.head + following.body if len(following.body) < 65536 else following.head)
        if len(following.body) >= 65536:
            self.socket.sendall(following.body)
        return True

    def receive(self) -> bool:
        """Take what is there. True: the answer is whole."""
        count = self.socket.recv_into(self._buffer)
        if not count:
            raise RuntimeError(f"hung up in the middle of an answer: {self._head[:200]!r}")
        if self._left >= 0:
            self._left -= count
        else:
            self._head += bytes(self._buffer[:count])
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return False
            self._left = self._length(end) - (len(self._head) - end - 4)
        if self._left > 0:
            return False
        self._outcome.latencies_s.append(time.perf_counter() - self._begun_s)
        if b"\nconnection: close" in self._head.lower() or self._head.startswith(b"HTTP/1.0"):
            self.socket.close()
            self.socket = self._connect()
        return True

    def _length(self, end: int) -> int:
        """Bytes of the body that this head announces."""
        head = self._head[:end].lower() + b"\r\n"
        status = head.split(b" ", 2)[1]
        at = head.find(b"\r\ncontent-length:")
        length = 0 if at < 0 else int(head[at + 17 : head.index(b"\r\n", at + 2)])
        expect = self._request.expect
        if status[:1] != b"2" or (expect is not None and length != expect):
            raise RuntimeError(f"{self._request.head[:80]!r} answered {self._head[:400]!r}")
        return length


def drive(target: Target, requests: Sequence[Request] | Iterable[Request], connections: int) -> Outcome:
    """Send all, over so many connections. Raises RuntimeError for an answer that is not the one expected."""
    outcome = Outcome()
    coming = iter(requests)
    with selectors.DefaultSelector() as selector:
        lines = [_Connection(target, coming, outcome) for _ in range(connections)]
        try:
            begun_s = time.perf_counter()
            busy = 0
            for line in lines:
                if line.begin():
                    selector.register(line.socket, selectors.EVENT_READ, line)
                    busy += 1
            while busy:
                ready = selector.select(_SILENCE_S_MAX)
                if not ready:
                    raise RuntimeError("no answer")
                for key, _ in ready:
                    line = key.data
                    if not line.receive():
                        continue
                    if key.fileobj is not line.socket:
                        selector.unregister(key.fileobj)
                        selector.register(line.socket, selectors.EVENT_READ, line)
                    if not line.begin():
                        selector.unregister(line.socket)
                        busy -= 1
            outcome.wall_s = time.perf_counter() - begun_s
        finally:
            for line in lines:
                line.socket.close()
    return outcome
