"""So many bytes a second, and no more. The bucket is pure, time is an argument; Pace waits, on trio."""

from __future__ import annotations

from typing import Final

import trio

BURST_S: Final = 0.25
"""Seconds' worth of bytes that may pass at once after a rest."""


class TokenBucket:
    """Lets `bytes_per_s` pass on average. A single amount may be larger than the burst: it is paid for afterwards."""

    def __init__(self, bytes_per_s: float, now_s: float) -> None:
        assert bytes_per_s > 0
        self._bytes_per_s = bytes_per_s
        self._free_at_s = now_s - BURST_S  # when everything taken so far is paid for

    def take(self, count: int, now_s: float) -> float:
        """Take `count` bytes; the seconds to wait before using them."""
        paid_at_s = max(self._free_at_s, now_s - BURST_S)
        self._free_at_s = paid_at_s + count / self._bytes_per_s
        return max(0.0, paid_at_s - now_s)


class Pace:
    """Waits so that no more than `bytes_per_s` pass on average; None: never."""

    def __init__(self, bytes_per_s: float | None) -> None:
        self.bytes_per_s = bytes_per_s
        self._bucket: TokenBucket | None = None  # made with the first byte: there is no clock outside of trio.run

    async def wait(self, count: int) -> None:
        """Before `count` bytes are used."""
        if self.bytes_per_s is None:
            return
        if self._bucket is None:
            self._bucket = TokenBucket(self.bytes_per_s, trio.current_time())
        await trio.sleep(self._bucket.take(count, trio.current_time()))
