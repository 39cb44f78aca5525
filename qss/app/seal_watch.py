"""The hook watcher of the offload process: woken by each seal through a long call to the mount process.

A wake-up is only a hint, and one that is missed costs nothing but the courier's next poll: what is sealed and not yet
safe is a question to the shelf. How long after a seal it came is measured all the time, for `status`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from qss.control.client import ControlClient
from qss.control.messages import Json
from qss.errors import QssError
from qss.host import Clock

RETRY_S: Final = 1.0


class SealWatch:
    """Lives on the offload process's loop."""

    def __init__(self, mount: ControlClient, clock: Clock, on_seal: Callable[[], None]) -> None:
        self._mount = mount
        self._clock = clock
        self._on_seal = on_seal
        self.wakes = 0
        self.wake_s_last = 0.0  # from the moment the segment was durably sealed
        self.wake_s_max = 0.0  # since start

    async def run(self) -> None:
        """Until cancelled."""
        seen: Json = None
        while True:
            try:
                answer = await self._mount.call("shelf.wait_sealed", seen=seen)
            except QssError:
                await trio.sleep(RETRY_S)
            else:
                if seen is not None:  # the first answer is about the past
                    self._measure(answer["sealed_ns"])
                seen = answer["seals"]
            self._on_seal()

    def _measure(self, sealed_ns: int) -> None:
        self.wakes += 1
        self.wake_s_last = max(self._clock.now_ns() - sealed_ns, 0) / 1e9  # one machine, one clock
        self.wake_s_max = max(self.wake_s_max, self.wake_s_last)
