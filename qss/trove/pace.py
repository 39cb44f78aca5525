"""Background work that leaves room: so many bytes a second, and requests go first."""

from __future__ import annotations

import asyncio


class Pace:
    """At most `bytes_per_s` on average; None: as fast as it goes. Lives on one event loop.

    What was not used is not saved up: after a pause there is no burst.
    """

    def __init__(self, bytes_per_s: float | None) -> None:
        self.bytes_per_s = bytes_per_s
        self._free_at = 0.0

    async def spent(self, count: int) -> None:
        """`count` bytes have been read or written: wait until that fits. Always lets others run."""
        if self.bytes_per_s is None:
            await asyncio.sleep(0)
            return
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now) + count / self.bytes_per_s
        await asyncio.sleep(self._free_at - now)
