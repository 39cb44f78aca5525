"""The pure parts: which copies go, which restore point holds."""

from __future__ import annotations

from qss.cache.options import RetentionOptions
from qss.cache.retention import Candidate, Reason, plan
from qss.cache.shelf import restore_point
from qss.formats.tables import SegmentRow, SegmentState
from qss.ids import SegmentId
from qss.segments import SegmentKind

GIB = 1 << 30
LOOSE = RetentionOptions(size_bytes_max=1000, age_s_max=None, free_bytes_min=0)


def copies(*idle: float) -> list[Candidate]:
    return [Candidate(SegmentId(n), None, 100, idle_s) for n, idle_s in enumerate(idle, start=1)]


def chosen(
    options: RetentionOptions, kept: int, free: int, *idle: float, all_: bool = False
) -> list[tuple[int, Reason]]:
    return [(v.copy.segment, v.reason) for v in plan(copies(*idle), options, kept, free, all_=all_)]


def test_nothing_goes_while_everything_fits() -> None:
    assert chosen(LOOSE, 1000, GIB, 5, 9) == []


def test_the_least_recently_used_go_until_the_size_fits() -> None:
    assert chosen(LOOSE, 1101, GIB, 5, 9, 7) == [(2, Reason.SIZE), (3, Reason.SIZE)]


def test_what_is_too_old_goes_whatever_the_size() -> None:
    options = RetentionOptions(size_bytes_max=1000, age_s_max=6, free_bytes_min=0)
    assert chosen(options, 300, GIB, 5, 9, 7) == [(2, Reason.AGE), (3, Reason.AGE)]


def test_free_space_of_the_disk_is_kept() -> None:
    options = RetentionOptions(size_bytes_max=GIB, age_s_max=None, free_bytes_min=500)
    assert chosen(options, 300, 350, 5, 9, 7) == [(2, Reason.FREE), (3, Reason.FREE)]


def test_all_means_all() -> None:
    assert [segment for segment, _ in chosen(LOOSE, 0, GIB, 5, 9, all_=True)] == [2, 1]


def row(kind: SegmentKind, placed: int, needs: int = 0) -> SegmentRow:
    state = SegmentState.OFFLOADED if placed == 6 else SegmentState.SEALED
    return SegmentRow(kind, state, 4 if placed else 0, 2 if placed else 0, placed, 10, 5, SegmentId(needs), 0, b"")


def point(missing_max: int = 0, live: tuple[int, ...] = (), **rows: SegmentRow) -> tuple[int, ...] | None:
    numbered = {SegmentId(int(name[1:])): value for name, value in rows.items()}
    found = restore_point(numbered, {SegmentId(n): 1 for n in live}, SegmentId(100), missing_max)
    return found.journals if found else None


DATA, JOURNAL = SegmentKind.DATA, SegmentKind.JOURNAL


def test_a_journal_can_be_named_once_it_and_its_data_are_safe() -> None:
    assert point() is None
    assert point(s1=row(DATA, 0), s2=row(JOURNAL, 6, 1)) is None
    assert point(s1=row(DATA, 6), s2=row(JOURNAL, 0, 1)) is None
    assert point(s1=row(DATA, 6), s2=row(JOURNAL, 6, 1)) == (2,)


def test_an_unsafe_journal_holds_back_all_behind_it() -> None:
    rows = {"s1": row(DATA, 6), "s2": row(JOURNAL, 6, 1), "s3": row(JOURNAL, 0, 1), "s4": row(JOURNAL, 6, 1)}
    assert point(**rows) == (2,)


def test_data_sealed_after_a_journal_does_not_hold_it_back() -> None:
    assert point(s1=row(DATA, 6), s2=row(JOURNAL, 6, 1), s3=row(DATA, 0), s4=row(JOURNAL, 6, 3)) == (2,)


def test_live_bytes_in_a_segment_without_a_row_are_not_safe() -> None:
    assert point(live=(1,), s2=row(JOURNAL, 6, 1)) is None


def test_some_shards_may_be_missing_if_the_policy_says_so() -> None:
    rows = {"s1": row(DATA, 5), "s2": row(JOURNAL, 6, 1)}
    assert point(**rows) is None
    assert point(1, **rows) == (2,)
