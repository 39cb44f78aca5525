"""What watches the fronts: each request is counted and, where that is wanted, written to the access log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, Metric

from qss.s3.errors import Code, S3Error
from qss.s3.exchange import Exchange, Observer
from qss.trove.access_log import AccessLog
from qss.trove.meters import SAMPLE_EVERY_S, Meters
from qss.trove.routes import Answer, Asked, Route, answer

if TYPE_CHECKING:
    from qss.s3.rsgi import Scope


class Watching:
    """Meters and, perhaps, a log. One for all fronts."""

    def __init__(self, meters: Meters, access_log: AccessLog | None) -> None:
        self._meters = meters
        self._log = access_log

    def observer(self, front: str) -> Observer:
        meters, log = self._meters, self._log

        def observe(scope: Scope, exchange: Exchange) -> None:
            meters.count(front, exchange)
            if log is not None:
                log.note(front, scope, exchange)

        return observe

    def metrics(self) -> Iterator[Metric]:
        """For Prometheus."""
        yield from self._meters.metrics()
        if self._log is not None:
            yield CounterMetricFamily("trove_access_log_lost_lines", "Lines not written", value=self._log.lost)

    @property
    def routes(self) -> list[Route]:
        text = "Requests, errors, bytes and latency of the last half hour, interval by interval"
        return [Route("GET", "/history", text, self._history, query={"after": "only what ended later (`at_s`)"})]

    async def _history(self, asked: Asked) -> Answer:
        """Raises S3Error INVALID_ARGUMENT."""
        try:
            after_s = float(asked.query.get("after", "0"))
        except ValueError:
            raise S3Error(Code.INVALID_ARGUMENT, "after is not a number") from None
        return answer(self._meters.history(after_s))

    async def run(self) -> None:
        """Until cancelled: close an interval and write the log, every SAMPLE_EVERY_S."""
        while True:
            await asyncio.sleep(SAMPLE_EVERY_S)
            self._meters.sample()
            if self._log is not None:
                self._log.flush()

    def reopen(self) -> None:
        """The log has been renamed."""
        if self._log is not None:
            self._log.reopen()

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
