"""Wall clock and boot identity. Monotonic time for deadlines is trio's own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    def now_ns(self) -> int:
        """Wall clock, nanoseconds since 1970."""
        ...

    def boot_id(self) -> str:
        """A text that changes with every boot of the machine: has the page cache survived since?"""
        ...


class SystemClock:
    def now_ns(self) -> int:
        return time.time_ns()  # noqa: TID251 - the one place

    def boot_id(self) -> str:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
