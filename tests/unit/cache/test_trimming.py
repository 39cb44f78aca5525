"""What of journals and checkpoints is needed: rules by themselves, against a plain model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qss.cache.shelf import restore_point
from qss.cache.trimming import Group, base_of, groups, superfluous
from qss.formats.tables import SegmentRow, SegmentState
from qss.ids import SegmentId
from qss.segments import RestorePoint, SegmentKind

DATA, JOURNAL, CHECKPOINT = SegmentKind.DATA, SegmentKind.JOURNAL, SegmentKind.CHECKPOINT
SEALED, OFFLOADED, CONDEMNED = SegmentState.SEALED, SegmentState.OFFLOADED, SegmentState.CONDEMNED


def row(kind: SegmentKind, state: SegmentState = OFFLOADED, needs: int = 0, placed: int | None = None) -> SegmentRow:
    placed = placed if placed is not None else 0 if state is SEALED else 6
    return SegmentRow(kind, state, 4 * bool(placed), 2, placed, 100, 1, SegmentId(needs), 0, bytes(16))


def named(point: RestorePoint | None) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    return (point.checkpoint, point.journals) if point else None


def point_of(rows: dict[int, SegmentRow], trimmed: int = 0) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    return named(restore_point(rows, {}, SegmentId(100), 0, SegmentId(trimmed)))


def unpinned(_segment: SegmentId) -> bool:
    return False


ROWS = {
    1: row(JOURNAL), 2: row(JOURNAL), 4: row(CHECKPOINT, needs=2), 5: row(CHECKPOINT, needs=2), 6: row(JOURNAL),
    8: row(CHECKPOINT, needs=6), 9: row(JOURNAL),
}  # fmt: skip


def test_neighbours_are_one_checkpoint() -> None:
    assert groups(ROWS) == [Group((8,), 6), Group((4, 5), 2)]
    assert groups(ROWS | {5: row(CHECKPOINT, CONDEMNED, 9)}) == [Group((8,), 6), Group((4,), 2)]


def test_the_newest_safe_checkpoint_stands_for_the_journals_before_it() -> None:
    assert point_of(ROWS) == ((8,), (6, 9))
    assert point_of(ROWS | {8: row(CHECKPOINT, SEALED, 6)}) == ((4, 5), (2, 6, 9))
    assert point_of(ROWS | {8: row(CHECKPOINT, SEALED, 6), 5: row(CHECKPOINT, SEALED, 2)}) == ((), (1, 2, 6, 9))


def test_without_a_checkpoint_every_journal_must_be_there() -> None:
    unsafe = {4: row(CHECKPOINT, SEALED, 2), 5: row(CHECKPOINT, SEALED, 2), 8: row(CHECKPOINT, SEALED, 6)}
    assert point_of(ROWS | unsafe, trimmed=1) is None
    assert point_of(ROWS | {1: row(JOURNAL, CONDEMNED)}, trimmed=1) == ((8,), (6, 9))
    assert point_of(ROWS, trimmed=5) == ((8,), (6, 9))


def test_a_checkpoint_needs_the_journal_it_goes_on_with() -> None:
    assert point_of(ROWS | {6: row(JOURNAL, SEALED)}) == ((4, 5), (2,))


def published(rows: dict[int, SegmentRow]) -> RestorePoint:
    point = restore_point(rows, {}, SegmentId(100), 0)
    assert point is not None
    return point


def test_what_lies_before_a_published_checkpoint_goes() -> None:
    assert superfluous(ROWS, published(ROWS), unpinned) == [1, 2, 4, 5]
    assert superfluous(ROWS, None, unpinned) == []


def test_a_root_without_a_checkpoint_takes_nothing_away() -> None:
    journals = {n: each for n, each in ROWS.items() if each.kind is JOURNAL}
    assert superfluous(ROWS, published(journals), unpinned) == []


def test_what_is_pinned_stays() -> None:
    snapshot = RestorePoint((SegmentId(4), SegmentId(5)), (SegmentId(2),), 0, SegmentId(6))
    assert superfluous(ROWS, published(ROWS), snapshot.logs.__contains__) == [1]


def test_what_is_being_stored_is_left_for_later() -> None:
    assert superfluous(ROWS | {1: row(JOURNAL, SEALED, placed=3)}, published(ROWS), unpinned) == [2, 4, 5]
    assert superfluous(ROWS | {5: row(CHECKPOINT, SEALED, 2, placed=3)}, published(ROWS), unpinned) == [1, 2]
    assert superfluous(ROWS | {5: row(CHECKPOINT, SEALED, 2)}, published(ROWS), unpinned) == [1, 2, 4, 5]


def test_checkpoints_do_not_pile_up_while_the_locations_are_away() -> None:
    rows = {1: row(JOURNAL), **{n: row(CHECKPOINT, SEALED, 1) for n in (3, 5, 7, 9)}}
    assert superfluous(rows, None, unpinned) == [5, 7]
    assert superfluous(rows | {5: row(CHECKPOINT, SEALED, 1, placed=2)}, None, unpinned) == [7]


@st.composite
def histories(draw: st.DrawFn) -> dict[int, SegmentRow]:
    """Journals, and checkpoints of 1 to 3 parts each made of some journal before them; stored or not."""
    rows: dict[int, SegmentRow] = {}
    number, journals = 1, [1]
    rows[1] = row(JOURNAL, draw(st.sampled_from([SEALED, OFFLOADED])))
    for parts in draw(st.lists(st.integers(0, 3), max_size=12)):
        number += 2
        if parts == 0:
            rows[number] = row(JOURNAL, draw(st.sampled_from([SEALED, OFFLOADED, OFFLOADED])))
            journals.append(number)
        goes_on = draw(st.sampled_from(journals[-2:]))
        for part in range(parts):
            rows[number + part] = row(CHECKPOINT, draw(st.sampled_from([SEALED, OFFLOADED, OFFLOADED])), goes_on)
        number += max(parts - 1, 0)
    return rows


@given(histories(), st.sets(st.integers(1, 40)))
def test_after_any_trimming_the_newest_point_is_as_it_was(rows: dict[int, SegmentRow], pinned: set[int]) -> None:
    point = restore_point(rows, {}, SegmentId(100), 0)
    going = superfluous(rows, point, pinned.__contains__)
    assert not pinned & set(going)
    if point is not None:
        assert not point.logs.keys() & set(going)
        assert point.journals == tuple(n for n in rows if rows[n].kind is JOURNAL and n in range(
            point.journals[0], point.journals[-1] + 1))  # fmt: skip
    trimmed = point.journals[0] - 1 if point is not None and point.checkpoint else 0
    left = {n: each._replace(state=CONDEMNED) if n in going else each for n, each in rows.items()}
    assert named(restore_point(left, {}, SegmentId(100), 0, SegmentId(trimmed))) == named(point)
    gone = {n: each for n, each in left.items() if n not in going}
    assert named(restore_point(gone, {}, SegmentId(100), 0, SegmentId(trimmed))) == named(point)
    if point is not None and not pinned:
        kept = [n for n, each in gone.items() if each.kind is JOURNAL and n < point.journals[0]]
        assert not (kept and point.checkpoint)


def test_a_snapshot_begins_with_the_newest_checkpoint_that_is_stored() -> None:
    zero = SegmentId(0)
    assert base_of(ROWS, zero) == Group((8,), 6)
    assert base_of(ROWS | {8: row(CHECKPOINT, SEALED, 6)}, zero) == Group((4, 5), 2)
    none_stored = {n: each._replace(state=SEALED) if each.kind is CHECKPOINT else each for n, each in ROWS.items()}
    assert base_of(none_stored, zero) is None
    assert base_of(none_stored, SegmentId(1)) == Group((8,), 6)
    assert base_of(ROWS, SegmentId(7)) is None
