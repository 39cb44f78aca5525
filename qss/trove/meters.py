"""Counting requests: by front, operation and status, their latency and bytes; and the last half hour as samples.

Plain dictionaries on the event loop's thread, about a microsecond a request; Prometheus reads them when it asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from qss.host import Clock
from qss.s3.exchange import Exchange

BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency histogram; one more class takes what is above."""
SAMPLE_EVERY_S: Final = 2.0
OPERATIONS_MAX: Final = 512
"""Pairs of front and operation that are counted apart; what comes beyond, whoever brought it there, is OTHER."""
OTHER: Final = "other"
SAMPLES_MAX: Final = 900  # half an hour


@dataclass(slots=True)
class Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total_s: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.total_s += seconds


@dataclass(frozen=True, slots=True)
class Sample:
    """What happened in one interval that ended at `at_s`."""

    at_s: float
    requests: int
    errors: int  # of them 500 and above
    bytes_in: int
    bytes_out: int
    p50_ms: float | None  # None: there were no requests
    p99_ms: float | None


@dataclass(slots=True)
class _Sums:
    requests: int = 0
    errors: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))


class Meters:
    """Of one node, all fronts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._requests: dict[tuple[str, str, int], int] = {}
        self._latency: dict[tuple[str, str], Histogram] = {}
        self._bytes: dict[str, list[int]] = {}
        self._since = _Sums()
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)

    def count(self, front: str, exchange: Exchange) -> None:
        operation = exchange.operation
        if (front, operation) not in self._latency and len(self._latency) >= OPERATIONS_MAX:
            operation = OTHER
        key = (front, operation, exchange.status)
        self._requests[key] = self._requests.get(key, 0) + 1
        latency = self._latency.get(key[:2])
        if latency is None:
            latency = self._latency[key[:2]] = Histogram()
        latency.add(exchange.seconds)
        moved = self._bytes.get(front)
        if moved is None:
            moved = self._bytes[front] = [0, 0]
        moved[0] += exchange.bytes_in
        moved[1] += exchange.bytes_out
        since = self._since
        since.requests += 1
        since.errors += exchange.status >= 500
        since.bytes_in += exchange.bytes_in
        since.bytes_out += exchange.bytes_out
        since.latency[bisect_left(BOUNDS_S, exchange.seconds)] += 1

    def sample(self) -> None:
        """Close an interval; called every SAMPLE_EVERY_S."""
        since, self._since = self._since, _Sums()
        self._samples.append(
            Sample(
                self._clock.now_ns() / 1e9,
                since.requests,
                since.errors,
                since.bytes_in,
                since.bytes_out,
                quantile_ms(since.latency, 0.5),
                quantile_ms(since.latency, 0.99),
            )
        )

    def history(self, after_s: float = 0.0) -> dict[str, Any]:
        """For plots: the intervals of the last half hour that ended after `after_s`, oldest first."""
        return {"every_s": SAMPLE_EVERY_S, "samples": [asdict(each) for each in self._samples if each.at_s > after_s]}

    def metrics(self) -> Iterator[Metric]:
        """For Prometheus."""
        requests = CounterMetricFamily("trove_requests", "Requests answered", labels=["front", "operation", "status"])
        for (front, operation, status), count in self._requests.items():
            requests.add_metric([front, operation, str(status)], count)
        yield requests
        seconds = HistogramMetricFamily(
            "trove_request_seconds", "From a request's head to the end of its answer", labels=["front", "operation"]
        )
        for labels, latency in self._latency.items():
            seconds.add_metric(labels, _buckets(latency.counts), latency.total_s)
        yield seconds
        moved = CounterMetricFamily("trove_body_bytes", "Bytes of bodies", labels=["front", "direction"])
        for front, (into, out) in self._bytes.items():
            moved.add_metric([front, "in"], into)
            moved.add_metric([front, "out"], out)
        yield moved


def _buckets(counts: Sequence[int]) -> list[tuple[str, float]]:
    """Cumulative, as Prometheus wants them."""
    found: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), counts, strict=True):
        total += count
        found.append((bound, total))
    return found


def quantile_ms(counts: Sequence[int], share: float) -> float | None:
    """Estimated from a histogram, linear inside a class; what is above the last bound counts as the last bound."""
    total = sum(counts)
    if not total:
        return None
    wanted, below = share * total, 0
    for (low, high), count in zip(pairwise((0.0, *BOUNDS_S)), counts[:-1], strict=True):
        if count and below + count >= wanted:
            return 1000 * (low + (high - low) * (wanted - below) / count)
        below += count
    return 1000 * BOUNDS_S[-1]
