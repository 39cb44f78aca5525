"""The locations as offload uses them: each an ObjectStore with limits, deadlines, retries and a circuit breaker
around it. Runs on trio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar, cast

import trio

from qss.errors import AccessDenied, Busy, CorruptData, QssError, Refused, Retryable, Unreachable
from qss.host import Entropy
from qss.ids import LocationId
from qss.offload.bandwidth import Pace
from qss.offload.health import Health, HealthFacts, HealthOptions, backoff_s
from qss.offload.options import LocationOptions, OffloadOptions
from qss.offload.placement import LocationFacts
from qss.offload.room import Room, weights
from qss.s3.store import Body, HashesInPlace, ObjectInfo, ObjectStore, ReadsInto, TellsRoom, get_into

T = TypeVar("T")

PROBE_DEADLINE_S: Final = 5.0
PROBE_PAUSE_MIN_S: Final = 0.05
ROOM_S: Final = 30.0
"""Between two questions how much a location can take yet."""
NO_ROOM_TOLD_S: Final = 3600.0
"""The same of one that does not say."""


def jitter_from(entropy: Entropy) -> Callable[[], float]:
    """Numbers in [0, 1)."""
    return lambda: int.from_bytes(entropy.token(4), "little") / 2**32


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What status shows of a location."""

    location: LocationId
    up: bool
    denied: bool  # it refused the newest PUT
    draining: bool
    metered: bool
    free_bytes: int | None  # that it can take yet, as it says; None: it does not say
    health: HealthFacts
    labels: Mapping[str, str]
    bytes_up: int
    bytes_down: int
    requests: int  # attempts sent
    retries: int
    errors: int  # attempts that ended without an answer, or asked to come back
    in_flight: int


class Node:
    """One location. Itself an ObjectStore, so whatever takes one takes a Node.

    Every verb waits its turn (`in_flight_per_location`), then has a deadline for each attempt, and is repeated after
    Unreachable and Busy. While the breaker is open it raises Unreachable at once, with `retry_after_s`.
    """

    def __init__(
        self, options: LocationOptions, store: ObjectStore, limits: OffloadOptions, jitter: Callable[[], float]
    ) -> None:
        """`jitter` returns a number in [0, 1), another one each time."""
        self.location = options.name
        self.labels = options.labels
        self.weight = options.weight
        self.draining = options.draining
        self.metered = options.metered
        self.room = Room()
        self.store = store
        # Asked once: looking through a protocol costs as much as a small read.
        self._get_into = store.get_into if isinstance(store, ReadsInto) else partial(get_into, store)
        self._limits = limits
        self._jitter = jitter
        self._health = Health(
            HealthOptions(
                failures=limits.breaker_failures,
                open_first_s=limits.breaker_open_first_s,
                open_max_s=limits.breaker_open_max_s,
            )
        )
        self._turns = trio.CapacityLimiter(limits.in_flight_per_location)
        self._upload = Pace(limits.upload_bytes_per_s)
        self._download = Pace(limits.download_bytes_per_s)
        self._denied = False
        self._flip = trio.Event()
        self._last_verdict_s = float("-inf")
        self._room_at_s = float("-inf")  # when to ask again
        self._bytes_up = self._bytes_down = self._requests = self._retries = self._errors = 0

    @property
    def up(self) -> bool:
        """False from the moment its breaker opens until it answers again."""
        return self._health.up

    @property
    def latency_s(self) -> float | None:
        """Moving average of GET, HEAD and DELETE; None before the first."""
        return self._health.latency_s

    @property
    def facts(self) -> NodeFacts:
        return NodeFacts(
            location=self.location,
            up=self.up,
            denied=self._denied,
            draining=self.draining,
            metered=self.metered,
            free_bytes=self.room.free_bytes,
            health=self._health.facts,
            labels=self.labels,
            bytes_up=self._bytes_up,
            bytes_down=self._bytes_down,
            requests=self._requests,
            retries=self._retries,
            errors=self._errors,
            in_flight=int(self._turns.borrowed_tokens),
        )

    # -- the five verbs
    async def put(self, key: str, body: Body, *, if_absent: bool = False) -> None:
        """Like ObjectStore.put. With `if_absent` an attempt whose fate is unknown (Unreachable) is not repeated: the
        caller must look what is there."""
        if not self.up:
            await self.probe(key)  # a trial should be short, and a PUT may take minutes
        deadline_s = self._limits.put_deadline_s
        rate = self._limits.upload_bytes_per_s
        if rate is not None:
            deadline_s += self._limits.in_flight_per_location * body.length / rate
            body = self._paced(body)
        try:
            await self._call(
                lambda: self.store.put(key, body, if_absent=if_absent), deadline_s, timed=False, only_busy=if_absent
            )
        except AccessDenied:
            self._denied = True
            raise
        self._denied = False
        self._bytes_up += body.length

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        if stop is not None:
            await self._download.wait(stop - start)
        data = await self._call(lambda: self.store.get(key, start, stop), self._limits.get_deadline_s)
        if stop is None:
            await self._download.wait(len(data))
        self._bytes_down += len(data)
        return data

    async def get_into(self, key: str, start: int, into: memoryview) -> None:
        """As qss.s3.store.ReadsInto.get_into."""
        await self._download.wait(len(into))
        await self._call(lambda: self._get_into(key, start, into), self._limits.get_deadline_s)
        self._bytes_down += len(into)

    async def hashes(self, key: str, spans: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """As qss.s3.store.HashesInPlace.hashes; None: this location cannot."""
        store = self.store
        if not isinstance(store, HashesInPlace):
            return None
        return await self._call(lambda: store.hashes(key, spans), self._limits.get_deadline_s, timed=False)

    async def head(self, key: str) -> ObjectInfo:
        return await self._call(lambda: self.store.head(key), self._limits.get_deadline_s)

    async def delete(self, key: str) -> None:
        await self._call(lambda: self.store.delete(key), self._limits.get_deadline_s)

    async def list(self, prefix: str = "", after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        """Like ObjectStore.list; goes on behind the last object seen when the listing breaks off. Takes a turn for each
        step, never while the caller works on an object."""
        attempt = 0
        while True:
            # Every ObjectStore.list is an async generator; the port's type says less.
            async with aclosing(cast("AsyncGenerator[ObjectInfo, None]", self.store.list(prefix, after))) as listing:
                try:
                    while (info := await self._step(listing)) is not None:
                        yield info
                        after, attempt = info.key, 0
                    return
                except Retryable as error:
                    await self._pause_or_raise(attempt, error)
                    attempt += 1

    # -- watching
    async def probe(self, key: str) -> None:
        """Find out whether it answers: a HEAD, repeated until there is a verdict. Raises no QssError."""
        for attempt in range(self._limits.breaker_failures):
            if self._health.refuses(trio.current_time()):
                return
            try:
                await self._once(lambda: self.store.head(key), min(PROBE_DEADLINE_S, self._limits.get_deadline_s))
                return
            except Retryable:
                await trio.sleep(self._backoff_s(attempt))
            except QssError:
                return  # an answer

    async def look_at_room(self) -> None:
        """Ask how much it can take yet, if that is worth a request now. Raises no QssError."""
        store, now_s = self.store, trio.current_time()
        if not isinstance(store, TellsRoom) or now_s < self._room_at_s or not self.up:
            return

        async def ask() -> int | None:
            try:
                return await store.free_bytes()
            except (Refused, CorruptData):  # it need not let us know; nothing is wrong with it
                return None

        try:
            free_bytes = await self._once(ask, min(PROBE_DEADLINE_S, self._limits.get_deadline_s))
        except QssError:
            return
        self.room = self.room.heard(free_bytes)
        self._room_at_s = now_s + (NO_ROOM_TOLD_S if free_bytes is None else ROOM_S)

    def next_probe_in_s(self, interval_s: float) -> float:
        """Seconds until a probe can tell something new."""
        now_s = trio.current_time()
        wait_s = self._last_verdict_s + interval_s - now_s if self.up else self._health.try_in_s(now_s)
        return max(PROBE_PAUSE_MIN_S, wait_s)

    async def flipped(self) -> None:
        """Return when it goes down or comes back."""
        await self._flip.wait()

    # -- one request
    async def _call(
        self, send: Callable[[], Awaitable[T]], deadline_s: float, *, timed: bool = True, only_busy: bool = False
    ) -> T:
        """`send` until it succeeds, is refused, or the attempts are used up."""
        attempt = 0
        while True:
            try:
                return await self._once(send, deadline_s, timed=timed)
            except Retryable as error:
                if only_busy and not isinstance(error, Busy):
                    raise
                await self._pause_or_raise(attempt, error)
                attempt += 1

    async def _pause_or_raise(self, attempt: int, error: Retryable) -> None:
        if attempt + 1 >= self._limits.attempts or self._health.refuses(trio.current_time()):
            raise error
        self._retries += 1
        asked_s = min(error.retry_after_s or 0.0, self._limits.backoff_max_s)
        await trio.sleep(max(asked_s, self._backoff_s(attempt)))

    def _backoff_s(self, attempt: int) -> float:
        return backoff_s(attempt, self._limits.backoff_first_s, self._limits.backoff_max_s, self._jitter())

    async def _step(self, listing: AsyncGenerator[ObjectInfo, None]) -> ObjectInfo | None:
        return await self._once(lambda: anext(listing, None), self._limits.get_deadline_s, timed=False)

    async def _once(self, send: Callable[[], Awaitable[T]], deadline_s: float, *, timed: bool = True) -> T:
        """One attempt, when it is its turn."""
        self._refuse_if_open(ask=True)
        request = object()  # not the task: a body may itself be read from this location
        await self._take_turn(request)
        try:
            return await self._attempt(send, deadline_s, timed=timed)
        finally:
            self._turns.release_on_behalf_of(request)

    async def _take_turn(self, request: object) -> None:
        """Waits only if it must: `async with` a limiter always costs a turn of the loop (docs/adr/0154)."""
        try:
            self._turns.acquire_on_behalf_of_nowait(request)
        except trio.WouldBlock:
            await self._turns.acquire_on_behalf_of(request)

    async def _attempt(self, send: Callable[[], Awaitable[T]], deadline_s: float, *, timed: bool) -> T:
        """Its verdict goes to the breaker whatever happens."""
        self._refuse_if_open(ask=False)  # it may have opened while we waited
        was_up, sent_s = self.up, trio.current_time()
        self._requests += 1
        try:
            with trio.fail_after(deadline_s):
                result = await send()
        except trio.TooSlowError:
            error = Unreachable(f"location {self.location} did not answer within {deadline_s:g} s")
            self._count_failure(error)
            raise error from None
        except Retryable as error:
            self._count_failure(error)
            raise
        except QssError as error:
            complaint = str(error) if isinstance(error, Refused) else ""
            self._health.answered(trio.current_time() - sent_s if timed else None, complaint)
            raise
        except BaseException:  # cancelled, or the body could not be read: not the location's doing
            now_s = trio.current_time()
            self._health.abandoned(now_s, now_s - sent_s if timed else 0.0)
            raise
        else:
            self._health.answered(trio.current_time() - sent_s if timed else None)
            return result
        finally:
            self._last_verdict_s = trio.current_time()
            if self.up != was_up:
                self._flip.set()
                self._flip = trio.Event()

    def _refuse_if_open(self, *, ask: bool) -> None:
        now_s = trio.current_time()
        if self._health.refuses(now_s) if ask else not self._health.allow(now_s):
            reason = self._health.facts.last_error or "it is being tried again"
            raise Unreachable(f"location {self.location} is down: {reason}", retry_after_s=self._health.try_in_s(now_s))

    def _count_failure(self, error: Retryable) -> None:
        self._errors += 1
        verdict = self._health.busy if isinstance(error, Busy) else self._health.failed
        verdict(trio.current_time(), self._jitter(), str(error))

    # -- bandwidth
    def _paced(self, body: Body) -> Body:
        async def chunks() -> AsyncIterator[bytes | memoryview]:
            async for chunk in body.chunks():
                await self._upload.wait(len(chunk))
                yield chunk

        return Body(body.length, chunks)


class Nodes(Mapping[LocationId, Node]):
    """All locations of a file system, in the order of configuration. The set may change while it is in use: whoever
    iterates sees one moment, and a name that was among them stays good for `nodes[name]`, whose verbs then say
    Unreachable or go on (docs/adr/0113)."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = {node.location: node for node in nodes}
        self._retired: dict[LocationId, Node] = {}
        self._changed = trio.Event()
        assert len(self._nodes) == len(nodes), "two locations have the same name"

    def __getitem__(self, location: LocationId) -> Node:
        node = self._nodes.get(location)
        return self._retired[location] if node is None else node

    def __contains__(self, location: object) -> bool:
        return location in self._nodes

    def replace(self, nodes: Sequence[Node]) -> None:
        """From now on these. Whoever looks next sees the new set; never half of it."""
        fresh = {node.location: node for node in nodes}
        assert len(fresh) == len(nodes), "two locations have the same name"
        self._retired = {name: node for name, node in (self._retired | self._nodes).items() if name not in fresh}
        self._nodes = fresh
        self._changed.set()
        self._changed = trio.Event()

    def __iter__(self) -> Iterator[LocationId]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def facts(self) -> list[NodeFacts]:
        return [node.facts for node in self._nodes.values()]

    def placement(self) -> list[LocationFacts]:
        """For `place`: every location, by its free space; those that are down or full are not usable now."""
        nodes = list(self._nodes.values())
        return [
            LocationFacts(
                node.location, weight, node.labels, usable=node.up and not node.room.full, leaving=node.draining
            )
            for node, weight in zip(nodes, weights([(node.weight, node.room) for node in nodes]), strict=True)
        ]

    async def watch(
        self, probe_key: str, on_change: Callable[[LocationId, bool], Awaitable[None]], interval_s: float
    ) -> None:
        """Probe every location at once, then those that have been idle for the interval, and those that are down
        as soon as their breaker lets one request through. Calls `on_change(location, up)` when one goes down or
        comes back, whoever noticed; all are taken to be up before. Follows `replace`. Runs until cancelled."""
        watched: dict[Node, trio.CancelScope] = {}
        async with trio.open_nursery() as nursery:
            while True:
                changed, now = self._changed, list(self._nodes.values())
                for node in now:
                    if node not in watched:
                        watched[node] = trio.CancelScope()
                        nursery.start_soon(_watch_one, node, probe_key, on_change, interval_s, watched[node])
                for node in [node for node in watched if node not in now]:
                    watched.pop(node).cancel()
                await changed.wait()


async def _watch_one(
    node: Node, probe_key: str, on_change: Callable[[LocationId, bool], Awaitable[None]], interval_s: float,
    scope: trio.CancelScope,
) -> None:  # fmt: skip
    told_up = True
    with scope:
        while True:
            await node.probe(probe_key)
            await node.look_at_room()
            while node.up != told_up:
                told_up = node.up
                await on_change(node.location, told_up)
            with trio.move_on_after(node.next_probe_in_s(interval_s)):
                await node.flipped()
