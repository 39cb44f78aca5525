"""Content that cannot be read is named with its files, once, and leaves the list when it can be read or is nobody's."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.errors import FsError
from qss.formats.tables import ExtentRow, Table, pair_key
from qss.fs import unreadable as module
from qss.fs.attrs import User
from qss.fs.filesystem import FileSystem
from qss.fs.unreadable import AGAIN_EVERY_S, Place, Unreadable
from qss.host import Host, SystemClock
from qss.ids import ROOT_INO, SegmentId
from qss.limits import MIB
from tests.harness.locations import Locations

CALLER = User()


class World:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.locations = Locations()
        self.told: list[Place] = []

    async def open(self) -> None:
        options = CacheOptions(segment_bytes=8 * MIB, index_map_bytes=64 * MIB, fetch_deadline_s=2.0)
        self.cache = await SegmentCache.open(self.root, Host(), options, self.locations)
        self.fs = FileSystem(self.cache, SystemClock())
        self.book = Unreadable(self.cache, SystemClock(), self.told.append)
        self.cache.on_unreadable = self.book.note

    async def write(self, name: bytes) -> int:
        ino = self.fs.create(ROOT_INO, name, 0o644, CALLER).ino
        handle = await self.fs.open(ino, os.O_RDWR)
        await self.fs.write(handle, 0, name * 1000)
        self.fs.release(handle)
        return ino

    def extent(self, ino: int) -> ExtentRow:
        packed = self.cache.get(Table.EXTENTS, pair_key(ino, 0))
        assert packed is not None
        return ExtentRow.unpack(packed)

    async def fails(self, ino: int) -> None:
        handle = await self.fs.open(ino, os.O_RDONLY)
        with pytest.raises(FsError) as failure:
            await self.fs.read(handle, 0, 100)
        assert failure.value.errno == errno.EIO
        self.fs.release(handle)

    async def evicted(self) -> dict[SegmentId, bytes]:
        """All is at the locations and nothing here; what the locations hold is taken away and returned."""
        await self.cache.cut()
        await self.locations.carry(self.cache)
        await self.cache.evict(all_=True)
        held, self.locations.segments = self.locations.segments, {}
        return held


@pytest.fixture
async def world(tmp_path: Path):
    world = World(tmp_path)
    await world.open()
    yield world
    world.fs.detach()
    await world.cache.close()


async def test_what_no_location_gives_is_named_and_comes_back(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    first, second = await world.write(b"first"), await world.write(b"second")
    world.fs.link(first, ROOT_INO, b"also")
    held = await world.evicted()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.book.run)
        await world.fails(first)
        await world.fails(second)
        await trio.sleep(1)
        (place,) = world.book.places
        assert (place.segment, place.stripe) == (world.extent(first).segment, 0)
        assert sorted(place.paths or ()) == ["/also", "/first", "/second"]
        assert place.reason == "the locations did not answer in time"
        await world.fails(first)
        await trio.sleep(3 * AGAIN_EVERY_S)
        assert world.told == [place], "once"
        world.locations.segments = held
        await trio.sleep(2 * AGAIN_EVERY_S)
        assert world.book.places == []
        nursery.cancel_scope.cancel()


async def test_what_is_damaged_here_and_nowhere_else_is_named_until_it_is_deleted(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    ino = await world.write(b"file")
    await world.cache.cut()
    extent = world.extent(ino)
    path = await world.cache.path_of(extent.segment)
    content = bytearray(path.read_bytes())
    content[extent.record_position + 500] ^= 1
    path.write_bytes(content)
    damaged = world.cache.facts().damaged_reads
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.book.run)
        await world.fails(ino)
        await trio.sleep(1)
        assert [place.paths for place in world.book.places] == [("/file",)]
        await trio.sleep(3 * AGAIN_EVERY_S)
        assert world.cache.facts().damaged_reads == damaged + 1, "looking again counts nothing"
        world.fs.unlink(ROOT_INO, b"file")
        while world.fs.collect():
            pass
        await trio.sleep(2 * AGAIN_EVERY_S)
        assert world.book.places == []
        nursery.cancel_scope.cancel()
    assert len(world.told) == 1


async def test_the_list_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLACES_MAX", 3)
    for number in range(10):
        world.book.note(ExtentRow(SegmentId(number + 1), 40, 100, 0, 100), 0, 10, "gone")
    assert len(world.book.places) == 3
    for position in range(100):
        world.book.note(ExtentRow(SegmentId(1), position, 100, 0, 100), 0, 10, "gone")
    assert len(world.book.places[0].spots) == module.SPOTS_MAX
