"""Is a location well? A circuit breaker with latency and error averages. Pure: time and jitter are arguments.

    CLOSED ── `failures` in a row ──▶ OPEN ── its time is over ──▶ HALF_OPEN (one request may try)
       ▲                               ▲ ◀── failed: twice as long ──────┤
       └──────────────────────── answered ◀──────────────────────────────┘

An answer of any kind (also "no such object", "access denied") shows that the location is there. Being asked to come
back later counts against it only when it goes on for long.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

NEWEST_WEIGHT: Final = 0.2
"""Of the newest request in the moving averages."""

JITTER: Final = 0.5
"""Part of a pause that chance may take away, so that many clients do not return together."""


class Breaker(enum.Enum):
    CLOSED = "up"
    OPEN = "down"
    HALF_OPEN = "trying"


@dataclass(frozen=True, slots=True)
class HealthOptions:
    failures: int = 3  # in a row without an answer, then the breaker opens
    busies: int = 24  # in a row that ask to come back later, likewise
    open_first_s: float = 1.0
    open_max_s: float = 30.0


@dataclass(frozen=True, slots=True)
class HealthFacts:
    """What status shows of a location."""

    breaker: Breaker
    failures_in_a_row: int
    latency_s: float | None  # moving average of answered requests; None before the first
    error_rate: float  # moving average, 0 … 1
    last_error: str  # one sentence; empty: the newest answer was without complaint


def backoff_s(attempt: int, first_s: float, max_s: float, jitter: float) -> float:
    """Pause after failed attempt 0, 1, 2 …: doubles up to a limit, then chance in [0, 1) takes up to half away."""
    return min(max_s, first_s * 2.0 ** min(attempt, 60)) * (1.0 - JITTER * jitter)


class Health:
    """The state of one location. `now_s` is monotonic time; `jitter` a number in [0, 1), another one each time.

    For each request: `allow`, then exactly one of `answered`, `failed`, `busy`, `abandoned`.
    """

    def __init__(self, options: HealthOptions) -> None:
        self._options = options
        self._breaker = Breaker.CLOSED
        self._failures_in_a_row = 0
        self._busies_in_a_row = 0
        self._opened = 0  # times in a row that the breaker opened without an answer in between
        self._try_at_s = 0.0
        self._latency_s: float | None = None
        self._error_rate = 0.0
        self._last_error = ""

    @property
    def up(self) -> bool:
        """May new work be planned for it?"""
        return self._breaker is Breaker.CLOSED

    @property
    def latency_s(self) -> float | None:
        return self._latency_s

    @property
    def facts(self) -> HealthFacts:
        return HealthFacts(self._breaker, self._failures_in_a_row, self._latency_s, self._error_rate, self._last_error)

    def refuses(self, now_s: float) -> bool:
        """Would `allow` say no? Asking changes nothing."""
        match self._breaker:
            case Breaker.CLOSED:
                return False
            case Breaker.HALF_OPEN:
                return True
            case Breaker.OPEN:
                return now_s < self._try_at_s

    def allow(self, now_s: float) -> bool:
        """May a request be sent? In OPEN, once its time is over, one may: it is the trial."""
        if self.refuses(now_s):
            return False
        if self._breaker is Breaker.OPEN:
            self._breaker = Breaker.HALF_OPEN
        return True

    def try_in_s(self, now_s: float) -> float:
        """Seconds until a trial may be sent; 0 if one may be sent now, or while one is under way."""
        return max(0.0, self._try_at_s - now_s) if self._breaker is Breaker.OPEN else 0.0

    def answered(self, latency_s: float | None, complaint: str = "") -> None:
        """It answered: closed, whatever was before (a late answer to an old request counts as well). `latency_s` None
        leaves the average alone: the request says more of its size than of the location."""
        self._breaker = Breaker.CLOSED
        self._failures_in_a_row = 0
        self._busies_in_a_row = 0
        self._opened = 0
        self._last_error = complaint
        self._error_rate -= NEWEST_WEIGHT * self._error_rate
        if latency_s is not None:
            self._average(latency_s)

    def failed(self, now_s: float, jitter: float, sentence: str) -> None:
        """It did not answer."""
        self._failures_in_a_row += 1
        self._counts_against(now_s, jitter, sentence, too_many=self._failures_in_a_row >= self._options.failures)

    def busy(self, now_s: float, jitter: float, sentence: str) -> None:
        """It asked to come back later."""
        self._busies_in_a_row += 1
        self._counts_against(now_s, jitter, sentence, too_many=self._busies_in_a_row >= self._options.busies)

    def abandoned(self, now_s: float, after_s: float) -> None:
        """The caller gave up after so many seconds without a verdict. If that is longer than usual, it counts as the
        latency: else a location that hangs would look as quick as on its last good day. A trial may be tried again."""
        if self._latency_s is not None and after_s > self._latency_s:
            self._average(after_s)
        if self._breaker is Breaker.HALF_OPEN:
            self._breaker = Breaker.OPEN
            self._try_at_s = now_s

    def _average(self, latency_s: float) -> None:
        before = latency_s if self._latency_s is None else self._latency_s
        self._latency_s = before + NEWEST_WEIGHT * (latency_s - before)

    def _counts_against(self, now_s: float, jitter: float, sentence: str, *, too_many: bool) -> None:
        self._error_rate += NEWEST_WEIGHT * (1.0 - self._error_rate)
        self._last_error = sentence
        # In OPEN this is the end of an old request: the time to wait is running already.
        if self._breaker is Breaker.HALF_OPEN or (self._breaker is Breaker.CLOSED and too_many):
            self._breaker = Breaker.OPEN
            self._try_at_s = now_s + backoff_s(
                self._opened, self._options.open_first_s, self._options.open_max_s, jitter
            )
            self._opened += 1
