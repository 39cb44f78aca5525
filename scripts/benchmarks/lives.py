"""Processes that `start` measures: a cache and a file system as the mount process has them, without a kernel.

python -m benchmarks.lives fill DIR COUNT     make so many small files, stop cleanly
python -m benchmarks.lives work DIR 0         say "ready", make more until killed
python -m benchmarks.lives start DIR 0        open, find a file, say what that took; stop cleanly
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
import trio.lowlevel

from qss.app.checkpoint import maker
from qss.app.mount import run_mount as _  # noqa: F401 - the mount process imports all of this
from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.fs.attrs import User
from qss.fs.filesystem import FileSystem
from qss.host import Host
from qss.ids import ROOT_INO

FILE_BYTES = 100
PER_DIRECTORY = 1000
_OPTIONS = CacheOptions()


@asynccontextmanager
async def _opened(root: Path) -> AsyncIterator[tuple[SegmentCache, FileSystem]]:
    host = Host()
    cache = await SegmentCache.open(root, host, _OPTIONS, None, maker(_OPTIONS.index_map_bytes))
    try:
        yield cache, FileSystem(cache, host.clock)
    finally:
        with trio.CancelScope(shield=True):
            await cache.close()


async def _make(fs: FileSystem, prefix: str, count: int) -> None:
    payload, folder = bytes(FILE_BYTES), 0
    for number in range(count):
        if number % PER_DIRECTORY == 0:
            folder = fs.mkdir(ROOT_INO, f"{prefix}{number // PER_DIRECTORY:05}".encode(), 0o755, User()).ino
        handle = await fs.open(fs.create(folder, b"file-%07d.txt" % number, 0o644, User()).ino, os.O_WRONLY)
        await fs.write(handle, 0, payload)
        fs.release(handle)
        if number % 50 == 0:
            await trio.lowlevel.checkpoint()


async def _fill(root: Path, count: int) -> None:
    async with _opened(root) as (cache, fs), trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        await _make(fs, "d", count)
        nursery.cancel_scope.cancel()


async def _work(root: Path) -> None:
    async with _opened(root) as (cache, fs), trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        print("ready", flush=True)
        await _make(fs, f"w{os.getpid()}-", 1 << 40)


async def _start(root: Path) -> None:
    async with _opened(root) as (cache, fs):
        fs.lookup(fs.lookup(ROOT_INO, b"d00000"), b"file-0000007.txt")
        began_s = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        found = {
            "wall_s": time.clock_gettime(time.CLOCK_BOOTTIME) - began_s,
            "cpu_s": time.process_time(),
            "replayed": cache.facts().replayed_batches,
        }
    print(json.dumps(found))


if __name__ == "__main__":
    what, where, number = sys.argv[1:]
    if what == "fill":
        trio.run(_fill, Path(where), int(number))
    else:
        trio.run({"work": _work, "start": _start}[what], Path(where))
