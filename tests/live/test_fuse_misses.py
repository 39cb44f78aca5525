"""Reads that wait for dead locations hold up nobody else."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from tests.harness.mounted import Mounted

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may raise the kernel's limit of background requests"),
]

STUCK = 130


@pytest.fixture
def mounted(tmp_path):
    mount = Mounted(tmp_path, "--dead-vault", "--deadline=4")
    mount.start()
    yield mount
    mount.close()


def test_130_reads_on_dead_locations_stall_nothing(mounted):
    mnt = mounted.path
    for number in range(STUCK):
        (mnt / f"gone{number}").write_bytes(os.urandom(50_000))
    mounted.evict()
    (mnt / "here").write_bytes(b"still here")
    (mnt / "folder").mkdir()
    state = json.loads(os.getxattr(mnt / "gone0", "user.qss.state"))
    assert (state["cached"], state["offloaded"], state["at_risk"]) == (0, 50_000, 0)
    Path("/proc/sys/vm/drop_caches").write_text("3")
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
    # The kernel caches none of this: each asks the daemon, in which all remote waits are taken.
    assert (mnt / "here").read_bytes() == b"still here"
    assert len(os.listdir(mnt)) == STUCK + 2
    (mnt / "folder" / "new").write_bytes(b"new")
    os.statvfs(mnt)
    assert answers == [], "the readers were to be stuck meanwhile"
    for reader in readers:
        reader.join(60)
    assert answers == [errno.EIO] * STUCK
