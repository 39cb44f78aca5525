"""Snapshots: named cuts. Owner of the rows of SNAPSHOTS and DEATHS; which segments they need is qss.cache.pins.

    create: ─ what is dead is noted ─ both logs are closed ─ 1 one batch: the row, the deaths ─ 2 synced ─ 3 in a root
    No await lies between the first step and 1: whatever else changes, changes before the cut or after the row.

Crash after 1: the snapshot is there or not, as any change. After 2: it is there. 3: it can be recovered elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Final

from qss.cache.durability import Durability
from qss.cache.ledger import Ledger
from qss.cache.pins import Pins, held_alone, held_bytes, point_of
from qss.cache.schedule import Schedule
from qss.cache.shelf import Shelf, is_safe
from qss.cache.trimming import Group, base_of
from qss.errors import Refused
from qss.formats.journal import Op
from qss.formats.tables import SegmentState, SnapshotRow, Table, pack_number, u64_key, u64_of_key, unpack_number
from qss.host import Clock
from qss.ids import SEGMENT_ID_NONE, SegmentId
from qss.limits import NAME_BYTES_MAX
from qss.segments import RestorePoint, SegmentKind

NEWEST_KEY: Final = b"cache.snapshots"
"""In META: number of the newest snapshot there ever was."""
SCHEDULE_KEY: Final = b"cache.schedule"
"""In META: the schedule set at run time, as text."""
COMMENT_BYTES_MAX: Final = 1024

_NAME: Final = re.compile(r"[A-Za-z0-9._:+@-]+")
_RULE: Final = "a name has 1 to 255 letters (a-z), digits or -_.:+@"


def check_name(name: str) -> str:
    """Raises Refused."""
    if not _NAME.fullmatch(name) or len(name) > NAME_BYTES_MAX:
        raise Refused(f'"{name[:40]}" is no name for a snapshot: {_RULE}')
    return name


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """One line of `qssctl snapshot list`. Bytes of segments, before compression and coding."""

    name: str
    number: int
    created_ns: int
    automatic: bool
    comment: str
    alone_bytes: int  # freed at once when only this one is deleted
    protected: bool  # a root names it: it can be recovered on another machine


class Snapshots:
    """Lives on the cache's trio thread."""

    def __init__(self, clock: Clock, ledger: Ledger, shelf: Shelf, durability: Durability) -> None:
        self.end_logs: Callable[[], Awaitable[None]]
        """Condemns what is dead and, if anything was written, ends both logs; the caller goes on at that moment."""
        self.touched: Callable[[], None]
        """Something was written that is worth a root."""
        self._clock = clock
        self._ledger = ledger
        self._shelf = shelf
        self._durability = durability
        index = ledger.index
        self.rows = {key.decode(): SnapshotRow.unpack(value) for key, value in index.scan(Table.SNAPSHOTS, b"")}
        self.deaths = {SegmentId(u64_of_key(key)): unpack_number(value) for key, value in index.scan(Table.DEATHS, b"")}
        self.newest = _counter(index.get(Table.META, NEWEST_KEY))
        self.pins = Pins(self.rows.values())

    # -- what the rest of the cache asks

    def holds(self, segment: SegmentId) -> bool:
        """Whether a snapshot needs this data segment."""
        return self.pins.holds(segment, self.deaths.get(segment))

    def holds_log(self, segment: SegmentId) -> bool:
        """Whether a snapshot needs this journal, or this part of a checkpoint."""
        return self.pins.holds_log(segment, self._shelf.rows[segment].kind)

    def note_dead(self, segments: Collection[SegmentId]) -> None:
        """These data segments hold no live byte. Writes down when those died that a snapshot needs. Raises NoSpace."""
        died = [each for each in segments if each not in self.deaths and self.pins.holds(each, None)]
        self._write(self._death_ops(died), died)

    def forget_ops(self, segments: Collection[SegmentId]) -> list[Op]:
        """Part of the batch that removes the rows of these segments; then `forgotten`."""
        return [
            Op(Table.DEATHS, u64_key(each), pack_number(self.deaths[each]), None)
            for each in segments
            if each in self.deaths
        ]

    def forgotten(self, segments: Collection[SegmentId]) -> None:
        for each in segments:
            self.deaths.pop(each, None)

    def held_bytes(self) -> int:
        """Dead bytes that are kept for the sake of snapshots, here or at the locations."""
        return held_bytes(self._shelf.rows, self.deaths, self._ledger.index.live_all(), self.pins)

    # -- what people ask

    async def create(self, name: str, comment: str = "", *, automatic: bool = False) -> SnapshotFacts:
        """Name what the file system is now; it survives a power cut on return. Raises Refused (no such name, or there
        is one already), NoSpace, FsError."""
        check_name(name)
        self._check_new(name)
        if len(comment.encode()) > COMMENT_BYTES_MAX:
            raise Refused(f"a comment may have {COMMENT_BYTES_MAX} bytes")
        await self.end_logs()
        self._check_new(name)  # others may have made one meanwhile
        self._note_cut(name, comment, automatic)  # 1.
        await self._durability.settle()
        await self._durability.sync_local()  # 2.
        return self.facts(name)

    def _check_new(self, name: str) -> None:
        if name in self.rows:
            raise Refused(f"there is a snapshot {name} already: choose another name, or delete it first")

    async def delete(self, name: str) -> None:
        """What only this snapshot needed is condemned next. Raises Refused when there is none, NoSpace, FsError."""
        row = self.row(name)
        self._ledger.write([Op(Table.SNAPSHOTS, name.encode(), row.pack(), None)])
        del self.rows[name]
        self.pins = Pins(self.rows.values())
        self.touched()
        await self._durability.sync_local()

    def row(self, name: str) -> SnapshotRow:
        """Raises Refused when there is none."""
        row = self.rows.get(name)
        if row is None:
            raise Refused(f"there is no snapshot {name}")
        return row

    def point(self, name: str) -> RestorePoint:
        """What brings it back. Raises Refused when there is none."""
        return self._point_of(self.row(name))

    def now(self) -> RestorePoint:
        """What brings back the file system as of the newest cut. Raises Refused when there is none."""
        return self._point_of(self._cut_row("", automatic=False))

    def _point_of(self, row: SnapshotRow) -> RestorePoint:
        return point_of(row, self._shelf.rows, [file.segment for file in self._ledger.journal.closing])

    def facts(self, name: str) -> SnapshotFacts:
        """Raises Refused when there is none."""
        return next(each for each in self.listed() if each.number == self.row(name).number)

    def listed(self) -> list[SnapshotFacts]:
        """Oldest first."""
        alone = held_alone(self._shelf.rows, self.deaths, self.pins)
        return [
            SnapshotFacts(
                name, row.number, row.created_ns, row.automatic, row.comment, alone.get(row.number, 0),
                self._is_protected(row),
            )
            for name, row in sorted(self.rows.items(), key=lambda item: item[1].number)
        ]  # fmt: skip

    def _is_protected(self, row: SnapshotRow) -> bool:
        """A root knows of it, and so all data of its cut is safe; and its own logs can be had."""
        rows = self._shelf.rows
        if self._shelf.published < row.noted_in:
            return False
        point = point_of(row, rows)
        return all(each in rows and is_safe(rows[each], rows[each].m) for each in (*point.checkpoint, *point.journals))

    # -- the schedule

    @property
    def schedule(self) -> Schedule | None:
        """What was set at run time; None: nothing."""
        stored = self._ledger.index.get(Table.META, SCHEDULE_KEY)
        return None if stored is None else Schedule.parse(stored.decode())

    def set_schedule(self, schedule: Schedule) -> None:
        """From now on, here and wherever the file system is recovered. Raises NoSpace."""
        before, after = self._ledger.index.get(Table.META, SCHEDULE_KEY), str(schedule).encode()
        if before != after:
            self._ledger.write([Op(Table.META, SCHEDULE_KEY, before, after)])
            self.touched()

    # -- inside

    def _note_cut(self, name: str, comment: str, automatic: bool) -> None:
        ledger = self._ledger
        row = self._cut_row(comment, automatic=automatic)
        live = ledger.index.live_all()

        def just_died(segment: SegmentId) -> bool:
            return segment not in live and segment not in self.deaths

        data = [(s, each.state) for s, each in self._shelf.rows.items() if each.kind is SegmentKind.DATA]
        died = [segment for segment, state in data if state is not SegmentState.CONDEMNED and just_died(segment)]
        died += [file.segment for file in ledger.data.closing if not file.dead_from and just_died(file.segment)]
        row = row._replace(number=self.newest + 1, noted_in=ledger.journal.ensure_open().segment)
        ops = [
            *self._death_ops(died),
            Op(Table.SNAPSHOTS, name.encode(), None, row.pack()),
            Op(Table.META, NEWEST_KEY, ledger.index.get(Table.META, NEWEST_KEY), pack_number(row.number)),
        ]
        self._write(ops, died)
        self.newest = row.number
        self.rows[name] = row
        self.pins = Pins(self.rows.values())
        self.touched()

    def _cut_row(self, comment: str, *, automatic: bool) -> SnapshotRow:
        """The newest cut, without a number yet. Raises Refused before the first."""
        ledger, rows = self._ledger, self._shelf.rows
        last = ledger.journal.last[0]
        if last == SEGMENT_ID_NONE:
            raise Refused("nothing was ever written here: there is nothing to keep")
        condemned = SegmentState.CONDEMNED
        journals = {s for s, row in rows.items() if row.kind is SegmentKind.JOURNAL and row.state is not condemned}
        journals |= {file.segment for file in ledger.journal.closing}
        base = base_of(rows, self._shelf.trimmed) or Group((), min(journals, default=last))
        behind = SegmentId(max(last, ledger.data.last[0], *base.parts) + 1)
        return SnapshotRow(
            0, self._clock.now_ns(), behind, base.goes_on, last, SEGMENT_ID_NONE, automatic, base.parts, comment
        )

    def _death_ops(self, died: Collection[SegmentId]) -> list[Op]:
        return [Op(Table.DEATHS, u64_key(each), None, pack_number(self.newest)) for each in died]

    def _write(self, ops: list[Op], died: Collection[SegmentId]) -> None:
        if ops:
            self._ledger.write(ops)
            self.deaths.update(dict.fromkeys(died, self.newest))


def _counter(stored: bytes | None) -> int:
    return 0 if stored is None else unpack_number(stored)
