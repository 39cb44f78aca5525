"""Which bytes of which record a file consists of. Pure: rows in, rows out.

A file is a list of extents that do not overlap; what no extent covers is a hole and reads as zeros. Nothing here
depends on the size of a file or of a hole, only on the number of extents a range meets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from qss.formats.tables import ExtentRow

Placed = tuple[int, ExtentRow]
"""File offset and the extent that begins there."""


class Splice(NamedTuple):
    """What to do to the rows of one file."""

    deletes: list[int]  # file offsets
    puts: list[Placed]
    freed: int  # bytes of content that no extent names any more


class Piece(NamedTuple):
    """A part of a range to read: `extent` None is a hole."""

    length: int
    extent: ExtentRow | None
    start: int  # relative to the extent
    stop: int


def splice(existing: Iterable[Placed], start: int, stop: int, new: Sequence[Placed] = ()) -> Splice:
    """Make the range [start, stop) consist of `new` (in order, inside the range; nothing: a hole).

    `existing`: in order, every extent that meets the range; neighbours that only touch it may be among them and are
    then merged where they continue the same bytes of the same record.
    """
    before: dict[int, ExtentRow] = {}
    left: list[Placed] = []
    right: list[Placed] = []
    freed = 0
    for offset, row in existing:
        before[offset] = row
        end = offset + row.length
        if end <= start:
            left.append((offset, row))
            continue
        if offset >= stop:
            right.append((offset, row))
            continue
        freed += min(end, stop) - max(offset, start)
        if offset < start:
            left.append((offset, row._replace(length=start - offset)))
        if end > stop:
            right.append((stop, row._replace(skip=row.skip + stop - offset, length=end - stop)))
    after = dict(merged([*left, *new, *right]))
    return Splice(
        [offset for offset in before if offset not in after],
        [(offset, row) for offset, row in after.items() if before.get(offset) != row],
        freed,
    )


def merged(extents: Iterable[Placed]) -> Iterator[Placed]:
    """Join neighbours that continue the same bytes of the same record."""
    held: Placed | None = None
    for offset, row in extents:
        if held is not None:
            at, last = held
            if (
                at + last.length == offset
                and last.segment == row.segment
                and last.record_position == row.record_position
                and last.skip + last.length == row.skip
            ):
                held = (at, last._replace(length=last.length + row.length))
                continue
            yield held
        held = (offset, row)
    if held is not None:
        yield held


def pieces(extents: Iterable[Placed], start: int, stop: int) -> list[Piece]:
    """Cut the range [start, stop) into parts of extents and holes. `extents`: in order, at least those that meet it."""
    found: list[Piece] = []
    at = start
    for offset, row in extents:
        end = offset + row.length
        if end <= at:
            continue
        if offset >= stop or at >= stop:
            break
        if offset > at:
            found.append(Piece(offset - at, None, 0, 0))
            at = offset
        upto = min(end, stop)
        found.append(Piece(upto - at, row, at - offset, upto - offset))
        at = upto
    if at < stop:
        found.append(Piece(stop - at, None, 0, 0))
    return found
