"""What a kill leaves in the open journal is sealed without waiting for somebody to change something more."""

from __future__ import annotations

import gc
from pathlib import Path

from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.formats.tables import Table, u64_key
from qss.limits import MIB
from tests.harness.crash_disk import CrashDisk
from tests.harness.cuts import Reached, host_on

OPTIONS = CacheOptions(index_map_bytes=64 * MIB, free_bytes_hard=0, free_bytes_soft=1)


async def opened(root: Path, disk: CrashDisk) -> SegmentCache:
    return await SegmentCache.open(root, host_on(disk, "boot-1"), OPTIONS, None)


async def test_a_cut_after_a_kill_covers_what_was_written_before_it(tmp_path: Path) -> None:
    disk = CrashDisk()
    cache = await opened(tmp_path, disk)
    change = cache.begin()
    change.put(Table.XATTRS, u64_key(1) + b"user.x", b"written")
    cache.commit(change)
    await cache.checkpoint()  # so that nothing has to be replayed
    del cache, change  # killed
    gc.collect()

    again = await opened(tmp_path, disk)
    assert again._replayed == 0
    locations = Reached(disk)
    journal = await again.cut()
    assert journal != 0
    await locations.carry(again)
    assert await locations.publish(again)
    assert locations.roots[-1].journals[-1] == journal
    await again.close()


async def test_receipts_alone_are_not_worth_a_seal(tmp_path: Path) -> None:
    disk = CrashDisk()
    cache = await opened(tmp_path, disk)
    change = cache.begin()
    change.put(Table.XATTRS, u64_key(1) + b"user.x", b"written")
    cache.commit(change)
    journal = await cache.cut()
    locations = Reached(disk)
    await locations.carry(cache)
    await locations.publish(cache)
    await cache.checkpoint()
    del cache, change  # killed
    gc.collect()

    again = await opened(tmp_path, disk)
    assert await again.cut() == journal
    await again.close()
