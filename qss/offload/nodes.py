"""The locations as offload uses them: each an ObjectStore with limits, deadlines, retries and a circuit breaker
around it. Runs on trio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from qss.ids import LocationId
from qss.offload.health import HealthFacts
from qss.offload.options import LocationOptions, OffloadOptions
from qss.offload.placement import LocationFacts
from qss.s3.store import Body, ObjectInfo, ObjectStore


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What status shows of a location."""

    location: LocationId
    up: bool
    health: HealthFacts
    labels: Mapping[str, str]
    bytes_up: int
    bytes_down: int
    requests: int
    retries: int
    errors: int
    in_flight: int


class Node:
    """One location. Itself an ObjectStore, so whatever takes one takes a Node."""

    location: LocationId
    labels: Mapping[str, str]

    def __init__(
        self, options: LocationOptions, store: ObjectStore, limits: OffloadOptions, jitter: Callable[[], float]
    ) -> None:
        """`jitter` returns a number in [0, 1), another one each time."""
        raise NotImplementedError

    @property
    def up(self) -> bool:
        raise NotImplementedError

    @property
    def latency_s(self) -> float | None:
        """Moving average of answered requests."""
        raise NotImplementedError

    async def put(self, key: str, body: Body, *, if_absent: bool = False) -> None:
        """Like ObjectStore.put. With `if_absent` an attempt whose fate is unknown (Unreachable) is not repeated: the
        caller must look what is there."""
        raise NotImplementedError

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        raise NotImplementedError

    async def head(self, key: str) -> ObjectInfo:
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        raise NotImplementedError

    def list(self, prefix: str = "", after: str = "") -> AsyncIterator[ObjectInfo]:
        raise NotImplementedError


class Nodes(Mapping[LocationId, Node]):
    """All locations of a file system, in the order of configuration."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        raise NotImplementedError

    def __getitem__(self, location: LocationId) -> Node:
        raise NotImplementedError

    def __iter__(self) -> Iterator[LocationId]:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def facts(self) -> list[NodeFacts]:
        raise NotImplementedError

    def placement(self) -> list[LocationFacts]:
        """For `place`: every location; those that are down are not usable."""
        raise NotImplementedError

    async def watch(
        self, probe_key: str, on_change: Callable[[LocationId, bool], Awaitable[None]], interval_s: float
    ) -> None:
        """Probe every location at once and then by the interval; call `on_change(location, up)` when one goes down or
        comes back, whoever noticed. Runs until cancelled."""
        raise NotImplementedError
