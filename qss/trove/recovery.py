"""Start: bring the index up to what the volumes say, cut torn tails, quarantine what is damaged.

For each volume, from the index's last position (or from its beginning, when the index is new):
  whole record               → applied (bodies above the floor are read and verified first)
  header without footer      → dead; voided, so that the next scan knows it at once
  above the floor, and its footer or body does not verify, records behind → the same
  bad bytes, records behind  → quarantined: reported, never cut
  bad bytes at the end       → below the floor: quarantined and the volume sealed; above: cut
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from qss.errors import CorruptData
from qss.formats.volume import SUPERBLOCK_BYTES, Footer, encode_footer
from qss.trove.facts import IN_HEADER, OBJECTS, PART_KEY, apply
from qss.trove.index import Index
from qss.trove.rows import TENANT, decode_part
from qss.trove.scan import (
    BadFooter,
    Found,
    Unfinished,
    Unreadable,
    Whole,
    body_verifies,
    damaged_fact,
    end_of,
    fact_of,
    position_of,
    scan,
)
from qss.trove.slots import Volume
from qss.trove.tables import Tables
from qss.trove.volumes import VolumeSet

_BATCH_RECORDS: Final = 1000


@dataclass(slots=True)
class Report:
    """What a start found."""

    rebuilt: bool = False
    records: int = 0
    voided: int = 0
    cut_bytes: int = 0
    damaged: int = 0
    newest: int = 0  # highest version seen
    volumes_missing: list[int] = field(default_factory=list)


def recover(volumes: VolumeSet, index: Index) -> Report:
    """Replay, cut, quarantine. Afterwards index and volumes agree, and volumes may be appended to."""
    report = Report(rebuilt=index.rebuilding)
    volumes.number_after(max(index.totals.volumes, default=0))
    for volume in sorted(volumes.volumes.values(), key=lambda v: v.number):
        row = index.totals.volumes.get(volume.number)
        _Replay(volumes, index, volume, report).run(row.low if row else SUPERBLOCK_BYTES)
    report.volumes_missing = [number for number in index.totals.volumes if number not in volumes.volumes]
    gone = [number for number in report.volumes_missing if not index.totals.volumes[number].live]
    with index.read() as tables:
        news = index.rebuilding or gone or not tables.is_empty(tables.dbs.graves)
        damaged = tables.damaged_volumes()
    if news:  # a start after a clean stop writes nothing, and so waits for no disk
        with index.write() as tables:
            if index.rebuilding:
                _sweep(tables)
            if not volumes.may_return:
                tables.prune_graves(2**64 - 1)
                for number in gone:
                    tables.forget_volume(number)
            damaged = tables.damaged_volumes()
    if index.rebuilding:
        index.trust()
    volumes.reopen_for_appending(damaged)
    return report


class _Replay:
    """One volume."""

    def __init__(self, volumes: VolumeSet, index: Index, volume: Volume, report: Report) -> None:
        self._volumes = volumes
        self._disk = volumes.disk
        self._index = index
        self._volume = volume
        self._report = report
        self._suspects: list[BadFooter | Unreadable | Whole | Unfinished] = []

    def run(self, low: int) -> None:
        volume = self._volume
        # Whatever the index has was synced before it got there, or lies in the page cache still.
        volume.floor = max(low, SUPERBLOCK_BYTES)
        found = scan(self._disk, volume, low)
        end = low
        while batch := list(islice(found, _BATCH_RECORDS)):
            with self._index.write() as tables:
                for one in batch:
                    self._one(tables, one)
                    end = max(end, end_of(one))
        end = self._settle_suspects(end)
        volume.end = end
        if low == end:
            volume.marked_at = end
        if end != low or volume.number not in self._index.totals.volumes:
            with self._index.write() as tables:
                tables.set_low(volume.number, end)

    def _one(self, tables: Tables, found: Found) -> None:
        self._report.records += 1
        if isinstance(found, Whole | BadFooter | Unfinished):
            self._volume.floor = max(self._volume.floor, found.header.floor)
            self._report.newest = max(self._report.newest, found.header.version)
        if isinstance(found, Whole):
            self._whole(tables, found)
        else:
            self._suspects.append(found)

    def _whole(self, tables: Tables, found: Whole) -> None:
        self._report.newest = max(self._report.newest, found.footer.version)
        if found.footer.void:
            return
        above = found.place.position + found.place.length > self._volume.floor
        if above and not body_verifies(self._disk, self._volume, found):
            self._suspects.append(found)
            return
        try:
            apply(tables, fact_of(self._disk, self._volume, found))
        except CorruptData as error:
            self._damage(tables, found.place.position, found.place.length, str(error), found.header.key)

    def _settle_suspects(self, end: int) -> int:
        """Decide what is torn and what is damaged, now that the floor is known. Returns the volume's end."""
        size = self._disk.size(self._volume.handle)
        while self._suspects:
            last = self._suspects[-1]
            position = position_of(last)
            if end_of(last) < min(end, size) or position < self._volume.floor:
                break
            self._suspects.pop()
            end = position
        if end < size and self._volume.writable:
            self._report.cut_bytes += size - end
            self._disk.truncate(self._volume.handle, end)
            self._disk.sync_data(self._volume.handle)
        if self._suspects:
            with self._index.write() as tables:
                for suspect in self._suspects:
                    self._suspect(tables, suspect)
        return max(end, SUPERBLOCK_BYTES)

    def _suspect(self, tables: Tables, suspect: BadFooter | Unreadable | Whole | Unfinished) -> None:
        if isinstance(suspect, Unfinished):
            self._void(suspect)
            return
        position, stop = position_of(suspect), end_of(suspect)
        key = b"" if isinstance(suspect, Unreadable) else suspect.header.key
        if not isinstance(suspect, Unreadable):
            if position >= self._volume.floor:  # it did not reach the disk before the power went, though its header did
                self._void(suspect)
                return
            if suspect.header.kind in OBJECTS | IN_HEADER:
                with contextlib.suppress(CorruptData):
                    apply(tables, damaged_fact(suspect))
        self._damage(tables, position, stop - position, "does not verify", key)

    def _void(self, found: Unfinished | BadFooter | Whole) -> None:
        """Say for good that it did not arrive: what is written behind it will say that all before was synced, and then
        it could not be told from damage any more."""
        self._report.voided += 1
        if not self._volume.writable:
            return
        header = found.header
        place = self._volume.place_of(found.place.position)
        data = encode_footer(header, Footer(header.version, void=True), b"", place)
        self._disk.pwrite(self._volume.handle, [data], found.place.position + header.table_at)

    def _damage(self, tables: Tables, position: int, length: int, what: str, key: bytes) -> None:
        self._report.damaged += 1
        note: dict[str, Any] = {"length": length, "key": key.decode("utf-8", "replace"), "what": what, "by": "start"}
        tables.add_damage(self._volume.number, position, note)


def _sweep(tables: Tables) -> None:
    """After a rebuild: drop parts nobody owns and buckets only dead objects spoke of."""
    dbs = tables.dbs
    dead: list[bytes] = []
    for key, value in tables.scan(dbs.parts):
        upload, number = PART_KEY.unpack(key)
        numbers = tables.composite(upload)
        gone = tables.get(dbs.uploads, upload) is None if numbers is None else number not in numbers
        if gone:
            dead.append(key)
            tables.live(decode_part(value).place, -1)
    for key in dead:
        tables.delete(dbs.parts, key)
    for name, row in list(tables.buckets(TENANT)):
        if not row.place.length and tables.is_bare(row.number):
            tables.set_bucket(TENANT, name, None)
