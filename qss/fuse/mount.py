"""Mounting: options, a stale mountpoint, the kernel's read-ahead, and an orderly end."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyfuse3
import trio

from qss.errors import Refused
from qss.fs.filesystem import FileSystem
from qss.fuse import touch
from qss.fuse.handshake import Handshake
from qss.fuse.operations import Operations
from qss.fuse.turns import Turns
from qss.fuse.unsaid import Unsaid
from qss.host.buffers import keep_buffers

log = logging.getLogger(__name__)

REQUEST_TASKS_MAX: Final = 1_000
READ_AHEAD_KIB: Final = 1024  # one request of the largest size
_UNMOUNT_WAIT_S: Final = 10.0
_LEAVE_WAIT_S: Final = 20.0  # to write back what the kernel holds, and unmount
_BUSY_WAIT_S: Final = 1.0  # after that somebody still has files open

FSNAME: Final = "qss"


@dataclass(frozen=True, slots=True)
class MountOptions:
    read_only: bool = False
    allow_other: bool = True  # falls back to False where the user may not
    default_permissions: bool = True
    writeback: bool = False  # the kernel collects small writes; less is safe after a crash of the machine
    acl: bool = True
    nodev: bool = False
    nosuid: bool = False
    noexec: bool = False
    noatime: bool = False  # for /proc/mounts; what reads do to access times is the file system's
    uid: int | None = None  # shown as the owner of everything
    gid: int | None = None
    fsname: str = FSNAME
    subtype: str = FSNAME
    read_ahead_kib: int = READ_AHEAD_KIB
    extra: tuple[str, ...] = ()  # passed to libfuse as they are

    def as_fuse(self, *, allow_other: bool) -> set[str]:
        """Options of libfuse's fuse_session_new (mount.c, fuse_lowlevel.c)."""
        chosen = {f"fsname={self.fsname}", f"subtype={self.subtype}", *self.extra}
        if self.read_only:
            chosen.add("ro")
        if allow_other:
            chosen.add("allow_other")
        if self.default_permissions:
            chosen.add("default_permissions")
        chosen |= {name for name in ("noexec", "noatime") if getattr(self, name)}
        # The kernel's own defaults for a mount by root are dev and suid; libfuse's are the opposite.
        if os.geteuid() == 0:
            chosen.add("nodev" if self.nodev else "dev")
            chosen.add("nosuid" if self.nosuid else "suid")
        return chosen


async def serve(
    fs: FileSystem,
    mountpoint: Path,
    options: MountOptions = MountOptions(),
    *,
    task_status: trio.TaskStatus[Operations] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount and answer the kernel until unmounted or cancelled; then nothing is mounted and no handle is left.

    Runs the file system's background work too. Once per process. Reports started with the Operations (for counters)
    when the kernel has shaken hands. Raises Refused when it cannot be mounted; says why.
    """
    await trio.to_thread.run_sync(clean_mountpoint, mountpoint)
    shown = None if options.uid is None and options.gid is None else (options.uid, options.gid)
    unsaid = Unsaid()
    operations = Operations(fs, writeback=options.writeback, acl=options.acl, owner=shown, unsaid=unsaid)
    keep_buffers()
    Turns(Handshake()).install()
    touch.install()
    unsaid.install()
    _init(operations, mountpoint, options)
    ended = trio.Event()
    # Shielded: while we unmount, the kernel still wants answers (it writes back what it holds).
    answering = trio.CancelScope(shield=True)

    async def answer() -> None:
        with answering:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fs.run)
                nursery.start_soon(_tell_ready, operations, mountpoint, options, task_status)
                await pyfuse3.main(max_tasks=REQUEST_TASKS_MAX)
                nursery.cancel_scope.cancel()
        ended.set()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            try:
                await ended.wait()
            finally:
                with trio.move_on_after(_LEAVE_WAIT_S, shield=True):
                    await _leave(mountpoint, ended)
                answering.cancel()
    finally:
        pyfuse3.close(unmount=True)
        fs.detach()


async def _leave(mountpoint: Path, ended: trio.Event) -> None:
    """Unmount as far as we are mounted: names go at once; files still open get ENOTCONN when the process ends."""
    if ended.is_set():
        return
    with contextlib.suppress(OSError, Refused):
        await trio.to_thread.run_sync(pyfuse3.syncfs, str(mountpoint), abandon_on_cancel=True)
        await trio.to_thread.run_sync(unmount_lazily, mountpoint, abandon_on_cancel=True)
    with trio.move_on_after(_BUSY_WAIT_S):
        await ended.wait()


def _init(operations: Operations, mountpoint: Path, options: MountOptions) -> None:
    wanted = [options.allow_other, False] if options.allow_other and os.geteuid() != 0 else [options.allow_other]
    for allow_other in wanted:
        try:
            pyfuse3.init(operations, str(mountpoint), options.as_fuse(allow_other=allow_other))
        except RuntimeError as error:
            last = error
        else:
            return
    raise Refused(f"{mountpoint} cannot be mounted: {last}; see the lines of fusermount3 above") from last


async def _tell_ready(
    operations: Operations, mountpoint: Path, options: MountOptions, task_status: trio.TaskStatus[Operations]
) -> None:
    await operations.ready.wait()
    task_status.started(operations)
    with contextlib.suppress(OSError):
        await trio.to_thread.run_sync(tune, mountpoint, options.read_ahead_kib)


def tune(mountpoint: Path, read_ahead_kib: int) -> None:
    """Larger reads ahead, where we may. Called from a thread: stat asks our own mount."""
    device = os.stat(mountpoint).st_dev
    path = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    try:
        path.write_text(str(read_ahead_kib), encoding="ascii")
    except OSError as error:
        log.debug("%s stays as it is: %s", path, error)


def clean_mountpoint(mountpoint: Path) -> None:
    """Take away what a crashed mount left, and check that here is a directory to mount on. Blocks.

    Raises Refused.
    """
    try:
        os.statvfs(mountpoint)  # unlike stat, never answered from the kernel's memory of a process that is gone
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.ECONNABORTED):
            raise Refused(f"{mountpoint} cannot be mounted on: {error.strerror}") from error
        unmount_lazily(mountpoint)
    mode = os.stat(mountpoint)
    if not mountpoint.is_dir():
        raise Refused(f"{mountpoint} is no directory; choose one to mount on")
    if mode.st_dev != os.stat(mountpoint.absolute().parent).st_dev and os.path.ismount(mountpoint):
        raise Refused(f"{mountpoint} is mounted already; unmount it first, or choose another directory")


def unmount_lazily(mountpoint: Path) -> None:
    """Detach a mountpoint: busy, or its process gone. Raises Refused when that cannot be done."""
    for command in (["umount", "-l", str(mountpoint)], ["fusermount3", "-u", "-z", str(mountpoint)]):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(command, check=False, capture_output=True, timeout=_UNMOUNT_WAIT_S)
            if done.returncode == 0:
                log.info("%s is unmounted", mountpoint)
                return
    raise Refused(f"{mountpoint} cannot be unmounted; run: umount -l {mountpoint}")
