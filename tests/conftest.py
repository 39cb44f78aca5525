"""What holds for every test: examples are the same in every CI run; a clock that jumps waits for threads at work."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import settings

settings.register_profile("here", deadline=None)  # no time is asserted
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture
def autojump_clock(monkeypatch: pytest.MonkeyPatch) -> trio.testing.MockClock:
    """As pytest-trio's, but it does not jump while a worker thread is at work: to trio that looks idle."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    in_thread, at_work = trio.to_thread.run_sync, 0

    async def run_sync(*args: Any, **options: Any) -> Any:
        nonlocal at_work
        at_work += 1
        clock.autojump_threshold = math.inf
        try:
            return await in_thread(*args, **options)
        finally:
            at_work -= 1
            if not at_work:
                clock.autojump_threshold = 0

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    return clock
