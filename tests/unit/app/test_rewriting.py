"""Content moves to another code, in parts if need be, and is all there; the old segments are dead then."""

from __future__ import annotations

import os
from pathlib import Path

import trio

from qss.app.rewriting import Rewriting, plan, rewrite
from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.fs.attrs import User
from qss.fs.filesystem import FileSystem
from qss.host import Host, SystemClock
from qss.ids import ROOT_INO
from qss.limits import MIB
from qss.segments import SegmentKind
from tests.harness.locations import Locations

CALLER = User()
OLD, NEW = (4, 2), (3, 1)  # what tests.harness.locations stores under; another


async def quiet(_found: Rewriting) -> None:
    await trio.lowlevel.checkpoint()


async def test_it_moves_what_is_under_another_code_and_goes_on_where_it_was(tmp_path: Path) -> None:
    locations = Locations()
    options = CacheOptions(segment_bytes=4 * MIB, index_map_bytes=64 * MIB, compact_bytes_per_s=1 << 40)
    cache = await SegmentCache.open(tmp_path, Host(), options, locations)
    fs = FileSystem(cache, SystemClock())
    content = {}
    for number in range(4):
        ino = fs.create(ROOT_INO, f"f{number}".encode(), 0o644, CALLER).ino
        handle = await fs.open(ino, os.O_RDWR)
        content[ino] = os.urandom(3 * MIB)
        for at in range(0, 3 * MIB, MIB):
            await fs.write(handle, at, content[ino][at : at + MIB])
        fs.release(handle)
    await cache.cut()
    await locations.carry(cache)
    await cache.evict(all_=True)
    stored = await cache.stored_segments()
    assert plan(stored, OLD) == []
    todo = plan(stored, NEW)
    found = Rewriting.of(NEW, todo)
    assert found.segments == sum(each.segment.kind is SegmentKind.DATA for each in stored) > 1
    assert found.journals == len(stored) - found.segments

    # interrupted behind the first segment
    with trio.CancelScope() as scope:

        async def interrupt(_found: Rewriting) -> None:
            scope.cancel()
            await trio.lowlevel.checkpoint()

        await rewrite(cache, NEW, found, interrupt)
    assert found.moved == 1
    again = Rewriting.of(NEW, todo)
    await rewrite(cache, NEW, again, quiet)
    assert (again.moved, again.held, again.failed) == (found.segments - 1, 1, 0)
    assert again.done_bytes == again.total_bytes
    for each in todo:
        if each.segment.kind is SegmentKind.DATA:
            assert cache.live_all().get(each.segment.id, 0) == 0
    for ino, data in content.items():
        handle = await fs.open(ino, os.O_RDONLY)
        read = b"".join([bytes(await fs.read(handle, at, MIB)) for at in range(0, 3 * MIB, MIB)])
        assert read == data
        fs.release(handle)
    fs.detach()
    await cache.close()
