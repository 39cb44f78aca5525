"""What a failed sync leaves behind, and how the next start makes it good. docs/adr/0100.

After a failed fsync Linux counts the pages as clean: they stay readable, are never written, and the next fsync of the
file succeeds. So from the first failure on every sync of this cache is answered with EIO (qss.cache.durability), and a
note is left. A start that finds the note of *this* boot does not believe the page cache to be on the disk: it writes
anew what had no row yet, and builds the index from the journals. After a reboot the note means nothing: what is read
then is what the disk has.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from qss.errors import FsError
from qss.host import Disk, Host
from qss.limits import MIB

NOTE: Final = "sync-failed"
_COPY_BYTES: Final = 4 * MIB


def leave_note(host: Host, root: Path) -> None:
    """As well as a failing disk lets us: in the page cache is enough."""
    with contextlib.suppress(OSError, FsError):
        handle = host.disk.create(root / NOTE)
        try:
            host.disk.pwrite(handle, [host.clock.boot_id().encode()], 0)
        finally:
            host.disk.close(handle)


def has_note(host: Host, root: Path) -> bool:
    """Whether a sync has failed since this machine was booted."""
    try:
        handle = host.disk.open(root / NOTE)
    except FileNotFoundError:
        return False
    try:
        found = host.disk.pread(handle, 256, 0)
    finally:
        host.disk.close(handle)
    return found in (b"", host.clock.boot_id().encode())  # empty: there was no room for more


def take_note_away(host: Host, root: Path) -> None:
    """Everything is on the disk now. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        host.disk.remove(root / NOTE)
        host.disk.sync_dir(root)


def write_anew(disk: Disk, path: Path, length: int) -> None:
    """The first `length` bytes of a file, on the disk for certain, under its name. Blocks. Raises OSError, NoSpace;
    then the file is as it was."""
    beside = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        disk.remove(beside)
    source, target = disk.open(path), disk.create(beside)
    try:
        for at in range(0, length, _COPY_BYTES):
            disk.pwrite(target, [disk.pread(source, min(_COPY_BYTES, length - at), at)], at)
        disk.sync_data(target)
    finally:
        disk.close(source)
        disk.close(target)
    disk.rename(beside, path)
    disk.sync_dir(path.parent)
