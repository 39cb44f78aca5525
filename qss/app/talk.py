"""One call to a running process, from a program without a loop of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from qss.config import Settings
from qss.control.client import ControlClient
from qss.errors import Unreachable

OnProgress = Callable[[dict[str, Any]], None]


def call(socket: Path, method: str, on_progress: OnProgress | None = None, **params: Any) -> Any:
    """The method's result. Raises what it raised, or Unreachable."""

    async def go() -> Any:
        async with ControlClient(socket) as client:
            return await client.call(method, on_progress=on_progress, **params)

    return trio.run(go)


def call_mount(settings: Settings, method: str, on_progress: OnProgress | None = None, **params: Any) -> Any:
    """One call to the mount process of this file system. Raises Unreachable in words a person understands."""
    try:
        return call(settings.mount_socket, method, on_progress, **params)
    except Unreachable as error:
        raise Unreachable("the file system is not mounted: run qssctl mount") from error
