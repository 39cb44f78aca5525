"""The locations of a running offload process, as the configuration file has them, changed while it runs.

The set changes by one location at a time, and only when the last root is at a majority of the set as it is: then
majorities of the old and the new set meet (docs/adr/0113).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import trio

from qss.app.locations import client_of, node_of, place_of
from qss.config import Settings
from qss.errors import Busy, QssError, Refused
from qss.formats.root import RootLocation
from qss.host import Host
from qss.ids import LocationId
from qss.offload.nodes import Node, Nodes, jitter_from
from qss.offload.options import LocationOptions
from qss.offload.roots import Roots
from qss.s3.client import S3Client

log = logging.getLogger(__name__)

FAREWELL_S_MAX: Final = 5.0
"""How long a location that leaves may take to be told so."""


@dataclass(frozen=True, slots=True)
class Change:
    """From one set of locations to another."""

    came: tuple[LocationId, ...]
    left: tuple[LocationId, ...]
    altered: tuple[LocationId, ...]

    @classmethod
    def between(cls, old: Sequence[LocationOptions], new: Sequence[LocationOptions]) -> Change:
        before, after = ({each.name: each for each in some} for some in (old, new))
        return cls(
            tuple(name for name in after if name not in before),
            tuple(name for name in before if name not in after),
            tuple(name for name in after if name in before and after[name] != before[name]),
        )

    @property
    def steps(self) -> int:
        """By how many the set of voters changes."""
        return len(self.came) + len(self.left)


def root_locations(locations: Sequence[LocationOptions]) -> tuple[RootLocation, ...]:
    """As a root names them."""
    return tuple(RootLocation(each.name, place_of(each), tuple(sorted(each.labels.items()))) for each in locations)


class LocationSet:
    """Owner of the nodes of one process and of their clients."""

    def __init__(self, settings: Settings, host: Host) -> None:
        """Asks no location anything. Raises ConfigInvalid."""
        self.settings = settings
        self._host = host
        self._jitter = jitter_from(host.entropy)
        self._clients: list[S3Client] = []
        self.nodes = Nodes([self._made(options) for options in settings.locations])
        self.on_change: Callable[[], None] = lambda: None

    async def aclose(self) -> None:
        """Close all connections, those of locations that have left too."""
        for client in self._clients:
            await client.aclose()

    async def reload(self, fresh: Settings, roots: Roots) -> Change:
        """Take the locations of `fresh`; everything else of it waits for the next mount.

        Raises Refused for more than one location at a time, Busy while the last change is not at a majority yet,
        ConfigInvalid for files of credentials; then all is as it was.
        """
        change = Change.between(self.settings.locations, fresh.locations)
        if change.steps > 1:
            names = ", ".join((*change.came, *change.left))
            raise Refused(f"the locations may change by one at a time, and {names} would come or go at once")
        if change.steps and not roots.settled:
            raise Busy("the newest root is not at most of the locations yet: try again in a moment", retry_after_s=1.0)
        before = dict(self.nodes)
        after = [self._kept_or_made(options, before) for options in fresh.locations]  # from here on nothing fails
        self.settings = replace(self.settings, locations=fresh.locations)
        self.nodes.replace(after)
        roots.follow(root_locations(fresh.locations), change.came)
        self.on_change()
        for name in change.came:
            log.warning("location %s has been added", name)
        for name in change.left:
            log.warning("location %s has been removed", name)
        return change

    async def say_farewell(self, name: LocationId, roots: Roots) -> None:
        """Once a root names the others: leave it at the one that left, if it answers."""
        with trio.move_on_after(FAREWELL_S_MAX), suppress(QssError):
            await roots.farewell(self.nodes[name])

    def _kept_or_made(self, options: LocationOptions, before: dict[LocationId, Node]) -> Node:
        node = before.get(options.name)
        old = next((each for each in self.settings.locations if each.name == options.name), None)
        if node is None or old is None:
            return self._made(options)
        same = replace(
            old, labels=options.labels, weight=options.weight, metered=options.metered, draining=options.draining
        )
        if same != options:  # another address or other credentials: nothing is known of it
            return self._made(options)
        node.labels, node.weight = options.labels, options.weight
        node.metered, node.draining = options.metered, options.draining
        return node

    def _made(self, options: LocationOptions) -> Node:
        client = client_of(options, self._host)
        self._clients.append(client)
        return node_of(options, client, self.settings, self._host, self._jitter)
