"""The serving side: a table of methods, any number of connections, any number of calls at once on each.

A connection that goes away cancels its calls. A line that is no message ends its connection.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from qss.control import address
from qss.control.messages import (
    BAD_PARAMS,
    INTERNAL,
    NO_SUCH_METHOD,
    Failure,
    Json,
    LineSplitter,
    Message,
    Progress,
    Reply,
    Request,
    decode,
    encode,
    failure_of,
)
from qss.errors import CorruptData, QssError

CALLS_MAX: Final = 64
"""Calls running at once on one connection; the next ones wait in the socket."""

_RECEIVE_BYTES: Final = 64 * 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """What a method gets: its parameters, and a way to say how far it is."""

    params: dict[str, Json]
    progress: Callable[[dict[str, Json]], Awaitable[None]]


Method = Callable[[Call], Awaitable[Json]]


class Calls:
    """Counts the calls under way at one server, until their answers are sent."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = trio.Event()

    async def none_left(self) -> None:
        """Return when no call is under way."""
        while self._count:
            await self._changed.wait()

    def add(self, change: int) -> None:
        self._count += change
        self._changed.set()
        self._changed = trio.Event()


async def serve(
    path: Path,
    methods: Mapping[str, Method],
    calls: Calls | None = None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer calls at the socket `path` until cancelled; then remove it, unless a successor listens there by then.
    `calls` counts what is under way."""
    listener = address.listen(path)
    ours = _made(path)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, _connection_handler(methods, calls or Calls()), [listener])
            task_status.started()
    finally:
        with contextlib.suppress(FileNotFoundError):
            if _made(path) == ours:
                path.unlink()


def _made(path: Path) -> tuple[int, int]:
    """Which file it is: numbers of inodes are used again."""
    found = path.stat()
    return found.st_ino, found.st_ctime_ns


def _connection_handler(methods: Mapping[str, Method], calls: Calls) -> Callable[[trio.SocketStream], Awaitable[None]]:
    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await serve_stream(stream, methods, calls)

    return handle


async def serve_stream(stream: trio.abc.Stream, methods: Mapping[str, Method], calls: Calls) -> None:
    """Answer calls on one connection until the other side is done with it."""
    splitter = LineSplitter()
    sending = trio.Lock()
    slots = trio.CapacityLimiter(CALLS_MAX)

    async def send(message: Message) -> None:
        async with sending:
            try:
                await stream.send_all(encode(message))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                nursery.cancel_scope.cancel()

    async def answer(request: Request, borrower: object) -> None:
        try:
            await send(await _outcome(request, methods, send))
        finally:
            slots.release_on_behalf_of(borrower)
            calls.add(-1)

    async with trio.open_nursery() as nursery:
        try:
            async for data in _chunks(stream):
                for line in splitter.feed(data):
                    request = decode(line)
                    if not isinstance(request, Request):
                        raise CorruptData("a client may only send requests")
                    borrower = object()
                    await slots.acquire_on_behalf_of(borrower)
                    calls.add(1)
                    nursery.start_soon(answer, request, borrower)
        except CorruptData as error:
            log.warning("control connection ended: %s", error)
        nursery.cancel_scope.cancel()


async def _outcome(
    request: Request, methods: Mapping[str, Method], send: Callable[[Message], Awaitable[None]]
) -> Reply | Failure:
    async def progress(value: dict[str, Json]) -> None:
        await send(Progress(request.id, value))

    method = methods.get(request.method)
    if method is None:
        return Failure(request.id, NO_SUCH_METHOD, f"no method {request.method}")
    try:
        return Reply(request.id, await method(Call(request.params, progress)))
    except QssError as error:
        return failure_of(request.id, error)
    except (KeyError, TypeError, ValueError) as error:
        log.exception("control call %s", request.method)
        return Failure(request.id, BAD_PARAMS, f"{request.method}: {type(error).__name__}: {error}")
    except Exception as error:  # one call that fails must not end the others
        log.exception("control call %s", request.method)
        return Failure(request.id, INTERNAL, f"{request.method}: {type(error).__name__}")


async def _chunks(stream: trio.abc.Stream) -> AsyncIterator[bytes]:
    while True:
        try:
            data = await stream.receive_some(_RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        if not data:
            return
        yield bytes(data)
