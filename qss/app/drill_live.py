"""A drill's comparison with the live index: what the locations give back, brought forward by the journals here to
where the live index is, must be what LMDB has, row for row.

Reads one committed state of LMDB beside the process that writes it, and copies of journals; touches nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qss.cache.applied import Applied
from qss.cache.index import Committed, Index
from qss.cache.recovery import INDEX_DIR, replay_into
from qss.cache.scan import segments_in
from qss.cache.segment_log import FOLDERS, log_path
from qss.errors import CorruptData, Damaged
from qss.formats.tables import Table
from qss.host import Host
from qss.segments import SegmentKind

NAMED_MAX: Final = 20
"""Rows that differ and are named; all are counted."""
_NOT_JOURNALED: Final = b"index.applied"

Row = tuple[bytes, bytes]


@dataclass(slots=True)
class Compared:
    """With the live index. `why_not`: it could not be."""

    rows: int = 0
    different: int = 0
    named: list[str] = field(default_factory=list)
    why_not: str = ""


def compare_live(index: Index, root: Path, lent: Path, host: Host, map_bytes: int) -> Compared | None:
    """`index`: made by `build_index` from the logs in `root`, to which journals are added; it is as before afterwards.
    `lent`: the live cache. None: the live index has not come so far yet, try again. Blocks."""
    with Committed.opened(lent / INDEX_DIR, map_bytes) as committed:
        packed, mark = index.applied, committed.applied
        if packed is None:
            raise CorruptData("an index does not say how far it has come")
        if mark is None:  # it has never been written: its first checkpoint is to come
            return None
        at, live = Applied.unpack(packed), Applied.unpack(mark)
        if (live.journal, live.position) < (at.journal, at.position):
            return None
        _add_journals(root, lent, host, at, live)
        try:
            reached = replay_into(index, root, host, at, same_boot=True, data_elsewhere=True)
            if (reached.journal, reached.position) != (live.journal, live.position):
                return Compared(why_not="journals written since that root are not here")
            return _compare(index, committed)
        except Damaged as error:
            return Compared(why_not=str(error))
        finally:
            index.forget()


def _add_journals(root: Path, lent: Path, host: Host, at: Applied, live: Applied) -> None:
    """Copies of the journals behind `at`; the last one ends where the live index is."""
    for segment in segments_in(host.disk, lent / FOLDERS[SegmentKind.JOURNAL]):
        if at.journal < segment <= live.journal:
            copy = log_path(root, SegmentKind.JOURNAL, segment)
            shutil.copyfile(log_path(lent, SegmentKind.JOURNAL, segment), copy)
            if segment == live.journal:
                with copy.open("r+b") as file:
                    file.truncate(live.position)


def _compare(index: Index, committed: Committed) -> Compared:
    found = Compared()
    for table in Table:
        if table is Table.LIVE:
            continue  # follows from EXTENTS
        ours = (row for row in index.scan(table, b"") if (table, row[0]) != (Table.META, _NOT_JOURNALED))
        for key, one, other in _side_by_side(ours, committed.rows(table)):
            found.rows += 1
            if one != other:
                found.different += 1
                if len(found.named) < NAMED_MAX:
                    what = "only here" if one is None else "only at the locations" if other is None else "different"
                    found.named.append(f"table {table.name}, key {key.hex()}: {what}")
    return found


def _side_by_side(left: Iterable[Row], right: Iterable[Row]) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """Rows of both in key order: (key, value in the one, value in the other)."""
    ours, theirs = iter(left), iter(right)
    a, b = next(ours, None), next(theirs, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a[0] < b[0]):
            assert a is not None
            yield a[0], a[1], None
            a = next(ours, None)
        elif a is None or b[0] < a[0]:
            yield b[0], None, b[1]
            b = next(theirs, None)
        else:
            yield a[0], a[1], b[1]
            a, b = next(ours, None), next(theirs, None)
