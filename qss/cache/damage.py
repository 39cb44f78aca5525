"""Damage met by readers: where it is, and whether the locations have made it good. For `status`.

found ─┬─ healed     the bytes were fetched, and verify
       └─ open       they verify nowhere that was asked: EIO for just these bytes; a later read may heal them
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from qss.formats.tables import ExtentRow, pair_of_key
from qss.ids import Ino, SegmentId, segment_text

OPEN_KEPT_MAX: Final = 1_000
"""Places remembered; all are counted."""

_log = logging.getLogger("qss.cache.damage")

_Place = tuple[SegmentId, int]


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a segment that could not be read. `record` says where the record begins in the segment."""

    segment: SegmentId
    record: int
    start: int  # of the record's payload, in bytes; what a reader asked for
    stop: int
    why: str


class DamageBook:
    """Damage of one cache since its start. Bounded."""

    def __init__(self) -> None:
        self.found_count = 0
        self.healed_count = 0
        self._open: OrderedDict[_Place, Damage] = OrderedDict()

    @property
    def open(self) -> list[Damage]:
        """What no copy that was asked has given back, the first found first."""
        return list(self._open.values())

    def found(self, extent: ExtentRow, start: int, stop: int, why: str) -> None:
        """A reader of bytes [start, stop) of the extent met something that does not verify."""
        self.found_count += 1
        place = (extent.segment, extent.record_position)
        start, stop = start + extent.skip, stop + extent.skip
        known = self._open.get(place)
        if known is None:
            _log.warning("segment %s, record at byte %d: %s", segment_text(place[0]), place[1], why)
        else:
            start, stop = min(start, known.start), max(stop, known.stop)
        self._open[place] = Damage(*place, start, stop, why)
        if len(self._open) > OPEN_KEPT_MAX:
            self._open.popitem(last=False)

    def healed(self, extent: ExtentRow) -> None:
        """The bytes were had after all."""
        if self._open.pop((extent.segment, extent.record_position), None) is not None:
            self.healed_count += 1
            _log.warning(
                "segment %s, record at byte %d: healed from the locations",
                segment_text(extent.segment), extent.record_position,
            )  # fmt: skip

    def forget(self, segment: SegmentId) -> None:
        """Nothing points there any more."""
        for place in [place for place in self._open if place[0] == segment]:
            del self._open[place]


def files_hit(rows: Iterable[tuple[bytes, bytes]], damages: Iterable[Damage]) -> Iterator[tuple[Ino, int, int]]:
    """(inode, offset, bytes) of file content that lies in damaged records. `rows`: of EXTENTS; a walk over all of
    them, so the caller hands them over a page at a time."""
    places = {(damage.segment, damage.record): damage for damage in damages}
    for key, value in rows:
        extent = ExtentRow.unpack(value)
        damage = places.get((extent.segment, extent.record_position))
        if damage is None:
            continue
        start, stop = max(damage.start, extent.skip), min(damage.stop, extent.skip + extent.length)
        if start < stop:
            ino, offset = pair_of_key(key)
            yield Ino(ino), offset + start - extent.skip, stop - start
