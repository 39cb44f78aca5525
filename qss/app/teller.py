"""Events of the offload process on their way to the hooks of the mount process. They never hold up offloading: they
queue, and what cannot be told is dropped with a line in the log."""

from __future__ import annotations

import logging
from typing import Final

import trio

from qss.control.client import ControlClient
from qss.control.messages import Json
from qss.errors import QssError
from qss.ids import SegmentId
from qss.segments import Receipt

WAITING_MAX: Final = 256
SHORT_MAX: Final = 10_000
"""Segments remembered as degraded; beyond, some are told of twice."""

log = logging.getLogger(__name__)


class Teller:
    """Lives on the offload process's loop."""

    def __init__(self, mount: ControlClient) -> None:
        self._mount = mount
        self._send, self._receive = trio.open_memory_channel[tuple[str, dict[str, Json]]](WAITING_MAX)
        self._short: dict[SegmentId, int] = {}  # told of: missing shards

    def tell(self, event: str, facts: dict[str, Json]) -> None:
        """Never waits."""
        try:
            self._send.send_nowait((event, facts))
        except trio.WouldBlock:
            log.warning("hook %s is not told: %d others wait", event, WAITING_MAX)

    def short(self, segment: SegmentId, missing: int) -> None:
        """Shards of a segment are missing after an attempt to store it; told once, and again when it gets worse."""
        if missing <= self._short.get(segment, 0):
            return
        if len(self._short) >= SHORT_MAX:
            self._short.clear()
        self._short[segment] = missing
        self.tell("degraded", {"segment": segment, "missing": missing})

    async def stored(self, receipt: Receipt) -> None:
        """For the courier."""
        if receipt.complete:
            self._short.pop(receipt.segment, None)
        else:
            self.short(receipt.segment, receipt.missing)

    async def run(self) -> None:
        """Until cancelled."""
        async for event, facts in self._receive:
            try:
                await self._mount.call("hook", event=event, facts=facts)
            except QssError as error:
                log.info("hook %s could not be told: %s", event, error)
