"""Each way in which the predecessor lost data or stood still, as a test. Those with a better home are there:

- rmdir of a non-empty directory: test_posix_mount.py::test_rmdir_of_a_full_directory_refuses
- shrink and grow showed old bytes: test_posix_mount.py::test_shrink_and_grow_shows_zeros
- input and output on an unlinked open file: test_posix_mount.py::test_an_unlinked_file_lives_until_closed
- mtime did not move on write: test_posix_mount.py::test_a_write_moves_mtime_and_ctime
- EXCHANGE destroyed a file: test_posix_mount.py::test_exchange_keeps_both
- fsync and kill -9 lost the file: test_fuse_life.py::test_everything_acknowledged_survives_kill_9
- an unexpected exception in one handler ended the mount: test_a_handler_with_a_mistake_answers_eio_and_nothing_ends
- a truncate to 10^15 bytes and unlink ate the memory: test_a_petabyte_truncated_and_unlinked_costs_nothing
- 130 reads stuck on dead locations: test_fuse_misses.py::test_130_reads_on_dead_locations_stall_nothing
- one slow read miss stalled others: test_fuse_misses.py::test_one_slow_read_miss_stalls_nobody_else
- 2,000 appends of 100 bytes grew the log 549-fold: test_small_appends_do_not_bloat_the_logs
- deleting gave no space back: test_df_tells_at_once_what_deleting_gave_back; the disks, here and of the nodes:
  test_space.py::test_deleting_most_of_it_gives_the_space_back_and_the_rest_survives_nodes_and_machine
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.demo import bytes_of, wait_until
from tests.harness.mounted import Mounted

pytestmark = pytest.mark.live

MIB = 1 << 20


def log_bytes(mount: Mounted) -> int:
    """Of data log and journal together."""
    return bytes_of(file for log in ("data", "journal") for file in (mount.state / log).iterdir())


def peak_memory_bytes(mount: Mounted) -> int:
    """The most the process had at any time so far."""
    assert mount.process is not None
    (kib,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{mount.process.pid}/status").read_text())
    return int(kib) * 1024


def used_bytes(mnt: Path) -> int:
    figures = os.statvfs(mnt)
    return (figures.f_blocks - figures.f_bfree) * figures.f_frsize


def test_every_place_named_above_is_there():
    places = re.findall(r"(\w+\.py)::(test_\w+)", __doc__ or "")
    assert len(places) == 9
    for file, test in places:
        assert f"def {test}(" in (Path(__file__).parent / file).read_text(), (file, test)


MISTAKES: dict[str, Callable[[Path], object]] = {
    "mkdir": lambda mnt: os.mkdir(mnt / "d"),
    "mknod": lambda mnt: os.mkfifo(mnt / "fifo"),
    "symlink": lambda mnt: os.symlink("target", mnt / "link"),
    "link": lambda mnt: os.link(mnt / "file", mnt / "other"),
    "readlink": lambda mnt: os.readlink(mnt / "there"),
    "unlink": lambda mnt: os.unlink(mnt / "file"),
    "rmdir": lambda mnt: os.rmdir(mnt / "folder"),
    "rename": lambda mnt: os.rename(mnt / "file", mnt / "elsewhere"),
    "setattr": lambda mnt: os.truncate(mnt / "file", 3),
    "statfs": os.statvfs,
    "getxattr": lambda mnt: os.getxattr(mnt / "file", "user.any"),
    "listxattr": lambda mnt: os.listxattr(mnt / "file"),
    "setxattr": lambda mnt: os.setxattr(mnt / "file", "user.any", b"value"),
    "removexattr": lambda mnt: os.removexattr(mnt / "file", "user.any"),
    "create": lambda mnt: (mnt / "new").write_bytes(b""),
    "open": lambda mnt: os.listdir(mnt / "folder"),
}
ON_OPEN_FILES: dict[str, Callable[[int], object]] = {
    "read_now": lambda file: os.pread(file, 10, 0),
    "write": lambda file: os.pwrite(file, b"content", 0),
    "fsync": os.fsync,
}


def test_a_handler_with_a_mistake_answers_eio_and_nothing_ends(mount):
    mount.start()
    mnt = mount.path
    (mnt / "file").write_bytes(b"content")
    (mnt / "folder").mkdir()
    os.symlink("file", mnt / "there")
    mount.stop()
    eio = pytest.raises(OSError, check=lambda error: error.errno == errno.EIO)

    mount.start("--broken", ",".join([*MISTAKES, "readdir", "forget"]))
    for name, call in MISTAKES.items():
        with eio:
            call(mnt)
            pytest.fail(f"{name} is not what the kernel asked for")
    Path("/proc/sys/vm/drop_caches").write_text("2")  # forgets, which have no answer
    assert (mnt / "file").stat().st_size == 7
    mount.stop()

    mount.start("--broken", ",".join([*ON_OPEN_FILES, "release"]))
    for call in ON_OPEN_FILES.values():
        file = os.open(mnt / "file", os.O_RDWR)
        with eio:
            call(file)
        os.close(file)
    assert sorted(os.listdir(mnt)) == ["file", "folder", "there"]
    (mnt / "folder" / "new").mkdir()

    mount.stop()
    mount.start("--broken", "getattr,find,lookup")
    with eio:
        (mnt / "folder").stat()
    assert mount.stop() == 0, "it ended before it was told to"

    mount.start()
    assert (mnt / "file").read_bytes() == b"content"
    assert sorted(os.listdir(mnt)) == ["file", "folder", "there"]
    assert "ZeroDivisionError: write has a mistake in it" in mount.log.read_text()


def test_a_petabyte_truncated_and_unlinked_costs_nothing(mounted):
    mnt = mounted.path
    before, logs = peak_memory_bytes(mounted), log_bytes(mounted)
    with open(mnt / "huge", "w+b", buffering=0) as file:
        for size in (10**15, 5, 10**15, 2**63 - 1, 10**15):
            file.truncate(size)
        for offset in (0, 10**12, 10**15 - 4):
            assert os.pwrite(file.fileno(), b"here", offset) == 4
        assert os.pread(file.fileno(), 1 * MIB, 10**14) == bytes(1 * MIB)
        assert (mnt / "huge").stat().st_blocks * 512 < 1 * MIB
        os.unlink(mnt / "huge")
        file.truncate(10**15 - 1)
    (mnt / "again").touch()
    os.truncate(mnt / "again", 10**15)
    os.unlink(mnt / "again")
    assert log_bytes(mounted) - logs < 64 * 1024
    assert peak_memory_bytes(mounted) - before < 32 * MIB
    assert used_bytes(mnt) == 0


APPEND_BYTES, GROWTH_MAX = 100, 3.0


@pytest.mark.parametrize(("appends", "synced"), [(2_000, False), (300, True)], ids=["closed", "fsynced"])
def test_small_appends_do_not_bloat_the_logs(mounted, appends, synced):
    """Open, append, close, as a program that logs does. An fsync adds nothing to the logs but what it has to: measured
    314,672 bytes of data log and 148,278 of journal for 200,000 bytes, 2.3 times, and 148,426 of journal with 2,000
    fsyncs. What those cost is time, a flush of the disk each: 2.3 s instead of 0.2 s on a quiet machine."""
    before = log_bytes(mounted)
    for number in range(appends):
        file = os.open(mounted.path / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(file, b"%0*d\n" % (APPEND_BYTES - 1, number))
        if synced:
            os.fsync(file)
        os.close(file)
    assert mounted.stop() == 0  # whatever was held back is written
    assert log_bytes(mounted) - before < GROWTH_MAX * appends * APPEND_BYTES
    mounted.start()
    lines = (mounted.path / "log").read_bytes().splitlines()
    assert [int(line) for line in lines] == list(range(appends))
    assert {len(line) for line in lines} == {APPEND_BYTES - 1}


def test_df_tells_at_once_what_deleting_gave_back(mounted):
    mnt = mounted.path
    for number in range(64):
        (mnt / str(number)).write_bytes(os.urandom(MIB))
    assert used_bytes(mnt) == 64 * MIB
    for number in range(0, 64, 2):
        (mnt / str(number)).unlink()
    assert used_bytes(mnt) == 32 * MIB
    with open(mnt / "1", "rb") as held:
        (mnt / "1").unlink()
        assert used_bytes(mnt) == 32 * MIB
        assert len(held.read()) == MIB
    wait_until("the last close gives it back", lambda: used_bytes(mnt) == 31 * MIB)
    os.truncate(mnt / "3", 1)
    (mnt / "5").write_bytes(b"")
    assert used_bytes(mnt) <= 29 * MIB + 4096
