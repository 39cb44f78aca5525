"""FileSystem by itself: what the model does not cover, and failures that must not come back."""

from __future__ import annotations

import errno
import os
import stat

import pytest
import trio

from qss.errors import FsError, NoSpace
from qss.formats.tables import Table, pair_key
from qss.fs import files
from qss.fs.attrs import SetAttributes, User
from qss.fs.inodes import INODES_CACHED_MAX, Inodes
from qss.ids import ROOT_INO

ROOT = User()


def fails(number: int):
    return pytest.raises(FsError, match=os.strerror(number))


async def make(fs, name: bytes, content: bytes = b"", parent: int = ROOT_INO) -> int:
    ino = fs.create(parent, name, 0o644, ROOT).ino
    handle = await fs.open(ino, os.O_WRONLY)
    await fs.write(handle, 0, content)
    fs.release(handle)
    return ino


async def content(fs, ino: int) -> bytes:
    handle = await fs.open(ino, os.O_RDONLY)
    data = bytes(await fs.read(handle, 0, 1 << 24))
    fs.release(handle)
    return data


async def test_inode_numbers_are_never_used_again(world):
    """Found by a live test: a file system mounted and unmounted empty gave its next file the number 0."""
    await world.reopen()
    first = world.fs.create(ROOT_INO, b"a", 0o644, ROOT).ino
    world.fs.unlink(ROOT_INO, b"a")
    await world.reopen()
    second = world.fs.create(ROOT_INO, b"a", 0o644, ROOT).ino
    assert ROOT_INO < first < second


async def test_a_failed_commit_changes_nothing(world, fs, monkeypatch):
    ino = await make(fs, b"f", b"content")
    before, root = fs.getattr(ino), fs.getattr(ROOT_INO)

    def full(change, **_):
        raise NoSpace("test")

    with monkeypatch.context() as patch:
        patch.setattr(world.cache, "commit", full)
        for attempt in (
            lambda: fs.unlink(ROOT_INO, b"f"),
            lambda: fs.create(ROOT_INO, b"g", 0o644, ROOT),
            lambda: fs.mkdir(ROOT_INO, b"d", 0o755, ROOT),
            lambda: fs.rename(ROOT_INO, b"f", ROOT_INO, b"g"),
            lambda: fs.link(ino, ROOT_INO, b"h"),
            lambda: fs.setxattr(ino, b"user.x", b"1"),
        ):
            with fails(errno.ENOSPC):
                attempt()
        with fails(errno.ENOSPC):
            await fs.setattr(ino, SetAttributes(mode=0o600, size=3))
    assert (fs.getattr(ino), fs.getattr(ROOT_INO)) == (before, root)
    assert await content(fs, ino) == b"content"
    assert fs.create(ROOT_INO, b"g", 0o644, ROOT).ino > ino
    await world.reopen()
    assert {e.name for e in world.fs.readdir(ROOT_INO)} == {b".", b"..", b"f", b"g"}


async def test_an_open_unlinked_file_lives_and_its_rows_go_after_a_crash(world, fs):
    ino = await make(fs, b"f", b"x" * 1000)
    handle = await fs.open(ino, os.O_RDWR)
    fs.unlink(ROOT_INO, b"f")
    assert fs.getattr(ino).nlink == 0
    await fs.write(handle, 1000, b"y")
    assert bytes(await fs.read(handle, 999, 5)) == b"xy"
    assert world.cache.count(Table.ORPHANS) == 1
    # As after a crash: nobody releases.
    await world.cache.close()
    again = await world.open()
    assert world.cache.count(Table.INODES) == 2
    again.collect()
    assert (world.cache.count(Table.INODES), world.cache.count(Table.EXTENTS)) == (1, 0)


async def test_a_file_known_to_the_kernel_can_be_asked_after_its_end(fs, world):
    ino = await make(fs, b"f", b"x")
    fs.remember(ino)
    fs.unlink(ROOT_INO, b"f")
    assert fs.getattr(ino).nlink == 0
    assert world.cache.count(Table.INODES) == 1
    await fs.setattr(ino, SetAttributes(mode=0o600))
    assert world.cache.count(Table.INODES) == 1
    with fails(errno.ENOENT):
        await fs.open(ino, os.O_RDONLY)
    with fails(errno.ENOENT):
        fs.link(ino, ROOT_INO, b"again")
    fs.forget(ino, 1)
    with fails(errno.ENOENT):
        fs.getattr(ino)


async def test_a_file_of_many_extents_is_collected_in_slices(fs, world):
    ino = await make(fs, b"f")
    handle = await fs.open(ino, os.O_WRONLY)
    for at in range(100):
        await fs.write(handle, at * 10, b"abc")
    fs.release(handle)
    fs.unlink(ROOT_INO, b"f")
    assert world.cache.count(Table.EXTENTS) == 100
    slices = 1
    while fs._orphans.collect(10):
        slices += 1
    assert slices > 10
    assert (world.cache.count(Table.EXTENTS), world.cache.count(Table.INODES)) == (0, 1)
    assert world.cache.count(Table.ORPHANS) == 0


async def test_a_file_of_many_extents_shrinks_in_slices(fs, world, monkeypatch):
    monkeypatch.setattr(files, "TRUNCATE_ROWS_MAX", 7)
    ino = await make(fs, b"f")
    handle = await fs.open(ino, os.O_RDWR)
    for at in range(100):
        await fs.write(handle, at * 10, b"abcde")
    shown = bytes(await fs.read(handle, 0, 1000))
    await fs.setattr(ino, SetAttributes(size=123))
    assert bytes(await fs.read(handle, 0, 1000)) == shown[:123]
    assert fs.getattr(ino).blocks == 1
    assert world.cache.count(Table.EXTENTS) == 13
    await fs.setattr(ino, SetAttributes(size=1000))
    assert bytes(await fs.read(handle, 0, 1000)) == shown[:123] + bytes(877)
    await fs.setattr(ino, SetAttributes(size=0))
    assert world.cache.count(Table.EXTENTS) == 0


async def test_sizes_up_to_the_largest(fs, world):
    ino = await make(fs, b"f")
    handle = await fs.open(ino, os.O_RDWR)
    await fs.setattr(ino, SetAttributes(size=2**63 - 1))
    await fs.write(handle, 2**63 - 3, b"zz")
    assert bytes(await fs.read(handle, 2**63 - 5, 100)) == b"\0\0zz"
    for offset in (2**63 - 1, 2**63 - 2):
        with fails(errno.EFBIG):
            await fs.write(handle, offset, b"zz")
    with fails(errno.EFBIG):
        await fs.setattr(ino, SetAttributes(size=2**63))
    await fs.setattr(ino, SetAttributes(size=0))
    assert world.cache.count(Table.EXTENTS) == 0


async def test_blocks_count_content_not_size(fs):
    ino = await make(fs, b"f", b"x" * 4096)
    handle = await fs.open(ino, os.O_WRONLY)
    await fs.write(handle, 10**12, b"x" * 4096)
    await fs.write(handle, 1000, b"y" * 1000)  # over what is there
    assert fs.getattr(ino).blocks == 16


async def test_times_before_1970_and_after_2106(world, fs):
    ino = await make(fs, b"f")
    for moment in (-1, -(10**18), 10**19, 0):
        await fs.setattr(ino, SetAttributes(atime_ns=moment, mtime_ns=moment))
        shown = (await world.reopen()).getattr(ino)
        assert (shown.atime_ns, shown.mtime_ns) == (moment, moment)
        fs = world.fs


async def test_relatime(world, fs):
    ino = await make(fs, b"f", b"x")
    written = fs.getattr(ino)
    await content(fs, ino)
    read = fs.getattr(ino).atime_ns
    assert read > written.atime_ns
    await content(fs, ino)
    assert fs.getattr(ino).atime_ns == read
    assert (await world.reopen()).getattr(ino).atime_ns == read
    world.clock.ns += 25 * 3600 * 10**9
    await content(world.fs, ino)
    assert world.fs.getattr(ino).atime_ns > read
    fs = await world.reopen(atime="noatime")
    before = fs.getattr(ino).atime_ns
    world.clock.ns += 25 * 3600 * 10**9
    await content(fs, ino)
    assert fs.getattr(ino).atime_ns == before


async def test_listing_goes_on_where_it_was_while_entries_come_and_go(fs):
    for number in range(50):
        await make(fs, b"%02d" % number)
    first = [entry for entry, _ in zip(fs.readdir(ROOT_INO), range(20), strict=False)]
    for name in (b"00", b"30", b"17"):
        fs.unlink(ROOT_INO, name)
    fs.rename(ROOT_INO, b"40", ROOT_INO, b"41")  # 41 is replaced in its place
    await make(fs, b"new")
    rest = list(fs.readdir(ROOT_INO, first[-1].cookie))
    seen = [entry.name for entry in [*first, *rest]]
    assert len(seen) == len(set(seen))
    assert set(seen) == {b".", b"..", b"new"} | {b"%02d" % n for n in range(50)} - {b"30", b"40"}


async def test_names_that_cannot_be(fs):
    for name, number in ((b"", errno.EINVAL), (b"a/b", errno.EINVAL), (b"x" * 256, errno.ENAMETOOLONG)):
        with fails(number):
            fs.create(ROOT_INO, name, 0o644, ROOT)
    with fails(errno.ENAMETOOLONG):
        fs.lookup(ROOT_INO, b"x" * 256)
    with fails(errno.ENAMETOOLONG):
        fs.symlink(ROOT_INO, b"l", b"x" * 4096, ROOT)


async def test_too_many_links(fs, monkeypatch):
    monkeypatch.setattr("qss.fs.namespace.LINKS_MAX", 3)
    ino = await make(fs, b"f")
    fs.link(ino, ROOT_INO, b"g")
    fs.link(ino, ROOT_INO, b"h")
    with fails(errno.EMLINK):
        fs.link(ino, ROOT_INO, b"i")


async def test_linking_a_directory_below_a_file_says_not_a_directory(fs):
    """Found by the model: the parent is looked at first, as the kernel does."""
    file = await make(fs, b"file")
    directory = fs.mkdir(ROOT_INO, b"directory", 0o755, ROOT).ino
    with fails(errno.ENOTDIR):
        fs.link(directory, file, b"name")
    with fails(errno.EPERM):
        fs.link(directory, ROOT_INO, b"name")


async def test_exchange_with_a_directory_above_refuses(fs):
    a = fs.mkdir(ROOT_INO, b"a", 0o755, ROOT).ino
    b = fs.mkdir(a, b"b", 0o755, ROOT).ino
    fs.mkdir(b, b"c", 0o755, ROOT)
    with fails(errno.EINVAL):
        fs.rename(ROOT_INO, b"a", b, b"c", 2)
    with fails(errno.EINVAL):
        fs.rename(b, b"c", ROOT_INO, b"a", 2)


async def test_a_deleted_directory_takes_no_entries(fs):
    ino = fs.mkdir(ROOT_INO, b"d", 0o755, ROOT).ino
    fs.remember(ino)
    fs.rmdir(ROOT_INO, b"d")
    for attempt in (lambda: fs.create(ino, b"f", 0o644, ROOT), lambda: list(fs.readdir(ino))):
        with fails(errno.ENOENT):
            attempt()


async def test_xattr_limits(fs):
    ino = await make(fs, b"f")
    with fails(errno.E2BIG):
        fs.setxattr(ino, b"user.x", b"x" * 65_537)
    with fails(errno.ERANGE):
        fs.setxattr(ino, b"user." + b"x" * 251, b"")
    with fails(errno.EOPNOTSUPP):
        fs.setxattr(ino, b"nonsense", b"")
    with fails(errno.EEXIST):
        for _ in range(2):
            fs.setxattr(ino, b"user.x", b"", os.XATTR_CREATE)
    with fails(errno.ENODATA):
        fs.setxattr(ino, b"user.y", b"", os.XATTR_REPLACE)
    with fails(errno.ENOSPC):
        for number in range(300):
            fs.setxattr(ino, b"user.%0240d" % number, b"")
    assert sum(len(name) + 1 for name in fs.listxattr(ino)) <= 65_536


async def test_a_capability_set_later_is_seen(fs):
    ino = await make(fs, b"f")
    with fails(errno.ENODATA):
        fs.getxattr(ino, b"security.capability")
    assert ino in fs.without_capability
    fs.setxattr(ino, b"security.capability", b"x")
    assert ino not in fs.without_capability


async def test_a_capability_goes_with_the_content_it_was_given_to(fs):
    ino = await make(fs, b"f")
    handle = await fs.open(ino, os.O_WRONLY)
    fs.setxattr(ino, b"security.capability", b"x")
    await fs.write(handle, 0, b"other content")
    with fails(errno.ENODATA):
        fs.getxattr(ino, b"security.capability")
    fs.setxattr(ino, b"security.capability", b"y")  # while the file is open
    await fs.write(handle, 0, b"more")
    assert fs.listxattr(ino) == []


async def test_default_access_lists_are_inherited(fs):
    from qss.fs import acl

    none = 0xFFFFFFFF
    entries = [acl.Entry(1, 7, none), acl.Entry(2, 7, 5), acl.Entry(4, 5, none), acl.Entry(16, 7, none)]
    value = acl.encode([*entries, acl.Entry(32, 0, none)])
    fs.setxattr(ROOT_INO, acl.DEFAULT, value)
    folder = fs.mkdir(ROOT_INO, b"d", 0o755, ROOT).ino
    assert fs.getxattr(folder, acl.DEFAULT) == value
    file = fs.create(folder, b"f", 0o640, ROOT)
    assert stat.S_IMODE(file.mode) == 0o640
    assert acl.decode(fs.getxattr(file.ino, acl.ACCESS))[3] == acl.Entry(16, 4, none)
    with fails(errno.EACCES):
        fs.setxattr(file.ino, acl.DEFAULT, value)
    with fails(errno.EINVAL):
        fs.setxattr(file.ino, acl.ACCESS, b"junk")


async def test_state_of_a_file(fs):
    import json

    ino = await make(fs, b"f", b"x" * 5000)
    state = json.loads(fs.getxattr(ino, b"user.qss.state"))
    assert state == {"bytes": 5000, "stored": 5000, "cached": 5000, "offloaded": 0, "at_risk": 5000}
    assert sum(each["bytes"] for each in json.loads(fs.getxattr(ino, b"user.qss.locations"))) == 5000
    assert fs.listxattr(ino) == []


async def test_read_only(world):
    ino = await make(world.fs, b"f", b"x")
    fs = await world.reopen(read_only=True)
    assert await content(fs, ino) == b"x"
    with fails(errno.EROFS):
        fs.unlink(ROOT_INO, b"f")
    with fails(errno.EROFS):
        await fs.open(ino, os.O_RDWR)


async def test_bad_handles(fs):
    ino = await make(fs, b"f", b"x")
    reader, writer = await fs.open(ino, os.O_RDONLY), await fs.open(ino, os.O_WRONLY)
    with fails(errno.EBADF):
        await fs.write(reader, 0, b"y")
    with fails(errno.EBADF):
        await fs.read(writer, 0, 1)
    fs.release(reader)
    with fails(errno.EBADF):
        fs.release(reader)


async def test_rows_in_memory_stay_right_when_crowded_out(world, monkeypatch):
    monkeypatch.setattr("qss.fs.inodes.INODES_CACHED_MAX", 4)
    fs = world.fs
    folder = fs.mkdir(ROOT_INO, b"d", 0o755, ROOT).ino
    inos = [await make(fs, b"%d" % n, b"x" * n, folder) for n in range(20)]
    assert len(fs._inodes.rows) <= 5
    assert [fs.getattr(ino).size for ino in inos] == list(range(20))
    fresh = Inodes(world.cache, world.clock)
    for ino in [ROOT_INO, folder, *inos]:
        assert fresh.get(ino) == fs._inodes.get(ino)
    assert INODES_CACHED_MAX > 1000


async def test_lookups_are_counted(fs):
    ino = await make(fs, b"f")
    for _ in range(3):
        fs.remember(ino)
    fs.unlink(ROOT_INO, b"f")
    fs.forget(ino, 2)
    assert fs.getattr(ino).nlink == 0
    fs.forget(ino, 1)
    with fails(errno.ENOENT):
        fs.getattr(ino)


async def test_no_extent_lies_beyond_the_end(world, fs):
    ino = await make(fs, b"f", b"x" * 100)
    await fs.setattr(ino, SetAttributes(size=50))
    handle = await fs.open(ino, os.O_WRONLY)
    await fs.write(handle, 80, b"y")
    assert await content(fs, ino) == b"x" * 50 + bytes(30) + b"y"
    rows = list(world.cache.scan(Table.EXTENTS, pair_key(ino, 0), pair_key(ino + 1, 0)))
    assert len(rows) == 2


async def test_a_full_disk_ends_no_background_work_and_fails_no_read(world, fs, monkeypatch, autojump_clock):
    ino = await make(fs, b"f", b"x")
    other = await make(fs, b"g")
    handle = await fs.open(other, os.O_RDONLY)
    fs.unlink(ROOT_INO, b"g")
    monkeypatch.setattr("qss.fs.inodes.ATIMES_PENDING_MAX", 1)
    commit = world.cache.commit

    def full(change, **_):
        raise NoSpace("test")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fs.run)
        monkeypatch.setattr(world.cache, "commit", full)
        assert await content(fs, ino) == b"x"
        fs.release(handle)
        await trio.sleep(5)
        assert world.cache.count(Table.ORPHANS) == 1
        monkeypatch.setattr(world.cache, "commit", commit)
        await trio.sleep(5)
        assert world.cache.count(Table.ORPHANS) == 0
        nursery.cancel_scope.cancel()


async def test_reading_puts_nothing_at_risk(world) -> None:
    """An access time alone is not worth a seal, an upload and a root: it rides with the next change."""
    fs = world.fs
    made = fs.create(1, b"file", 0o644, User())
    handle = await fs.open(made.ino, os.O_RDWR)
    await fs.write(handle, 0, b"content")
    journal = await world.cache.cut()
    await fs.read(handle, 0, 7)
    fs.release(handle)
    read_at = fs.getattr(made.ino).atime_ns
    await world.reopen()  # writes the pending access times
    assert world.fs.getattr(made.ino).atime_ns == read_at
    assert read_at > made.atime_ns
    assert world.cache.facts().unsealed_bytes == 0
    assert await world.cache.cut() == journal, "nothing to seal"
    world.fs.mkdir(1, b"directory", 0o755, User())
    assert await world.cache.cut() > journal
