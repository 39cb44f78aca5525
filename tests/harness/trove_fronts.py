"""A node with its front doors, asked without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from qss.app.trove_fronts import Fronts
from qss.host import Host, SystemClock
from qss.s3.asgi import asgi_app
from qss.trove.access_log import AccessLog
from qss.trove.credentials import Credentials
from qss.trove.meters import Meters
from qss.trove.node import Node, NodeOptions
from qss.trove.watching import Watching

ADMIN_TOKEN = "the-admin-token"


class SetClock(SystemClock):
    """Goes when told."""

    def __init__(self) -> None:
        self.ns = super().now_ns()

    def now_ns(self) -> int:
        return self.ns

    def go(self, seconds: float) -> None:
        self.ns += int(seconds * 1e9)


@dataclass
class World:
    node: Node
    fronts: Fronts
    clock: SetClock
    watching: Watching
    meters: Meters

    def client(self, front: str, **headers: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(asgi_app(self.fronts.apps()[front], self.watching.observer(front)))
        return httpx.AsyncClient(transport=transport, base_url=f"http://{front}.test", headers=headers)

    async def admin(self, method: str, path: str, body: Any = None) -> httpx.Response:
        async with self.client("admin", authorization=f"Bearer {ADMIN_TOKEN}") as client:
            return await client.request(method, path, json=body)


def with_fronts(directory: Path, work: Callable[[World], Awaitable[None]], log: Path | None = None) -> None:
    """Run `work` with an open node."""

    async def all_of_it() -> None:
        clock = SetClock()
        node = Node(NodeOptions(data=(directory,), host=Host(clock=clock)))
        try:
            access_log = AccessLog(log, clock) if log is not None else None
            meters = Meters(clock)
            watching = Watching(meters, access_log)
            fronts = Fronts(node, Credentials("AKROOT", "secret-key", ADMIN_TOKEN), watching)
            await work(World(node, fronts, clock, watching, meters))
            watching.close()
        finally:
            await node.aclose()

    asyncio.run(all_of_it())
