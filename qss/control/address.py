"""Unix sockets by path, of any length: the kernel's limit of 108 bytes is got round through /proc/self/fd."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import trio

from qss.errors import Refused, Unreachable


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


async def connect(path: Path) -> trio.SocketStream:
    """Raises Unreachable when nobody listens there, Refused when we may not speak to it."""
    try:
        with _short(path) as short:
            return trio.SocketStream(await _connect(short))
    except PermissionError as error:
        raise Refused(f"{path} belongs to another user") from error
    except OSError as error:
        raise Unreachable(f"nobody answers at {path}") from error


async def _connect(short: str) -> trio.socket.SocketType:
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        await sock.connect(short)
    except BaseException:
        sock.close()
        raise
    return sock


def listen(path: Path) -> trio.SocketListener:
    """A listening socket at `path`, 0600 in a directory 0700, in place of any that was left behind.

    Whoever owns one that is found there is about to end: the caller holds the lock of the state directory, or is the
    child of a process that does.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as short:
            plain.bind(short)
        path.chmod(0o600)
        plain.listen(64)
    except BaseException:
        plain.close()
        raise
    return trio.SocketListener(trio.socket.from_stdlib_socket(plain))
