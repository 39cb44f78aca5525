"""A disk that is full, by us or by others: programs are told, nothing ends, nothing acknowledged is lost. The
predecessor's mount went away (its issues 30 and 1613)."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.demo import wait_until
from tests.harness.mounted import Mounted

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk"),
]

MIB = 1 << 20
DISK_MIB = 160


@pytest.fixture
def small(mount: Mounted) -> Iterator[Mounted]:
    """A mount, not yet started, whose cache has a small disk of its own."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "none", mount.state], check=True)
    try:
        yield mount
    finally:
        mount.close()
        subprocess.run(["umount", mount.state], check=True)


def no_space():
    return pytest.raises(OSError, check=lambda error: error.errno == errno.ENOSPC)


def test_writers_are_told_and_everybody_else_goes_on(small):
    small.start("--patience=5")
    mnt = small.path
    (mnt / "kept").write_bytes(b"kept" * MIB)
    written = 0
    with no_space():
        for written in range(DISK_MIB):
            (mnt / str(written)).write_bytes(os.urandom(MIB))
    assert written > DISK_MIB // 3
    assert os.statvfs(small.state).f_bavail > 0, "a reserve is left"
    for number in range(200):
        (mnt / f"folder{number}").mkdir()
    os.rename(mnt / "0", mnt / "renamed")
    assert (mnt / "kept").read_bytes() == b"kept" * MIB
    with no_space():
        (mnt / "more").write_bytes(b"x" * MIB)
    for number in range(1, written):
        (mnt / str(number)).unlink()
    wait_until("there is room again", lambda: fits(mnt / "again", MIB))
    assert small.stop() == 0
    small.start()
    assert (mnt / "kept").read_bytes() == b"kept" * MIB
    assert {"again", "renamed", "folder199"} <= set(os.listdir(mnt))


def fits(path: Path, count: int) -> bool:
    with contextlib.suppress(OSError):
        return path.write_bytes(b"x" * count) == count
    return False


def fill(path: Path) -> None:
    """What another program does: take all of the disk, to the last block."""
    with open(path, "wb", buffering=0) as file:
        for count in (MIB, 4096, 1):
            with no_space():
                while file.write(bytes(count)):
                    pass


def test_a_disk_filled_by_others_to_the_last_byte(small):
    small.start("--patience=0.5", "--seal-after=2")
    mnt = small.path
    (mnt / "kept").write_bytes(b"kept" * MIB)
    fill(small.state / "filler")
    made = []
    with no_space():
        for number in range(10_000):
            (mnt / str(number)).mkdir()
            made.append(str(number))
    with open(mnt / "kept", "r+b", buffering=0) as file:
        with no_space():
            file.write(b"other")
        os.fsync(file.fileno())
    assert (mnt / "kept").read_bytes() == b"kept" * MIB
    assert sorted(os.listdir(mnt)) == sorted([*made, "kept"])
    wait_until("a cut has failed", lambda: "seal: trying again" in small.log.read_text())
    with no_space():
        (mnt / "more").mkdir()
    (small.state / "filler").unlink()
    (mnt / "more").mkdir()
    (mnt / "kept").write_bytes(b"room" * MIB)
    small.kill()
    small.start("--patience=0.5")
    assert sorted(os.listdir(mnt)) == sorted([*made, "kept", "more"])
    assert (mnt / "kept").read_bytes() == b"room" * MIB
