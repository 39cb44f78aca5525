"""Traces of running processes on disk: the lock of a state directory, and pid files."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qss.errors import Refused

LEAVING_S_MAX: Final = 60.0
"""How long a mount process takes to end, beside the time that offload is given."""


def leaving_path(run_dir: Path) -> Path:
    """A pid file, there while the mount process of an unmounted file system brings away what was written last."""
    return run_dir / "leaving.pid"


def offload_pid_path(run_dir: Path) -> Path:
    """The pid file of the offload process."""
    return run_dir / "offload.pid"


def last_words_path(pid_path: Path) -> Path:
    """Where a process that cannot go on says why, in one sentence; beside its pid file."""
    return pid_path.with_suffix(".trouble")


@contextlib.contextmanager
def state_lock(state: Path) -> Iterator[None]:
    """Hold the state directory, which is made if it is not there; the kernel lets go when the process ends, however.

    Raises Refused when another process holds it.
    """
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock_file(state / "lock", f"{state} is in use: this file system is mounted already"):
        yield


@contextlib.contextmanager
def lock_file(path: Path, refusal: str) -> Iterator[None]:
    """Hold a file. Raises Refused, in these words, when another process holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(refusal) from error
        yield
    finally:
        os.close(handle)


def is_locked(state: Path) -> bool:
    """Does a process hold the state directory?"""
    return is_held(state / "lock")


def is_held(path: Path) -> bool:
    """Does a process hold this file, as `lock_file` does?"""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@contextlib.contextmanager
def pid_file(path: Path) -> Iterator[None]:
    """Our process id in a file, whole or not at all; removed at the end unless somebody else's stands there by then."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, f"{os.getpid()}\n")
    try:
        yield
    finally:
        if pid_in(path) == os.getpid():
            path.unlink(missing_ok=True)


def pid_in(path: Path) -> int | None:
    """The process id in a pid file; None if there is none."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def is_alive(pid: int) -> bool:
    """Has this process a thread that runs? One that waits to be reaped has none and holds no file any more. (One whose
    first thread has ended before the others is a zombie, too, in /proc/PID/stat.)"""
    return not wait_gone(pid, 0)


def wait_gone(pid: int, wait_s: float) -> bool:
    """Wait until a process, not our child, has ended; False if it has not within `wait_s` seconds."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], wait_s)[0])
    finally:
        os.close(handle)


def write_whole(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file by a new content, synced: a reader finds the old or the new one."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
