"""Which bytes of which files a lost segment takes with it."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from qss.cache.lost import needed
from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.errors import CorruptData
from qss.formats.tables import ExtentRow, Table, pair_key
from qss.fs.attrs import User
from qss.fs.filesystem import FileSystem
from qss.fs.losses import DamagedFile, damaged_files, joined
from qss.host import Host, SystemClock
from qss.ids import ROOT_INO, Ino, SegmentId
from qss.limits import MIB
from tests.harness.locations import Locations

CALLER = User()
OPTIONS = CacheOptions(segment_bytes=8 * MIB, index_map_bytes=64 * MIB, fetch_deadline_s=2.0)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9))))
def test_ranges_join_to_what_they_cover(given_ranges) -> None:
    ranges = [(start, start + count) for start, count in given_ranges]
    found = joined(ranges)
    assert {at for start, stop in found for at in range(start, stop)} == {
        at for start, stop in ranges for at in range(start, stop)
    }
    assert all(left[1] < right[0] for left, right in itertools.pairwise(found))


def test_a_damaged_file_over_json() -> None:
    file = DamagedFile(Ino(7), 900, ((0, 5), (100, 900)), (b"/a/\xff\xfe", b"/b"))
    assert DamagedFile.of_json(file.to_json()) == file
    assert file.lost_bytes == 805
    for wrong in ({}, {**file.to_json(), "ranges": [[1]]}, None):
        with pytest.raises(CorruptData):
            DamagedFile.of_json(wrong)


@pytest.fixture
async def cache(tmp_path: Path):
    cache = await SegmentCache.open(tmp_path / "cache", Host(), OPTIONS, Locations())
    yield cache
    await cache.close()


@pytest.fixture
async def fs(cache):
    fs = FileSystem(cache, SystemClock())
    yield fs
    fs.detach()


async def write(fs: FileSystem, ino: int, offset: int, data: bytes) -> None:
    handle = await fs.open(ino, os.O_RDWR)
    await fs.write(handle, offset, data)
    fs.release(handle)


def segment_at(cache: SegmentCache, ino: int, offset: int = 0) -> SegmentId:
    packed = cache.get(Table.EXTENTS, pair_key(ino, offset))
    assert packed is not None
    return ExtentRow.unpack(packed).segment


async def test_exact_ranges_and_every_name(cache, fs) -> None:
    folder = fs.mkdir(ROOT_INO, b"folder", 0o755, CALLER).ino
    ino = fs.create(folder, b"file", 0o644, CALLER).ino
    fs.link(ino, ROOT_INO, b"second")
    whole = fs.create(ROOT_INO, b"whole", 0o644, CALLER).ino
    await write(fs, ino, 0, b"1" * 10_000)
    await cache.cut()
    await write(fs, ino, 4_000, b"2" * 1_000)
    await write(fs, whole, 0, b"3" * 10)
    await write(fs, ino, 10_000, b"3" * 500)
    lost, other = segment_at(cache, ino), segment_at(cache, whole)
    assert lost != other

    async def damaged(segment: SegmentId) -> list[DamagedFile]:
        return await damaged_files(cache, lambda extent: extent.segment == segment, trio.lowlevel.checkpoint)

    assert await damaged(lost) == [
        DamagedFile(Ino(ino), 10_500, ((0, 4_000), (5_000, 10_000)), (b"/folder/file", b"/second"))
    ]
    assert [file.paths for file in await damaged(other)] == [(b"/folder/file", b"/second"), (b"/whole",)]
    assert await damaged(SegmentId(999)) == []
    held = await fs.open(whole, os.O_RDONLY)
    fs.unlink(ROOT_INO, b"whole")
    assert [file.ino for file in await damaged(other)] == [ino], "what has no name is nobody's loss"
    fs.release(held)


async def test_what_files_and_what_snapshots_need(cache, fs) -> None:
    one, two = (fs.create(ROOT_INO, name, 0o644, CALLER).ino for name in (b"one", b"two"))
    await write(fs, one, 0, b"1" * 1000)
    await cache.snapshots.create("kept")
    await write(fs, two, 0, b"2" * 1000)
    await cache.cut()
    first, second = segment_at(cache, one), segment_at(cache, two)
    fs.unlink(ROOT_INO, b"one")
    await cache.cut()
    need = needed(cache)
    assert second in need.files
    assert first not in need.files
    assert first in need.snapshots
    (journal,) = (each for each in need.snapshots if each != first)
    assert journal not in needed(cache, [journal]).all
    await cache.snapshots.delete("kept")
    assert first not in needed(cache).all
