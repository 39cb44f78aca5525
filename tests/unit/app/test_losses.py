"""The list of what is lost: kept, followed while mounted, gone when nothing is lost any more."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from qss.app.losses import Loss, keep_track, lost_path, read_loss, write_loss
from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.errors import CorruptData
from qss.formats.tables import ExtentRow, Table, pair_key
from qss.fs.attrs import User
from qss.fs.filesystem import FileSystem
from qss.fs.losses import DamagedFile
from qss.fs.unreadable import Unreadable
from qss.host import Host, SystemClock
from qss.ids import ROOT_INO, Ino, SegmentId
from qss.limits import MIB
from tests.harness.locations import Locations
from tests.harness.waiting import until

LOSS = Loss({SegmentId(5): "why"}, (DamagedFile(Ino(9), 10, ((0, 4),), (b"/\xff",)),), frozenset({SegmentId(5)}))


def test_it_is_kept_and_read_back(tmp_path: Path) -> None:
    settings = SimpleNamespace(state=tmp_path)
    assert read_loss(settings) is None
    write_loss(settings, LOSS)
    assert lost_path(settings).stat().st_mode & 0o777 == 0o600
    assert read_loss(settings) == LOSS
    for wrong in ("{", "[]", '{"lost_segments": [], "damaged_files": 3}'):
        lost_path(settings).write_text(wrong)
        with pytest.raises(CorruptData):
            read_loss(settings)
    write_loss(settings, Loss({SegmentId(5): "why"}))
    assert read_loss(settings) is None, "nobody misses it"


async def test_it_follows_what_comes_back(tmp_path: Path) -> None:
    settings, locations = SimpleNamespace(state=tmp_path), Locations()
    options = CacheOptions(segment_bytes=8 * MIB, index_map_bytes=64 * MIB, fetch_deadline_s=2.0)
    cache = await SegmentCache.open(tmp_path / "cache", Host(), options, locations)
    fs = FileSystem(cache, SystemClock())
    extents = []
    for name in (b"one", b"two"):
        ino = fs.create(ROOT_INO, name, 0o644, User()).ino
        opened = await fs.open(ino, os.O_RDWR)
        await fs.write(opened, 0, name * 100)
        fs.release(opened)
        await cache.cut()
        packed = cache.get(Table.EXTENTS, pair_key(ino, 0))
        assert packed is not None
        extents.append(ExtentRow.unpack(packed))
    await locations.carry(cache)
    await cache.evict(all_=True)
    held = {extent.segment: locations.segments.pop(extent.segment) for extent in extents}
    write_loss(settings, Loss({extent.segment: "too few" for extent in extents}, LOSS.files))
    unreadable = Unreadable(cache, SystemClock(), lambda _place: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_track, settings, cache, unreadable)

        def listed() -> list[bytes]:
            loss = read_loss(settings)
            return [path for file in loss.files for path in file.paths] if loss else []

        await until(lambda: listed() == [b"/one", b"/two"])
        assert [place.reason for place in unreadable.places] == ["too few"] * 2
        locations.segments[extents[0].segment] = held[extents[0].segment]
        await unreadable.try_again()
        await until(lambda: listed() == [b"/two"])
        assert [place.segment for place in unreadable.places] == [extents[1].segment]
        locations.segments |= held
        await unreadable.try_again()
        await until(lambda: not lost_path(settings).exists())
    fs.detach()
    await cache.close()
