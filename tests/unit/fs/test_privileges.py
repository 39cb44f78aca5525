"""Who loses setuid and setgid when, whose umask counts, and what only reading moves."""

from __future__ import annotations

import os
import stat

import pytest

from qss.fs import acl
from qss.fs.attrs import SetAttributes, User
from qss.ids import ROOT_INO

ROOT = User()


@pytest.mark.parametrize(("unprivileged", "left"), [(True, 0o777), (False, 0o6777)])
async def test_a_write_takes_them_from_whoever_is_not_root(fs, unprivileged, left):
    ino = fs.create(ROOT_INO, b"f", 0o6777, ROOT).ino
    handle = await fs.open(ino, os.O_RDWR, unprivileged=unprivileged)
    await fs.write(handle, 0, b"x")
    assert stat.S_IMODE(fs.getattr(ino).mode) == left
    assert fs.stale == ({ino} if unprivileged else set())


@pytest.mark.parametrize("unprivileged", [True, False])
async def test_truncation_too(fs, unprivileged):
    ino = fs.create(ROOT_INO, b"f", 0o4755, ROOT).ino
    await fs.setattr(ino, SetAttributes(size=5, unprivileged=unprivileged))
    assert bool(fs.getattr(ino).mode & stat.S_ISUID) is not unprivileged
    await fs.setattr(ino, SetAttributes(mode=0o4755))
    fs.release(await fs.open(ino, os.O_WRONLY | os.O_TRUNC, unprivileged=unprivileged))
    assert bool(fs.getattr(ino).mode & stat.S_ISUID) is not unprivileged


async def test_the_umask_counts_unless_there_is_a_default_list(fs):
    caller = User(umask=0o077)
    assert stat.S_IMODE(fs.create(ROOT_INO, b"f", 0o666, caller).mode) == 0o600
    assert stat.S_IMODE(fs.symlink(ROOT_INO, b"l", b"x", caller).mode) == 0o777
    folder = fs.mkdir(ROOT_INO, b"d", 0o755, ROOT).ino
    everything = [acl.Entry(tag, 7, 0xFFFFFFFF) for tag in (acl.USER_OBJ, acl.GROUP_OBJ, acl.OTHER)]
    fs.setxattr(folder, acl.DEFAULT, acl.encode(everything))
    assert stat.S_IMODE(fs.create(folder, b"f", 0o666, caller).mode) == 0o666


async def test_listing_and_following_move_access_times_once(fs):
    folder = fs.mkdir(ROOT_INO, b"d", 0o755, ROOT).ino
    link = fs.symlink(folder, b"l", b"x", ROOT).ino
    for ino, read in ((folder, lambda: list(fs.readdir(folder))), (link, lambda: fs.readlink(link))):
        before = fs.getattr(ino).atime_ns
        read()
        moved = fs.getattr(ino).atime_ns
        assert moved > before
        read()
        assert fs.getattr(ino).atime_ns == moved
