"""Journal checkpoints of a real cache: made, found again, preferred, mistrusted."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from qss.cache.applied import NOTHING_APPLIED
from qss.cache.checkpoint_files import checkpoints_in, load, rows_in, write_parts
from qss.cache.checkpoints import Checkpoints
from qss.cache.index import Committed, Index
from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.errors import CorruptData, Damaged, NoSpace
from qss.formats.tables import Table, name_key
from qss.host import Host, PosixDisk
from qss.ids import SegmentId
from qss.limits import KIB, MIB
from tests.harness.rows import write

OPTIONS = CacheOptions(
    segment_bytes=256 * KIB, journal_bytes=32 * KIB, index_map_bytes=64 * MIB, free_bytes_hard=0, free_bytes_soft=1
)


async def opened(root: Path, **more) -> SegmentCache:
    return await SegmentCache.open(root, Host(), OPTIONS, None, **more)


def put(cache: SegmentCache, number: int, value: bytes) -> None:
    change = cache.begin()
    change.put(Table.XATTRS, name_key(number, b"user.x"), value)
    cache.commit(change)


def everything(cache: SegmentCache) -> dict[tuple[Table, bytes], bytes]:
    """All rows that are journaled."""
    tables = (table for table in Table if table not in (Table.LIVE, Table.META))
    return {(table, key): value for table in tables for key, value in cache.scan(table, b"")}


def forget_index(root: Path) -> None:
    shutil.rmtree(root / "index")


async def filled(root: Path, **more) -> SegmentCache:
    cache = await opened(root, **more)
    rng = random.Random(1)
    for number in range(1, 20):
        put(cache, number, rng.randbytes(50_000))
        write(cache, number + 100, rng.randbytes(10_000))
    return cache


async def test_an_index_comes_back_from_a_checkpoint_and_the_journals_behind_it(tmp_path: Path) -> None:
    cache = await filled(tmp_path)
    parts = await cache.checkpoint_journal()
    assert len(parts) > 2
    put(cache, 50, b"behind the checkpoint")
    await cache.cut()
    before, live = everything(cache), cache.live_all()
    await cache.close()
    forget_index(tmp_path)
    (checkpoint,) = checkpoints_in(PosixDisk(), tmp_path / "checkpoint")
    for path in (tmp_path / "journal").iterdir():
        if int(path.stem, 16) < checkpoint.applied.journal:
            path.unlink()
    cache = await opened(tmp_path)
    assert everything(cache).items() >= before.items()
    assert cache.live_all() == live
    assert cache.facts().replayed_batches < 10
    await cache.close()


@pytest.mark.parametrize("what", ["flipped", "short", "first gone", "last gone", "headless"])
async def test_a_damaged_checkpoint_is_not_used_when_the_journals_are_here(tmp_path: Path, what: str) -> None:
    cache = await filled(tmp_path)
    older = await cache.checkpoint_journal()
    put(cache, 60, b"x")
    newer = await cache.checkpoint_journal()
    put(cache, 61, b"y")
    before = everything(cache)
    await cache.close()
    forget_index(tmp_path)
    for parts in (older, newer):
        paths = [tmp_path / "checkpoint" / f"{part:016x}.log" for part in parts]
        content = bytearray(paths[1].read_bytes())
        match what:
            case "flipped":
                content[len(content) // 2] ^= 1
                paths[1].write_bytes(content)
            case "short":
                paths[1].write_bytes(content[:-1])
            case "first gone":
                paths[0].unlink()
            case "last gone":
                paths[-1].unlink()
            case "headless":
                paths[1].write_bytes(bytes(40) + content[40:])
    cache = await opened(tmp_path)
    assert everything(cache).items() >= before.items()
    await cache.close()


async def test_without_checkpoint_and_journals_the_start_is_refused(tmp_path: Path) -> None:
    cache = await filled(tmp_path)
    await cache.checkpoint_journal()
    await cache.cut()
    await cache.close()
    forget_index(tmp_path)
    shutil.rmtree(tmp_path / "checkpoint")
    min((tmp_path / "journal").iterdir()).unlink()
    with pytest.raises(Damaged, match="is missing"):
        await opened(tmp_path)


async def test_old_journals_that_something_pins_are_no_torn_tail(tmp_path: Path) -> None:
    """The first ones are here, the checkpoint is lost: what lies behind the hole must not be cut off."""
    cache = await filled(tmp_path)
    await cache.checkpoint_journal()
    put(cache, 70, b"z")
    await cache.close()
    forget_index(tmp_path)
    shutil.rmtree(tmp_path / "checkpoint")
    journals = sorted((tmp_path / "journal").iterdir())
    for path in journals[2:-1]:
        path.unlink()
    with pytest.raises(Damaged, match="is missing"):
        await opened(tmp_path)
    assert journals[-1].exists()


async def test_a_checkpoint_is_of_one_moment_though_others_go_on(tmp_path: Path) -> None:
    """The maker of a mount is another process: commits, and LMDB's, come in between."""

    async def slowly(index: Path, into: Path, part_bytes: int):
        committed = cache._ledger.index.committed()
        for number in range(200, 220):
            put(cache, number, b"later" * 100)
            await cache.checkpoint()
        try:
            return write_parts(committed, PosixDisk(), into, part_bytes)
        finally:
            committed.close()

    cache = await filled(tmp_path, maker=slowly)
    before = everything(cache)
    await cache.checkpoint_journal()
    (checkpoint,) = checkpoints_in(PosixDisk(), tmp_path / "checkpoint")
    (tmp_path / "again").mkdir()
    index = Index(tmp_path / "again", 64 * MIB)
    load(index, PosixDisk(), tmp_path / "checkpoint", checkpoint)
    tables = {table for table, _ in before}
    found = {(table, key): value for table in tables for key, value in index.scan(table, b"")}
    assert found == before
    index.close()
    after = everything(cache)
    await cache.close()
    forget_index(tmp_path)
    cache = await opened(tmp_path)
    assert everything(cache).items() >= after.items()
    await cache.close()


READ_IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
from qss.cache.index import Committed
from qss.formats.tables import Table
with Committed.opened(Path(sys.argv[1]), 1 << 26) as committed:
    print(len(list(committed.rows(Table.XATTRS))), committed.applied.hex())
"""


async def test_another_process_reads_what_was_committed(tmp_path: Path) -> None:
    cache = await filled(tmp_path)
    await cache.checkpoint()
    put(cache, 90, b"not committed")
    command = [sys.executable, "-c", READ_IN_ANOTHER_PROCESS, str(tmp_path / "index")]
    done = await trio.to_thread.run_sync(lambda: subprocess.run(command, check=True, capture_output=True, text=True))
    count, applied = done.stdout.split()
    assert int(count) == 19
    assert bytes.fromhex(applied) == cache._ledger.index.applied
    await cache.close()


def test_there_is_nothing_to_read_where_no_index_is(tmp_path: Path) -> None:
    with pytest.raises(Damaged), Committed.opened(tmp_path, 1 << 26):
        pass


async def test_nothing_written_makes_no_checkpoint(tmp_path: Path) -> None:
    cache = await opened(tmp_path)
    assert await cache.checkpoint_journal() == ()
    await cache.close()


@pytest.mark.parametrize("error", [NoSpace("full"), Damaged("x"), OSError("no such process")])
async def test_a_maker_that_fails_leaves_everything_as_it_was(tmp_path: Path, error: Exception) -> None:
    async def failing(index: Path, into: Path, part_bytes: int):
        (into / "0000.part").write_bytes(b"half")
        raise error

    cache = await filled(tmp_path, maker=failing)
    with pytest.raises(type(error)):
        await cache.checkpoint_journal()
    assert cache._checkpoints.size_bytes() == 0
    await cache.close()
    cache = await opened(tmp_path)
    assert list((tmp_path / "checkpoint-new").iterdir()) == []
    await cache.checkpoint_journal()
    await cache.close()


async def test_a_checkpoint_of_another_journal_is_refused(tmp_path: Path) -> None:
    async def other(index: Path, into: Path, part_bytes: int):
        committed = cache._ledger.index.committed()
        written = write_parts(committed, PosixDisk(), into, part_bytes)
        committed.close()
        return written._replace(applied=written.applied._replace(journal=SegmentId(999)))

    cache = await filled(tmp_path, maker=other)
    with pytest.raises(CorruptData):
        await cache.checkpoint_journal()
    assert list((tmp_path / "checkpoint").iterdir()) == []
    await cache.close()


async def test_one_is_due_by_the_journal_behind_the_last(tmp_path: Path) -> None:
    cache = await filled(tmp_path)
    checkpoints = cache._checkpoints
    assert checkpoints.behind_bytes() > 900 * KIB
    await cache.checkpoint_journal()
    assert checkpoints.behind_bytes() < 2 * KIB
    size = checkpoints.size_bytes()
    assert size > 900 * KIB
    put(cache, 80, random.Random(2).randbytes(60_000))
    behind = checkpoints.behind_bytes()
    assert 60_000 < behind < 64_000
    await cache.close()
    cache = await opened(tmp_path)
    assert behind <= cache._checkpoints.behind_bytes() < behind + 1000, "and after a restart"
    assert cache._checkpoints.size_bytes() == size
    await cache.close()


async def test_the_loop_makes_one_when_it_is_due(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    cache = await filled(tmp_path)
    asked, made = [], trio.Event()

    class Counted(Checkpoints):
        async def make(self, part_bytes: int):
            asked.append(trio.current_time())
            if len(asked) == 1:
                raise NoSpace("not now")
            parts = await super().make(part_bytes)
            made.set()
            return parts

    cache._checkpoints.__class__ = Counted
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache._checkpoints.run, 500 * KIB, 256 * KIB)
        await made.wait()
        nursery.cancel_scope.cancel()
    assert len(asked) == 2
    assert asked[1] - asked[0] >= 60
    assert cache._checkpoints.behind_bytes() < 2 * KIB
    await cache.close()


async def test_rows_of_a_checkpoint_whose_frames_are_not_in_order_are_not_believed(tmp_path: Path) -> None:
    cache = await filled(tmp_path)
    await cache.checkpoint_journal()
    (checkpoint,) = checkpoints_in(PosixDisk(), tmp_path / "checkpoint")
    assert checkpoint.applied != NOTHING_APPLIED
    turned = type(checkpoint)(checkpoint.applied, checkpoint.parts[::-1])
    with pytest.raises(CorruptData):
        list(rows_in(PosixDisk(), tmp_path / "checkpoint", turned))
    await cache.close()
