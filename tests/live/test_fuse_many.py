"""Very many files on a real mount."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.fs.attrs import User
from qss.fs.filesystem import FileSystem
from qss.host import Host
from qss.ids import ROOT_INO
from tests.harness.demo import wait_until
from tests.harness.mounted import run

pytestmark = pytest.mark.live

COUNT = 100_000
MIB = 1 << 20


async def fill(state: Path, count: int) -> None:
    """A directory `many` with files 0 … count - 1, made without the mount: that is not what is tested."""
    cache = await SegmentCache.open(state, Host(), CacheOptions(), None)
    fs = FileSystem(cache, Host().clock)
    directory = fs.mkdir(ROOT_INO, b"many", 0o755, User()).ino
    for number in range(count):
        fs.create(directory, str(number).encode(), 0o644, User())
    fs.detach()
    await cache.close()


def test_100_000_entries_are_listed_once_each_while_others_come_and_go(mount):
    count = COUNT
    trio.run(fill, mount.state, count)
    mount.start()
    many = mount.path / "many"
    passing = itertools.count()
    listed: list[str] = []
    with os.scandir(many) as entries:
        for entry in entries:
            listed.append(entry.name)
            if len(listed) % 500 == 0:
                name = many / f"passing-{next(passing)}"
                name.touch()
                if len(listed) % 1_000 == 0:
                    name.unlink()
                os.unlink(many / str(count - len(listed) // 500))  # from the end, before the listing gets there
    gone = {str(count - number) for number in range(1, next(passing) + 1)}
    stayed = [name for name in listed if not name.startswith("passing") and name not in gone]
    assert len(stayed) == len(set(stayed))
    assert set(stayed) == {str(number) for number in range(count)} - gone
    assert (many).stat().st_nlink == 2


MAKER = """
import os, sys
folder, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for number in range(first, last):
    file = os.open(f"{folder}/{number // 1000}/{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    os.write(file, b"%d" % number * 20)
    os.close(file)
"""


def used(mnt: Path) -> tuple[int, int]:
    """Inodes and bytes, as `df` tells them."""
    figures = os.statvfs(mnt)
    return figures.f_files - figures.f_ffree, (figures.f_blocks - figures.f_bfree) * figures.f_frsize


def test_find_deletes_100_000_files_and_their_space(mounted):
    """Made through the mount by two processes, in 100 directories; found and deleted after a restart."""
    mnt = mounted.path
    before = used(mnt)
    for number in range(COUNT // 1000):
        (mnt / "many" / str(number)).mkdir(parents=True)
    halves = ((0, COUNT // 2), (COUNT // 2, COUNT))
    makers = [
        subprocess.Popen([sys.executable, "-c", MAKER, mnt / "many", str(first), str(last)]) for first, last in halves
    ]
    assert [maker.wait(900) for maker in makers] == [0, 0]
    files, content = used(mnt)
    assert files - before[0] == COUNT + COUNT // 1000 + 1
    assert content - before[1] > 9 * MIB
    assert mounted.stop() == 0
    mounted.start()
    assert (mnt / "many" / "77" / "77777").read_bytes() == b"77777" * 20
    names = run("find", mnt / "many", "-type", "f", "-size", "-2", "-printf", "%f\n").splitlines()
    assert sorted(names, key=int) == [str(number) for number in range(COUNT)]
    run("find", mnt / "many", "-type", "f", "-name", "*7", "-delete")
    assert used(mnt)[0] - before[0] == COUNT * 9 // 10 + COUNT // 1000 + 1
    run("find", mnt / "many", "-delete")
    assert os.listdir(mnt) == []
    wait_until("find has let go of its directories", lambda: used(mnt) == before)
    assert mounted.stop() == 0
    mounted.start()
    assert used(mnt) == before
