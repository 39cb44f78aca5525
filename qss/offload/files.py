"""Small files replaced whole or not at all, mode 0600."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from qss.host.disk import write_in_pieces


def replace_file(path: Path, data: bytes | memoryview, *, sync: bool = False) -> None:
    """Write beside `path`, then rename. With `sync` both the bytes and the name survive a power cut on return."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.new")
    file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_in_pieces(file, [data], 0)
        if sync:
            os.fsync(file)
    finally:
        os.close(file)
    beside.rename(path)
    if sync:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
