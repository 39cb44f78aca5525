"""After a failed sync: EIO until the next start, which does not believe the page cache. docs/adr/0100."""

from __future__ import annotations

import errno
import random
import shutil
from pathlib import Path

import pytest

from qss.cache.failed_sync import NOTE
from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.errors import Damaged, FsError
from qss.formats.tables import Table, u64_key
from qss.host import Host
from tests.harness.crash_disk import CrashDisk, Fate, FixedClock

OPTIONS = CacheOptions(index_map_bytes=1 << 26, free_bytes_hard=0, free_bytes_soft=1)


async def opened(root: Path, disk: CrashDisk, boot: str = "boot-1") -> SegmentCache:
    return await SegmentCache.open(root, Host(disk, FixedClock(boot)), OPTIONS, None)


def note(cache: SegmentCache, number: int) -> None:
    change = cache.begin()
    change.put(Table.XATTRS, u64_key(number) + b"user.x", b"value")
    cache.commit(change)


def notes(cache: SegmentCache) -> list[int]:
    return [int.from_bytes(key[:8], "big") for key, _ in cache.scan(Table.XATTRS, b"")]


def fail_syncs(verb: str, _path: Path, _number: int) -> Exception | None:
    return OSError(errno.EIO, "injected") if verb == "sync_data" else None


async def killed_after_a_failed_sync(root: Path, disk: CrashDisk) -> None:
    cache = await opened(root, disk)
    note(cache, 1)
    await cache.sync_local()
    note(cache, 2)
    disk.fail = fail_syncs
    with pytest.raises(FsError):
        await cache.sync_local()
    disk.fail = None  # the disk seems to be well again, and the pages are clean
    for _ in range(2):
        with pytest.raises(FsError) as failure:
            await cache.sync_local()
        assert failure.value.errno == errno.EIO
    with pytest.raises(FsError):
        await cache.cut()
    assert notes(cache) == [1, 2], "it can still be read, to be saved elsewhere"
    cache._let_go()


async def test_what_the_next_start_calls_durable_is(tmp_path: Path) -> None:
    disk = CrashDisk()
    await killed_after_a_failed_sync(tmp_path, disk)
    assert disk.exists(tmp_path / NOTE)
    cache = await opened(tmp_path, disk)
    assert not disk.exists(tmp_path / NOTE)
    assert notes(cache) == [1, 2]
    await cache.sync_local()
    cache._let_go()
    after = disk.after_cut(Fate.LOST, random.Random(0))
    shutil.rmtree(tmp_path / "index")
    cache = await opened(tmp_path, after, "boot-2")
    assert notes(cache) == [1, 2]
    await cache.close()


async def test_after_a_reboot_the_disk_says_what_there_is(tmp_path: Path) -> None:
    disk = CrashDisk()
    await killed_after_a_failed_sync(tmp_path, disk)
    after = disk.after_cut(Fate.LOST, random.Random(0))
    shutil.rmtree(tmp_path / "index")
    cache = await opened(tmp_path, after, "boot-2")
    assert notes(cache) == [1]
    note(cache, 3)
    await cache.close()
    assert notes(await opened(tmp_path, after, "boot-2")) == [1, 3]


async def test_a_start_that_cannot_write_it_anew_is_refused_and_loses_nothing(tmp_path: Path) -> None:
    disk = CrashDisk()
    await killed_after_a_failed_sync(tmp_path, disk)
    disk.fail = fail_syncs
    with pytest.raises(Damaged, match="cannot be used"):
        await opened(tmp_path, disk)
    disk.fail = None
    cache = await opened(tmp_path, disk)
    assert notes(cache) == [1, 2]
    await cache.close()
