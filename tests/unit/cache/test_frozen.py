"""A snapshot as a cache to read from: what was, wherever it is now, and nothing else touched."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from qss.cache.frozen import FrozenCache, build_index, open_index
from qss.cache.store import SegmentCache
from qss.errors import CorruptData, Damaged, FsError, TooFewShards, Unreachable
from qss.formats.tables import ExtentRow, Table, pair_of_key
from qss.fs.attrs import User
from qss.fs.filesystem import FileSystem, FsOptions
from qss.host import Host
from qss.ids import ROOT_INO, Ino, SegmentId, segment_text
from qss.limits import KIB, STRIPE_BYTES
from tests.harness.locations import Contents, Locations
from tests.harness.rows import delete, write
from tests.unit.cache.test_space import OPTIONS, opened

A, B = os.urandom(300 * KIB), os.urandom(100 * KIB)


class Reachable(Locations):
    """Locations that say how long a segment is, after some answers that none of them can be had."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[SegmentId] = []
        self.silent: list[Exception] = []

    async def length_of(self, segment: SegmentId) -> int:
        if self.silent:
            raise self.silent.pop()
        return len(self.segments[segment])

    async def fetch(self, segment, stripe, into) -> None:
        self.fetched.append(segment)
        await super().fetch(segment, stripe, into)


class Kept:
    """A cache with a snapshot of A and B, both deleted since; and what is made of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.locations = Reachable()
        self.made = 0

    async def fill(self) -> None:
        self.cache = await opened(self.root / "live", self.locations)
        write(self.cache, 10, A)
        write(self.cache, 11, B)
        await self.cache.snapshots.create("s")
        delete(self.cache, 10)
        delete(self.cache, 11)
        await self.locations.settle(self.cache)

    def lay_out(self) -> Path:
        self.made += 1
        root = self.root / f"view-{self.made}"
        (root / "journal").mkdir(parents=True)
        for journal in self.cache.snapshots.point("s").journals:
            name = segment_text(journal) + ".log"
            shutil.copy(self.root / "live" / "journal" / name, root / "journal" / name)
        return root

    def open(self) -> FrozenCache:
        root = self.lay_out()
        build_index(root, Host(), OPTIONS.index_map_bytes, self.cache.snapshots.point("s"))
        index = open_index(root, OPTIONS.index_map_bytes)
        return FrozenCache(
            Host(), root, index, self.root / "live", self.locations, self.locations, OPTIONS.fetch_deadline_s
        )


@pytest.fixture
async def kept(tmp_path):
    kept = Kept(tmp_path)
    await kept.fill()
    yield kept
    await kept.cache.close()


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


async def contents(frozen: FrozenCache) -> Contents:
    found: Contents = {}
    for key, value in list(frozen.scan(Table.EXTENTS, b"")):
        extent = ExtentRow.unpack(value)
        ino, _ = pair_of_key(key)
        found[ino, 0] = found.get((ino, 0), b"") + bytes(await frozen.read(extent, 0, extent.length))
    return found


async def test_what_is_here_is_read_in_place_and_left_as_it_is(kept: Kept) -> None:
    before = files(kept.root / "live" / "data")
    frozen = kept.open()
    extents = [ExtentRow.unpack(value) for _, value in frozen.scan(Table.EXTENTS, b"")]
    assert all(frozen.holds(each.segment, each.record_position) for each in extents)
    assert frozen.read_now(extents[0], 5, 10) == A[5:10]
    assert await contents(frozen) == {(10, 0): A, (11, 0): B}
    assert frozen.live_bytes == frozen.facts().live_bytes == len(A) + len(B)
    frozen.evict(0)
    frozen.close()
    assert kept.locations.fetched == []
    assert files(kept.root / "live" / "data") == before


async def test_what_goes_from_here_meanwhile_is_fetched(kept: Kept, nursery: trio.Nursery) -> None:
    frozen = kept.open()
    nursery.start_soon(frozen.run)
    extent = ExtentRow.unpack(next(frozen.scan(Table.EXTENTS, b""))[1])
    assert frozen.read_now(extent, 0, 10) == A[:10]
    await kept.cache.evict(all_=True)
    frozen._reads.let_go()
    assert not frozen.holds(extent.segment, extent.record_position)
    assert frozen.read_now(extent, 0, 10) is None
    assert await contents(frozen) == {(10, 0): A, (11, 0): B}
    fetched = len(kept.locations.fetched)
    assert fetched
    assert await contents(frozen) == {(10, 0): A, (11, 0): B}
    assert len(kept.locations.fetched) == fetched, "kept"
    frozen.evict(0)
    assert not list((frozen._root / "stripes").iterdir())
    assert await contents(frozen) == {(10, 0): A, (11, 0): B}
    assert len(kept.locations.fetched) == 2 * fetched
    frozen.close()
    nursery.cancel_scope.cancel()


async def test_a_damaged_copy_is_not_believed(kept: Kept) -> None:
    extent_segment = min(kept.locations.segments)
    path = kept.root / "live" / "data" / f"{segment_text(extent_segment)}.log"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    frozen = kept.open()
    assert await contents(frozen) == {(10, 0): A, (11, 0): B}
    assert kept.locations.fetched
    frozen.close()
    assert path.read_bytes() == damaged, "it is the live cache's to mend"


async def test_the_length_of_what_the_cut_closed_is_asked_for(kept: Kept) -> None:
    await kept.cache.evict(all_=True)
    frozen = kept.open()
    assert not frozen._stripes, "rows come after the cut"
    kept.locations.silent = [Unreachable("starting"), TooFewShards("two of four")]
    assert await contents(frozen) == {(10, 0): A, (11, 0): B}
    frozen.close()
    frozen = kept.open()
    extent = ExtentRow.unpack(next(frozen.scan(Table.EXTENTS, b""))[1])
    kept.locations.silent = [CorruptData("no manifest")]
    with pytest.raises(FsError) as caught:
        await frozen.read(extent, 0, 1)
    assert caught.value.errno == errno.EIO
    kept.locations.silent = [Unreachable("dead")] * 1000
    with pytest.raises(FsError) as caught:
        await frozen.read(extent, 0, 1)
    assert caught.value.errno == errno.EIO
    frozen.close()


async def test_nothing_can_be_changed(kept: Kept) -> None:
    frozen = kept.open()
    key, value = next(frozen.scan(Table.EXTENTS, b""))
    change = frozen.begin()
    frozen.commit(change)
    change.delete(Table.EXTENTS, key)
    with pytest.raises(FsError) as caught:
        frozen.commit(change)
    assert caught.value.errno == errno.EROFS
    with pytest.raises(FsError) as caught:
        await frozen.append_in_turn(Ino(10), 0, b"x")
    assert caught.value.errno == errno.EROFS
    with pytest.raises(FsError):
        await frozen.admit(1)
    await frozen.sync_local()
    assert frozen.get(Table.EXTENTS, key) == frozen.floor(Table.EXTENTS, key)[1] == value
    assert frozen.count(Table.EXTENTS) == len(list(frozen.scan(Table.EXTENTS, b"")))
    frozen.close()


async def test_logs_that_are_not_whole_make_no_index(kept: Kept) -> None:
    point = kept.cache.snapshots.point("s")
    root = kept.lay_out()
    path = root / "journal" / f"{segment_text(point.journals[-1])}.log"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(Damaged):
        build_index(root, Host(), OPTIONS.index_map_bytes, point)
    shutil.rmtree(root / "index")
    path.unlink()
    with pytest.raises((Damaged, FileNotFoundError)):
        build_index(root, Host(), OPTIONS.index_map_bytes, point)
    with pytest.raises(Damaged, match="without"):
        build_index(root, Host(), OPTIONS.index_map_bytes, replace(point, journals=()))


async def test_a_file_system_on_it(tmp_path: Path) -> None:
    locations = Reachable()
    cache = await SegmentCache.open(tmp_path / "live", Host(), OPTIONS, locations)
    fs = FileSystem(cache, Host().clock)
    ino = fs.create(ROOT_INO, b"f", 0o644, User()).ino
    handle = await fs.open(ino, os.O_RDWR)
    await fs.write(handle, STRIPE_BYTES, b"behind a hole")
    await cache.snapshots.create("s")
    await fs.write(handle, 0, b"no hole")
    fs.release(handle)
    fs.rename(ROOT_INO, b"f", ROOT_INO, b"g")
    root = tmp_path / "view"
    (root / "journal").mkdir(parents=True)
    for journal in cache.snapshots.point("s").journals:
        name = segment_text(journal) + ".log"
        os.link(tmp_path / "live" / "journal" / name, root / "journal" / name)
    build_index(root, Host(), OPTIONS.index_map_bytes, cache.snapshots.point("s"))
    index = open_index(root, OPTIONS.index_map_bytes)
    frozen = FrozenCache(Host(), root, index, tmp_path / "live", locations, locations, 0.5)
    old = FileSystem(frozen, Host().clock, FsOptions(read_only=True))
    assert [entry.name for entry in old.readdir(ROOT_INO)][2:] == [b"f"]
    opened_old = await old.open(old.lookup(ROOT_INO, b"f"), os.O_RDONLY)
    assert bytes(await old.read(opened_old, 0, 100)) == bytes(100)
    assert bytes(await old.read(opened_old, STRIPE_BYTES - 2, 100)) == b"\0\0behind a hole"
    with pytest.raises(FsError):
        old.mkdir(ROOT_INO, b"d", 0o755, User())
    old.statfs()
    frozen.close()
    await cache.close()
