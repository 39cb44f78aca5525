"""FileSystem against the plain model: the same operations, the same answers, the same picture, also after a restart."""

from __future__ import annotations

import errno
import stat
import tempfile
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.errors import FsError
from qss.fs.attrs import SetAttributes, User
from qss.fs.filesystem import FileSystem
from qss.host import Host
from qss.ids import ROOT_INO
from tests.harness.soundness import assert_sound
from tests.models.posix import Model, PosixError

KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link"}
RDWR, APPEND = 2, 0o2000

paths = st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=3).map(tuple)
modes = st.sampled_from([0o644, 0o755, 0o4711, 0o2755])
sizes = st.integers(0, 300)
data = st.builds(lambda byte, count: bytes([byte]) * count, st.integers(1, 255), st.integers(1, 200))
slots = st.integers(0, 2)

steps = st.one_of(
    st.tuples(st.just("mkdir"), paths, modes),
    st.tuples(st.just("mknod"), paths, modes),
    st.tuples(st.just("symlink"), paths, st.binary(min_size=1, max_size=20)),
    st.tuples(st.just("link"), paths, paths),
    st.tuples(st.just("unlink"), paths),
    st.tuples(st.just("rmdir"), paths),
    st.tuples(st.just("rename"), paths, paths, st.sampled_from([0, 0, 1, 2])),
    st.tuples(st.just("open"), slots, paths, st.booleans()),
    st.tuples(st.just("close"), slots),
    st.tuples(st.just("write"), slots, sizes, data),
    st.tuples(st.just("read"), slots, sizes, sizes),
    st.tuples(st.just("truncate"), paths, sizes),
    st.tuples(st.just("chmod"), paths, modes),
    st.tuples(st.just("setxattr"), paths, st.sampled_from([b"user.x", b"user.y"]), data),
    st.tuples(st.just("removexattr"), paths, st.sampled_from([b"user.x", b"user.y"])),
    st.tuples(st.just("collect")),
    st.tuples(st.just("restart")),
)


class Pair:
    """The real one and the model side by side."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = Model()
        self.slots: dict[int, tuple[int, object, bool]] = {}

    async def open(self) -> None:
        host = Host()
        self.cache = await SegmentCache.open(self.root, host, CacheOptions(index_map_bytes=1 << 28), None)
        self.fs = FileSystem(self.cache, host.clock)

    async def restart(self) -> None:
        self.slots.clear()
        self.fs.detach()
        await self.cache.close()
        await self.open()

    def ino(self, path) -> int:
        ino = ROOT_INO
        for name in path:
            ino = self.fs.lookup(ino, name)
        return ino

    def folder(self, path) -> int:
        """As the kernel resolves the path to a parent: each step must be a directory before the next is looked at."""
        ino = self.ino(path)
        if not stat.S_ISDIR(self.fs.getattr(ino).mode):
            raise FsError(errno.ENOTDIR)
        return ino

    async def both(self, real, ideal) -> None:
        """Do it in both worlds; the same errno or the same answer."""
        try:
            wanted = ideal()
            wanted_errno = None
        except PosixError as error:
            wanted, wanted_errno = None, error.errno
        got, got_errno = None, None
        try:
            got = await real()
        except FsError as error:
            got_errno = error.errno
        assert (got, got_errno) == (wanted, wanted_errno)

    async def step(self, what, *args) -> None:
        await getattr(self, f"do_{what}")(*args)

    async def do_mkdir(self, path, mode):
        async def real():
            self.fs.mkdir(self.ino(path[:-1]), path[-1], mode, User())

        await self.both(real, lambda: self.model.mkdir(path, mode))

    async def do_mknod(self, path, mode):
        async def real():
            self.fs.create(self.ino(path[:-1]), path[-1], mode, User())

        await self.both(real, lambda: self.model.mknod(path, mode))

    async def do_symlink(self, path, target):
        async def real():
            self.fs.symlink(self.ino(path[:-1]), path[-1], target, User())

        await self.both(real, lambda: self.model.symlink(path, target))

    async def do_link(self, source, path):
        async def real():
            self.fs.link(self.ino(source), self.folder(path[:-1]), path[-1])

        await self.both(real, lambda: self.model.link(source, path))

    async def do_unlink(self, path):
        async def real():
            self.fs.unlink(self.ino(path[:-1]), path[-1])

        await self.both(real, lambda: self.model.unlink(path))

    async def do_rmdir(self, path):
        async def real():
            self.fs.rmdir(self.ino(path[:-1]), path[-1])

        await self.both(real, lambda: self.model.rmdir(path))

    async def do_rename(self, source, target, flags):
        async def real():
            old, new = self.folder(source[:-1]), self.folder(target[:-1])
            self.fs.rename(old, source[-1], new, target[-1], flags)

        await self.both(real, lambda: self.model.rename(source, target, flags))

    async def do_open(self, slot, path, append):
        try:
            node = self.model.walk(path)
        except PosixError:
            return
        if node.kind != "file":
            return
        await self.do_close(slot)
        handle = await self.fs.open(self.ino(path), RDWR | (APPEND if append else 0))
        self.slots[slot] = (handle, node, append)

    async def do_close(self, slot):
        if slot in self.slots:
            self.fs.release(self.slots.pop(slot)[0])

    async def do_write(self, slot, offset, content):
        if slot in self.slots:
            handle, node, append = self.slots[slot]
            assert await self.fs.write(handle, offset, content) == len(content)
            self.model.write(node, len(node.content) if append else offset, content)

    async def do_read(self, slot, offset, count):
        if slot in self.slots:
            handle, node, _ = self.slots[slot]
            got = bytes(await self.fs.read(handle, offset, count))
            assert got == bytes(node.content[offset : offset + count])

    async def do_truncate(self, path, size):
        async def real():
            await self.fs.setattr(self.ino(path), SetAttributes(size=size))

        await self.both(real, lambda: self.model.truncate(self.model.walk(path), size))

    async def do_chmod(self, path, mode):
        async def real():
            await self.fs.setattr(self.ino(path), SetAttributes(mode=mode))

        def ideal():
            self.model.walk(path).mode = mode

        await self.both(real, ideal)

    async def do_setxattr(self, path, name, value):
        async def real():
            self.fs.setxattr(self.ino(path), name, value)

        def ideal():
            self.model.walk(path).xattrs[name] = value

        await self.both(real, ideal)

    async def do_removexattr(self, path, name):
        async def real():
            self.fs.removexattr(self.ino(path), name)

        def ideal():
            if self.model.walk(path).xattrs.pop(name, None) is None:
                raise PosixError(61)

        await self.both(real, ideal)

    async def do_collect(self):
        self.fs.collect()

    async def do_restart(self):
        await self.restart()

    async def picture(self) -> dict[bytes, tuple]:
        found = {}
        groups: dict[int, list[bytes]] = {}

        async def look(path: bytes, ino: int, parent: int) -> None:
            fs = self.fs
            groups.setdefault(ino, []).append(path)
            attrs = fs.getattr(ino)
            kind = KINDS[stat.S_IFMT(attrs.mode)]
            listing = []
            if kind == "dir":
                listing = [e for e in fs.readdir(ino) if e.name not in {b".", b".."}]
                assert fs.lookup(ino, b"..") == parent
                detail: object = tuple(sorted(e.name for e in listing))
                assert [e.cookie for e in listing] == sorted({e.cookie for e in listing})
            elif kind == "link":
                detail = fs.readlink(ino)
                assert attrs.size == len(detail)
            else:
                handle = await fs.open(ino, 0)
                detail = bytes(await fs.read(handle, 0, 10_000))
                fs.release(handle)
                assert attrs.size == len(detail)
            xattrs = tuple(sorted((name, fs.getxattr(ino, name)) for name in fs.listxattr(ino)))
            found[path] = (kind, stat.S_IMODE(attrs.mode), attrs.nlink, detail, xattrs)
            for entry in listing:
                assert fs.lookup(ino, entry.name) == entry.ino
                await look(path + b"/" + entry.name, entry.ino, ino)

        await look(b"", ROOT_INO, ROOT_INO)
        found[b"//same"] = tuple(sorted(tuple(sorted(paths)) for paths in groups.values() if len(paths) > 1))
        return found


async def play(program) -> None:
    with tempfile.TemporaryDirectory(prefix="qss-model-") as folder:
        pair = Pair(Path(folder))
        await pair.open()
        try:
            for what in program:
                await pair.step(*what)
            assert await pair.picture() == pair.model.picture()
            assert_sound(pair.cache)
            await pair.restart()
            assert await pair.picture() == pair.model.picture()
            assert_sound(pair.cache)
            while pair.fs.collect():
                pass
            from qss.formats.tables import Table

            live = len([p for p in pair.model.picture() if p != b"//same"])
            inos = {key for key, _ in pair.cache.scan(Table.INODES, b"")}
            assert len(inos) <= live, "an inode without a name was left behind"
            assert {key[:8] for key, _ in pair.cache.scan(Table.EXTENTS, b"")} <= inos
            assert {key[:8] for key, _ in pair.cache.scan(Table.XATTRS, b"")} <= inos
            assert_sound(pair.cache)
        finally:
            await pair.cache.close()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(steps, max_size=50))
def test_same_as_the_model(program):
    trio.run(play, program)


@pytest.mark.slow
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(steps, min_size=20, max_size=80))
def test_same_as_the_model_for_long(program):
    trio.run(play, program)
