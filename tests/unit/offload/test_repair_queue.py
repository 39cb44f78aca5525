"""The order of repair: closest to loss first, nothing dropped, nothing starved."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qss.ids import SegmentId
from qss.offload.repair_queue import AGE_STEP_S, PAUSE_MAX_S, RepairQueue


def drained(queue: RepairQueue, now_s: float) -> list[int]:
    order = []
    while (segment := queue.take(now_s, ())) is not None:
        order.append(segment)
        queue.done(segment)
    return order


def test_closest_to_loss_first_then_oldest() -> None:
    queue = RepairQueue()
    for now_s, (segment, spare) in enumerate([(1, 2), (2, 0), (3, 1), (4, 0), (5, -1)]):
        queue.put(SegmentId(segment), spare, float(now_s))
    assert queue.least_spare == -1
    assert drained(queue, 10.0) == [2, 4, 5, 3, 1]


def test_a_segment_is_queued_once_keeps_its_age_and_is_due_when_it_gets_worse() -> None:
    queue = RepairQueue()
    queue.put(SegmentId(1), 2, 0.0)
    queue.failed(SegmentId(1), 0.0, 0.0)
    queue.put(SegmentId(1), 2, 0.1)
    assert queue.take(0.1, ()) is None  # the same again: its pause goes on
    queue.put(SegmentId(1), 1, 0.1)
    assert queue.take(0.1, ()) == 1
    queue.put(SegmentId(2), 1, 0.05)
    assert (len(queue), drained(queue, 0.2)) == (2, [1, 2])


def test_what_others_work_on_is_passed_over() -> None:
    queue = RepairQueue()
    queue.put(SegmentId(1), 0, 0.0)
    queue.put(SegmentId(2), 1, 0.0)
    assert queue.take(0.0, {SegmentId(1)}) == 2


def test_an_endless_stream_of_worse_ones_does_not_starve_a_better_one() -> None:
    queue = RepairQueue()
    queue.put(SegmentId(1), 3, 0.0)
    now_s, served = 0.0, []
    for number in range(2, 1000):
        now_s += 10.0
        queue.put(SegmentId(number), 0, now_s)
        segment = queue.take(now_s, ())
        assert segment is not None
        served.append(segment)
        queue.done(segment)
        if segment == 1:
            break
    assert 1 in served
    assert now_s <= 3 * AGE_STEP_S + 10.0


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(-1, 4), st.booleans()), max_size=60))
def test_nothing_is_ever_dropped(steps: list[tuple[int, int, bool]]) -> None:
    queue, wanted, now_s = RepairQueue(), set(), 0.0
    for segment, spare, fail in steps:
        now_s += 1.0
        queue.put(SegmentId(segment), spare, now_s)
        wanted.add(segment)
        if fail and (taken := queue.take(now_s, ())) is not None:
            queue.failed(taken, now_s, 0.5)
    assert set(queue) == wanted
    assert set(drained(queue, now_s + PAUSE_MAX_S)) == wanted
