"""What only several processes, a crash or large numbers show of a file system, on a mount."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import mmap
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import trio

from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.fs.attrs import User
from qss.fs.filesystem import FileSystem
from qss.host import Host
from qss.ids import ROOT_INO
from qss.limits import LINKS_MAX
from tests.harness.demo import wait_until
from tests.harness.mounted import WAIT_S, Mounted

pytestmark = pytest.mark.live

MIB = 1 << 20
MANY = int(os.environ.get("QSS_TEST_ENTRIES", "100000"))
"""Entries of the large directory; a million takes two minutes."""


def fails(number: int):
    return pytest.raises(OSError, match=rf"\[Errno {number}\]")


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process, that says and hears lines."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def counts(mounted: Mounted) -> dict[str, int]:
    """What the file system holds for others, by its own word."""
    assert mounted.process is not None
    assert mounted.process.stdout is not None
    mounted.process.send_signal(signal.SIGUSR2)
    said: dict[str, int] = json.loads(mounted.process.stdout.readline())
    return said


# -- who knows what


def test_nothing_is_left_when_the_kernel_has_forgotten(mounted: Mounted) -> None:
    before = counts(mounted)
    folder = mounted.path / "d"
    folder.mkdir()
    held = []
    for number in range(2_000):
        path = folder / str(number)
        path.write_bytes(b"x" * (number % 3))
        os.link(path, folder / f"{number}.again")
        if number % 100 == 0:
            held.append(os.open(path, os.O_RDWR))
    assert len(list(os.scandir(folder))) == 4_000
    for path in folder.iterdir():
        path.stat()
        path.unlink()
    during = counts(mounted)
    assert (during["open"], during["orphans"]) == (before["open"] + 20, 20)
    for number in held:
        os.close(number)
    folder.rmdir()
    Path("/proc/sys/vm/drop_caches").write_text("2")
    nothing = {"open": 0, "orphans": 0, "ghosts": 0, "inodes": 1, "live_bytes": before["live_bytes"]}
    # The kernel says so when it likes: a close and what it forgets need no answer.
    wait_until("all is forgotten", lambda: nothing.items() <= counts(mounted).items())
    wait_until("it knows the root directory, at most", lambda: counts(mounted)["known"] <= 1)


def test_what_was_unlinked_and_open_is_collected_after_kill_9(mounted: Mounted) -> None:
    empty = counts(mounted)["live_bytes"]
    held = [os.open(mounted.path / str(number), os.O_CREAT | os.O_RDWR) for number in range(5)]
    for number, handle in enumerate(held):
        os.write(handle, os.urandom(MIB))
        os.unlink(mounted.path / str(number))
    assert counts(mounted)["live_bytes"] == empty + 5 * MIB
    mounted.kill()
    for handle in held:
        with contextlib.suppress(OSError):
            os.close(handle)
    mounted.start()
    assert os.listdir(mounted.path) == []
    collected = {"orphans": 0, "inodes": 1, "live_bytes": empty}
    wait_until("what was unlinked is collected", lambda: collected.items() <= counts(mounted).items())


# -- several processes


def test_appenders_in_two_processes_lose_nothing(mnt: Path) -> None:
    script = """
        import os, sys
        file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for number in range(1000):
            os.write(file, f"{sys.argv[2]}{number:06d}\\n".encode())
    """
    writers = [python(script, mnt / "log", name) for name in "ab"]
    assert [writer.wait(WAIT_S) for writer in writers] == [0, 0]
    lines = (mnt / "log").read_text().split()
    for name in "ab":
        assert [line[1:] for line in lines if line[0] == name] == [f"{number:06d}" for number in range(1000)]
    for writer in writers:
        writer.communicate()


LOCKER = """
    import fcntl, os, sys
    file = os.open(sys.argv[1], os.O_RDWR)
    for line in sys.stdin:
        how, start, length = line.split()
        try:
            if how == "flock":
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            elif how == "unlock":
                fcntl.flock(file, fcntl.LOCK_UN); fcntl.lockf(file, fcntl.LOCK_UN)
            else:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, int(length), int(start))
            print("got", flush=True)
        except OSError as error:
            print(type(error).__name__, flush=True)
"""


def test_locks_between_processes(mnt: Path) -> None:
    (mnt / "f").write_bytes(bytes(100))
    with python(LOCKER, mnt / "f") as other, open(mnt / "f", "r+b") as file:
        assert other.stdin is not None
        assert other.stdout is not None

        def tries(what: str) -> str:
            print(what, file=other.stdin, flush=True)
            return other.stdout.readline().strip()

        fcntl.flock(file, fcntl.LOCK_EX)
        assert tries("flock 0 0") == "BlockingIOError"
        assert tries("range 0 10") == "got"  # the two kinds do not see each other
        with fails(errno.EAGAIN):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 5)
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 10)
        assert tries("range 14 1") == "BlockingIOError"
        fcntl.flock(file, fcntl.LOCK_UN)
        assert tries("flock 0 0") == "got"
        with fails(errno.EAGAIN):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert tries("unlock 0 0") == "got"
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        other.stdin.close()


def test_a_lock_goes_with_the_process_that_held_it(mnt: Path) -> None:
    (mnt / "f").write_bytes(b"x")
    other = python(LOCKER, mnt / "f")
    assert other.stdin is not None
    assert other.stdout is not None
    for what in ("flock 0 0", "range 0 1"):
        print(what, file=other.stdin, flush=True)
        assert other.stdout.readline() == "got\n"
    with open(mnt / "f", "r+b") as file:
        with fails(errno.EAGAIN):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        other.kill()
        other.communicate()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_shared_mapping_and_reads_see_each_other_in_two_processes(mounted: Mounted) -> None:
    path = mounted.path / "f"
    path.write_bytes(bytes(3 * 4096))
    script = """
        import mmap, sys
        with open(sys.argv[1], "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            for line in sys.stdin:
                memory[5000:5005] = line.strip().encode()
                print(memory[0:5].decode(), flush=True)
    """
    with python(script, path) as other, open(path, "r+b") as file:
        assert other.stdin is not None
        assert other.stdout is not None
        for word in ("first", "later"):
            os.pwrite(file.fileno(), word.upper().encode(), 0)
            print(word, file=other.stdin, flush=True)
            assert other.stdout.readline().strip() == word.upper()
            assert os.pread(file.fileno(), 5, 5000) == word.encode()
        with mmap.mmap(file.fileno(), 0) as memory:
            memory[8192:8196] = b"mine"
            memory.flush()
        other.stdin.close()
    mounted.kill()  # what msync and the end of a mapping gave us is not lost
    mounted.start()
    content = path.read_bytes()
    assert (content[:5], content[5000:5005], content[8192:8196]) == (b"LATER", b"later", b"mine")


# -- numbers


def test_hard_links_to_the_limit(mounted: Mounted) -> None:
    async def fill() -> None:
        cache = await SegmentCache.open(mounted.state, Host(), CacheOptions(), None)
        fs = FileSystem(cache, Host().clock)
        ino = fs.create(ROOT_INO, b"first", 0o644, User()).ino
        folder = fs.mkdir(ROOT_INO, b"d", 0o755, User()).ino
        for number in range(LINKS_MAX - 3):
            fs.link(ino, folder, b"%d" % number)
        fs.detach()
        await cache.close()

    mounted.stop()
    trio.run(fill)
    mounted.start()
    first = mounted.path / "first"
    for name in ("one", "two"):
        os.link(first, mounted.path / name)
    assert first.stat().st_nlink == LINKS_MAX == 65_000
    with fails(errno.EMLINK):
        os.link(first, mounted.path / "more")
    os.unlink(mounted.path / "d" / "7")
    os.link(first, mounted.path / "more")


def test_a_large_directory_is_listed_once_each_in_bounded_memory(mount: Mounted) -> None:
    async def fill() -> None:
        cache = await SegmentCache.open(mount.state, Host(), CacheOptions(), None)
        fs = FileSystem(cache, Host().clock)
        folder = fs.mkdir(ROOT_INO, b"d", 0o755, User()).ino
        for number in range(MANY):
            fs.create(folder, b"%d" % number, 0o644, User())
        fs.detach()
        await cache.close()

    trio.run(fill)
    mount.start()
    assert mount.process is not None

    def anonymous_bytes() -> int:  # without the mapped index and what the page cache holds of it
        status = Path(f"/proc/{mount.process.pid}/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0]) << 10

    before = anonymous_bytes()
    seen = bytearray(MANY)
    with os.scandir(mount.path / "d") as entries:
        for entry in entries:
            seen[int(entry.name)] += 1
    assert seen.count(1) == MANY
    Path("/proc/sys/vm/drop_caches").write_text("2")
    listed = anonymous_bytes()
    assert listed - before < 100 * MIB
    assert (mount.path / "d" / str(MANY - 1)).stat().st_size == 0
    with fails(errno.ENOTEMPTY):
        os.rmdir(mount.path / "d")


def test_the_end_of_the_largest_file(mnt: Path) -> None:
    last = 2**63 - 2
    with open(mnt / "f", "w+b", buffering=0) as file:
        assert os.pwrite(file.fileno(), b"x", last) == 1
        assert os.fstat(file.fileno()).st_size == 2**63 - 1
        assert os.pread(file.fileno(), 2, last - 1) == b"\0x"
        with fails(errno.EINVAL):  # the kernel's answer to an end that no offset can name
            os.pwrite(file.fileno(), b"xy", last + 1)
        file.truncate(1)
        assert os.fstat(file.fileno()).st_blocks == 0


def test_a_limit_on_file_sizes(mnt: Path) -> None:
    script = """
        import errno, os, resource, signal, sys
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
        print(os.write(file, b"x" * 20))
        for attempt in (lambda: os.write(file, b"y"), lambda: os.ftruncate(file, 11)):
            try:
                attempt()
            except OSError as error:
                print(errno.errorcode[error.errno])
    """
    with python(script, mnt / "f") as other:
        assert other.stdout is not None
        assert other.stdout.read().split() == ["10", "EFBIG", "EFBIG"]


def test_syncs_of_every_kind_succeed_and_hold(mounted: Mounted) -> None:
    with open(mounted.path / "f", "wb", buffering=0) as file:
        file.write(b"kept")
        os.fdatasync(file.fileno())
        subprocess.run(["sync", "-f", mounted.path / "f"], check=True)
        folder = os.open(mounted.path, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    mounted.kill()
    mounted.start()
    assert (mounted.path / "f").read_bytes() == b"kept"


@pytest.mark.parametrize("how", [os.O_WRONLY, os.O_WRONLY | os.O_APPEND, os.O_RDWR])
def test_a_write_is_synced_when_it_is_asked_for_and_only_then(mounted: Mounted, how: int) -> None:
    def syncs_of(flags: int, wish: int) -> int:
        name = mounted.path / f"durable-{how}-{flags}-{wish}"
        handle = os.open(name, how | flags | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            before = counts(mounted)["syncs"]
            for part in (b"x" * 5000, b"y" * 100):
                assert os.pwritev(handle, [part], 0, wish) == len(part)
            return counts(mounted)["syncs"] - before
        finally:
            os.close(handle)
            name.unlink()

    assert syncs_of(0, 0) == 0
    assert syncs_of(0, os.RWF_DSYNC) >= 2
    assert syncs_of(0, os.RWF_SYNC) >= 2
    assert syncs_of(os.O_DSYNC, 0) >= 2
    assert syncs_of(os.O_SYNC, 0) >= 2


def test_no_space_is_said_by_the_quota_and_deleting_makes_room(mount: Mounted) -> None:
    mount.start("-o", "quota_bytes=4M")
    with open(mount.path / "f", "wb", buffering=0) as file, fails(errno.EDQUOT):
        for _ in range(5):
            file.write(os.urandom(MIB))
    assert (mount.path / "f").stat().st_size == 4 * MIB
    os.truncate(mount.path / "f", MIB)
    (mount.path / "g").write_bytes(os.urandom(3 * MIB))
