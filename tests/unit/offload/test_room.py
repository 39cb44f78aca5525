"""Free space as a weight of placement: in steps that stick, of which only the relations count."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import AccessDenied, CorruptData, Unreachable
from qss.ids import LocationId, SegmentId
from qss.offload.nodes import ROOM_S, Node, Nodes
from qss.offload.options import LocationOptions, OffloadOptions
from qss.offload.placement import PlacementPolicy, place
from qss.offload.room import STEP, Room, weights
from qss.s3 import room as told
from tests.harness.memory_store import MemoryStore

GIB = 1 << 30
sizes = st.integers(1, 2**62)


class RoomyStore(MemoryStore):
    """Says what it is told to say about its free space."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer
        self.asked = 0

    async def free_bytes(self) -> int | None:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def node_of(store: MemoryStore, name: str, weight: float = 1.0) -> Node:
    options = LocationOptions(LocationId(name), "http://127.0.0.1", "bucket", weight=weight)
    return Node(options, store, OffloadOptions(), lambda: 0.0)


@given(sizes)
def test_a_step_is_at_most_half_a_step_away_and_the_same_space_says_nothing_new(free: int) -> None:
    first = Room().heard(free)
    assert free / STEP**0.51 <= STEP**first.level <= free * STEP**0.51
    assert first.heard(free) == first


@given(sizes, st.floats(0.87, 1.15))
def test_space_that_comes_and_goes_by_a_little_stays_one_step(free: int, factor: float) -> None:
    """Up to half a step of rounding and a quarter of another: 1.25 ** 0.25 is 1.057."""
    exact = round(STEP ** Room().heard(free).level)
    settled = Room().heard(exact)
    assert settled.heard(max(1, round(exact * factor))).level == settled.level or exact < 100


@given(st.lists(sizes, min_size=2, max_size=40))
def test_however_it_got_there_it_is_never_off_by_a_step(history: list[int]) -> None:
    room = Room()
    for free in history:
        room = room.heard(free)
    assert free / STEP**0.76 <= STEP**room.level <= free * STEP**0.76


def test_without_answers_or_with_the_same_the_weights_are_those_of_the_configuration() -> None:
    assert weights([(1.0, Room()), (3.0, Room())]) == [1.0, 3.0]
    some = Room().heard(123 * GIB)
    assert weights([(1.0, some), (3.0, some), (2.0, Room())]) == [1.0, 3.0, 2.0]
    assert weights([]) == []


@given(st.lists(st.tuples(st.floats(0.01, 100), st.none() | st.integers(0, 2**62)), min_size=1, max_size=30))
def test_weights_are_positive_and_follow_what_is_said(places: list[tuple[float, int | None]]) -> None:
    rooms = [(configured, Room().heard(free)) for configured, free in places]
    found = weights(rooms)
    assert all(0 < weight < float("inf") for weight in found)
    said = [(weight / configured, free) for weight, (configured, free) in zip(found, places, strict=True) if free]
    for one, one_free in said:
        for other, other_free in said:
            assert one_free / other_free / STEP**1.1 <= one / other <= one_free / other_free * STEP**1.1


@pytest.mark.parametrize("value", ["", "-1", "1.5", "0x10", "9" * 19, "١"])
def test_answers_that_do_not_hold_are_refused(value: str) -> None:
    with pytest.raises(CorruptData):
        told.answered(value)
    assert told.answered(None) is None
    assert told.answered("0") == 0


async def test_shards_go_where_there_is_room_and_none_where_there_is_not(autojump_clock) -> None:
    stores = [RoomyStore(each) for each in (8 * GIB, 1 * GIB, 1 * GIB, 0, None)]
    nodes = Nodes([node_of(store, name) for store, name in zip(stores, "abcde", strict=True)])
    for node in nodes.values():
        await node.look_at_room()
    facts = {each.location: each for each in nodes.placement()}
    assert [each.location for each in facts.values() if not each.usable] == ["d"]
    assert facts[LocationId("e")].weight == facts[LocationId("b")].weight, "who says nothing is typical"
    assert [each.free_bytes for each in nodes.facts()] == [8 * GIB, GIB, GIB, 0, None]
    homes = [place(SegmentId(n), 1, nodes.placement(), PlacementPolicy())[0] for n in range(1, 2001)]
    assert 0.68 < homes.count(LocationId("a")) / 2000 < 0.78  # 8 of 11, and a step is up to a half off


async def test_a_location_that_fills_a_little_moves_nothing(autojump_clock) -> None:
    stores = [RoomyStore(100 * GIB) for _ in range(4)]
    nodes = Nodes([node_of(store, name) for store, name in zip(stores, "abcd", strict=True)])

    async def homes() -> list[list[LocationId]]:
        await trio.sleep(ROOM_S)
        for node in nodes.values():
            await node.look_at_room()
        return [place(SegmentId(n), 3, nodes.placement(), PlacementPolicy()) for n in range(1, 201)]

    before = await homes()
    stores[0].answer, stores[1].answer = 98 * GIB, 102 * GIB
    assert await homes() == before
    stores[0].answer = 50 * GIB
    after = await homes()
    assert after != before
    moved = sum(len(set(new) - set(old)) for new, old in zip(after, before, strict=True))
    left = sum(LocationId("a") in old and LocationId("a") not in new for new, old in zip(after, before, strict=True))
    assert moved == left, "only from the one that has less"


@pytest.mark.parametrize("trouble", [AccessDenied("no"), CorruptData("odd"), Unreachable("gone")])
async def test_one_that_does_not_say_is_as_before_and_nothing_is_wrong_with_it(autojump_clock, trouble) -> None:
    store = RoomyStore(5 * GIB)
    node = node_of(store, "a")
    await node.look_at_room()
    store.answer = trouble
    await node.look_at_room()
    assert store.asked == 1, "it was asked just now"
    await trio.sleep(ROOM_S)
    await node.look_at_room()
    assert store.asked == 2
    assert node.room.free_bytes == (5 * GIB if isinstance(trouble, Unreachable) else None)
    assert node.up
    assert node.facts.health.last_error == ("gone" if isinstance(trouble, Unreachable) else "")
