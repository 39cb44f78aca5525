"""The adapter without a kernel: every handler is guarded, every error has an errno, remote waits are bounded."""

from __future__ import annotations

import errno
import inspect
import os
import types

import pyfuse3
import pytest
import trio
import trio.testing

from qss import errors
from qss.errors import FsError, NoSpace
from qss.fuse.errnos import errno_of
from qss.fuse.mount import MountOptions, clean_mountpoint
from qss.fuse.operations import REMOTE_WAITS_MAX, Operations


class Broken:
    """A file system in which everything fails with the same error."""

    without_capability: frozenset[int] = frozenset()

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __getattr__(self, name):
        def fail(*args):
            raise self.error

        return fail


HANDLERS = [
    name
    for name, value in inspect.getmembers(pyfuse3.Operations, inspect.iscoroutinefunction)
    if name not in {"poll"}  # left to pyfuse3: ENOSYS
]


@pytest.mark.parametrize("name", HANDLERS)
async def test_no_handler_lets_an_exception_out(name):
    operations = Operations(Broken(KeyError("a bug")))
    handler = getattr(Operations, name)
    assert handler.__qualname__.startswith("Operations.")
    assert getattr(handler, "guarded", False)
    count = len(inspect.signature(handler).parameters) - 1
    arguments = [[(1, 1)]] if name == "forget" else [1] * count
    if name == "getxattr":
        arguments = [1, b"user.x", None]
    expected = errno.ENOSYS if name in {"flush", "access"} else errno.EIO
    if name == "forget":
        await getattr(operations, name)(*arguments)
    else:
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await getattr(operations, name)(*arguments)
        assert caught.value.errno == expected
    assert operations.failures.unexpected == (0 if expected == errno.ENOSYS else 1)


async def test_a_bug_is_logged_once_and_counted_each_time(caplog):
    operations = Operations(Broken(ZeroDivisionError("a bug")))
    for _ in range(3):
        with pytest.raises(pyfuse3.FUSEError):
            await operations.unlink(1, b"x", None)
    assert operations.failures.unexpected == 3
    assert len([record for record in caplog.records if record.exc_info]) == 1


def subclasses(kind):
    yield kind
    for each in kind.__subclasses__():
        yield from subclasses(each)


@pytest.mark.parametrize("kind", [kind for kind in subclasses(errors.QssError) if kind.__module__ == errors.__name__])
def test_every_error_has_an_errno(kind):
    error = NoSpace() if kind is NoSpace else kind(errno.EPERM) if issubclass(kind, FsError) else kind("x")
    wanted = {NoSpace: errno.ENOSPC, FsError: errno.EPERM}.get(kind, errno.EIO)
    assert errno_of(error) == wanted


class OneSlowFile:
    """Handle 1 is on dead locations, everything else is at hand."""

    without_capability: frozenset[int] = frozenset()

    def __init__(self) -> None:
        self.waiting = 0
        self.most = 0
        self.back = trio.Event()

    def read_now(self, handle, offset, count):
        return None if handle == 1 else b"here"

    async def read(self, handle, offset, count):
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await self.back.wait()
        self.waiting -= 1
        return b"late"


async def test_reads_stuck_on_dead_locations_hold_up_nobody_else():
    slow = OneSlowFile()
    operations = Operations(slow)
    answers = []

    async def stuck():
        answers.append(await operations.read(1, 0, 10))

    async with trio.open_nursery() as nursery:
        for _ in range(130):
            nursery.start_soon(stuck)
        await trio.testing.wait_all_tasks_blocked()
        assert slow.waiting == REMOTE_WAITS_MAX
        assert await operations.read(2, 0, 10) == b"here"
        slow.back.set()
    assert answers == [b"late"] * 130
    assert slow.most == REMOTE_WAITS_MAX


async def test_the_kernels_question_before_each_write_needs_no_file_system():
    class Capable(Broken):
        without_capability = frozenset({7})

    operations = Operations(Capable(AssertionError("asked")))
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await operations.getxattr(7, b"security.capability", None)
    assert caught.value.errno == errno.ENODATA
    assert operations.failures.unexpected == 0


class Heard:
    """What the kernel says is known: `sync`."""

    known = True

    def __init__(self, sync=False) -> None:
        self.sync = sync

    def wants_sync(self, handle, offset, count):
        return self.sync


@pytest.mark.parametrize(
    ("flags", "direct"),
    [
        (os.O_WRONLY | os.O_TRUNC, True),
        (os.O_WRONLY | os.O_TRUNC | os.O_DSYNC, False),  # the kernel sees to it
        (os.O_WRONLY | os.O_TRUNC | os.O_SYNC, False),
        (os.O_WRONLY, False),  # of a file that somebody may read at the moment
        (os.O_WRONLY | os.O_TRUNC | os.O_APPEND, False),  # a log: somebody follows it
        (os.O_RDWR | os.O_TRUNC, False),  # may be mapped
        (os.O_RDONLY, False),
    ],
)
async def test_what_is_only_written_goes_past_the_kernels_memory(flags, direct):
    class Empty:
        stale: frozenset[int] = frozenset()

        async def open(self, inode, flags, *, unprivileged):
            return 5

    context = types.SimpleNamespace(uid=0)
    info = await Operations(Empty(), unsaid=Heard()).open(2, flags, context)
    assert (info.fh, info.direct_io) == (5, direct)
    assert not (await Operations(Empty(), writeback=True, unsaid=Heard()).open(2, flags, context)).direct_io
    assert not (await Operations(Empty()).open(2, flags, context)).direct_io  # nobody heard what is to be synced


@pytest.mark.parametrize("sync", [True, False])
async def test_a_write_past_the_kernels_memory_is_synced_by_us_when_asked(sync):
    class Written:
        stale: frozenset[int] = frozenset()
        done = ""

        async def open(self, inode, flags, *, unprivileged):
            return 5

        async def write(self, handle, offset, data):
            self.done += "w"
            return len(data)

        async def fsync(self):
            self.done += "s"

        def release(self, handle):
            self.done += "r"

    fs = Written()
    operations = Operations(fs, unsaid=Heard(sync))
    await operations.open(2, os.O_WRONLY | os.O_TRUNC, types.SimpleNamespace(uid=0))
    assert await operations.write(5, 0, b"abc") == 3
    await operations.release(5)
    assert await operations.write(5, 0, b"abc") == 3  # another handle of that number, not direct: the kernel syncs
    assert fs.done == ("wsrw" if sync else "wrw")


def test_mount_options():
    chosen = MountOptions(read_only=True).as_fuse(allow_other=True)
    assert {"ro", "allow_other", "default_permissions", "fsname=qss", "subtype=qss"} <= chosen
    assert "allow_other" not in MountOptions().as_fuse(allow_other=False)


def test_a_mountpoint_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(errors.Refused):
            clean_mountpoint(path)
    clean_mountpoint(tmp_path)
