"""Warming: everything below a path is here afterwards, as far as the cache's limits leave room."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from qss.cache.options import CacheOptions, RetentionOptions
from qss.cache.store import SegmentCache
from qss.formats.tables import ExtentRow, Table, pair_key
from qss.fs import tree
from qss.fs.attrs import User
from qss.fs.filesystem import FileSystem
from qss.fs.warm import Warmth, room_for, warm
from qss.host import Host, SystemClock
from qss.ids import ROOT_INO
from qss.limits import MIB, STRIPE_BYTES
from tests.harness.locations import Locations

CALLER = User()


class World:
    def __init__(self, cache: SegmentCache, locations: Locations) -> None:
        self.cache, self.locations = cache, locations
        self.fs = FileSystem(cache, SystemClock())
        self.files: dict[str, int] = {}

    async def write(self, folder: str, name: str, count: int) -> None:
        parent = self.fs.find(ROOT_INO, folder.encode())
        parent = parent if parent is not None else self.fs.mkdir(ROOT_INO, folder.encode(), 0o755, CALLER).ino
        ino = self.fs.create(parent, name.encode(), 0o644, CALLER).ino
        handle = await self.fs.open(ino, 2)
        for at in range(0, count, MIB):
            await self.fs.write(handle, at, bytes([len(self.files) + 1]) * min(MIB, count - at))
        self.fs.release(handle)
        self.files[f"/{folder}/{name}"] = ino

    async def away(self) -> None:
        """Everything is at the locations, and nowhere else."""
        await self.cache.cut()
        await self.locations.carry(self.cache)
        await self.cache.evict(all_=True)

    def here(self, path: str) -> bool:
        rows = self.cache.scan(Table.EXTENTS, pair_key(self.files[path], 0), pair_key(self.files[path] + 1, 0))
        return all(
            self.cache.holds(extent.segment, extent.record_position)
            for extent in (ExtentRow.unpack(row) for _, row in rows)
        )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    locations = Locations()
    options = CacheOptions(segment_bytes=16 * MIB, index_map_bytes=64 * MIB, fetch_deadline_s=2.0)
    cache = await SegmentCache.open(tmp_path, Host(), options, locations)
    cache.eviction.set_retention(RetentionOptions(free_bytes_min=0))
    made = World(cache, locations)
    yield made
    made.fs.detach()
    await cache.close()


async def asked(world: World, path: str, room: int | None = None) -> tuple[Warmth, list[int]]:
    told: list[int] = []

    async def report(found: Warmth) -> None:
        told.append(found.done_bytes)

    ino = tree.resolve(world.cache, path.encode())
    return await warm(world.cache, [ino], room_for(world.cache) if room is None else room, report), told


async def test_a_tree_comes_back_and_nothing_else(world: World) -> None:
    for name in ("a", "b"):
        await world.write("wanted", name, 5 * MIB)
    await world.write("other", "c", 9 * MIB)
    await world.away()
    assert not any(map(world.here, world.files))
    found, told = await asked(world, "/wanted")
    assert (found.files, found.total_bytes) == (2, 10 * MIB)
    assert (found.local_bytes, found.left_bytes, found.failed_bytes) == (10 * MIB, 0, 0)
    assert told == sorted(told)
    assert told[-1] == 10 * MIB
    assert world.here("/wanted/a")
    assert world.here("/wanted/b")
    assert not world.here("/other/c")
    fetches = world.cache.facts().fetches
    again, _ = await asked(world, "/wanted")
    assert (again.local_bytes, world.cache.facts().fetches) == (10 * MIB, fetches)


async def test_the_limits_of_the_cache_hold(world: World) -> None:
    await world.write("wanted", "a", 20 * MIB)
    await world.away()
    found, _ = await asked(world, "/wanted", 2 * STRIPE_BYTES)
    assert found.local_bytes + found.left_bytes == 20 * MIB
    assert 0 < found.local_bytes <= 2 * STRIPE_BYTES
    world.cache.eviction.set_retention(RetentionOptions(size_bytes_max=8 * MIB, free_bytes_min=0))
    assert room_for(world.cache) <= 8 * MIB
    world.cache.eviction.set_retention(RetentionOptions(size_bytes_max=0, free_bytes_min=0))
    assert room_for(world.cache) == 0


async def test_what_cannot_be_had_is_said(world: World) -> None:
    await world.write("wanted", "a", 5 * MIB)
    await world.away()
    world.locations.segments.clear()
    found, _ = await asked(world, "/wanted")
    assert (found.local_bytes, found.failed_bytes) == (0, 5 * MIB)
