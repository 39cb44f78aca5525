"""Small files replaced whole, and directories: both there after a power cut once the call has returned."""

from __future__ import annotations

import os
from itertools import takewhile
from pathlib import Path

from qss.errors import Refused
from qss.host import Disk


def replace_durably(path: Path, content: bytes) -> None:
    """Content and name survive a power cut when it returns; in between the old or the new one is there, whole.

    Mode 0600 from its first byte: it may hold secrets.
    """
    fresh = beside(path)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def check_private(path: Path) -> None:
    """Raises Refused for a file that others may read."""
    if path.stat().st_mode & 0o077:
        raise Refused(f"{path} may be read by others; run chmod 600 {path}")


def beside(path: Path) -> Path:
    """Where the new content is until it is whole; a crash may leave it there."""
    return path.with_suffix(".new")


def make_directory(disk: Disk, path: Path) -> None:
    """With those above it. Nothing is written, and no disk waited for, when it is there. Raises OSError."""
    missing = list(takewhile(lambda each: not disk.exists(each), (path, *path.parents)))
    disk.makedirs(path)
    for each in missing:
        disk.sync_dir(each.parent)
