"""cache: qss.cache by itself, without FUSE: CPU of the append path, bytes a second, group commit; on disk and tmpfs."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import trio

from benchmarks.figures import Figure
from benchmarks.rig import Rig, timed
from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.formats.tables import InodeRow, Table, pair_key, u64_key
from qss.host import Host
from qss.ids import Ino

KIB: Final = 1024
MIB: Final = 1024 * KIB
SMALL_COUNT: Final = 20_000
LARGE_COUNT: Final = 1_024
SYNCS: Final = 400
WRITERS: Final = 16
ROUNDS: Final = 3
_TMPFS: Final = Path("/dev/shm")
_CONTENT: Final = os.urandom(4 * MIB)


class _File:
    """One file that grows: what qss.fs does for a write at the end, without its bookkeeping."""

    def __init__(self, cache: SegmentCache, ino: int) -> None:
        self._cache = cache
        self._ino = Ino(ino)
        self._row = _row()

    def write(self, payload: bytes) -> None:
        cache, ino, row = self._cache, self._ino, self._row
        at = row.size
        placed = cache.append(ino, at, payload)
        change = cache.begin()
        for offset, extent in placed:
            change.put(Table.EXTENTS, pair_key(ino, offset), extent.pack())
        row.size = row.allocated = at + len(payload)
        row.mtime_ns = row.ctime_ns = time.time_ns()
        change.put(Table.INODES, u64_key(ino), row.pack())
        cache.commit(change)


def _row() -> InodeRow:
    return InodeRow(0o100644, 1, 0, 0, 0, 0, 0, 0, 0, 0, time.time_ns(), time.time_ns(), time.time_ns())


def scenario(rig: Rig) -> list[Figure]:
    """On a directory of the disk, and on a tmpfs where there is one."""
    figures = _measured(rig.root, "disk")
    if _TMPFS.is_dir():
        with tempfile.TemporaryDirectory(prefix="qss-bench-", dir=_TMPFS) as scratch:
            figures += _measured(Path(scratch), "tmpfs")
    return figures


def _measured(parent: Path, where: str) -> list[Figure]:
    def cached(work: Callable[[SegmentCache], Awaitable[float]]) -> float:
        return min(_on_new_cache(parent, work) for _ in range(ROUNDS))

    small_us = cached(_small) / SMALL_COUNT * 1e6
    large_s = cached(_large)
    one_s, many_s = cached(_synced(1)), cached(_synced(WRITERS))
    native_small_us = min(_native(parent, 4 * KIB, SMALL_COUNT)[1] for _ in range(ROUNDS)) / SMALL_COUNT * 1e6
    native_large_s = min(_native(parent, MIB, LARGE_COUNT)[0] for _ in range(ROUNDS))
    native_sync_s = _native(parent, 4 * KIB, SYNCS, sync=True)[0]
    gigabytes = LARGE_COUNT * MIB / 1e9
    note = f"one writer: {SYNCS / one_s:,.0f}/s, so {one_s / many_s:.1f} times; native: one writer"
    return [
        Figure(
            f"cache append + commit 4 KiB, {where}", small_us, "CPU µs", native_small_us, "≤ 15 µs", "native: pwrite"
        ),
        Figure(f"cache append + commit 1 MiB, {where}", gigabytes / large_s, "GB/s", gigabytes / native_large_s, "≥ 2"),
        Figure(f"cache 4 KiB + sync, 16 writers, {where}", SYNCS / many_s, "/s", SYNCS / native_sync_s, "≥ 5 ×", note),
    ]


def _on_new_cache(parent: Path, work: Callable[[SegmentCache], Awaitable[float]]) -> float:
    root = Path(tempfile.mkdtemp(prefix="cache-", dir=parent))

    async def main() -> float:
        cache = await SegmentCache.open(root, Host(), CacheOptions(), None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.run)
            result = await work(cache)
            nursery.cancel_scope.cancel()
        await cache.close()
        return result

    try:
        return trio.run(main)
    finally:
        shutil.rmtree(root)


async def _small(cache: SegmentCache) -> float:
    """CPU seconds of the whole process for SMALL_COUNT records at the end of one file.

    What qss.fs does is done before: the rows of the inode are packed already."""
    payload, ino = _CONTENT[: 4 * KIB], Ino(1_000)
    key, row = u64_key(ino), _row()
    rows = []
    for number in range(SMALL_COUNT):
        row.size = row.allocated = (number + 1) * len(payload)
        row.mtime_ns = row.ctime_ns = row.ctime_ns + 15_000
        rows.append((pair_key(ino, number * len(payload)), row.pack()))
    append, begin, commit = cache.append, cache.begin, cache.commit
    before = time.process_time()
    for number, (extent_key, packed) in enumerate(rows):
        placed = append(ino, number * len(payload), payload)
        change = begin()
        change.put(Table.EXTENTS, extent_key, placed[0][1].pack())
        change.put(Table.INODES, key, packed)
        commit(change)
    return time.process_time() - before


async def _large(cache: SegmentCache) -> float:
    """Wall seconds for LARGE_COUNT MiB into one file; the background gets its turns."""
    file = _File(cache, 1_000)
    payloads = [_CONTENT[at : at + MIB] for at in range(0, len(_CONTENT), MIB)]
    began = time.perf_counter()
    for number in range(LARGE_COUNT):
        file.write(payloads[number % len(payloads)])
        await trio.lowlevel.checkpoint()
    return time.perf_counter() - began


def _synced(writers: int) -> Callable[[SegmentCache], Awaitable[float]]:
    async def work(cache: SegmentCache) -> float:
        """Wall seconds for SYNCS writes of 4 KiB, each made durable, by so many tasks at the same time."""

        async def write(ino: int) -> None:
            file = _File(cache, ino)
            for _ in range(SYNCS // writers):
                file.write(_CONTENT[: 4 * KIB])
                await cache.sync_local()

        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for number in range(writers):
                nursery.start_soon(write, 1_000 + number)
        return time.perf_counter() - began

    return work


def _native(parent: Path, size: int, count: int, *, sync: bool = False) -> tuple[float, float]:
    """Wall and CPU seconds of `count` appends to one plain file."""
    path = parent / "native-appends"
    payload = _CONTENT[:size]
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    def work() -> None:
        for number in range(count):
            os.pwrite(handle, payload, number * size)
            if sync:
                os.fdatasync(handle)

    before = time.process_time()
    try:
        return timed(work), time.process_time() - before
    finally:
        os.close(handle)
        path.unlink()
