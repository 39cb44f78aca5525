"""Processes of a peer: found by a mark in their environment, so that none is forgotten, however they fork."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.rig import cpu_s

_MARK = "QSS_BENCH_PEER"
_END_S_MAX = 10.0
_POLL_S = 0.05


class NotMeasured(Exception):
    """A system cannot be measured here; the text says why."""


class Household:
    """What one peer has started. Everything that inherits the mark belongs to it and is ended with it."""

    def __init__(self, scratch: Path) -> None:
        self._mark = f"{_MARK}={scratch}"
        self._log = scratch / "log"
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *command: object, also: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a process that stays in the foreground; what it says goes to the log."""
        process = self._spawn(command, also or {})
        self._started.append(process)
        return process

    def run(self, *command: object, also: dict[str, str] | None = None, wait_s_max: float = 60.0) -> None:
        """Run a command to its end. Raises NotMeasured with the last lines it said when it fails."""
        process = self._spawn(command, also or {})
        self._started.append(process)
        try:
            code = process.wait(wait_s_max)
        except subprocess.TimeoutExpired:
            raise NotMeasured(f"{Path(str(command[0])).name} did not end within {wait_s_max:.0f} s") from None
        if code:
            raise NotMeasured(f"{Path(str(command[0])).name} exits with {code}: {self.last_words()}")

    def _spawn(self, command: tuple[object, ...], also: dict[str, str]) -> subprocess.Popen[bytes]:
        name, value = self._mark.split("=", 1)
        environment = {**os.environ, **also, name: value}
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def wait_for(self, ready: Callable[[], bool], what: str, wait_s_max: float = 40.0) -> None:
        """Wait until `ready`. Raises NotMeasured when a process ends before, or the time is over."""
        until = time.monotonic() + wait_s_max
        while not ready():
            ended = [each for each in self._started if each.poll() not in {None, 0}]
            if ended or time.monotonic() > until:
                raise NotMeasured(f"no {what}: {self.last_words()}")
            time.sleep(_POLL_S)

    def last_words(self) -> str:
        """The end of the log, on one line."""
        with contextlib.suppress(OSError):
            lines = self._log.read_text(errors="replace").split("\n")
            return " / ".join([line.strip() for line in lines if line.strip()][-2:])[-300:]
        return "nothing was said"

    def pids(self) -> list[int]:
        """Everything alive that carries the mark."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if self._mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return sorted(found)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after a while. Returns when nothing is left."""
        for number, grace_s in ((signal.SIGTERM, _END_S_MAX), (signal.SIGKILL, _END_S_MAX)):
            until = time.monotonic() + grace_s
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            while time.monotonic() < until:
                for process in self._started:
                    process.poll()
                if not self.pids():
                    return
                time.sleep(_POLL_S)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody uses now, chosen by the system; below 50,000, for those who add 10,000."""
    ports: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(ports) < count:
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    return ports


def wait_idle(pids: Callable[[], list[int]], idle_share: float = 0.06, wait_s_max: float = 60.0) -> None:
    """Return when these processes use less than that share of a core for half a second, or it takes too long."""
    window_s = 0.2
    until = time.monotonic() + wait_s_max
    before = cpu_s(pids())
    while time.monotonic() < until:
        time.sleep(window_s)
        now = cpu_s(pids())
        if now - before < idle_share * window_s:
            return
        before = now


def unmount(mountpoint: Path) -> None:
    """Unmount what is mounted there, lazily when it is busy; nothing when nothing is."""
    for command in (["umount", str(mountpoint)], ["umount", "-l", str(mountpoint)]):
        if not is_mounted(mountpoint):
            return
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)


def is_mounted(mountpoint: Path) -> bool:
    """Whether something is mounted on exactly this directory."""
    wanted = str(mountpoint).replace(" ", "\\040")
    return any(line.split(" ")[1] == wanted for line in Path("/proc/mounts").read_text().splitlines())
