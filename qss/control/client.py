"""The calling side: one connection for each call under way, kept for the next one.

A cancelled call closes its connection, and so the server cancels its part. Every method of ours may be
sent twice (idempotent), so a call over a kept connection that turns out to be dead is sent again on a new one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import trio

from qss.control import address
from qss.control.messages import Failure, Json, LineSplitter, Progress, Reply, Request, decode, encode, error_of
from qss.errors import CorruptData, Unreachable

IDLE_MAX: Final = 8
"""Connections kept open for later calls."""

_RECEIVE_BYTES: Final = 64 * 1024

OnProgress = Callable[[dict[str, Json]], None]


class ControlClient:
    """Calls to one control socket. Cheap to make; connects when first used. Loop: trio."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[trio.SocketStream] = []
        self._ids = itertools.count(1)

    async def call(self, method: str, *, on_progress: OnProgress | None = None, **params: Json) -> Json:
        """The method's result. Raises Unreachable when nobody answers, else what the method raised."""
        request = Request(next(self._ids), method, params)
        while self._idle:
            try:
                return await self._exchange(self._idle.pop(), request, on_progress)
            except Unreachable:
                continue
        return await self._exchange(await address.connect(self._path), request, on_progress)

    async def _exchange(self, stream: trio.SocketStream, request: Request, on_progress: OnProgress | None) -> Json:
        keep = False
        try:
            await stream.send_all(encode(request))
            outcome = await self._outcome(stream, request, on_progress)
            keep = len(self._idle) < IDLE_MAX
        except (trio.BrokenResourceError, trio.ClosedResourceError, CorruptData) as error:
            raise Unreachable(f"the connection to {self._path} broke") from error
        finally:
            if keep:
                self._idle.append(stream)
            else:
                stream.socket.close()
        if isinstance(outcome, Failure):
            raise error_of(outcome)
        return outcome.result

    async def _outcome(
        self, stream: trio.SocketStream, request: Request, on_progress: OnProgress | None
    ) -> Reply | Failure:
        splitter = LineSplitter()
        while data := await stream.receive_some(_RECEIVE_BYTES):
            for line in splitter.feed(bytes(data)):
                match decode(line):
                    case (Reply(number) | Failure(number)) as outcome if number == request.id:
                        return outcome
                    case Progress(number, value) if number == request.id and on_progress is not None:
                        on_progress(value)
                    case _:
                        pass
        raise Unreachable(f"{self._path} closed the connection")

    def close(self) -> None:
        while self._idle:
            self._idle.pop().socket.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
