"""Reads that wait for dead locations hold up nobody else."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.harness.demo import wait_until
from tests.harness.mounted import WAIT_S

pytestmark = pytest.mark.live

STUCK = 130
EVICTIONS_MIN = 4
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may raise the kernel's limit of background requests")
def test_130_reads_on_dead_locations_stall_nothing(mount):
    mount.start("--dead-vault", "--deadline=3600")
    mnt = mount.path
    for number in range(STUCK):
        (mnt / f"gone{number}").write_bytes(os.urandom(50_000))
    mount.evict()
    (mnt / "here").write_bytes(b"still here")
    (mnt / "folder").mkdir()
    state = json.loads(os.getxattr(mnt / "gone0", "user.qss.state"))
    assert (state["cached"], state["offloaded"], state["at_risk"]) == (0, 50_000, 0)
    DROP_CACHES.write_text("3")
    readers, answers = begin_to_read(mnt)
    # The kernel caches none of this: each asks the daemon, in which all remote waits are taken.
    assert (mnt / "here").read_bytes() == b"still here"
    assert len(os.listdir(mnt)) == STUCK + 2
    (mnt / "folder" / "new").write_bytes(b"new")
    os.statvfs(mnt)
    assert answers == [], "the readers were to be stuck meanwhile"
    assert mount.stop() == 0, "nor does its end wait for them"
    finish(readers)
    assert len(answers) == STUCK
    assert None not in answers

    mount.start("--dead-vault", "--deadline=0.5")
    readers, answers = begin_to_read(mnt)
    finish(readers)
    assert answers == [errno.EIO] * STUCK


def begin_to_read(mnt: Path) -> tuple[list[threading.Thread], list[int | None]]:
    """All of them are under way; the errno of each whose read has ended, None for one that was answered."""
    answers: list[int | None] = []
    entered = threading.Semaphore(0)

    def read(number: int) -> None:
        try:
            with open(mnt / f"gone{number}", "rb", buffering=0) as file:
                entered.release()
                file.read()
            answers.append(None)
        except OSError as error:
            answers.append(error.errno)

    readers = [threading.Thread(target=read, args=(number,)) for number in range(STUCK)]
    for reader in readers:
        reader.start()
    for _ in range(STUCK):
        entered.acquire()
    return readers, answers


def finish(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()


@pytest.mark.skipif(not os.access(DROP_CACHES, os.W_OK), reason="the kernel's memory of the contents cannot be dropped")
def test_one_slow_read_miss_stalls_nobody_else(mount, tmp_path):
    """The predecessor let a read of cached data wait for the whole of somebody else's fetch."""
    mount.start("--attic", str(tmp_path))
    mnt = mount.path
    contents = {name: os.urandom(3_000_000) for name in ("slow", "quick", "here")}
    (mnt / "slow").write_bytes(contents["slow"])
    mount.evict()
    for segment in list(tmp_path.iterdir()):
        (tmp_path / f"{segment.name}.held").touch()
    (mnt / "quick").write_bytes(contents["quick"])
    mount.evict()
    (mnt / "here").write_bytes(contents["here"])
    (mnt / "folder").mkdir()
    DROP_CACHES.write_text("3")

    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append((mnt / "slow").read_bytes()))
    reader.start()
    wait_until("the miss is on its way", lambda: list(tmp_path.glob("*.wanted")))
    assert (mnt / "here").read_bytes() == contents["here"]
    assert (mnt / "quick").read_bytes() == contents["quick"], "another miss"
    assert (mnt / "slow").stat().st_size == 3_000_000
    with open(mnt / "slow", "r+b") as file:
        file.seek(2_999_990)
        file.write(b"new")
        os.fsync(file.fileno())
    os.rename(mnt / "slow", mnt / "folder" / "renamed")
    assert sorted(os.listdir(mnt)) == ["folder", "here", "quick"]
    assert json.loads(os.getxattr(mnt / "quick", "user.qss.state"))["cached"] > 0
    os.statvfs(mnt)
    assert found == [], "the reader was to be stuck meanwhile"
    for held in tmp_path.glob("*.held"):
        held.unlink()
    finish([reader])
    assert [len(content) for content in found] == [3_000_000]
    assert found[0][:2_999_990] == contents["slow"][:2_999_990]
    assert (mnt / "folder" / "renamed").read_bytes()[-10:-7] == b"new"


@pytest.mark.skipif(not os.access(DROP_CACHES, os.W_OK), reason="the kernel's memory of the contents cannot be dropped")
def test_programs_do_not_notice_that_their_data_goes_and_comes_back(mount, tmp_path):
    """Again and again, everything is evicted while they write, read and map it."""
    (tmp_path / "attic").mkdir()
    mount.start("--attic", str(tmp_path / "attic"))
    fio = (
        "fio",
        f"--directory={mount.path}",
        "--bs=4k",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--verify_state_save=0",
    )
    evictions = rounds = 0
    while evictions < EVICTIONS_MIN:  # a slow machine manages few of them in one round
        commands = [
            (*fio, "--name=mixed", "--rw=randrw", "--verify_backlog=64", "--size=8m", "--numjobs=2"),
            (*fio, "--name=mapped", "--rw=randwrite", "--ioengine=mmap", "--size=8m"),
            (sys.executable, "-c", DATABASE, mount.path / f"db{rounds}"),
        ]
        jobs = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) for command in commands]
        try:
            for job in jobs:
                while job.poll() is None:
                    mount.evict()
                    DROP_CACHES.write_text("1")
                    evictions += 1
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        job.wait(0.2)
        finally:
            for job in jobs:
                job.kill()
        assert [job.wait(WAIT_S) for job in jobs] == [0, 0, 0]
        rounds += 1


DATABASE = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("create table t (n, x)")
for number in range(100):
    with db:
        db.execute("insert into t values (?, ?)", (number, "x" * 1000))
    if number % 20 == 0:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
assert db.execute("select count(*), sum(n) from t").fetchone() == (100, 4950)
"""
