"""One plain HTTP/1.1 exchange after another over kept connections to one server, on trio. The only importer of h11.

h11 reads and writes the heads, and whatever body comes without a length. Bodies with a length, ours and theirs, pass
beside it, out of and into the caller's memory (docs/adr/0035). Nothing is repeated here, no redirect is followed, no
environment is read.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final, cast

import h11
import trio

from qss.errors import CorruptData, Unreachable
from qss.limits import KIB, MIB
from qss.s3.message import join_headers
from qss.s3.store import Body

HEAD_READ_BYTES: Final = 16 * KIB
"""What one read takes while a head, or a body without a length, is awaited. h11 refuses heads beyond this."""
UNSENT_BYTES: Final = 1 * MIB
"""What the kernel takes from us beyond what is on its way. trio's 16 KiB wakes us sixty times as often."""
TURN_BYTES: Final = 2 * MIB
"""What one exchange sends or takes before others have a turn, if it need not wait. A turn of the loop for each call
costs as much as the call (docs/adr/0154)."""

_NO_BODY: Final = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class Origin:
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class HttpLimits:
    connect_s_max: float
    pause_s_max: float  # between two pieces, of either direction
    connections_max: int
    idle_s_max: float = 30.0  # a connection unused for longer is not used again


class Connection:
    """One connection. Nothing here waits."""

    def __init__(self, stream: trio.SocketStream) -> None:
        """Takes the stream's socket over."""
        self.socket: Final = socket.socket(fileno=stream.socket.detach())
        self.socket.setblocking(False)
        self.idle_since_s = 0.0

    @property
    def stale(self) -> bool:
        """Idle, it has nothing to say: what it says is that the server is done with it."""
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass  # so it says
        return True

    def close(self) -> None:
        trio.lowlevel.notify_closing(self.socket)
        self.socket.close()


class Reply:
    """Status and headers (names in lower case, repeated ones joined by commas), and the body as it comes."""

    def __init__(self, line: _Line, protocol: h11.Connection, head: h11.Response, method: str) -> None:
        self.status = head.status_code
        self.headers = join_headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers])
        self._line = line
        self._protocol: h11.Connection | None = None
        self._pending = b""  # received and not yet taken
        self._to_come: int | None = 0  # bytes of the body; None: it says so itself when it ends
        if method == "HEAD" or self.status in _NO_BODY:
            pass
        elif "transfer-encoding" not in self.headers and "content-length" in self.headers:
            self._to_come = int(self.headers["content-length"])  # h11 has checked it
            self._pending = protocol.trailing_data[0]
        else:
            self._protocol, self._to_come = protocol, None
        if self._protocol is None and len(protocol.trailing_data[0]) > (self._to_come or 0):
            raise line.broken("it sends more than it announced")
        closes = "close" in self.headers.get("connection", "").lower() or head.http_version < b"1.1"
        self._keep = not closes

    @property
    def to_come(self) -> int | None:
        """Bytes of the body not yet read; None: not announced."""
        return self._to_come

    @property
    def reusable(self) -> bool:
        """Has the body been read to its end, and may another request follow?"""
        return self._keep and self._to_come == 0 and not self._pending

    async def read_into(self, into: memoryview) -> int:
        """The next bytes of the body, at the front of `into`, not empty. 0: it has ended, or broken off while `to_come`
        says that more was announced. Raises Unreachable."""
        if not self._pending and self._protocol is not None:
            await self._read_framed(self._protocol)
        if self._pending:
            count = min(len(into), len(self._pending))
            into[:count] = self._pending[:count]
            self._pending = self._pending[count:]
        elif self._to_come:
            count = await self._line.receive(into[: self._to_come])
        else:
            return 0
        if self._to_come is not None:
            self._to_come -= count
        return count

    async def _read_framed(self, protocol: h11.Connection) -> None:
        """Body without a length: its next piece into `_pending`, or note its end."""
        event = await self._line.event(protocol)
        if isinstance(event, h11.Data):
            self._pending = bytes(event.data)
        else:
            self._protocol, self._to_come = None, 0
            self._keep = self._keep and not protocol.trailing_data[0] and protocol.their_state is h11.DONE


class _Line:
    """A connection during one exchange: deadlines, and what went wrong as Unreachable.

    Each call is tried first and waits only if it must; after TURN_BYTES without waiting others have their turn."""

    def __init__(self, connection: Connection, pause_s_max: float) -> None:
        self._socket = connection.socket
        self._pause_s_max = pause_s_max
        self._unwaited_bytes = 0

    def broken(self, why: object) -> Unreachable:
        return Unreachable(str(why) or type(why).__name__)

    async def send(self, data: bytes | memoryview) -> None:
        """All of it. Raises trio.BrokenResourceError: the answer may be there nevertheless."""
        rest = memoryview(data)
        while rest:
            try:
                count = self._socket.send(rest)
            except BlockingIOError:
                await self._until(trio.lowlevel.wait_writable, "took")
            except OSError as error:
                raise trio.BrokenResourceError from error
            else:
                rest = rest[count:]
                await self._passed(count)

    async def receive(self, into: memoryview) -> int:
        """How many bytes came; 0: the server has hung up."""
        while True:
            try:
                count = self._socket.recv_into(into)
            except BlockingIOError:
                await self._until(trio.lowlevel.wait_readable, "said")
            except OSError as error:
                raise self.broken(error) from error
            else:
                await self._passed(count)
                return count

    async def _until(self, ready: Callable[[socket.socket], Awaitable[None]], did: str) -> None:
        self._unwaited_bytes = 0
        try:
            with trio.fail_after(self._pause_s_max):
                await ready(self._socket)
        except trio.TooSlowError:
            raise self.broken(f"it {did} nothing for {self._pause_s_max:g} s") from None

    async def _passed(self, count: int) -> None:
        self._unwaited_bytes += count
        if self._unwaited_bytes >= TURN_BYTES:
            self._unwaited_bytes = 0
            await trio.lowlevel.checkpoint()

    async def event(self, protocol: h11.Connection) -> h11.Event:
        """The next thing h11 makes of what comes."""
        try:
            while True:
                event = protocol.next_event()
                if isinstance(event, h11.Event):
                    return event
                if event is not h11.NEED_DATA:
                    raise self.broken("it goes on after its answer")
                buffer = bytearray(HEAD_READ_BYTES)
                count = await self.receive(memoryview(buffer))
                protocol.receive_data(bytes(buffer[:count]))
        except h11.RemoteProtocolError as error:
            raise self.broken(f"it does not speak HTTP: {error}") from error


class Http:
    """Connections to one server, as many as are needed at once, up to a limit."""

    def __init__(self, origin: Origin, limits: HttpLimits) -> None:
        self._origin = origin
        self._limits = limits
        self._room = trio.Semaphore(limits.connections_max)
        self._idle: list[Connection] = []  # least recently used first
        self._closed = False

    def close(self) -> None:
        """Close what is idle now, and the others when they are done."""
        self._closed = True
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    @asynccontextmanager
    async def exchange(
        self, method: str, target: bytes, headers: Mapping[str, str], body: Body | None
    ) -> AsyncIterator[Reply]:
        """Send a request; the reply, whose body can be read inside. `headers` hold Host, and Content-Length if there is
        a body. Raises Unreachable when the server cannot be reached, breaks off, is silent or speaks no HTTP;
        CorruptData when the body to send is not as long as it says; and what reading that body does."""
        await self._come_in()
        try:
            connection = self._reused() or await self._connect()
            reply: Reply | None = None
            try:
                line = _Line(connection, self._limits.pause_s_max)
                reply = await _send(line, method, target, headers, body)
                yield reply
            finally:
                self._put_back(connection, reply is not None and reply.reusable)
        finally:
            self._room.release()

    async def _come_in(self) -> None:
        """Wait only if there is no room: entering a semaphore always costs a turn of the loop."""
        try:
            self._room.acquire_nowait()
        except trio.WouldBlock:
            await self._room.acquire()

    def _reused(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            young = trio.current_time() - connection.idle_since_s <= self._limits.idle_s_max
            if young and not connection.stale:
                return connection
            connection.close()
        return None

    def _put_back(self, connection: Connection, reusable: bool) -> None:
        if reusable and not self._closed:
            connection.idle_since_s = trio.current_time()
            self._idle.append(connection)
        else:
            connection.close()

    async def _connect(self) -> Connection:
        origin = self._origin
        try:
            with trio.fail_after(self._limits.connect_s_max):
                stream = await trio.open_tcp_stream(origin.host, origin.port)
        except trio.TooSlowError:
            raise Unreachable(f"no connection within {self._limits.connect_s_max:g} s") from None
        except OSError as error:
            raise Unreachable(reason(error)) from error
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        return Connection(stream)


def reason(error: BaseException) -> str:
    """The first words in the chain of causes: httpx wraps trio, which wraps what the system said. Of a connection that
    no address took, what the system said of each: trio keeps that in a group, whose own words are only a count."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    for each in chain:
        if isinstance(each, ExceptionGroup):
            return "; ".join(dict.fromkeys(map(_system_words, each.exceptions)))
    return next(filter(None, map(str, chain)), type(error).__name__)


def _system_words(error: Exception) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)


async def _send(line: _Line, method: str, target: bytes, headers: Mapping[str, str], body: Body | None) -> Reply:
    protocol = h11.Connection(h11.CLIENT)  # one for each exchange: it never hears how the bodies ended
    head = protocol.send(h11.Request(method=method, target=target, headers=list(headers.items())))
    assert head is not None
    try:
        await line.send(head)
        if body is not None:
            await _send_body(line, body)
    except trio.BrokenResourceError as error:  # hung up in the middle; perhaps after saying why
        try:
            return await _reply(line, protocol, method)
        except Unreachable:
            raise line.broken(error.__cause__ or error) from error
    return await _reply(line, protocol, method)


async def _send_body(line: _Line, body: Body) -> None:
    sent = 0
    async with aclosing(cast("AsyncGenerator[bytes | memoryview, None]", body.chunks())) as chunks:
        async for chunk in chunks:
            sent += len(chunk)
            if sent > body.length:
                break
            if chunk:
                await line.send(chunk)
    if sent != body.length:
        raise CorruptData(f"a body of {body.length} bytes is not as long as it says")


async def _reply(line: _Line, protocol: h11.Connection, method: str) -> Reply:
    while True:
        event = await line.event(protocol)
        if isinstance(event, h11.Response):
            return Reply(line, protocol, event, method)
        if not isinstance(event, h11.InformationalResponse):
            raise line.broken("it hung up without an answer")
