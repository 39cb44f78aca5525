"""Start the mount process in the background, and learn over a pipe whether it came up.

A fresh process is spawned before anything is opened; nothing is forked with threads, sockets or an index open.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qss.app.secrecy import KEY_ON_STDIN
from qss.control.messages import Failure, RemoteBug, Reply, decode, encode, error_of, failure_of
from qss.errors import CorruptData, QssError
from qss.offload.keys import MasterKey

READY_S_MAX: Final = 300.0
"""A start replays at most a few seconds of journal; this is for slow disks."""

UNWANTED_IN_ENVIRONMENT: Final = ("FUSE_URING_ENABLE",)
"""libfuse's io_uring transport does not go with pyfuse3's loop."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """The child's side: say once that all is well, or why not."""

    handle: int | None  # of the pipe; None: nobody listens
    notify_socket: str | None = None  # of systemd, sd_notify(3)

    def ready(self) -> None:
        self._send(encode(Reply(os.getpid(), None)))
        if self.notify_socket:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.sendto(b"READY=1", self.notify_socket.replace("@", "\0", 1))  # "@": an abstract address

    def failed(self, error: QssError) -> None:
        self._send(encode(failure_of(os.getpid(), error)))

    def _send(self, line: bytes) -> None:
        if self.handle is not None:
            with contextlib.suppress(OSError):  # told already, or whoever started us is gone
                os.write(self.handle, line)
                os.close(self.handle)


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in UNWANTED_IN_ENVIRONMENT}


def start(
    arguments: list[str],
    environ: Mapping[str, str],
    log_file: Path,
    module: str = "qss.app.mount",
    key: MasterKey | None = None,
) -> int:
    """Start a mount process, `python -m module`, with these arguments; its process id once it is mounted. `key`: of its
    file system, handed over through a pipe; None: it reads the key file itself.

    Raises what the process says is in the way, or RemoteBug when it ends without a word.
    """
    log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    reading, writing = os.pipe()
    try:
        with log_file.open("ab") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    module,
                    *arguments,
                    *([KEY_ON_STDIN] if key else []),
                    "--ready-fd",
                    str(writing),
                ],
                stdin=subprocess.PIPE if key else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(writing,),
                start_new_session=True,
                cwd="/",
                env=clean_environment(environ),
            )
        os.close(writing)
        if key is not None and process.stdin is not None:
            with contextlib.suppress(BrokenPipeError), process.stdin:  # when it has gone, it says why
                process.stdin.write(key.raw)
        line = _read_line(reading, READY_S_MAX)
    finally:
        os.close(reading)
    return process.pid if _is_ready(line, log_file) else 0


def _read_line(handle: int, wait_s: float) -> bytes:
    parts: list[bytes] = []
    while select.select([handle], [], [], wait_s)[0]:
        data = os.read(handle, 65536)
        parts.append(data)
        if not data or data.endswith(b"\n"):
            break
    return b"".join(parts)


def _is_ready(line: bytes, log_file: Path) -> bool:
    try:
        answer = decode(line) if line else None
    except CorruptData:
        answer = None
    if isinstance(answer, Failure):
        raise error_of(answer)
    if not isinstance(answer, Reply):
        raise RemoteBug(f"the mount process ended before it was ready; {log_file} says why")
    return True
