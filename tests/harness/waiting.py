"""Waiting for what other tasks and threads bring about."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

WAIT_S_MAX = 120.0
STEP_S = 0.01


async def until(condition: Callable[[], object], wait_s: float = WAIT_S_MAX) -> None:
    """Until it holds; fails after `wait_s` real seconds: a clock that jumps runs far ahead of a thread at work."""
    end = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < end, "what was waited for did not come true"
        await trio.sleep(STEP_S)
