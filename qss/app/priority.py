"""Processes that may wait when the processor is wanted by programs that use the mount. docs/adr/0082."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

_NICE_MAX: Final = 19


def step_back(pid: int, nice: int) -> None:
    """Lower the priority of a process just started, and of what it starts: `nice` as in nice(1): so much
    below ours, 0 to 19.

    Where the kernel groups processes by session (sched_autogroup) nice alone counts only inside the session, so the
    process should lead one. What the system does not permit is left: priority is a wish, never a condition.
    """
    if not nice:
        return
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, min(os.getpriority(os.PRIO_PROCESS, 0) + nice, _NICE_MAX))
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(nice), encoding="ascii")
