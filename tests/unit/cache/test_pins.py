"""Which segments snapshots need, against a model that remembers for each snapshot what lived at its cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qss.cache.pins import Missing, Pins, held_alone, held_bytes, missing, point_of
from qss.formats.tables import SegmentRow, SegmentState, SnapshotRow
from qss.ids import SegmentId
from qss.segments import SegmentKind

DATA, JOURNAL = SegmentKind.DATA, SegmentKind.JOURNAL
LENGTH = 100


def snapshot(number: int, behind: int, first: int = 1, last: int = 1) -> SnapshotRow:
    return SnapshotRow(number, 0, SegmentId(behind), SegmentId(first), SegmentId(last), SegmentId(last + 1), False)


def segment(kind: SegmentKind, state: SegmentState = SegmentState.OFFLOADED, mark: int = 0) -> SegmentRow:
    return SegmentRow(kind, state, 4, 2, 6, LENGTH, 1, SegmentId(mark), 0, bytes(16))


class Model:
    """The truth, kept the long way: for each snapshot the set of segments that lived at its cut."""

    def __init__(self) -> None:
        self.next = 1
        self.number = 0
        self.live: set[int] = set()
        self.snapshots: dict[int, tuple[SnapshotRow, frozenset[int]]] = {}
        self.deaths: dict[SegmentId, int] = {}

    def step(self, what: str, pick: int) -> None:
        match what:
            case "new":
                self.live.add(self.next)
                self.next += 1
            case "kill" if self.live:
                victim = sorted(self.live)[pick % len(self.live)]
                self.live.discard(victim)
                self.deaths[SegmentId(victim)] = self.number
            case "snapshot":
                self.number += 1
                self.snapshots[self.number] = (snapshot(self.number, self.next), frozenset(self.live))
            case "delete" if self.snapshots:
                del self.snapshots[sorted(self.snapshots)[pick % len(self.snapshots)]]


steps = st.lists(
    st.tuples(st.sampled_from(["new", "new", "kill", "kill", "snapshot", "delete"]), st.integers(0, 50)), max_size=60
)


@given(steps)
def test_one_number_for_each_dead_segment_is_as_good_as_remembering_sets(life: list[tuple[str, int]]) -> None:
    model = Model()
    for what, pick in life:
        model.step(what, pick)
    pins = Pins(row for row, _ in model.snapshots.values())
    rows = {SegmentId(each): segment(DATA) for each in range(1, model.next)}
    alone: dict[int, int] = {}
    dead_bytes = 0
    for number in rows:
        death = None if number in model.live else model.deaths[number]
        wanted = [each for each, (_, lived) in sorted(model.snapshots.items()) if number in lived]
        assert pins.holders(number, death) == wanted
        assert pins.holds(number, death) == bool(wanted)
        if number not in model.live and wanted:
            dead_bytes += LENGTH
            if len(wanted) == 1:
                alone[wanted[0]] = alone.get(wanted[0], 0) + LENGTH
    assert held_alone(rows, model.deaths, pins) == alone
    live = {SegmentId(each): LENGTH for each in model.live}
    assert held_bytes(rows, model.deaths, live, pins) == dead_bytes


@given(steps)
def test_a_segment_marked_late_is_only_kept_longer(life: list[tuple[str, int]]) -> None:
    """A mark that was lost and made again has a higher number: more snapshots seem to need it, never fewer."""
    model = Model()
    for what, pick in life:
        model.step(what, pick)
    pins = Pins(row for row, _ in model.snapshots.values())
    for number, death in model.deaths.items():
        assert set(pins.holders(number, death)) <= set(pins.holders(number, model.number))
        assert set(pins.holders(number, model.number)) <= set(pins.holders(number, None))


def test_dead_bytes_beside_live_ones_are_held_too() -> None:
    pins = Pins([snapshot(1, 5)])
    rows = {SegmentId(3): segment(DATA), SegmentId(6): segment(DATA)}
    assert held_bytes(rows, {}, {SegmentId(3): 30, SegmentId(6): 30}, pins) == LENGTH - 30


def test_logs_are_pinned_and_named() -> None:
    row = snapshot(1, 20, 7, 12)._replace(checkpoint=(SegmentId(3), SegmentId(4)))
    pins = Pins([row])
    numbers = [SegmentId(each) for each in range(1, 15)]
    assert [each for each in numbers if pins.holds_log(each, JOURNAL)] == [7, 8, 9, 10, 11, 12]
    assert [each for each in numbers if pins.holds_log(each, SegmentKind.CHECKPOINT)] == [3, 4]
    rows = {SegmentId(each): segment(JOURNAL) for each in (2, 7, 9, 13)} | {SegmentId(8): segment(DATA)}
    point = point_of(row, rows, [SegmentId(12)])
    assert point.checkpoint == (3, 4)
    assert point.journals == (7, 9, 12)
    assert point.next_segment == 20


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 9)), max_size=8))
def test_journals_are_held_from_the_first_to_the_last_of_each(spans: list[tuple[int, int]]) -> None:
    pins = Pins(snapshot(number, 99, first, first + more) for number, (first, more) in enumerate(spans, 1))
    for number in range(1, 45):
        wanted = any(first <= number <= first + more for first, more in spans)
        assert pins.holds_log(SegmentId(number), JOURNAL) == wanted


def test_what_is_missing_shows_in_the_rows() -> None:
    condemned = SegmentState.CONDEMNED
    rows = {
        SegmentId(1): segment(DATA), SegmentId(2): segment(JOURNAL), SegmentId(3): segment(DATA, condemned, 2),
        SegmentId(4): segment(DATA, condemned, 9), SegmentId(5): segment(DATA, condemned, 9),
        SegmentId(6): segment(JOURNAL), SegmentId(8): segment(DATA, condemned, 9), SegmentId(9): segment(JOURNAL),
    }  # fmt: skip
    row = snapshot(2, 7, 2, 6)
    assert missing([row], rows, {SegmentId(4): 1}) == [Missing(2, SegmentId(5))]
    assert missing([row], rows, {SegmentId(4): 2}) == [Missing(2, SegmentId(4)), Missing(2, SegmentId(5))]
    del rows[SegmentId(6)]
    assert Missing(2, SegmentId(6)) in missing([row], rows, {})
    rows[SegmentId(2)] = segment(JOURNAL, condemned)
    assert Missing(2, SegmentId(2)) in missing([row], rows, {})
    rows[SegmentId(3)] = segment(SegmentKind.CHECKPOINT, condemned, 2)
    assert Missing(2, SegmentId(3)) not in missing([row], rows, {}), "between the journals, and not of them"
    assert Missing(2, SegmentId(3)) in missing([row._replace(checkpoint=(SegmentId(3),))], rows, {})
    del rows[SegmentId(9)]
    assert Missing(2, SegmentId(6)) not in missing([row], rows, {}), "its row comes with the next journal"
