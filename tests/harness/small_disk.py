"""A small ext4 of its own, in a file, for tests of full disks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.demo import wait_until


@contextmanager
def small_disk(image: Path, mountpoint: Path, size: int) -> Iterator[None]:
    """Mounted at `mountpoint`, without blocks reserved for root. Skips the test, and says why, only where loop devices
    or mounting cannot be had; whatever else fails, fails."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("loop devices cannot be had here: this needs root and /dev/loop-control")
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image)],
        check=True, capture_output=True,
    )  # fmt: skip
    mountpoint.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-o", "loop", str(image), str(mountpoint)], check=False, capture_output=True, text=True
    )
    if done.returncode != 0 and ("permitted" in done.stderr or "loop device" in done.stderr):
        pytest.skip(f"loop devices cannot be had here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    unmount = ["umount", str(mountpoint)]
    try:
        yield
    finally:
        try:
            wait_until("nobody uses it any more", lambda: subprocess.run(unmount, check=False).returncode == 0)
        except AssertionError:
            subprocess.run(["umount", "-l", str(mountpoint)], check=False)
            raise


class Balloon:
    """A file that takes space away, so that so many bytes are left."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def leave(self, free: int) -> None:
        """Grow until at most `free` bytes are left; never shrinks."""
        with self.path.open("ab") as file:
            while (left := self._free() - free) > 0:
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, 2), max(min(left, 1 << 20), 4096))
                except OSError:
                    return

    def pop(self) -> None:
        self.path.unlink(missing_ok=True)

    def _free(self) -> int:
        stat = os.statvfs(self.path.parent)
        return stat.f_bavail * stat.f_frsize
