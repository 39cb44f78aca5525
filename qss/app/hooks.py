"""User hooks: executables named like an event, run with facts as one line of JSON on standard input. docs/hooks.md.

They never hold anything up: events queue in memory, and when too many wait the oldest are dropped, which the log says.
What must not be missed is a question to `qssctl status`, not a hook. At most PARALLEL_MAX hooks run at once and never
two of one event, so that each event's facts arrive in order; `close` runs when all others have ended.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import trio

from qss.config import HookOptions
from qss.errors import CorruptData
from qss.host import Clock

PARALLEL_MAX: Final = 4
OUTPUT_BYTES_MAX: Final = 16 * 1024
"""Of one hook's output that goes to the log; more is read and thrown away."""
OUTPUT_AFTER_S_MAX: Final = 1.0
"""After a hook has ended: how long its output may be held open by what it left running."""

EVENTS: Final[Mapping[str, Mapping[str, type]]] = {
    "ready": {"mountpoint": str},
    "segment-sealed": {"segments": list, "bytes": int, "unsafe_bytes": int},
    "segment-offloaded": {"segment": int, "missing": int},
    "segment-evicted": {"bytes": int, "segments": int, "stripes": int, "reasons": list},
    "segment-missing": {"segment": int, "stripe": int, "paths": list, "reason": str},
    "location-down": {"location": str},
    "location-up": {"location": str},
    "degraded": {"segment": int, "missing": int},
    "close": {"at_risk_bytes": int},
}
"""Every event, and the facts that come with it besides `event` and `time_ns`."""
LAST: Final = "close"

log = logging.getLogger(__name__)


def check_facts(event: str, facts: Mapping[str, Any]) -> None:
    """Raises CorruptData unless these are the facts of this event."""
    schema = EVENTS.get(event)
    if schema is None:
        raise CorruptData(f"no event {event}")
    if facts.keys() != schema.keys() or not all(isinstance(facts[name], kind) for name, kind in schema.items()):
        raise CorruptData(f"the facts of {event} are not {', '.join(schema)}")


class UserHooks:
    """`post` from anywhere on the loop; `run` in a task of its own."""

    def __init__(self, options: HookOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._queue: deque[tuple[str, bytes]] = deque()
        self._running: set[str] = set()
        self._changed = trio.Event()
        self._finishing = False
        self.failed = 0
        self.dropped = 0
        self.finished = trio.Event()

    def post(self, event: str, facts: Mapping[str, Any]) -> None:
        """Queue an event for its hook, if there is one. Never waits. Raises CorruptData for facts that are not those
        of the event."""
        check_facts(event, facts)
        if self._finishing or not os.access(self._options.folder / event, os.X_OK):
            return
        if len(self._queue) >= self._options.queue_max:
            oldest, _ = self._queue.popleft()
            self.dropped += 1
            if self.dropped & (self.dropped - 1) == 0:  # the 1st, 2nd, 4th, 8th … so that the log stays readable
                log.warning(
                    "%d events wait for their hooks; the oldest is dropped, %s (%d dropped so far)",
                    self._options.queue_max, oldest, self.dropped,
                )  # fmt: skip
        text = json.dumps({"event": event, "time_ns": self._clock.now_ns(), **facts})
        self._queue.append((event, text.encode() + b"\n"))
        self._changed.set()

    def finish(self) -> None:
        """No more events: `run` returns after those that wait."""
        self._finishing = True
        self._changed.set()

    async def run(self) -> None:
        """Run queued hooks until `finish`; then `finished` is set."""
        async with trio.open_nursery() as nursery:
            while self._queue or self._running or not self._finishing:
                self._changed = trio.Event()
                while (chosen := self._next()) is not None:
                    self._queue.remove(chosen)
                    self._running.add(chosen[0])
                    nursery.start_soon(self._run_one, *chosen)
                if self._queue or self._running or not self._finishing:
                    await self._changed.wait()
        self.finished.set()

    def _next(self) -> tuple[str, bytes] | None:
        """The oldest event whose hook may run now."""
        if len(self._running) >= PARALLEL_MAX:
            return None
        for position, (event, text) in enumerate(self._queue):
            if event not in self._running and (event != LAST or not (self._running or position)):
                return event, text
        return None

    async def _run_one(self, event: str, text: bytes) -> None:
        path = self._options.folder / event
        try:
            status = await self._run_process(path.name, text)
        except OSError as error:
            self.failed += 1
            log.warning("hook %s cannot be run: %s", path, error)
        else:
            if status is None:
                self.failed += 1
                log.warning("hook %s took longer than %g s and was stopped", path, self._options.time_limit_s)
            elif status != 0:
                self.failed += 1
                log.warning("hook %s ended with status %d", path, status)
        finally:
            self._running.discard(event)
            self._changed.set()

    async def _run_process(self, event: str, text: bytes) -> int | None:
        """Its exit status; None: the time limit was over, and it and its children are killed. Raises OSError."""
        process = await trio.lowlevel.open_process(
            [str(self._options.folder / event)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_feed, process.stdin, text)
                nursery.start_soon(_log_output, event, process.stdout)
                with trio.move_on_after(self._options.time_limit_s) as limit:
                    await process.wait()
                if limit.cancelled_caught:
                    nursery.cancel_scope.cancel()
                else:
                    nursery.cancel_scope.deadline = trio.current_time() + OUTPUT_AFTER_S_MAX
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # its own session: nobody else is in it
                with trio.CancelScope(shield=True):
                    await process.wait()
        return None if limit.cancelled_caught else process.returncode


async def _feed(stream: trio.abc.SendStream, text: bytes) -> None:
    async with stream:
        with contextlib.suppress(trio.BrokenResourceError):  # it need not read
            await stream.send_all(text)


async def _log_output(event: str, stream: trio.abc.ReceiveStream) -> None:
    """Everything it says, up to a bound, one log line for each of its lines."""
    kept = bytearray()
    try:
        async with stream:
            while data := await stream.receive_some():
                kept += data[: OUTPUT_BYTES_MAX - len(kept)]
    finally:
        for line in kept.decode(errors="replace").splitlines():
            log.info("hook %s: %s", event, line)
