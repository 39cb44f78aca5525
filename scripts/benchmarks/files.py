"""Work on files that is the same on the mount and on the native directory."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.rig import timed

MIB = 1024 * 1024
_PATTERN = os.urandom(16 * MIB)  # incompressible; a different offset for each chunk


def write_file(path: Path, size: int, *, chunk: int = MIB, sync: bool = True) -> float:
    """Write a new file of `size` random bytes, sync it, close it; wall seconds."""

    def work() -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            view = memoryview(_PATTERN)
            for position in range(0, size, chunk):
                start = (position * 7) % (len(_PATTERN) - chunk)
                os.write(handle, view[start : start + min(chunk, size - position)])
            if sync:
                os.fsync(handle)
        finally:
            os.close(handle)

    return timed(work)


def read_file(path: Path, *, chunk: int = MIB) -> float:
    """Read a file from end to end; wall seconds."""
    buffer = bytearray(chunk)

    def work() -> None:
        handle = os.open(path, os.O_RDONLY)
        try:
            while os.readv(handle, [buffer]):
                pass
        finally:
            os.close(handle)

    return timed(work)


def create_small(directory: Path, count: int, size: int = 4096) -> float:
    """Create, write and close `count` files; wall seconds."""
    payload = _PATTERN[:size]
    directory.mkdir()

    def work() -> None:
        for number in range(count):
            handle = os.open(directory / f"file-{number:06d}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(handle, payload)
            os.close(handle)

    return timed(work)


def stat_small(directory: Path, count: int) -> float:
    """Stat each file; wall seconds."""

    def work() -> None:
        for number in range(count):
            os.stat(directory / f"file-{number:06d}")

    return timed(work)


def read_small(directory: Path, count: int) -> float:
    """Open, read and close each file; wall seconds."""

    def work() -> None:
        for number in range(count):
            handle = os.open(directory / f"file-{number:06d}", os.O_RDONLY)
            os.read(handle, 1 << 16)
            os.close(handle)

    return timed(work)


def unlink_small(directory: Path, count: int) -> float:
    """Unlink each file; wall seconds."""

    def work() -> None:
        for number in range(count):
            os.unlink(directory / f"file-{number:06d}")
        directory.rmdir()

    return timed(work)


def append_synced(path: Path, count: int, size: int = 4096) -> float:
    """Append and fsync `count` times; wall seconds."""
    payload = _PATTERN[:size]
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def work() -> None:
        for _ in range(count):
            os.write(handle, payload)
            os.fsync(handle)

    try:
        return timed(work)
    finally:
        os.close(handle)
