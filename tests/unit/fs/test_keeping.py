"""Pins and path policies: what is kept follows files, survives restarts, and is exact about shared segments."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from qss.cache.options import CacheOptions, PathPolicy, RetentionOptions
from qss.cache.retention import GENERAL
from qss.cache.store import SegmentCache
from qss.errors import FsError, Refused
from qss.formats.tables import ExtentRow, Table, pair_key
from qss.fs import keeping as module
from qss.fs import tree
from qss.fs.attrs import User
from qss.fs.filesystem import FileSystem
from qss.fs.keeping import Keeping
from qss.host import Host, SystemClock
from qss.ids import ROOT_INO, SegmentId
from qss.limits import MIB, STRIPE_BYTES
from tests.harness.locations import Locations

CALLER = User()
HOUR = 3600.0


class Kept:
    """A file system with everything that keeps content here."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.locations = Locations()

    async def open(self) -> None:
        options = CacheOptions(segment_bytes=8 * MIB, index_map_bytes=64 * MIB, fetch_deadline_s=2.0)
        self.cache = await SegmentCache.open(self.root, Host(), options, self.locations)
        self.fs = FileSystem(self.cache, SystemClock())
        self.keeping = self.cache.eviction.guard = Keeping(self.cache, SystemClock())

    async def close(self) -> None:
        self.fs.detach()
        await self.cache.close()

    def folder(self, path: str) -> int:
        ino = int(ROOT_INO)
        for name in path.encode().split(b"/")[1:]:
            found = self.fs.find(ino, name)
            ino = found if found is not None else self.fs.mkdir(ino, name, 0o755, CALLER).ino
        return ino

    async def write(self, path: str, payload: bytes = b"x" * MIB) -> int:
        folder, _, name = path.rpartition("/")
        parent = self.folder(folder)
        found = self.fs.find(parent, name.encode())
        ino = found if found is not None else self.fs.create(parent, name.encode(), 0o644, CALLER).ino
        handle = await self.fs.open(ino, os.O_RDWR)
        await self.fs.write(handle, 0, payload)
        self.fs.release(handle)
        return ino

    def extent(self, ino: int) -> ExtentRow:
        packed = self.cache.get(Table.EXTENTS, pair_key(ino, 0))
        assert packed is not None
        return ExtentRow.unpack(packed)

    def here(self, ino: int) -> bool:
        extent = self.extent(ino)
        return self.cache.holds(extent.segment, extent.record_position)

    async def safe(self) -> None:
        """All of it is at the locations; what is written next goes into another segment."""
        await self.cache.cut()
        await self.locations.carry(self.cache)

    async def policy_of(self, ino: int) -> int:
        await self.keeping.refresh()
        return self.keeping.protection(self.extent(ino).segment, None).policy

    def hold(self, *paths: PathPolicy, age_s_max: float | None = None) -> None:
        self.cache.eviction.set_retention(RetentionOptions(age_s_max=age_s_max, free_bytes_min=0, paths=paths))


@pytest.fixture
async def kept(tmp_path: Path):
    kept = Kept(tmp_path)
    await kept.open()
    kept.hold()
    yield kept
    await kept.close()


async def test_what_is_pinned_stays_whatever_is_evicted(kept: Kept) -> None:
    wanted = await kept.write("/a/b/wanted")
    await kept.safe()
    other = await kept.write("/a/other")
    await kept.safe()
    kept.keeping.pin(b"/a/b")
    report = await kept.cache.evict(all_=True)
    assert (kept.here(wanted), kept.here(other), report.segments) == (True, False, 1)
    (pin,) = kept.keeping.pins()
    assert (pin.path, pin.bytes, pin.local_bytes) == ("/a/b", MIB, MIB)
    later = await kept.write("/a/b/c/later")
    await kept.safe()
    await kept.cache.evict(all_=True)
    assert kept.here(later), "what is made below a pin is pinned"
    assert kept.keeping.unpin(b"/a/b")
    assert not kept.keeping.unpin(b"/a/b")
    await kept.cache.evict(all_=True)
    assert (kept.here(wanted), kept.here(later)) == (False, False)


async def test_a_pin_follows_a_rename_and_survives_a_restart(kept: Kept) -> None:
    ino = await kept.write("/a/file")
    await kept.safe()
    kept.keeping.pin(b"/a/file")
    kept.fs.rename(kept.folder("/a"), b"file", kept.folder("/b"), b"moved")
    await kept.safe()
    await kept.close()
    await kept.open()
    kept.hold()
    await kept.cache.evict(all_=True)
    assert kept.here(ino)
    assert [pin.path for pin in kept.keeping.pins()] == ["/b/moved"]
    assert kept.keeping.unpin(b"/b/moved")


async def test_a_pin_goes_over_to_the_file_that_replaces_its_own_and_ends_with_it(kept: Kept) -> None:
    await kept.write("/a/file")
    kept.keeping.pin(b"/a/file")
    fresh = await kept.write("/a/.file.new")
    kept.fs.rename(kept.folder("/a"), b".file.new", kept.folder("/a"), b"file")
    while kept.fs.collect():
        pass
    await kept.keeping.refresh()
    assert [pin.ino for pin in kept.keeping.pins()] == [fresh]
    kept.fs.unlink(kept.folder("/a"), b"file")
    while kept.fs.collect():
        pass
    kept.keeping._next_s = 0.0
    await kept.keeping.refresh()
    assert kept.keeping.pins() == []


async def test_evicted_content_comes_back_once_it_is_pinned(kept: Kept, autojump_clock: trio.testing.MockClock) -> None:
    ino = await kept.write("/a/large", bytes(3 * STRIPE_BYTES))
    await kept.safe()
    await kept.cache.evict(all_=True)
    assert not kept.here(ino)
    kept.keeping.pin(b"/a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.cache.run)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    await kept.keeping.refresh()
    handle = await kept.fs.open(ino, os.O_RDONLY)
    assert kept.fs.read_now(handle, 0, 3 * STRIPE_BYTES) == bytes(3 * STRIPE_BYTES)
    kept.fs.release(handle)
    kept.keeping._next_s = 0.0
    await kept.write("/a/small", b"1")  # so that there is something to look at
    await kept.keeping.refresh()
    assert [(pin.bytes, pin.local_bytes) for pin in kept.keeping.pins()] == [(3 * STRIPE_BYTES + 1,) * 2]


async def test_pins_are_refused_beyond_a_bound_and_where_nothing_is(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FsError) as failure:
        kept.keeping.pin(b"/no/where")
    assert failure.value.errno == errno.ENOENT
    monkeypatch.setattr(module, "PINS_MAX", 1)
    kept.folder("/a/b")
    kept.keeping.pin(b"/a")
    kept.keeping.pin(b"/a")
    with pytest.raises(Refused, match="already"):
        kept.keeping.pin(b"/a/b")


async def test_a_segment_is_as_protected_as_its_most_protected_content(kept: Kept) -> None:
    kept.hold(PathPolicy("/videos", HOUR), PathPolicy("/videos/best", None), age_s_max=2 * HOUR)
    alone = await kept.write("/videos/alone")
    await kept.safe()
    mixed = await kept.write("/videos/mixed")
    await kept.write("/docs/mixed")
    await kept.safe()
    best = await kept.write("/videos/best/one")
    await kept.write("/videos/beside")
    await kept.safe()
    assert await kept.policy_of(alone) == 0
    assert await kept.policy_of(mixed) == GENERAL
    assert await kept.policy_of(best) == 1
    await kept.write("/docs/mixed")  # elsewhere now: the old segment holds videos only
    kept.keeping._next_s = 0.0
    assert await kept.policy_of(mixed) == 0


async def test_a_file_with_a_name_elsewhere_is_held_by_what_holds_there(kept: Kept) -> None:
    kept.hold(PathPolicy("/videos", HOUR))
    ino = await kept.write("/videos/one")
    kept.fs.link(ino, kept.folder("/videos"), b"two")
    await kept.safe()
    assert await kept.policy_of(ino) == 0
    kept.fs.link(ino, kept.folder("/docs"), b"three")
    kept.keeping._next_s = 0.0
    assert await kept.policy_of(ino) == GENERAL


async def test_policies_decide_what_goes(kept: Kept) -> None:
    kept.hold(PathPolicy("/scratch", None, 0))
    scratch = await kept.write("/scratch/one")
    await kept.safe()
    docs = await kept.write("/docs/one")
    await kept.safe()
    await kept.cache.evict()
    assert (kept.here(scratch), kept.here(docs)) == (False, True)


async def test_nothing_is_walked_twice_for_nothing(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    walks = 0
    walk = Keeping._walk_pin

    async def counted(self: Keeping, *rest: object) -> None:
        nonlocal walks
        walks += 1
        await walk(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Keeping, "_walk_pin", counted)
    await kept.keeping.refresh()
    assert walks == 0, "nothing is pinned"
    await kept.write("/a/file")
    kept.keeping.pin(b"/a")
    for _ in range(3):
        await kept.keeping.refresh()
    assert walks == 1


async def test_paths_of_inodes_by_looking_at_everything(kept: Kept) -> None:
    first = await kept.write("/a/b/one")
    kept.fs.link(first, kept.folder("/c"), b"two")
    second = await kept.write("/three")
    found = await tree.paths_of(kept.cache, {first, second, int(ROOT_INO), 999}, trio.lowlevel.checkpoint)
    assert {ino: sorted(paths) for ino, paths in found.items()} == {
        first: [b"/a/b/one", b"/c/two"],
        second: [b"/three"],
        int(ROOT_INO): [b"/"],
        999: [],
    }
    segment = kept.extent(first).segment
    inos = await tree.inodes_in(kept.cache, lambda row: row.segment == SegmentId(segment), trio.lowlevel.checkpoint)
    assert inos == {first, second}


async def test_directories_and_files_longer_than_a_page(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "PAGE_ROWS", 3)
    inos = {await kept.write(f"/d/{number}", b"x") for number in range(10)}
    long = await kept.write("/d/long", b"x")
    handle = await kept.fs.open(long, os.O_RDWR)
    for number in range(10):
        await kept.fs.write(handle, number * 10, b"y")
    kept.fs.release(handle)
    pause = trio.lowlevel.checkpoint
    assert {ino async for ino in tree.files_below(kept.cache, ROOT_INO, (), pause)} == inos | {long}
    assert len([extent async for extent in tree.extents_of(kept.cache, long, pause)]) == 10
