"""What of journals and checkpoints is still needed. Pure. docs/adr/0090.

A restore point names a checkpoint and the journals from the one it goes on with. Once a root names such a point, the
journals before it and older checkpoints are *superfluous*, but for what something else pins: snapshots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qss.formats.tables import SegmentRow, SegmentState
from qss.ids import SegmentId
from qss.segments import RestorePoint, SegmentKind

Rows = Mapping[SegmentId, SegmentRow]


@dataclass(frozen=True, slots=True)
class Group:
    """The segments of one checkpoint, in order."""

    parts: tuple[SegmentId, ...]
    goes_on: SegmentId  # replay goes on with this journal, somewhere in it


def groups(rows: Rows) -> list[Group]:
    """All checkpoints no part of which is condemned, newest first.

    The parts of one have neighbouring numbers and come and go together; between two checkpoints a number is left out.
    """
    found: list[Group] = []
    for segment in sorted(rows):
        row = rows[segment]
        if row.kind is not SegmentKind.CHECKPOINT or row.state is SegmentState.CONDEMNED:
            continue
        last = found[-1] if found else None
        if last is not None and last.goes_on == row.needs_upto and last.parts[-1] + 1 == segment:
            found[-1] = Group((*last.parts, segment), last.goes_on)
        else:
            found.append(Group((segment,), row.needs_upto))
    return found[::-1]


def base_of(rows: Rows, trimmed: SegmentId) -> Group | None:
    """What a cut that is made now may begin with: the newest checkpoint that is stored; None: every journal.

    `trimmed`: journals up to here may be gone.
    """
    bases = [each for each in groups(rows) if each.goes_on > trimmed and each.goes_on in rows]
    stored = [each for each in bases if all(rows[part].state is SegmentState.OFFLOADED for part in each.parts)]
    return next(iter(stored or (bases if trimmed else [])), None)


def superfluous(rows: Rows, published: RestorePoint | None, pinned: Callable[[SegmentId], bool]) -> list[SegmentId]:
    """Journals and checkpoint parts to condemn, in order. `published`: what the newest root names, or None; `pinned`:
    whether a snapshot needs it.

    What is being stored just now is left for later. Of checkpoints that no root has come to, those between the oldest
    and the newest go if nothing of them was stored: so that they do not pile up while the locations are away.
    """
    checkpoints = groups(rows)
    newer = [each for each in checkpoints if published is None or each.parts[0] > max(published.checkpoint, default=0)]
    going = [each for each in newer[1:-1] if all(rows[part].k == 0 for part in each.parts)]
    found: list[SegmentId] = []
    if published is not None and published.checkpoint:
        going += [each for each in checkpoints if each.parts[-1] < published.checkpoint[0]]
        found = [
            segment
            for segment, row in rows.items()
            if row.kind is SegmentKind.JOURNAL and segment < published.journals[0] and _settled(row)
        ]
    found += [part for each in going for part in each.parts if all(_settled(rows[part]) for part in each.parts)]
    return sorted(segment for segment in found if not pinned(segment))


def _settled(row: SegmentRow) -> bool:
    """Stored everywhere, or not at all."""
    return row.state is SegmentState.OFFLOADED or (row.state is SegmentState.SEALED and row.k == 0)
