"""A mounted file system in which everything happens all the time: `python -m tests.harness.kill_runner STATE MNT`.

Seals, checkpoints, offload to a folder, eviction, deletion and compaction several times a second, so that a kill at
any moment meets one of them half done. The folder survives the kill, as locations do. Prints `ready`.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
from pathlib import Path

import trio

from qss.cache.options import CacheOptions, RetentionOptions
from qss.cache.store import SegmentCache
from qss.errors import QssError, TooFewShards
from qss.fs.filesystem import FileSystem
from qss.fuse.mount import MountOptions, serve
from qss.host import Host
from qss.ids import LocationId, SegmentId, StripeNo, segment_text
from qss.limits import KIB, MIB, STRIPE_BYTES
from qss.segments import Receipt, RestorePoint

OPTIONS = CacheOptions(
    segment_bytes=512 * KIB, journal_bytes=64 * KIB, index_map_bytes=1 << 30, seal_after_s=0.2, checkpoint_every_s=0.3,
    checkpoint_changes_max=500, compact_bytes_per_s=64 * MIB, compact_waste_bytes_min=0, fetch_deadline_s=120.0,
    free_bytes_hard=0, free_bytes_soft=1, retention=RetentionOptions(size_bytes_max=4 * MIB),
)  # fmt: skip
PLACES = (LocationId("folder"),) * 3
TURN_S = 0.05


class Folder:
    """Whole segments in a directory: a vault, and a courier in miniature."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(exist_ok=True)
        self._root: RestorePoint | None = None

    def _file(self, segment: SegmentId) -> Path:
        return self.path / segment_text(segment)

    async def fetch(self, segment: SegmentId, stripe: StripeNo, into: Path) -> None:
        await trio.lowlevel.checkpoint()
        try:
            with self._file(segment).open("rb") as file:
                content = os.pread(file.fileno(), STRIPE_BYTES, stripe * STRIPE_BYTES)
        except FileNotFoundError as error:
            raise TooFewShards("it was deleted") from error
        beside = into.with_name(into.name + ".new")
        beside.write_bytes(content)
        beside.rename(into)

    async def carry(self, cache: SegmentCache) -> None:
        while True:
            await trio.sleep(TURN_S)
            try:
                await self._turn(cache)
            except (QssError, OSError) as error:
                logging.warning("not carried: %s", error)

    async def _turn(self, cache: SegmentCache) -> None:
        for sealed in await cache.unsafe_segments():
            target = self._file(sealed.id)
            shutil.copyfile(await cache.path_of(sealed.id), target.with_suffix(".new"))
            target.with_suffix(".new").rename(target)
            await cache.mark_offloaded(Receipt(sealed.id, bytes(16), 2, 1, PLACES, sealed.length))
        point = await cache.restore_point()
        if point is not None and point != self._root:
            await cache.mark_published(point)
            self._root = point
        for segment in await cache.condemned():
            self._file(segment).unlink(missing_ok=True)
            await cache.mark_deleted(segment)
        await cache.evict()
        await cache.compact_one()


async def run(state: Path, mountpoint: Path) -> None:
    host = Host()
    folder = Folder(state.with_name("folder"))
    cache = await SegmentCache.open(state, host, OPTIONS, folder)
    fs = FileSystem(cache, host.clock)
    cache.tell_moved(fs.invalidate)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        nursery.start_soon(folder.carry, cache)
        await nursery.start(_start, fs, mountpoint)
        print("ready", flush=True)


async def _start(fs: FileSystem, mountpoint: Path, *, task_status) -> None:
    await serve(fs, mountpoint, MountOptions(), task_status=task_status)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("state", type=Path)
    parser.add_argument("mountpoint", type=Path)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    trio.run(run, arguments.state, arguments.mountpoint)
