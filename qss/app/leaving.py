"""When a process of ours ends: its parent is gone, a signal came, somebody asked. Imports nothing else of ours."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Final

import trio

ANSWERS_S_MAX: Final = 2.0
"""How long those who asked for the end may take to read the answer."""

log = logging.getLogger("qss.app.leaving")


async def leave_with_parent(scope: trio.CancelScope) -> None:
    """Standard input is a pipe that the mount process holds; its end, however it came, is ours."""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
        while await stream.receive_some(1024):
            pass
    log.info("the mount process is gone")
    scope.cancel()


async def leave_on_signal(scope: trio.CancelScope) -> None:
    """SIGTERM and SIGINT end everything in the scope."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            log.info("%s: leaving", signal.Signals(number).name)
            scope.cancel()


async def leave_on_request(scope: trio.CancelScope, asked: trio.Event) -> None:
    """Once it is set."""
    await asked.wait()
    scope.cancel()
