"""The Trove nodes of the demo: one process each, found again by their pid files."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qss.app.daemon import clean_environment
from qss.app.priority import step_back
from qss.app.running import is_alive, pid_in, wait_gone, write_whole
from qss.config import environment
from qss.errors import Refused
from qss.host import SystemEntropy

ACCESS_KEY: Final = "demo"
START_S_MAX: Final = 180.0
STOP_S_MAX: Final = 15.0
PORTS_TRIED_MAX: Final = 3
"""A port that was free may be taken before the node has come to listen on it."""
_POLL_S: Final = 0.01
NICE: Final = 5


@dataclass(frozen=True, slots=True)
class DemoNodes:
    root: Path
    count: int

    @property
    def names(self) -> list[str]:
        return [f"trove-{number}" for number in range(1, self.count + 1)]

    @property
    def credentials(self) -> Path:
        """The secret, in the file's first line."""
        return self.root / "credentials"

    @property
    def ports(self) -> Path:
        return self.root / "ports.json"

    def data(self, name: str) -> Path:
        return self.root / "nodes" / name.removeprefix("trove-")

    def pid_file(self, name: str) -> Path:
        return self.root / "run" / f"{name}.pid"

    def pid(self, name: str) -> int | None:
        """The process of this node, if it runs; a number that another process has got by now does not count."""
        pid = pid_in(self.pid_file(name))
        if pid is None or not is_alive(pid):
            return None
        with contextlib.suppress(OSError):
            if os.fsencode(self.data(name)) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
        return None


def start_nodes(nodes: DemoNodes) -> dict[str, str]:
    """Start those that do not run, side by side. Name → URL of each, when all of them answer."""
    if not nodes.credentials.exists():
        write_whole(nodes.credentials, SystemEntropy().token(20).hex() + "\n", 0o600)
    deadline = time.monotonic() + START_S_MAX
    for _ in range(PORTS_TRIED_MAX):
        ports = _choose_ports(nodes)
        for name in nodes.names:
            if nodes.pid(name) is None:
                _start(nodes, name, ports[name])
        missing = [name for name in nodes.names if not _comes_to_listen(nodes, name, ports[name], deadline)]
        if not missing:
            return {name: f"http://127.0.0.1:{ports[name]}" for name in nodes.names}
    raise Refused(f"{missing[0]} does not start; {nodes.root}/log/{missing[0]}.log says why")


def _choose_ports(nodes: DemoNodes) -> dict[str, int]:
    """The ports of last time, as far as they are free; others for the rest."""
    ports: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError):
        ports = json.loads(nodes.ports.read_text())
    with contextlib.ExitStack() as held:
        for name in nodes.names:
            if nodes.pid(name) is None and not (name in ports and _is_free(ports[name])):
                probe = held.enter_context(socket.create_server(("127.0.0.1", 0)))
                ports[name] = probe.getsockname()[1]
    write_whole(nodes.ports, json.dumps(ports) + "\n")
    return ports


def _is_free(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


def _start(nodes: DemoNodes, name: str, port: int) -> None:
    log = nodes.root / "log" / f"{name}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "qss.cli.trove", "serve"),
                *("--data", str(nodes.data(name))),
                *("--s3", f"127.0.0.1:{port}"),
                *("--access-key", ACCESS_KEY, "--secret-key-file", str(nodes.credentials)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env=clean_environment(environment()),
        )
    step_back(process.pid, NICE)  # they stand for other machines, which would not take this one's processor
    write_whole(nodes.pid_file(name), f"{process.pid}\n")


def _comes_to_listen(nodes: DemoNodes, name: str, port: int, deadline: float) -> bool:
    while time.monotonic() < deadline and nodes.pid(name) is not None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(_POLL_S)
        else:
            return True
    return False


def stop_nodes(nodes: DemoNodes) -> None:
    """Ask all to end, wait, kill what does not."""
    running = {name: pid for name in nodes.names if (pid := nodes.pid(name)) is not None}
    for pid in running.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    for name, pid in running.items():
        if not wait_gone(pid, STOP_S_MAX):
            print(f"{name} does not end and is killed", file=sys.stderr)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            wait_gone(pid, STOP_S_MAX)
    for name in nodes.names:
        nodes.pid_file(name).unlink(missing_ok=True)
