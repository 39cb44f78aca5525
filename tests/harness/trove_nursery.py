"""Troves that start in a moment: forked from a process that has the program loaded, and killed like any other.

A thousand kills are a thousand starts, and three quarters of a start are Python reading modules.

`python -m tests.harness.trove_nursery` is that process: for each line {"argv", "environ", "out"} it forks a child which
runs the command line with its standard output in the fifo `out`, and answers with the child's pid.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import traceback
from io import FileIO
from pathlib import Path
from typing import Any, cast

from qss.trove.testing import TroveServer


class Child:
    """As much of a Popen as `TroveServer` uses, for a process that is not our child."""

    def __init__(self, pid: int, stdout: FileIO) -> None:
        self.pid = pid
        self.stdout = stdout
        self._handle = os.pidfd_open(pid)

    def send_signal(self, number: int) -> None:
        signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> None:
        if self._handle < 0:
            return
        if not select.select([self._handle], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("trove", timeout or 0)
        os.close(self._handle)
        self._handle = -1


class Nursery:
    """The loaded process. `directory`: for fifos."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        command = [sys.executable, "-m", "tests.harness.trove_nursery"]
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root)
        self._count = 0

    def spawn(self, argv: list[str], environ: dict[str, str]) -> Child:
        self._count += 1
        out = self._directory / f"out-{self._count}"
        os.mkfifo(out)
        reading = FileIO(os.open(out, os.O_RDONLY | os.O_NONBLOCK), "rb")
        os.set_blocking(reading.fileno(), True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"argv": argv, "environ": environ, "out": str(out)}).encode() + b"\n")
        self._process.stdin.flush()
        child = Child(int(self._process.stdout.readline()), reading)
        out.unlink()
        return child

    def close(self) -> None:
        self._process.communicate()


class NursedTrove(TroveServer):
    """A `TroveServer` that is forked, not executed."""

    def __init__(self, data: Path, nursery: Nursery, **options: Any) -> None:
        super().__init__(data, **options)
        self._nursery = nursery

    def _launch(self, arguments: list[str], environ: dict[str, str]) -> subprocess.Popen[bytes]:
        return cast("subprocess.Popen[bytes]", self._nursery.spawn(arguments, environ))


def _raise_them() -> None:
    import qss.app.trove  # noqa: F401 - what a start would load
    from qss.cli.trove import run

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system buries them
    for line in sys.stdin.buffer:
        wanted = json.loads(line)
        target = os.open(wanted["out"], os.O_WRONLY)  # here: when the asker hears the pid, it may unlink the fifo
        pid = os.fork()
        if pid == 0:
            os.dup2(target, 1)
            os.close(target)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            os.environ.update(wanted["environ"])
            code = 1
            try:
                code = run(wanted["argv"])
                sys.stdout.flush()
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(target)
        os.write(1, b"%d\n" % pid)


if __name__ == "__main__":
    _raise_them()
