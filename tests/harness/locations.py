"""Locations that keep whole segments in memory, and offload in miniature: what the courier does, step by step."""

from __future__ import annotations

from pathlib import Path

import trio

from qss.cache.options import CacheOptions
from qss.cache.segment_log import log_path
from qss.cache.store import SegmentCache
from qss.errors import TooFewShards
from qss.formats.tables import ExtentRow, Table, pair_of_key
from qss.host import Host
from qss.ids import LocationId, SegmentId, StripeNo
from qss.limits import STRIPE_BYTES
from qss.segments import Receipt, RestorePoint, SegmentKind

PLACES = tuple(LocationId(f"trove-{n}") for n in range(6))
Contents = dict[tuple[int, int], bytes]
"""(inode, file offset of a byte run) → bytes, one run for each extent, joined where they touch."""


class Locations:
    """Also the SegmentVault of the cache."""

    def __init__(self) -> None:
        self.segments: dict[SegmentId, bytes] = {}
        self.stored: list[SegmentId] = []  # every one ever stored
        self.deleted: list[SegmentId] = []
        self.roots: list[RestorePoint] = []

    async def fetch(self, segment: SegmentId, stripe: StripeNo, into: Path) -> None:
        await trio.lowlevel.checkpoint()
        if segment not in self.segments:
            raise TooFewShards("no location has it")
        into.write_bytes(self.segments[segment][stripe * STRIPE_BYTES : (stripe + 1) * STRIPE_BYTES])

    def read_file(self, path: Path) -> bytes:
        return path.read_bytes()

    async def carry(self, cache: SegmentCache, count: int = 1000) -> None:
        for sealed in (await cache.unsafe_segments())[:count]:
            self.segments[sealed.id] = self.read_file(await cache.path_of(sealed.id))
            self.stored.append(sealed.id)
            await cache.mark_offloaded(Receipt(sealed.id, b"s" * 16, 4, 2, PLACES, sealed.length * 3 // 2))

    async def publish(self, cache: SegmentCache) -> bool:
        point = await cache.restore_point()
        if point is None or (self.roots and self.roots[-1] == point):
            return False
        self.roots.append(point)
        await cache.mark_published(point)
        return True

    async def dispose(self, cache: SegmentCache) -> list[SegmentId]:
        gone = await cache.condemned()
        for segment in gone:
            self.segments.pop(segment, None)
            self.deleted.append(segment)
            await cache.mark_deleted(segment)
        return gone

    async def settle(self, cache: SegmentCache) -> None:
        """As long as it takes with a mount that runs: cuts, uploads, roots, deletions."""
        for _ in range(6):
            await cache.cut()
            await cache.reclaim()
            await self.carry(cache)
            await self.publish(cache)
            await self.dispose(cache)

    async def restored(self, point: RestorePoint, root: Path, host: Host, options: CacheOptions) -> Contents:
        """What a new machine reads after recovery from a root; fails when a byte cannot be had."""
        paths = [log_path(root, SegmentKind.CHECKPOINT, part) for part in point.checkpoint]
        paths += [log_path(root, SegmentKind.JOURNAL, journal) for journal in point.journals]
        for path, segment in zip(paths, (*point.checkpoint, *point.journals), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.segments[segment])
        await SegmentCache.rebuild(root, host, options, paths, point.next_segment)
        cache = await SegmentCache.open(root, host, options, None)
        try:
            return joined(cache, self._payload)
        finally:
            await cache.close()

    def _payload(self, extent: ExtentRow) -> bytes:
        assert extent.segment in self.segments, f"a root needs {extent.segment}, which no location has"
        start = extent.record_position + 40 + 16 * -(-extent.record_length // 65536) + extent.skip
        return self.segments[extent.segment][start : start + extent.length]


def joined(cache: SegmentCache, payload_of) -> Contents:
    """All content by (inode, offset), adjacent extents joined, so that a move changes nothing."""
    runs: Contents = {}
    last: tuple[int, int] | None = None
    for key, value in list(cache.scan(Table.EXTENTS, b"")):
        ino, offset = pair_of_key(key)
        data = bytes(payload_of(ExtentRow.unpack(value)))
        if last is not None and last[0] == ino and last[1] + len(runs[last]) == offset:
            runs[last] += data
        else:
            last = (ino, offset)
            runs[last] = data
    return runs
