"""FileSystem against the plain model: the same operations, the same answers, the same picture, also after a restart."""

from __future__ import annotations

import errno
import logging
import os
import random
import stat
import tempfile
import time
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.errors import FsError
from qss.fs.attrs import SetAttributes, User
from qss.fs.filesystem import FileSystem, FsOptions
from qss.fs.quota import UNLIMITED, Quota
from qss.host import Host
from qss.ids import ROOT_INO
from tests.harness.soundness import assert_sound
from tests.models.posix import ACCESS, DEFAULT, KINDS, Model, Node, PosixError, packed

TYPES = {kind: bits for bits, kind in KINDS.items()}
RDWR, APPEND = 2, 0o2000

paths = st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=3).map(tuple)
modes = st.sampled_from([0o644, 0o755, 0o4711, 0o2755])
sizes = st.integers(0, 300)
data = st.builds(lambda byte, count: bytes([byte]) * count, st.integers(1, 255), st.integers(1, 200))
slots = st.integers(0, 2)
masks = st.sampled_from([0, 0o022, 0o077])
owners = st.sampled_from([None, 0, 7, 2**32 - 2])
perms = st.integers(0, 7)
lists = st.one_of(
    st.fixed_dictionaries({1: perms, 4: perms, 32: perms}),
    st.fixed_dictionaries({1: perms, 4: perms, 16: perms, 32: perms}),
    st.fixed_dictionaries({1: perms, 2: perms, 4: perms, 16: perms, 32: perms}),
)
quotas = st.sampled_from([Quota(), Quota(inodes_max=6), Quota(bytes_max=400)])

steps = st.one_of(
    st.tuples(st.just("mkdir"), paths, modes, masks),
    st.tuples(st.just("mknod"), paths, st.sampled_from(["file", "file", "file", "fifo", "char", "sock"]), modes, masks),
    st.tuples(st.just("symlink"), paths, st.binary(min_size=1, max_size=20)),
    st.tuples(st.just("link"), paths, paths),
    st.tuples(st.just("unlink"), paths),
    st.tuples(st.just("rmdir"), paths),
    st.tuples(st.just("rename"), paths, paths, st.sampled_from([0, 0, 1, 2])),
    st.tuples(st.just("open"), slots, paths, st.booleans(), st.booleans()),
    st.tuples(st.just("chown"), paths, owners, owners),
    st.tuples(st.just("utimens"), paths, st.integers(-(2**60), 2**60), st.integers(-(2**60), 2**60)),
    st.tuples(st.just("setacl"), paths, st.sampled_from([ACCESS, DEFAULT]), lists),
    st.tuples(st.just("rmacl"), paths, st.sampled_from([ACCESS, DEFAULT])),
    st.tuples(st.just("close"), slots),
    st.tuples(st.just("write"), slots, sizes, data),
    st.tuples(st.just("read"), slots, sizes, sizes),
    st.tuples(st.just("truncate"), paths, sizes),
    st.tuples(st.just("chmod"), paths, modes),
    st.tuples(st.just("setxattr"), paths, st.sampled_from([b"user.x", b"user.y"]), data, st.sampled_from([0, 0, 1, 2])),
    st.tuples(st.just("removexattr"), paths, st.sampled_from([b"user.x", b"user.y"])),
    st.tuples(st.just("collect")),
    st.tuples(st.just("restart"), st.booleans()),
)


class Pair:
    """The real one and the model side by side."""

    def __init__(self, root: Path, quota: Quota = UNLIMITED) -> None:
        self.root = root
        self.quota = quota
        self.model = Model(quota.inodes_max, quota.bytes_max)
        self.slots: dict[int, tuple[int, Node, bool, bool]] = {}

    async def open(self) -> None:
        host = Host()
        self.cache = await SegmentCache.open(self.root, host, CacheOptions(index_map_bytes=1 << 28), None)
        self.fs = FileSystem(self.cache, host.clock, FsOptions(quota=self.quota))

    async def restart(self, orderly: bool = True) -> None:
        self.slots.clear()
        self.model.open_nodes.clear()
        if orderly:
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
        while self.fs.collect():  # what is deleted counts until it is collected
            pass
        await getattr(self, f"do_{what}")(*args)

    async def do_mkdir(self, path, mode, umask):
        async def real():
            self.fs.mkdir(self.ino(path[:-1]), path[-1], mode, User(umask=umask))

        await self.both(real, lambda: self.model.mkdir(path, mode, umask))

    async def do_mknod(self, path, kind, mode, umask):
        async def real():
            rdev = 259 if kind == "char" else 0
            self.fs.mknod(self.ino(path[:-1]), path[-1], TYPES[kind] | mode, rdev, User(umask=umask))

        await self.both(real, lambda: self.model.mknod(path, kind, mode, umask))

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

    async def do_open(self, slot, path, append, unprivileged):
        try:
            node = self.model.walk(path)
        except PosixError:
            return
        if node.kind != "file":
            return
        await self.do_close(slot)
        handle = await self.fs.open(self.ino(path), RDWR | (APPEND if append else 0), unprivileged=unprivileged)
        self.slots[slot] = (handle, node, append, unprivileged)
        self.model.open_nodes.append(node)

    async def do_close(self, slot):
        if slot in self.slots:
            handle, node, *_ = self.slots.pop(slot)
            self.fs.release(handle)
            self.model.open_nodes.remove(node)

    async def do_write(self, slot, offset, content):
        if slot in self.slots:
            handle, node, append, unprivileged = self.slots[slot]

            async def real():
                await self.fs.write(handle, offset, content)

            at = len(node.content) if append else offset
            await self.both(real, lambda: self.model.write(node, at, content, unprivileged=unprivileged))

    async def do_read(self, slot, offset, count):
        if slot in self.slots:
            handle, node, *_ = self.slots[slot]
            got = bytes(await self.fs.read(handle, offset, count))
            assert got == bytes(node.content[offset : offset + count])

    async def do_truncate(self, path, size):
        async def real():
            await self.fs.setattr(self.ino(path), SetAttributes(size=size))

        await self.both(real, lambda: self.model.truncate(self.model.walk(path), size))

    async def do_chmod(self, path, mode):
        async def real():
            await self.fs.setattr(self.ino(path), SetAttributes(mode=mode))

        await self.both(real, lambda: self.model.chmod(self.model.walk(path), mode))

    async def do_chown(self, path, uid, gid):
        if uid is None and gid is None:
            return

        async def real():
            await self.fs.setattr(self.ino(path), SetAttributes(uid=uid, gid=gid))

        await self.both(real, lambda: self.model.chown(self.model.walk(path), uid, gid))

    async def do_utimens(self, path, atime, mtime):
        async def real():
            await self.fs.setattr(self.ino(path), SetAttributes(atime_ns=atime, mtime_ns=mtime))

        def ideal():
            node = self.model.walk(path)
            node.mtime, node.moved = mtime, False

        await self.both(real, ideal)

    async def do_setacl(self, path, name, acl):
        async def real():
            self.fs.setxattr(self.ino(path), name, packed(acl))

        await self.both(real, lambda: self.model.set_list(self.model.walk(path), name, acl))

    async def do_rmacl(self, path, name):
        async def real():
            self.fs.removexattr(self.ino(path), name)

        await self.both(real, lambda: self.model.remove_list(self.model.walk(path), name))

    async def do_setxattr(self, path, name, value, flags):
        async def real():
            self.fs.setxattr(self.ino(path), name, value, flags)

        await self.both(real, lambda: self.model.setxattr(self.model.walk(path), name, value, flags))

    async def do_removexattr(self, path, name):
        async def real():
            self.fs.removexattr(self.ino(path), name)

        def ideal():
            if self.model.walk(path).xattrs.pop(name, None) is None:
                raise PosixError(61)

        await self.both(real, ideal)

    async def do_collect(self):
        self.fs.collect()

    async def do_restart(self, orderly):
        await self.restart(orderly)

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
            elif kind != "file":
                detail = None
            else:
                handle = await fs.open(ino, 0)
                detail = bytes(await fs.read(handle, 0, 10_000_000))
                fs.release(handle)
                assert attrs.size == len(detail)
            xattrs = tuple(sorted((name, fs.getxattr(ino, name)) for name in fs.listxattr(ino)))
            owner = (attrs.uid, attrs.gid, attrs.rdev)
            set_last = self.model.walk(tuple(path.split(b"/")[1:])).mtime
            mtime = set_last if attrs.mtime_ns == set_last else None
            found[path] = (kind, stat.S_IMODE(attrs.mode), owner, attrs.nlink, attrs.blocks, mtime, detail, xattrs)
            for entry in listing:
                assert fs.lookup(ino, entry.name) == entry.ino
                await look(path + b"/" + entry.name, entry.ino, ino)

        await look(b"", ROOT_INO, ROOT_INO)
        found[b"//same"] = tuple(sorted(tuple(sorted(paths)) for paths in groups.values() if len(paths) > 1))
        return found


async def play(program, quota=UNLIMITED) -> None:
    with tempfile.TemporaryDirectory(prefix="qss-model-") as folder:
        pair = Pair(Path(folder), quota)
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
@given(st.lists(steps, max_size=50), quotas)
def test_same_as_the_model(program, quota):
    trio.run(play, program, quota)


@pytest.mark.slow
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(steps, min_size=20, max_size=80), quotas)
def test_same_as_the_model_for_long(program, quota):
    trio.run(play, program, quota)


STEPS = int(os.environ.get("QSS_TEST_STEPS", "4000"))
"""Of one long program: no shrinking, but thousands of steps a second."""
PICTURE_EVERY, RESTART_EVERY = 200, 1_000


def some_step(rng: random.Random) -> tuple:
    """One of what `steps` draws from, in larger directories and files."""

    def path() -> tuple[bytes, ...]:
        return tuple(rng.choice([b"a", b"b", b"c", b"d", b"e"]) for _ in range(rng.choice([1, 1, 2, 2, 3])))

    def content() -> bytes:
        return bytes([rng.randint(1, 255)]) * rng.randint(1, 3_000)

    def acl() -> dict[int, int]:
        tags = rng.choice([(1, 4, 32), (1, 4, 16, 32), (1, 2, 4, 16, 32)])
        return {tag: rng.randint(0, 7) for tag in tags}

    mode, mask = rng.choice([0o644, 0o755, 0o4711, 0o2755]), rng.choice([0, 0o022, 0o077])
    slot, offset, name = rng.randint(0, 4), rng.randint(0, 9_000), rng.choice([b"user.x", b"user.y"])
    which = rng.choice([ACCESS, DEFAULT])
    makers = {
        "mkdir": lambda: (path(), mode, mask),
        "mknod": lambda: (path(), rng.choice(["file", "file", "file", "fifo", "char", "sock"]), mode, mask),
        "symlink": lambda: (path(), b"target"),
        "link": lambda: (path(), path()),
        "unlink": lambda: (path(),),
        "rmdir": lambda: (path(),),
        "rename": lambda: (path(), path(), rng.choice([0, 0, 1, 2])),
        "open": lambda: (slot, path(), rng.random() < 0.3, rng.random() < 0.3),
        "close": lambda: (slot,),
        "write": lambda: (slot, offset, content()),
        "read": lambda: (slot, offset, rng.randint(0, 9_000)),
        "truncate": lambda: (path(), offset),
        "chmod": lambda: (path(), mode),
        "chown": lambda: (path(), rng.choice([None, 0, 7]), rng.choice([None, 0, 7])),
        "utimens": lambda: (path(), rng.getrandbits(60), -rng.getrandbits(60)),
        "setxattr": lambda: (path(), name, content(), rng.choice([0, 0, 1, 2])),
        "removexattr": lambda: (path(), name),
        "setacl": lambda: (path(), which, acl()),
        "rmacl": lambda: (path(), which),
    }
    what = rng.choice([*makers, "mknod", "open", "write", "write", "read"])
    return (what, *makers[what]())


@pytest.mark.parametrize("quota", [Quota(), Quota(inodes_max=40, bytes_max=9_000)], ids=["free", "quota"])
def test_a_long_program_is_the_same_as_the_model(quota, tmp_path):
    seed = int(os.environ.get("QSS_TEST_SEED", "20261121"))

    async def go() -> float:
        rng = random.Random(seed)
        pair = Pair(tmp_path, quota)
        await pair.open()
        taken = 0.0
        try:
            for number in range(1, STEPS + 1):
                step = some_step(rng)
                began = time.process_time()
                await pair.step(*step)
                taken += time.process_time() - began
                if number % PICTURE_EVERY == 0:
                    assert await pair.picture() == pair.model.picture(), f"seed {seed}, step {number}"
                if number % RESTART_EVERY == 0:
                    await pair.restart(orderly=number % (2 * RESTART_EVERY) == 0)
            assert_sound(pair.cache)
        finally:
            await pair.cache.close()
        return STEPS / taken

    rate = trio.run(go)
    logging.getLogger(__name__).info("%.0f steps a second of processor time", rate)
