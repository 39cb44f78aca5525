"""The pure part of a write: which rows go, which come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qss.formats.tables import ExtentRow
from qss.fs.extents import merged, pieces, splice
from qss.ids import SegmentId

SIZE = 64


def record(number: int, length: int) -> ExtentRow:
    return ExtentRow(SegmentId(number), 0, length, 0, length)


def shown(rows: dict[int, ExtentRow]) -> list[tuple[int, int] | None]:
    """For each byte: which byte of which record it is."""
    found: list[tuple[int, int] | None] = [None] * SIZE
    for offset, row in rows.items():
        for at in range(row.length):
            assert found[offset + at] is None, "extents overlap"
            found[offset + at] = (row.segment, row.skip + at)
    return found


def meeting(rows: dict[int, ExtentRow], start: int, stop: int) -> list[tuple[int, ExtentRow]]:
    return sorted((at, row) for at, row in rows.items() if at <= stop and at + row.length >= start)


changes = st.lists(
    st.tuples(st.integers(0, SIZE - 1), st.integers(1, SIZE), st.booleans()).map(
        lambda c: (c[0], min(SIZE, c[0] + c[1]), c[2])
    ),
    max_size=20,
)


@given(changes)
def test_rows_always_show_the_last_write(steps):
    rows: dict[int, ExtentRow] = {}
    model: list[tuple[int, int] | None] = [None] * SIZE
    for number, (start, stop, hole) in enumerate(steps, 1):
        new = [] if hole else [(start, record(number, stop - start))]
        before = sum(row.length for row in rows.values())
        done = splice(meeting(rows, start, stop), start, stop, new)
        for at in done.deletes:
            del rows[at]
        rows.update(dict(done.puts))
        for at in range(start, stop):
            model[at] = None if hole else (number, at - start)
        assert shown(rows) == model
        added = 0 if hole else stop - start
        assert sum(row.length for row in rows.values()) == before + added - done.freed


@given(changes, st.integers(0, SIZE), st.integers(0, SIZE))
def test_pieces_cover_the_range_exactly(steps, start, stop):
    rows: dict[int, ExtentRow] = {}
    for number, (a, b, hole) in enumerate(steps, 1):
        done = splice(meeting(rows, a, b), a, b, [] if hole else [(a, record(number, b - a))])
        for at in done.deletes:
            del rows[at]
        rows.update(dict(done.puts))
    flat: list[tuple[int, int] | None] = []
    for length, extent, first, last in pieces(sorted(rows.items()), start, stop):
        assert length > 0
        if extent is None:
            flat += [None] * length
        else:
            assert last - first == length
            flat += [(extent.segment, extent.skip + at) for at in range(first, last)]
    assert flat == shown(rows)[start : max(start, stop)]


def test_neighbours_of_one_record_become_one():
    whole = record(1, 10)
    left, right = whole._replace(length=4), whole._replace(skip=4, length=6)
    assert list(merged([(0, left), (4, right)])) == [(0, whole)]


def test_neighbours_of_different_records_stay_apart():
    assert len(list(merged([(0, record(1, 4)), (4, record(2, 4))]))) == 2


def test_a_hole_in_the_middle_leaves_both_ends():
    done = splice([(0, record(1, 10))], 3, 5)
    assert done.deletes == []
    assert done.puts == [(0, ExtentRow(1, 0, 10, 0, 3)), (5, ExtentRow(1, 0, 10, 5, 5))]
    assert done.freed == 2
