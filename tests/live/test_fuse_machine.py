"""The mount beside a native directory: the same operations, the same answers, whatever dies between."""

from __future__ import annotations

import contextlib
import errno
import itertools
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.harness.mounted import Mounted
from tests.harness.native import has_fine_times
from tests.harness.syscalls import Caller, moments, moved, shown

pytestmark = pytest.mark.live

EXAMPLES = int(os.environ.get("QSS_TEST_EXAMPLES", "40"))
CONTENT = bytes(range(251)) * 300  # no period of any block size

paths = st.sampled_from(["a/x", "a/y", "b/x", "b/y", "c", "d", "a", "b", "a/x/z"])
offsets = st.sampled_from([0, 1, 4095, 4096, 65_535, 65_536, 200_000])
lengths = st.sampled_from([0, 1, 100, 4096, 65_536, 70_001])
starts = st.integers(0, 250)
modes = st.sampled_from([0o000, 0o644, 0o755, 0o1777, 0o2755, 0o4755, 0o6711, 0o602, 0o622])
times = st.integers(-(2**40), 2**50)
names = st.sampled_from(["user.a", "user.b", "trusted.c"])


class MountBesideNative(RuleBasedStateMachine):
    mounted: ClassVar[Mounted]
    native: ClassVar[Path]
    serial: ClassVar[Iterator[int]]
    fine_times: ClassVar[bool]

    def __init__(self) -> None:
        super().__init__()
        name = str(next(self.serial))
        self.roots = [self.native / name, self.mounted.path / name]
        self.died = False
        self.handles: dict[str, list[int]] = {}
        for root in self.roots:
            for name in ("", "a", "b"):
                (root / name).mkdir()
            for name in ("c", "a/x", "b/y"):
                (root / name).write_bytes(CONTENT)

    def both(self, action: Callable[[Path], Any]) -> Any:
        """The answer of both, a value or an errno; and both have moved the same times."""
        native, mounted = [self.told(root, lambda root=root: action(root)) for root in self.roots]
        assert mounted == native
        return native

    def each_handle(self, action: Callable[[int], Any]) -> None:
        for ends in self.handles.values():
            sides = zip(self.roots, ends, strict=True)
            native, mounted = [self.told(root, lambda end=end: action(end)) for root, end in sides]
            assert mounted == native

    def told(self, root: Path, action: Callable[[], Any]) -> tuple[Any, dict[str, str]]:
        if not self.fine_times:
            return answer(action), {}
        before = moments(root)
        said = answer(action)
        return said, moved(before, moments(root))

    # -- files

    @rule(path=paths, offset=offsets, length=lengths, start=starts, append=st.booleans(), cut=st.booleans())
    def write(self, path: str, offset: int, length: int, start: int, append: bool, cut: bool) -> None:
        def action(root: Path) -> int:
            flags = os.O_WRONLY | os.O_CREAT | append * os.O_APPEND | cut * os.O_TRUNC
            handle = os.open(root / path, flags, 0o644)
            try:
                return os.pwrite(handle, CONTENT[start : start + length], offset)
            finally:
                os.close(handle)

        self.both(action)

    @rule(path=paths, size=offsets)
    def truncate(self, path: str, size: int) -> None:
        self.both(lambda root: os.truncate(root / path, size))

    @rule(path=paths)
    def read(self, path: str) -> None:
        self.both(lambda root: (root / path).read_bytes())

    @rule(path=paths)
    def open(self, path: str) -> None:
        if path not in self.handles:
            ends = [answer(lambda root=root: os.open(root / path, os.O_RDWR)) for root in self.roots]
            if isinstance(ends[0], int):
                assert isinstance(ends[1], int)
                self.handles[path] = ends
            else:
                assert ends[1] == ends[0]

    @rule(offset=offsets, length=lengths, start=starts)
    def write_to_open_files(self, offset: int, length: int, start: int) -> None:
        self.each_handle(lambda handle: os.pwrite(handle, CONTENT[start : start + length], offset))

    @rule(offset=offsets)
    def read_open_files(self, offset: int) -> None:
        self.each_handle(lambda handle: (os.pread(handle, 100_000, offset), shown(os.fstat(handle))))

    @rule(size=offsets)
    def truncate_open_files(self, size: int) -> None:
        self.each_handle(lambda handle: os.ftruncate(handle, size))

    @rule(mode=modes, name=names)
    def change_open_files(self, mode: int, name: str) -> None:
        self.each_handle(lambda handle: os.fchmod(handle, mode))
        value = b"by its handle %d" % next(self.serial)
        self.each_handle(lambda handle: os.setxattr(handle, name, value))

    @rule(offset=st.sampled_from([0, 4000, 4096, 65_000]), start=starts)
    def write_through_mappings(self, offset: int, start: int) -> None:
        """What is written to a shared mapping is read by read(2), and the other way round."""

        def action(handle: int) -> tuple[bytes, bytes]:
            size = os.fstat(handle).st_size
            if size < offset + 300:
                return b"", b""
            with mmap.mmap(handle, size) as memory:
                memory[offset : offset + 200] = CONTENT[start : start + 200]
                seen = os.pread(handle, 300, offset)
                os.pwrite(handle, b"!" * 50, offset + 100)
                return seen, memory[offset : offset + 300]

        for ends in self.handles.values():  # when a mapping moves times is the kernel's affair
            native, mounted = [answer(lambda end=end: action(end)) for end in ends]
            assert mounted == native

    @rule(path=paths, length=lengths)
    def append(self, path: str, length: int) -> None:
        """Two handles for appending, in turn."""

        def action(root: Path) -> int:
            one, other = [os.open(root / path, os.O_WRONLY | os.O_APPEND) for _ in range(2)]
            try:
                return os.write(one, b"one") + os.pwrite(other, CONTENT[:length], 0) + os.write(one, b"end")
            finally:
                os.close(one)
                os.close(other)

        self.both(action)

    @rule()
    def close(self) -> None:
        self.each_handle(os.fsync)
        for end in itertools.chain(*self.handles.values()):
            os.close(end)
        self.handles.clear()

    # -- names

    @rule(path=paths)
    def mkdir(self, path: str) -> None:
        self.both(lambda root: os.mkdir(root / path))

    @rule(path=paths)
    def rmdir(self, path: str) -> None:
        self.both(lambda root: os.rmdir(root / path))

    @rule(path=paths)
    def unlink(self, path: str) -> None:
        self.both(lambda root: os.unlink(root / path))

    @rule(path=paths, to=paths)
    def rename(self, path: str, to: str) -> None:
        self.both(lambda root: os.rename(root / path, root / to))

    @rule(path=paths, to=paths, flags=st.sampled_from([1, 2]))
    def rename_with_flags(self, path: str, to: str, flags: int) -> None:
        """NOREPLACE, EXCHANGE."""
        self.both(lambda root: Caller().rename(f"{root / path}", f"{root / to}", f"{flags}"))

    @rule(path=paths)
    def list(self, path: str) -> None:
        self.both(lambda root: sorted(os.listdir(root / path)))

    @rule(path=paths, to=paths)
    def link(self, path: str, to: str) -> None:
        self.both(lambda root: os.link(root / path, root / to, follow_symlinks=False))

    @rule(path=paths, to=st.sampled_from(["x", "../a", "../b/x", "nowhere", "y" * 300]))
    def symlink(self, path: str, to: str) -> None:
        self.both(lambda root: os.symlink(to, root / path))

    @rule(path=paths, mode=modes)
    def mknod(self, path: str, mode: int) -> None:
        kind = (stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFREG)[mode % 3]  # who opens a fifo waits for ever
        self.both(lambda root: os.mknod(root / path, kind | (mode & 0o777), os.makedev(1, 3)))

    # -- attributes

    @rule(path=paths, mode=modes)
    def chmod(self, path: str, mode: int) -> None:
        self.both(lambda root: os.chmod(root / path, mode))

    @rule(path=paths, uid=st.sampled_from([-1, 0, 1000]), gid=st.sampled_from([-1, 0, 100]))
    def chown(self, path: str, uid: int, gid: int) -> None:
        self.both(lambda root: os.chown(root / path, uid, gid, follow_symlinks=False))

    @rule(path=paths, atime=times, mtime=times)
    def utime(self, path: str, atime: int, mtime: int) -> None:
        def action(root: Path) -> tuple[int, int]:
            os.utime(root / path, ns=(atime, mtime))
            row = os.stat(root / path)
            return row.st_atime_ns, row.st_mtime_ns

        self.both(action)

    @rule(path=paths, name=names, length=st.integers(0, 500), flags=st.sampled_from([0, 1, 2]))
    def setxattr(self, path: str, name: str, length: int, flags: int) -> None:
        value = b"%d" % next(self.serial) + CONTENT[:length]  # the same again moves no ctime on ext4
        self.both(lambda root: os.setxattr(root / path, name, value, flags, follow_symlinks=False))

    @rule(path=paths, name=names)
    def removexattr(self, path: str, name: str) -> None:
        self.both(lambda root: os.removexattr(root / path, name, follow_symlinks=False))

    # -- death and what is left

    @precondition(lambda self: not self.died)  # half a second each
    @rule(orderly=st.booleans())
    def die_and_return(self, orderly: bool) -> None:
        self.died = True
        self.close()
        if orderly:
            self.mounted.stop()
        else:
            self.mounted.kill()
        self.mounted.start()
        self.compare()

    @rule()
    def compare(self) -> None:
        self.both(picture)

    def teardown(self) -> None:
        self.close()
        self.compare()


def answer(action: Callable[[], Any]) -> Any:
    try:
        return action()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def picture(root: Path) -> dict[str, tuple[Any, ...]]:
    """Everything to be seen of a tree, save what has to differ: inode numbers (but who shares one), changing times."""
    first: dict[int, str] = {}
    seen: dict[str, tuple[Any, ...]] = {}
    for path in sorted([root, *root.rglob("*")]):
        name, row = str(path.relative_to(root)), os.lstat(path)
        detail: Any = None
        if stat.S_ISREG(row.st_mode):
            detail = path.read_bytes()
        elif stat.S_ISLNK(row.st_mode):
            detail = os.readlink(path)
        xattrs = {each: os.getxattr(path, each, follow_symlinks=False) for each in names_of(path)}
        size = None if stat.S_ISDIR(row.st_mode) else row.st_size
        sames = first.setdefault(row.st_ino, name)
        # Content takes blocks, a hole takes none; natively xattrs may, and the page a file was cut off in.
        zeros_kept = bool(row.st_size % 4096) and not any(detail or b"")
        hole = stat.S_ISREG(row.st_mode) and not row.st_blocks if not (xattrs or zeros_kept) else None
        who = (row.st_mode, row.st_nlink, row.st_uid, row.st_gid, row.st_rdev)
        seen[name] = (*who, size, hole, sames, detail, xattrs)
    return seen


def names_of(path: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return sorted(os.listxattr(path, follow_symlinks=False))
    return []


@pytest.mark.skipif(not os.access("/dev/fuse", os.W_OK) or os.geteuid() != 0, reason="needs /dev/fuse and root")
def test_the_mount_answers_as_the_native_file_system(tmp_path: Path) -> None:
    machine = MountBesideNative
    machine.native = tmp_path / "native"
    machine.native.mkdir()
    machine.fine_times = has_fine_times(machine.native)
    machine.mounted = Mounted(tmp_path)
    machine.mounted.start()
    machine.serial = itertools.count()
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=EXAMPLES, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
    finally:
        machine.mounted.close()
