"""Where the bytes of a file are, and how much room there is: answers made from the cache's facts."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator

from qss.errors import FsError
from qss.formats.tables import ExtentRow, InodeRow, SegmentRow, SegmentState, Table, pair_key, u64_key
from qss.fs.attrs import SpaceFigures
from qss.fs.store import Store
from qss.ids import SegmentId

STATE = b"user.qss.state"
LOCATIONS = b"user.qss.locations"

_INODES_FREE = 2**32  # there is no table of inodes to run out of


def describe(cache: Store, ino: int, row: InodeRow, name: bytes) -> bytes:
    """The value of a `user.qss.*` attribute, JSON text. Raises FsError(ENODATA) for an unknown one."""
    if name == STATE:
        return _state(cache, ino, row)
    if name == LOCATIONS:
        return _locations(cache, ino)
    raise FsError(errno.ENODATA)


def _state(cache: Store, ino: int, row: InodeRow) -> bytes:
    """{"bytes", "stored", "cached", "offloaded", "at_risk"}: length, content in the log, and of that: readable without
    a fetch; every shard placed; only on this machine."""
    stored = cached = offloaded = 0
    for extent in _extents(cache, ino):
        stored += extent.length
        if cache.holds(extent.segment, extent.record_position):  # no record crosses a stripe
            cached += extent.length
        if _offloaded(cache, extent.segment) is not None:
            offloaded += extent.length
    facts = {
        "bytes": row.size,
        "stored": stored,
        "cached": cached,
        "offloaded": offloaded,
        "at_risk": stored - offloaded,
    }
    return json.dumps(facts).encode()


def _locations(cache: Store, ino: int) -> bytes:
    """A list, one item for each segment the file has bytes in: {"segment", "bytes", "k", "m", "placed"}."""
    held: dict[SegmentId, int] = {}
    for extent in _extents(cache, ino):
        held[extent.segment] = held.get(extent.segment, 0) + extent.length
    found = []
    for segment, count in sorted(held.items()):
        packed = cache.get(Table.SEGMENTS, u64_key(segment))
        k, m, placed = (0, 0, 0) if packed is None else SegmentRow.unpack(packed)[2:5]
        found.append({"segment": segment, "bytes": count, "k": k, "m": m, "placed": placed})
    return json.dumps(found).encode()


def _extents(cache: Store, ino: int) -> Iterator[ExtentRow]:
    for _, packed in cache.scan(Table.EXTENTS, pair_key(ino, 0), pair_key(ino + 1, 0)):
        yield ExtentRow.unpack(packed)


def _offloaded(cache: Store, segment: SegmentId) -> SegmentRow | None:
    packed = cache.get(Table.SEGMENTS, u64_key(segment))
    if packed is None:
        return None
    row = SegmentRow.unpack(packed)
    return row if row.state is not SegmentState.SEALED else None


def space(cache: Store) -> SpaceFigures:
    """Used: what files hold, wherever it is. Free: what the cache disk can take."""
    facts = cache.facts()
    inodes = cache.count(Table.INODES)
    return SpaceFigures(
        total_bytes=facts.live_bytes + facts.disk_free_bytes,
        free_bytes=facts.disk_free_bytes,
        available_bytes=facts.disk_free_bytes,
        inodes=inodes + _INODES_FREE,
        free_inodes=_INODES_FREE,
    )
