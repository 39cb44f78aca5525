"""What the offload process answers about its locations, and how they change: location.reload, .holdings, .settle,
.drained, .rebalance on run/offload.sock. The configuration file says what they are; these only make it so."""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping
from typing import Final

import trio

from qss.app.location_set import LocationSet
from qss.config import environment, load
from qss.control.messages import Json
from qss.control.server import Call, Method
from qss.errors import CorruptData, QssError, Refused
from qss.ids import LocationId
from qss.offload.courier import Courier
from qss.offload.mover import Mover, Progress
from qss.offload.roots import Roots
from qss.offload.vault import Vault

log = logging.getLogger(__name__)

PROGRESS_S: Final = 0.5
"""Between two messages of how far a move is."""
SETTLE_POLL_S: Final = 0.2
LOST_SHOWN_MAX: Final = 1000
"""Segments in one answer."""


class LocationMethods:
    """Methods of the control socket."""

    def __init__(self, places: LocationSet, vault: Vault, roots: Roots, courier: Courier, mover: Mover) -> None:
        self._places = places
        self._vault = vault
        self._roots = roots
        self._courier = courier
        self._mover = mover
        self._changing = trio.Lock()

    def table(self) -> Mapping[str, Method]:
        return {
            "location.reload": self._reload,
            "location.settled": self._settled,
            "location.holdings": self._holdings,
            "location.held": self._held,
            "location.drained": self._drained,
            "location.rebalance": self._rebalance,
        }

    async def reload(self) -> Json:
        """Read the configuration file again and take its locations. Raises QssError with the old ones in use."""
        async with self._changing:
            fresh = load(self._places.settings.source, environment())
            change = await self._places.reload(fresh, self._roots)
            self._courier.publish_soon()
            self._mover.look()
        return {"came": list(change.came), "left": list(change.left), "altered": list(change.altered)}

    async def reload_on_signal(self) -> None:
        """SIGHUP: a file that does not hold is logged, and the old one goes on."""
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            async for _ in signals:
                try:
                    log.info("configuration read again: %s", await self.reload())
                except QssError as error:
                    log.error("the configuration is not taken over: %s", error)

    async def _reload(self, _call: Call) -> Json:
        return await self.reload()

    async def _settled(self, call: Call) -> Json:
        """Return when the last root names these locations and a majority of them holds it; `farewell`: then tell the
        one that left."""
        while not self._roots.settled:
            if self._courier.blocked:
                raise Refused(self._courier.blocked)
            self._courier.publish_soon()
            await call.progress({"generation": self._roots.known.generation, "behind": len(self._roots.behind)})
            await trio.sleep(SETTLE_POLL_S)
            with self._courier.tenure.work():
                await self._roots.spread()
        left = call.params.get("farewell")
        if isinstance(left, str):
            await self._places.say_farewell(LocationId(left), self._roots)
        return {"generation": self._roots.known.generation}

    async def _holdings(self, call: Call) -> Json:
        name = self._name(call)
        loss = await self._mover.holdings(name)
        return {
            "name": name,
            "shards": loss.shards,
            "bytes": loss.bytes,
            "thinner": loss.thinner,
            "lost": list(loss.lost[:LOST_SHOWN_MAX]),
            "lost_count": len(loss.lost),
        }

    async def _held(self, _call: Call) -> Json:
        """Shards and their bytes at each location, as the manifests say."""
        held = await self._mover.held()
        return {name: {"shards": count, "bytes": size} for name, (count, size) in held.items()}

    async def _drained(self, call: Call) -> Json:
        """Return when nothing of it is at the location any more, also of one that is configured no more."""
        name = _text(call)
        seen = self._mover.facts.looked
        self._mover.look()
        while True:
            progress = self._mover.facts.left.get(name)
            if name in self._vault.nodes and not self._vault.nodes[name].draining:
                raise Refused(f"location {name} is not being drained")
            if self._mover.facts.looked > seen and (progress is None or not progress.shards):
                return _progress(progress)
            if self._courier.blocked:
                raise Refused(self._courier.blocked)
            if progress is not None:
                await call.progress(_progress(progress))
            with trio.move_on_after(PROGRESS_S):
                await self._mover.news()

    async def _rebalance(self, call: Call) -> Json:
        before = self._mover.facts.moved_shards
        self._mover.rebalance()
        while (progress := self._mover.facts.balance) is not None:
            await call.progress(_progress(progress))
            with trio.move_on_after(PROGRESS_S):
                await self._mover.news()
        return {"moved": self._mover.facts.moved_shards - before}

    def _name(self, call: Call) -> LocationId:
        name = _text(call)
        if name not in self._vault.nodes:
            raise Refused(f"there is no location {name!r}; there are {', '.join(self._vault.nodes)}")
        return name


def _text(call: Call) -> LocationId:
    name = call.params.get("name")
    if not isinstance(name, str):
        raise CorruptData("the name of a location is needed")
    return LocationId(name)


def _progress(progress: Progress | None) -> dict[str, Json]:
    if progress is None:
        return {"shards_left": 0, "bytes_left": 0, "stuck": ""}
    return {"shards_left": progress.shards, "bytes_left": progress.bytes, "stuck": progress.stuck}
