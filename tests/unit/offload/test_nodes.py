"""A node keeps the contract of an object store over a store that fails in every way; no real time passes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from qss.errors import AccessDenied, Busy, CorruptData, ObjectMissing, PreconditionFailed, QssError, Unreachable
from qss.host import SystemEntropy
from qss.ids import LocationId
from qss.offload.health import Breaker
from qss.offload.nodes import Node, Nodes, jitter_from
from qss.offload.options import LocationOptions, OffloadOptions
from qss.s3.store import Body, ObjectStore
from tests.contracts.object_store import ObjectStoreContract
from tests.harness.faulty_store import Faults, FaultyStore
from tests.harness.memory_store import MemoryStore, body_of

LIMITS = OffloadOptions(
    in_flight_per_location=2,
    put_deadline_s=60,
    get_deadline_s=10,
    attempts=4,
    backoff_first_s=0.1,
    backoff_max_s=5,
    breaker_failures=3,
    breaker_open_first_s=1,
    breaker_open_max_s=30,
)
PATIENT = replace(LIMITS, breaker_failures=1000, attempts=1000)


def node_over(store: ObjectStore, limits: OffloadOptions = LIMITS, name: str = "a") -> Node:
    options = LocationOptions(LocationId(name), "http://127.0.0.1", "bucket", labels={"region": "r"}, weight=2.0)
    return Node(options, store, limits, lambda: 0.0)


class TestNode(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return node_over(MemoryStore())


class TestNodeOverFaults(ObjectStoreContract):
    """What fails is repeated until it works; nobody sees it but the counters."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        faults = Faults(busy=0.1, reset=0.1, cut=0.05)
        return node_over(FaultyStore(MemoryStore(), 1, faults), replace(PATIENT, backoff_max_s=1e-6))


# -- repeating
@pytest.mark.parametrize("faults", [Faults(busy=0.5), Faults(reset=0.5), Faults(lost_answer=0.5), Faults(cut=0.5)])
async def test_put_survives(autojump_clock: trio.abc.Clock, faults: Faults) -> None:
    inner = MemoryStore()
    node = node_over(FaultyStore(inner, 7, faults), PATIENT)
    for number in range(20):
        await node.put(f"k{number}", body_of(b"x" * number))
    assert inner.objects == {f"k{number}": b"x" * number for number in range(20)}
    assert node.facts.retries > 0
    assert node.facts.bytes_up == sum(range(20))  # once each, however often they were sent


async def test_attempts_are_bounded(autojump_clock: trio.abc.Clock) -> None:
    store = FaultyStore(MemoryStore(), faults=Faults(busy=1.0))
    node = node_over(store)
    with pytest.raises(Busy):
        await node.head("k")
    assert store.calls["head"] == LIMITS.attempts


async def test_pauses_double_and_heed_retry_after(autojump_clock: trio.abc.Clock) -> None:
    store = FaultyStore(MemoryStore(), faults=Faults(busy=1.0))
    started = trio.current_time()
    with pytest.raises(Busy):
        await node_over(store).head("k")
    assert trio.current_time() - started == pytest.approx(0.1 + 0.2 + 0.4)
    store.faults.retry_after_s = 3.0
    started = trio.current_time()
    with pytest.raises(Busy):
        await node_over(store).head("k")
    assert trio.current_time() - started == pytest.approx(9.0)
    store.faults.retry_after_s = 86_400.0  # a location cannot make us wait for as long as it likes
    started = trio.current_time()
    with pytest.raises(Busy):
        await node_over(store).head("k")
    assert trio.current_time() - started == pytest.approx(15.0)


@pytest.mark.parametrize(
    ("verb", "error"), [("get", ObjectMissing), ("put", PreconditionFailed), ("range", CorruptData)]
)
async def test_answers_are_not_repeated(verb: str, error: type[QssError]) -> None:
    store = FaultyStore(MemoryStore())
    node = node_over(store)
    await node.put("there", body_of(b"x"))
    store.calls.clear()
    send = {
        "get": lambda: node.get("absent"),
        "put": lambda: node.put("there", body_of(b"y"), if_absent=True),
        "range": lambda: node.get("there", 0, 5),
    }
    with pytest.raises(error):
        await send[verb]()
    assert store.calls.total() == 1
    assert node.up
    assert node.facts.errors == 0


async def test_a_conditional_put_of_unknown_fate_is_not_repeated() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner, faults=Faults(lost_answer=1.0))
    with pytest.raises(Unreachable):
        await node_over(store).put("k", body_of(b"mine"), if_absent=True)
    assert store.calls["put"] == 1  # a second would say PreconditionFailed of our own object
    assert inner.objects == {"k": b"mine"}


async def test_a_conditional_put_that_was_turned_away_is_repeated(autojump_clock: trio.abc.Clock) -> None:
    inner = MemoryStore()
    await node_over(FaultyStore(inner, 3, Faults(busy=0.6)), PATIENT).put("k", body_of(b"mine"), if_absent=True)
    assert inner.objects == {"k": b"mine"}


async def test_listing_goes_on_where_it_broke(autojump_clock: trio.abc.Clock) -> None:
    inner = MemoryStore()
    for number in range(100):
        await inner.put(f"{number:03}", body_of(b""))
    store = FaultyStore(inner, 5, Faults(cut=0.1, busy=0.2))
    keys = [info.key async for info in node_over(store, PATIENT).list()]
    assert keys == [f"{number:03}" for number in range(100)]
    assert store.calls["list"] > 5


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 0.6), st.floats(0, 0.6))
def test_whatever_the_seed_nothing_acknowledged_is_missing(seed: int, lost: float, reset: float) -> None:
    async def scenario() -> None:
        inner = MemoryStore()
        faults = Faults(lost_answer=lost, reset=reset, busy=0.1, cut=0.1)
        node = node_over(FaultyStore(inner, seed, faults))
        for number in range(30):
            try:
                await node.put(f"k{number}", body_of(b"x" * number))
            except QssError:
                continue
            assert inner.objects[f"k{number}"] == b"x" * number

    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))


# -- deadlines and turns
async def test_a_location_that_hangs_meets_the_deadline(autojump_clock: trio.abc.Clock) -> None:
    store = FaultyStore(MemoryStore())
    store.hung = True
    node = node_over(store)
    started = trio.current_time()
    with pytest.raises(Unreachable, match="within 10 s"):
        await node.get("k")
    assert trio.current_time() - started == pytest.approx(3 * 10 + 0.1 + 0.2)
    assert not node.up  # three in a row


class Crowded(MemoryStore):
    """Counts how many requests are inside at once."""

    inside = most = 0

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await trio.sleep(1)
        self.inside -= 1
        return await super().get(key, start, stop)


async def test_turns_are_bounded(autojump_clock: trio.abc.Clock) -> None:
    store = Crowded()
    node = node_over(store)
    await node.put("k", body_of(b"x"))
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(node.get, "k")
        await trio.testing.wait_all_tasks_blocked()
        assert node.facts.in_flight == 2
    assert store.most == 2
    assert node.facts.bytes_down == 10


async def test_a_walk_through_a_listing_leaves_turns_to_others(autojump_clock: trio.abc.Clock) -> None:
    node = node_over(MemoryStore(), replace(LIMITS, in_flight_per_location=1))
    for number in range(25):
        await node.put(f"{number:02}", body_of(b"x"))
    async for info in node.list():
        await node.delete(info.key)  # would wait for ever if the listing held the only turn
    assert [info async for info in node.list()] == []


async def test_a_cancelled_request_gives_its_turn_back(autojump_clock: trio.abc.Clock) -> None:
    node = node_over(Crowded())
    await node.put("k", body_of(b"x"))
    for _ in range(5):
        with trio.move_on_after(0.5):
            await node.get("k")
    assert node.facts.in_flight == 0
    assert node.up
    assert await node.get("k") == b"x"


async def test_a_body_that_cannot_be_read_is_not_the_locations_fault() -> None:
    async def chunks() -> AsyncIterator[bytes | memoryview]:
        yield b"x"
        raise RuntimeError("the segment file is gone")

    node = node_over(MemoryStore())
    for _ in range(5):
        with pytest.raises(RuntimeError):
            await node.put("k", Body(2, chunks))
    assert node.up
    assert node.facts.in_flight == 0


async def test_upload_rate(autojump_clock: trio.abc.Clock) -> None:
    node = node_over(MemoryStore(), replace(LIMITS, upload_bytes_per_s=1_000_000, put_deadline_s=1))
    started = trio.current_time()
    await node.put("k", body_of(bytes(10_000_000)))  # takes longer than the deadline for a free line
    assert 9 <= trio.current_time() - started <= 10


async def test_download_rate(autojump_clock: trio.abc.Clock) -> None:
    node = node_over(MemoryStore(), replace(LIMITS, download_bytes_per_s=1_000_000))
    await node.put("k", body_of(bytes(1_000_000)))
    started = trio.current_time()
    for _ in range(5):
        await node.get("k")
        await node.get("k", 0, 1_000_000)
    assert 8 <= trio.current_time() - started <= 10


# -- the breaker
async def test_down_is_noticed_and_then_costs_nothing(autojump_clock: trio.abc.Clock) -> None:
    store = FaultyStore(MemoryStore())
    store.down = True
    node = node_over(store)
    with pytest.raises(Unreachable):
        await node.get("k")
    assert store.calls["get"] == 3
    assert node.facts.health.breaker is Breaker.OPEN
    started = trio.current_time()
    with pytest.raises(Unreachable, match="a is down: injected: connection refused") as failure:
        await node.put("k", body_of(b"x"))
    assert trio.current_time() == started
    assert store.calls["put"] == 0
    assert failure.value.retry_after_s == pytest.approx(1.0)


async def test_it_comes_back_by_one_request(autojump_clock: trio.abc.Clock) -> None:
    store = FaultyStore(MemoryStore())
    store.down = True
    node = node_over(store)
    with pytest.raises(Unreachable):
        await node.get("k")
    store.down = False
    await trio.sleep(1.0)
    await node.put("k", body_of(b"x"))
    assert node.up


async def test_a_put_is_never_the_trial(autojump_clock: trio.abc.Clock) -> None:
    store = FaultyStore(MemoryStore())
    store.down = True
    node = node_over(store)
    with pytest.raises(Unreachable):
        await node.get("k")
    store.down, store.hung = False, True
    await trio.sleep(1.0)
    started = trio.current_time()
    with pytest.raises(Unreachable):
        await node.put("k", body_of(b"x"))
    assert store.calls["put"] == 0
    assert trio.current_time() - started < LIMITS.put_deadline_s / 6


async def test_refused_credentials_are_shown(autojump_clock: trio.abc.Clock) -> None:
    store = FaultyStore(MemoryStore())
    store.denied = True
    node = node_over(store)
    with pytest.raises(AccessDenied):
        await node.put("k", body_of(b"x"))
    assert store.calls["put"] == 1
    assert node.facts.denied
    assert node.up
    store.denied = False
    await node.put("k", body_of(b"x"))
    assert not node.facts.denied


# -- all together
def three() -> tuple[Nodes, list[FaultyStore]]:
    stores = [FaultyStore(MemoryStore(), seed) for seed in range(3)]
    return Nodes([node_over(store, name=name) for store, name in zip(stores, "abc", strict=True)]), stores


async def test_nodes_are_a_mapping_in_order() -> None:
    nodes, _ = three()
    assert list(nodes) == ["a", "b", "c"]
    assert nodes[LocationId("b")].location == "b"
    assert [facts.location for facts in nodes.facts()] == ["a", "b", "c"]
    assert [(facts.weight, facts.usable, facts.labels) for facts in nodes.placement()] == [
        (2.0, True, {"region": "r"})
    ] * 3
    with pytest.raises(AssertionError):
        Nodes([node_over(MemoryStore()), node_over(MemoryStore())])


async def test_watch_tells_of_each_change_once(autojump_clock: trio.abc.Clock) -> None:
    nodes, stores = three()
    told: list[tuple[float, LocationId, bool]] = []
    started = trio.current_time()

    async def on_change(location: LocationId, up: bool) -> None:
        told.append((trio.current_time() - started, location, up))

    stores[1].down = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(nodes.watch, "probe", on_change, 10.0)
        await trio.sleep(100)
        assert [(location, up) for _, location, up in told] == [("b", False)]
        assert told[0][0] < 1  # seen at once, not at the end of the interval
        assert [facts.usable for facts in nodes.placement()] == [True, False, True]
        stores[1].down = False
        stores[2].hung = True
        await trio.sleep(100)
        nursery.cancel_scope.cancel()
    changes = [(location, up) for _, location, up in told]
    assert changes[:1] == [("b", False)]
    assert sorted(changes[1:]) == [("b", True), ("c", False)]
    back = next(at for at, location, up in told if up)
    assert 100 <= back <= 130  # a trial at least every breaker_open_max_s


async def test_watch_hears_of_what_a_request_noticed(autojump_clock: trio.abc.Clock) -> None:
    nodes, stores = three()
    told: list[tuple[LocationId, bool]] = []

    async def on_change(location: LocationId, up: bool) -> None:
        told.append((location, up))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(nodes.watch, "probe", on_change, 3600.0)
        await trio.sleep(1)
        stores[0].down = True
        with pytest.raises(Unreachable):
            await nodes[LocationId("a")].get("k")
        await trio.testing.wait_all_tasks_blocked()
        assert told == [("a", False)]
        nursery.cancel_scope.cancel()


async def test_an_idle_watch_probes_by_the_interval(autojump_clock: trio.abc.Clock) -> None:
    nodes, stores = three()

    async def on_change(location: LocationId, up: bool) -> None:
        raise AssertionError("nothing changes")

    with trio.move_on_after(105):
        await nodes.watch("probe", on_change, 10.0)
    assert all(10 <= store.calls["head"] <= 12 for store in stores)


def test_jitter() -> None:
    jitter = jitter_from(SystemEntropy())
    draws = [jitter() for _ in range(1000)]
    assert all(0 <= draw < 1 for draw in draws)
    assert 0.4 < sum(draws) / 1000 < 0.6
