"""The process that writes checkpoints: started as a mount does it, failing, and left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from qss.app import checkpoint
from qss.app.checkpoint import maker
from qss.cache.checkpoint_files import checkpoints_in
from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.errors import Damaged
from qss.host import Host, PosixDisk
from qss.limits import MIB
from tests.harness.rows import write

OPTIONS = CacheOptions(index_map_bytes=64 * MIB, free_bytes_hard=0, free_bytes_soft=1)


async def filled(root: Path) -> SegmentCache:
    cache = await SegmentCache.open(root, Host(), OPTIONS, None, maker(OPTIONS.index_map_bytes))
    for ino in range(10, 40):
        write(cache, ino, bytes([ino]) * 1000)
    return cache


async def test_a_process_of_its_own_writes_what_this_one_takes_over(tmp_path: Path) -> None:
    cache = await filled(tmp_path)
    (part,) = await cache.checkpoint_journal()
    (found,) = checkpoints_in(PosixDisk(), tmp_path / "checkpoint")
    assert found.parts[0][0] == part
    assert found.applied.journal == cache._ledger.applied().journal
    again = await cache.checkpoint_journal()
    assert again != (part,)
    await cache.close()


async def test_what_the_process_complains_about_is_said(tmp_path: Path) -> None:
    cache = await filled(tmp_path / "cache")
    with pytest.raises(Damaged, match=r"could not be written: .*cannot be opened"):
        await maker(64 * MIB)(tmp_path / "nowhere", tmp_path, 1 * MIB)
    await cache.checkpoint()
    with pytest.raises(Damaged, match=r"could not be written: .*No such file"):
        await maker(64 * MIB)(tmp_path / "cache" / "index", tmp_path / "nowhere", 1 * MIB)
    await cache.close()


async def test_one_that_takes_too_long_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "LASTS_S_MAX", 0.0)
    cache = await filled(tmp_path)
    with pytest.raises(Damaged, match="too long"):
        await cache.checkpoint_journal()
    await cache.close()


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"applied": "00", "lengths": [], "rows": 1}', b"\xff"])
def test_an_answer_that_makes_no_sense_is_damage(answer: bytes) -> None:
    with pytest.raises(Damaged):
        checkpoint._written(answer)


def test_it_leaves_when_its_input_ends() -> None:
    code = "import qss.app.checkpoint as c; c._leave_with_input()"
    reading, writing = os.pipe()
    child = subprocess.Popen([sys.executable, "-c", code], stdin=reading)
    os.close(reading)
    assert child.poll() is None
    os.close(writing)
    assert child.wait(30) == 1


async def test_a_cancelled_one_is_gone_before_the_cache_closes(tmp_path: Path) -> None:
    cache = await filled(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.checkpoint_journal)
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    await cache.checkpoint_journal()
    await cache.close()


def test_the_mount_process_imports_no_client_of_the_locations() -> None:
    """It never talks to them, and every start waits for its imports."""
    code = "import sys, qss.app.mount; sys.exit('httpx' in sys.modules or 'qss.offload.vault' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
