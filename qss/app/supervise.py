"""Keep one child process running: start it again when it ends, with growing pauses.

The child holds the other end of a pipe as its standard input and leaves when that closes, so it never outlives us,
whatever ends us. `trio.Process` never kills by name, only the very child it started.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from qss.app.priority import step_back
from qss.app.running import last_words_path, write_whole

PAUSE_FIRST_S: Final = 0.1
PAUSE_MAX_S: Final = 10.0
STEADY_S: Final = 30.0
"""A child that has lived this long starts again at once."""
STOP_S_MAX: Final = 5.0
"""How long a child may take to leave when asked to."""

log = logging.getLogger(__name__)


def next_pause(pause_s: float, lived_s: float) -> float:
    """How long to wait before the next start, in seconds. Pure."""
    return PAUSE_FIRST_S if lived_s >= STEADY_S else min(2 * pause_s, PAUSE_MAX_S)


class Supervisor:
    """`run` in a task; `stop` ends the child in an orderly way, and then `run` returns."""

    def __init__(
        self, name: str, command: Sequence[str], pid_path: Path, nice: int = 0, first_words: bytes = b""
    ) -> None:
        """`pid_path`: a file with the process id of the child, for as long as there is one. `nice`: see priority.
        `first_words`: what each child finds on its standard input when it starts; less than a pipe holds."""
        self._name = name
        self._command = list(command)
        self._pid_path = pid_path
        self._nice = nice
        self._first_words = first_words
        self._child: trio.Process | None = None
        self._stopping = trio.Event()
        self._began_s = 0.0  # the child that runs, or ran last
        self._status: int | None = None  # of the child that ended last
        self._ends = 0  # since one lasted
        self.starts = 0

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None else None

    @property
    def trouble(self) -> str:
        """What is said of a child that does not last; empty: it does."""
        if not self._ends or (self._child is not None and trio.current_time() - self._began_s >= STEADY_S):
            return ""
        why = ""
        with suppress(OSError):
            why = last_words_path(self._pid_path).read_text(encoding="utf-8", errors="replace").strip()
        ended = f"the {self._name} process ended with status {self._status}"
        ended += f", {self._ends} times in a row" if self._ends > 1 else ""
        return f"{ended}, and is started again{f': {why}' if why else '; its log says why'}"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until `stop`. Reports started with the first start of the child."""
        pause_s = PAUSE_FIRST_S
        while not self._stopping.is_set():
            self._began_s = began = trio.current_time()
            self._status = await self._run_once(task_status)
            if self._stopping.is_set():
                return
            lasted = trio.current_time() - began >= STEADY_S
            self._ends = 1 if lasted else self._ends + 1
            log.warning("%s ended with status %s; it is started again in %.1f s", self._name, self._status, pause_s)
            with trio.move_on_after(pause_s):
                await self._stopping.wait()
            pause_s = next_pause(pause_s, trio.current_time() - began)

    async def _run_once(self, task_status: trio.TaskStatus[None]) -> int | None:
        self.starts += 1
        try:
            self._child = await trio.lowlevel.open_process(self._command, stdin=subprocess.PIPE, start_new_session=True)
        except OSError as error:
            log.error("%s cannot be started: %s", self._name, error)
            self._child = None
        if self._child is not None:
            step_back(self._child.pid, self._nice)
            write_whole(self._pid_path, f"{self._child.pid}\n")
        if self.starts == 1:
            task_status.started()
        if self._child is None:
            return None
        try:
            await self._say_first_words(self._child)
            return await self._child.wait()
        finally:
            if self._child.returncode is None:
                self._child.kill()
            if self._child.stdin is not None:
                with trio.CancelScope(shield=True):
                    await self._child.stdin.aclose()
            if self._stopping.is_set():
                self._pid_path.unlink(missing_ok=True)
            self._child = None

    async def _say_first_words(self, child: trio.Process) -> None:
        if self._first_words and child.stdin is not None:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # gone, or told to go: `wait` tells
                await child.stdin.send_all(self._first_words)

    async def stop(self) -> None:
        """Close the child's standard input, give it a moment, then kill it. Idempotent."""
        self._stopping.set()
        child = self._child
        if child is None:
            return
        if child.stdin is not None:
            await child.stdin.aclose()
        with trio.move_on_after(STOP_S_MAX) as scope:
            await child.wait()
        if scope.cancelled_caught:
            log.warning("%s does not leave and is killed", self._name)
            child.kill()
