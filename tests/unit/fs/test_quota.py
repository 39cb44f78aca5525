import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import FsError
from qss.fs.attrs import SpaceFigures, User
from qss.fs.quota import Quota
from qss.ids import ROOT_INO

ROOT = User()


def refused() -> pytest.RaisesExc:
    return pytest.raises(FsError, check=lambda error: error.errno == errno.EDQUOT)


async def test_content_up_to_the_last_byte(world) -> None:
    fs = await world.reopen(quota=Quota(bytes_max=10_000))
    handle = await fs.open(fs.create(ROOT_INO, b"a", 0o644, ROOT).ino, os.O_RDWR)
    await fs.write(handle, 0, bytes(9_999))
    with refused():
        await fs.write(handle, 9_999, b"12")
    await fs.write(handle, 9_999, b"1")
    await fs.write(handle, 0, b"overwriting takes nothing" * 100)
    with refused():
        await fs.write(handle, 9_000, bytes(1_001))
    assert fs.getattr(fs.inode_of(handle)).size == 10_000
    fs.unlink(ROOT_INO, b"a")
    fs.release(handle)
    fs.collect()
    handle = await fs.open(fs.create(ROOT_INO, b"b", 0o644, ROOT).ino, os.O_RDWR)
    await fs.write(handle, 1 << 40, bytes(10_000))  # a hole counts nothing
    assert (await world.reopen(quota=Quota(bytes_max=10_000))).statfs().free_bytes == 0


async def test_inodes(world) -> None:
    fs = await world.reopen(quota=Quota(inodes_max=3))
    fs.create(ROOT_INO, b"a", 0o644, ROOT)
    fs.mkdir(ROOT_INO, b"b", 0o755, ROOT)
    assert fs.statfs().free_inodes == 0
    with refused():
        fs.symlink(ROOT_INO, b"c", b"target", ROOT)
    with refused():
        fs.mknod(ROOT_INO, b"c", 0o010644, 0, ROOT)
    fs.link(fs.lookup(ROOT_INO, b"a"), ROOT_INO, b"c")  # a name is no inode
    fs.rmdir(ROOT_INO, b"b")
    fs.create(ROOT_INO, b"d", 0o644, ROOT)


COUNTS = st.integers(0, 2**62)


@given(st.none() | COUNTS, st.none() | COUNTS, COUNTS, COUNTS, COUNTS)
def test_what_is_shown_is_what_is_allowed(bytes_max, inodes_max, used, free, used_inodes) -> None:
    quota = Quota(bytes_max, inodes_max)
    shown = quota.shown(SpaceFigures(used + free, free, free, used_inodes + 2**32, 2**32))
    assert shown.total_bytes - shown.free_bytes == used
    assert shown.inodes - shown.free_inodes == used_inodes
    assert 0 <= shown.available_bytes == shown.free_bytes <= free
    quota.check_bytes(used, shown.free_bytes)
    if shown.free_bytes < free:
        with refused():
            quota.check_bytes(used, shown.free_bytes + 1)
    if shown.free_inodes:
        quota.check_inode(used_inodes)
    else:
        with refused():
            quota.check_inode(used_inodes)


async def test_overwriting_after_a_truncate_counts_what_it_fills(world) -> None:
    fs = await world.reopen(quota=Quota(bytes_max=100))
    handle = await fs.open(fs.create(ROOT_INO, b"a", 0o644, ROOT).ino, os.O_RDWR)
    await fs.write(handle, 0, bytes(100))
    with refused():
        await fs.write(handle, 200, b"x")
    await fs.write(handle, 99, b"y")
