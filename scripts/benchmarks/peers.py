"""A FUSE file system in C on the native directory: what the kernel's FUSE itself costs, without our work."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.rig import Rig

NAME = "bindfs (C, passes through)"
_OPTIONS = "kernel_cache,attr_timeout=3600,entry_timeout=3600,negative_timeout=3600"


@contextlib.contextmanager
def bindfs(rig: Rig) -> Iterator[Path | None]:
    """A directory `rig.native` is seen through; None where bindfs (Debian package of this name) is not installed.

    It stores nothing itself and syncs what the native file system syncs.
    """
    if shutil.which("bindfs") is None:
        yield None
        return
    mountpoint = rig.root / "bindfs"
    mountpoint.mkdir()
    subprocess.run(["bindfs", "-o", _OPTIONS, rig.native, mountpoint], check=True)
    try:
        yield mountpoint
    finally:
        subprocess.run(["umount", mountpoint], check=True)
        mountpoint.rmdir()
