"""Who gets the processor when all want it: programs that use the mount first, then what answers them. docs/adr/0082,
docs/adr/0124."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import struct
from pathlib import Path
from typing import Final

LIFT: Final = -10
"""`nice` of the thread that answers the kernel, where we may."""
SLICE_NS: Final = 1_000_000
"""Long enough to answer 1 MiB, shorter than the kernel's own (1.4 ms on two cores, 2.8 on eight)."""
_NICE_MAX: Final = 19

_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}  # numbers of the system call
_ATTRIBUTES: Final = struct.Struct("<IIQiIQQQ")  # struct sched_attr, its first version (sched/types.h)
_RESET_ON_FORK: Final = 1


def step_back(pid: int, nice: int) -> None:
    """Lower the priority of a process just started, and of what it starts: `nice` as in nice(1): so much
    below what it has, 0 to 19. (What it has is not what the thread has that started it: see `answer_soon`.)

    Where the kernel groups processes by session (sched_autogroup) nice alone counts only inside the session, so the
    process should lead one. What the system does not permit is left: priority is a wish, never a condition.
    """
    if not nice:
        return
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, min(os.getpriority(os.PRIO_PROCESS, pid) + nice, _NICE_MAX))
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(nice), encoding="ascii")


def answer_soon() -> None:
    """Programs wait for what this thread answers: it comes before them, where we may, and is not left in the middle of
    an answer. Threads and processes that it starts are as everybody's. A wish as well."""
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        return  # somebody has chosen another policy for us
    if nice > 0 or not _schedule(min(nice, LIFT)):
        _schedule(nice)  # it is meant to wait, or may not be lifted
    elif os.getsid(0) == os.getpid():  # else the group is a shell's, with other programs in it
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(LIFT), encoding="ascii")


def freeze_what_stays() -> None:
    """What the start has made stays to the end: the garbage collector need not look at it again, which takes 20 ms, and
    nobody is answered meanwhile. Once, when a process is ready."""
    gc.collect()
    gc.freeze()


def _schedule(nice: int) -> bool:
    """The calling thread. The kernel's word for the length of a slice is sched_runtime (Linux 6.12 and later)."""
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None:
        return False
    wish = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, _RESET_ON_FORK, nice, 0, SLICE_NS, 0, 0)
    try:
        return bool(ctypes.CDLL(None).syscall(number, 0, wish, 0) == 0)
    except (OSError, AttributeError):
        return False
