"""Beginning and end of a mount: crashes, stale mountpoints, unmounting while busy, read-only."""

from __future__ import annotations

import contextlib
import errno
import os

import pytest

from tests.harness.mounted import Mounted

pytestmark = pytest.mark.live


@pytest.fixture
def mounted(tmp_path):
    mount = Mounted(tmp_path)
    mount.start()
    yield mount
    mount.close()


def test_everything_acknowledged_survives_kill_9(mounted):
    mnt = mounted.path
    with open(mnt / "synced", "wb") as file:
        file.write(b"s" * 3_000_000)
        file.flush()
        os.fsync(file.fileno())
    for number in range(200):
        (mnt / f"f{number}").write_bytes(bytes([number]) * 5000)
    os.rename(mnt / "f0", mnt / "renamed")
    os.unlink(mnt / "f1")
    held = open(mnt / "unlinked", "wb")  # noqa: SIM115 - it outlives the mount
    held.write(b"x" * 1_000_000)
    held.flush()
    os.unlink(mnt / "unlinked")
    mounted.kill()
    with pytest.raises(OSError, match=r"\[Errno 107\]"):
        os.listdir(mnt)
    with contextlib.suppress(OSError):
        held.close()
    mounted.start()  # takes the stale mountpoint again
    assert (mnt / "synced").read_bytes() == b"s" * 3_000_000
    assert (mnt / "renamed").read_bytes() == bytes(5000)
    names = {f"f{number}" for number in range(2, 200)}
    assert set(os.listdir(mnt)) == names | {"synced", "renamed"}
    assert all((mnt / name).read_bytes() == bytes([int(name[1:])]) * 5000 for name in names)


def test_umount_ends_the_process(mounted):
    (mounted.path / "f").write_text("kept")
    assert mounted.unmount() == 0
    assert not mounted.is_mounted()
    mounted.start()
    assert (mounted.path / "f").read_text() == "kept"


def test_sigterm_unmounts_even_while_busy(mounted):
    fd = os.open(mounted.path / "f", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"x")
    assert mounted.stop() == 0
    with contextlib.suppress(OSError):
        os.close(fd)
    assert not mounted.is_mounted()
    mounted.start()
    assert (mounted.path / "f").read_text() == "x"


def test_read_only(mounted):
    (mounted.path / "f").write_text("x")
    assert mounted.stop() == 0
    mounted.start("--ro")
    assert (mounted.path / "f").read_text() == "x"
    with pytest.raises(OSError, match=rf"\[Errno {errno.EROFS}\]"):
        (mounted.path / "g").touch()


def test_with_the_kernels_writeback_cache(mounted):
    assert mounted.stop() == 0
    mounted.start("--writeback")
    with open(mounted.path / "f", "ab", buffering=0) as file:
        for number in range(3000):
            file.write(b"%07d\n" % number)
        os.fsync(file.fileno())
    assert mounted.stop() == 0
    mounted.start()
    assert (mounted.path / "f").read_bytes() == b"".join(b"%07d\n" % number for number in range(3000))
