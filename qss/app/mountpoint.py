"""Is this directory fit to be mounted on? And how a mount is taken away."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from qss.errors import Refused

_MNT_DETACH: Final = 2
_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


def mounts(mountinfo: bytes) -> dict[Path, str]:
    """Mountpoint → file system type, the topmost of each place, from the bytes of /proc/self/mountinfo
    (proc_pid_mountinfo(5)). Lines that do not hold are left out."""
    found: dict[Path, str] = {}
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(b" - ")
        fields = before.split(b" ")
        if dash and len(fields) >= 6 and after:
            place = _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), fields[4])
            found[Path(os.fsdecode(place))] = os.fsdecode(after.split(b" ")[0])
    return found


def mounted_type(path: Path) -> str | None:
    """The type of the file system mounted exactly there; None if nothing is. Never touches what is mounted."""
    resolved = path.parent.resolve() / path.name
    return mounts(Path("/proc/self/mountinfo").read_bytes()).get(resolved)


def prepare(path: Path) -> None:
    """Make the directory ready: create it if it is not there, clear away a mount whose process is gone.

    Raises Refused when something else is mounted there, when it is no directory, or is not empty.
    """
    kind = mounted_type(path)
    if kind is not None:
        if not (kind.startswith("fuse") and is_dead(path)):
            raise Refused(f"something is mounted on {path} already")
        unmount(path, lazy=True)
    try:
        path.mkdir(exist_ok=True)
        entry = next(path.iterdir(), None)
    except FileExistsError as error:
        raise Refused(f"{path} is not a directory") from error
    except OSError as error:
        raise Refused(f"{path} cannot be mounted on: {error.strerror}") from error
    if entry is not None:
        raise Refused(f"{path} is not empty: choose an empty directory to mount on")


def is_dead(path: Path) -> bool:
    """A FUSE mount whose process is gone answers ENOTCONN (or ECONNABORTED) to everything the kernel has not cached;
    attributes may be, statfs never is."""
    try:
        os.statvfs(path)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def unmount(path: Path, *, lazy: bool) -> None:
    """Take a mount away; `lazy`: at once from sight, from use when the last file there is closed.

    Raises Refused when it is in use (and not lazy), or is not ours to take away.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), _MNT_DETACH if lazy else 0) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EPERM and (program := shutil.which("fusermount3")):
        done = subprocess.run(
            [program, "-u", *(["-z"] if lazy else []), "--", str(path)], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return
        number = errno.EBUSY if "busy" in done.stderr.lower() else number
    if number == errno.EBUSY:
        raise Refused(f"{path} is in use: close what is open there, or add --lazy")
    raise Refused(f"{path} cannot be unmounted: {os.strerror(number)}")
