"""Is a location well? A circuit breaker with latency and error averages. Pure: time and jitter are arguments.

CLOSED ── `failures` in a row ──▶ OPEN ── its time is over ──▶ HALF_OPEN (one request may try)
   ▲                               ▲ failed: longer ◀───────────────┤
   └────────────────────────── answered ◀──────────────────────────┘
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Breaker(enum.Enum):
    CLOSED = "up"
    OPEN = "down"
    HALF_OPEN = "trying"


@dataclass(frozen=True, slots=True)
class HealthFacts:
    """What status shows of a location."""

    breaker: Breaker
    failures_in_a_row: int
    latency_s: float | None  # moving average of answered requests; None before the first
    error_rate: float  # moving average, 0 … 1
    last_error: str  # one sentence; empty: none since it was last up
