"""User hooks: executables named like an event, run one after the other with facts as JSON on standard input.

They never hold anything up: events queue in memory, and when too many wait the newest are dropped with a line in the
log. What must not be missed is a question to `qssctl status`, not a hook.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
from collections.abc import Mapping
from typing import Any, Final

import trio

from qss.config import HookOptions
from qss.host import Clock

EVENTS: Final = frozenset(
    {
        "ready",
        "segment-sealed",
        "segment-offloaded",
        "segment-evicted",
        "segment-missing",
        "location-down",
        "location-up",
        "degraded",
        "close",
    }
)

log = logging.getLogger(__name__)


class UserHooks:
    """`post` from anywhere on the loop; `run` in a task of its own."""

    def __init__(self, options: HookOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._send, self._receive = trio.open_memory_channel[tuple[str, bytes]](options.queue_max)
        self.failed = 0
        self.dropped = 0
        self.finished = trio.Event()

    def post(self, event: str, facts: Mapping[str, Any] | None = None) -> None:
        """Queue an event for its hook, if there is one. Never waits, never raises."""
        assert event in EVENTS, event
        if not os.access(self._options.folder / event, os.X_OK):
            return
        text = json.dumps({"event": event, "time_ns": self._clock.now_ns(), **(facts or {})})
        try:
            self._send.send_nowait((event, text.encode() + b"\n"))
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self.dropped += 1
            log.warning("hook %s dropped: %d events wait already", event, self._options.queue_max)

    async def run(self) -> None:
        """Run queued hooks until `finish`; then `finished` is set."""
        async for event, text in self._receive:
            await self._run_one(event, text)
        self.finished.set()

    def finish(self) -> None:
        """No more events: `run` returns after those that wait."""
        self._send.close()

    async def _run_one(self, event: str, text: bytes) -> None:
        path = self._options.folder / event
        try:
            with trio.fail_after(self._options.time_limit_s):
                done = await trio.run_process(
                    [str(path)], stdin=text, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
        except trio.TooSlowError:
            self.failed += 1
            log.warning("hook %s took longer than %g s and was stopped", path, self._options.time_limit_s)
        except OSError as error:
            self.failed += 1
            log.warning("hook %s cannot be run: %s", path, error)
        else:
            if done.returncode != 0:
                self.failed += 1
                log.warning("hook %s ended with status %d", path, done.returncode)
