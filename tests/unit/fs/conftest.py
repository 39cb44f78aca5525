from __future__ import annotations

import pytest

from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.fs.filesystem import FileSystem
from qss.host import Host


class SteppingClock:
    """Wall clock that moves by a second with every look at it."""

    def __init__(self) -> None:
        self.ns = 1_700_000_000_000_000_123

    def now_ns(self) -> int:
        self.ns += 1_000_000_000
        return self.ns

    def boot_id(self) -> str:
        return "boot"


class World:
    """A file system on a real cache in a directory, that can be opened again."""

    def __init__(self, root) -> None:
        self.root = root
        self.clock = SteppingClock()

    async def open(self, **options) -> FileSystem:
        from qss.fs.filesystem import FsOptions

        self.cache = await SegmentCache.open(self.root, Host(), CacheOptions(index_map_bytes=1 << 30), None)
        self.fs = FileSystem(self.cache, self.clock, FsOptions(**options))
        return self.fs

    async def reopen(self, **options) -> FileSystem:
        self.fs.detach()
        await self.cache.close()
        return await self.open(**options)


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    await world.open()
    yield world
    await world.cache.close()


@pytest.fixture
def fs(world):
    return world.fs
