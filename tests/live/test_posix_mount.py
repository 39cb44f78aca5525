"""What POSIX asks, seen through the kernel; and each thing the predecessor got wrong."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
import struct
import tempfile
import threading
from pathlib import Path

import pytest

from tests.harness.mounted import Mounted, run

pytestmark = pytest.mark.live

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
libc = ctypes.CDLL(None, use_errno=True)


def renameat2(old: Path, new: Path, flags: int) -> None:
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@pytest.fixture(scope="module")
def mounted():
    with tempfile.TemporaryDirectory(prefix="qss-posix-") as folder:
        os.chmod(folder, 0o755)  # other users look into it
        mount = Mounted(Path(folder))
        mount.start()
        yield mount
        mount.close()


@pytest.fixture
def mnt(mounted, request) -> Path:
    folder = mounted.path / request.node.name.replace("/", "_")
    folder.mkdir()
    return folder


def fails(number: int):
    return pytest.raises(OSError, match=rf"\[Errno {number}\]")


# -- the predecessor's failures


def test_rmdir_of_a_full_directory_refuses(mnt):
    (mnt / "d").mkdir()
    for number in range(200):
        (mnt / "d" / str(number)).touch()
    with fails(errno.ENOTEMPTY):
        os.rmdir(mnt / "d")
    assert len(os.listdir(mnt / "d")) == 200


def test_shrink_and_grow_shows_zeros(mnt):
    (mnt / "f").write_bytes(b"SECRET" * 1000)
    os.truncate(mnt / "f", 10)
    os.truncate(mnt / "f", 6000)
    assert (mnt / "f").read_bytes() == b"SECRETSECR" + bytes(5990)


def test_an_unlinked_file_lives_until_closed(mnt):
    with open(mnt / "f", "w+b", buffering=0) as file:
        file.write(b"before")
        os.unlink(mnt / "f")
        file.write(b"after")
        file.seek(0)
        assert file.read() == b"beforeafter"
        assert os.fstat(file.fileno()).st_nlink == 0


def test_a_write_moves_mtime_and_ctime(mnt):
    (mnt / "f").write_bytes(b"x")
    os.utime(mnt / "f", ns=(1, 1))
    before = (mnt / "f").stat()
    with open(mnt / "f", "r+b") as file:
        file.write(b"y")
    after = (mnt / "f").stat()
    assert after.st_mtime_ns > before.st_mtime_ns
    assert after.st_ctime_ns > before.st_ctime_ns


def test_exchange_keeps_both(mnt):
    (mnt / "a").write_text("A")
    (mnt / "b").write_text("B")
    renameat2(mnt / "a", mnt / "b", EXCHANGE)
    assert ((mnt / "a").read_text(), (mnt / "b").read_text()) == ("B", "A")


def test_a_huge_truncate_is_nothing(mnt):
    with open(mnt / "f", "wb") as file:
        file.truncate(10**15)
    assert (mnt / "f").stat().st_size == 10**15
    assert (mnt / "f").stat().st_blocks == 0
    with open(mnt / "f", "r+b") as file:
        file.truncate(2**63 - 1)
        file.seek(10**15)
        file.write(b"far")
        file.seek(10**15 - 1)
        assert file.read(5) == b"\0far\0"
    os.unlink(mnt / "f")


def test_owners_and_dates_beyond_16_and_32_bits(mnt):
    (mnt / "f").touch()
    os.chown(mnt / "f", 100_000, 4_000_000_000)
    for moment in (7_258_118_400_123_456_789, -62_135_596_800 * 10**9 + 1, -1):
        os.utime(mnt / "f", ns=(moment, moment))
        info = (mnt / "f").stat()
        assert (info.st_atime_ns, info.st_mtime_ns) == (moment, moment)
    assert (info.st_uid, info.st_gid) == (100_000, 4_000_000_000)


def test_directories_count_links(mnt):
    for name in "abc":
        (mnt / name).mkdir()
    (mnt / "f").touch()
    assert mnt.stat().st_nlink == 5
    os.rename(mnt / "a", mnt / "b" / "a")
    assert (mnt.stat().st_nlink, (mnt / "b").stat().st_nlink) == (4, 3)
    os.rmdir(mnt / "c")
    assert mnt.stat().st_nlink == 3


def test_nothing_is_missed_while_others_are_deleted(mnt):
    names = {f"f{number:04d}" for number in range(3000)}
    for name in names:
        (mnt / name).touch()
    seen = set()
    with os.scandir(mnt) as entries:
        for at, entry in enumerate(entries):
            assert entry.name not in seen
            seen.add(entry.name)
            if at % 2:
                os.unlink(mnt / entry.name)
    assert seen == names


# -- names


def test_rename_flags(mnt):
    (mnt / "a").write_text("A")
    (mnt / "b").write_text("B")
    with fails(errno.EEXIST):
        renameat2(mnt / "a", mnt / "b", NOREPLACE)
    with fails(errno.ENOENT):
        renameat2(mnt / "a", mnt / "none", EXCHANGE)
    with fails(errno.EINVAL):
        renameat2(mnt / "a", mnt / "none", WHITEOUT)
    renameat2(mnt / "a", mnt / "c", NOREPLACE)
    assert sorted(os.listdir(mnt)) == ["b", "c"]


def test_rename_of_directories(mnt):
    (mnt / "a" / "b").mkdir(parents=True)
    (mnt / "full" / "x").mkdir(parents=True)
    (mnt / "empty").mkdir()
    (mnt / "f").touch()
    with fails(errno.EINVAL):
        os.rename(mnt / "a", mnt / "a" / "b" / "c")
    with fails(errno.ENOTEMPTY):
        os.rename(mnt / "a", mnt / "full")
    with fails(errno.ENOTDIR):
        os.rename(mnt / "a", mnt / "f")
    with fails(errno.EISDIR):
        os.rename(mnt / "f", mnt / "empty")
    os.rename(mnt / "a", mnt / "empty")
    os.rename(mnt / "empty" / "b", mnt / "full" / "b")
    fd = os.open(mnt / "full" / "b", os.O_RDONLY)
    try:
        assert os.stat("..", dir_fd=fd).st_ino == (mnt / "full").stat().st_ino
    finally:
        os.close(fd)
    renameat2(mnt / "full", mnt / "f", EXCHANGE)
    assert (mnt / "f" / "b").is_dir()
    assert (mnt / "full").is_file()


def test_limits_of_names(mnt):
    (mnt / ("é" * 127 + "x")).touch()
    with fails(errno.ENAMETOOLONG):
        (mnt / ("x" * 256)).touch()
    with fails(errno.ENAMETOOLONG):
        (mnt / ("x" * 256)).stat()
    os.symlink("t" * 4095, mnt / "l")
    assert os.readlink(mnt / "l") == "t" * 4095
    odd = bytes(b for b in range(1, 256) if b != ord("/"))
    os.mkdir(os.fsencode(mnt) + b"/" + odd)
    assert odd in os.listdir(os.fsencode(mnt))
    assert os.statvfs(mnt).f_namemax == 255


def test_special_files(mnt):
    os.mkfifo(mnt / "fifo", 0o600)
    assert stat.S_ISFIFO((mnt / "fifo").stat().st_mode)
    os.mknod(mnt / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    assert (mnt / "null").stat().st_rdev == os.makedev(1, 3)
    (mnt / "null").write_bytes(b"gone")
    assert (mnt / "null").read_bytes() == b""


def test_links(mnt):
    (mnt / "a").write_text("x")
    os.link(mnt / "a", mnt / "b")
    assert (mnt / "a").stat().st_nlink == 2
    os.unlink(mnt / "a")
    assert ((mnt / "b").read_text(), (mnt / "b").stat().st_nlink) == ("x", 1)
    with fails(errno.EPERM):
        os.link(mnt, mnt / "dir")


def test_a_deleted_current_directory(mnt):
    (mnt / "d").mkdir()
    fd = os.open(mnt / "d", os.O_RDONLY)
    try:
        os.rmdir(mnt / "d")
        assert os.fstat(fd).st_nlink == 0
        assert os.listdir(fd) == []
        with fails(errno.ENOENT):
            os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    finally:
        os.close(fd)


# -- contents


def test_appenders_do_not_overwrite_each_other(mnt):
    def append(mark: bytes) -> None:
        with open(mnt / "f", "ab", buffering=0) as file:
            for _ in range(200):
                file.write(mark * 10)

    threads = [threading.Thread(target=append, args=(mark,)) for mark in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = (mnt / "f").read_bytes()
    assert len(content) == 4000
    assert all(content[at : at + 10] in {b"a" * 10, b"b" * 10} for at in range(0, 4000, 10))


def test_opening_with_o_trunc_and_o_excl(mnt):
    (mnt / "f").write_bytes(b"long content")
    os.close(os.open(mnt / "f", os.O_WRONLY | os.O_TRUNC))
    assert (mnt / "f").read_bytes() == b""
    with fails(errno.EEXIST):
        os.open(mnt / "f", os.O_CREAT | os.O_EXCL | os.O_WRONLY)


def test_privileges_go_with_an_owner_or_a_write(mnt):
    (mnt / "f").write_bytes(b"x")
    os.chmod(mnt / "f", 0o6755)
    os.chown(mnt / "f", 1000, 1000)
    assert stat.S_IMODE((mnt / "f").stat().st_mode) == 0o755
    os.chmod(mnt / "f", 0o6777)
    mnt.chmod(0o777)
    run("setpriv", "--reuid=2000", "--regid=2000", "--clear-groups", "sh", "-c", f"echo y >> '{mnt}/f'")
    assert stat.S_IMODE((mnt / "f").stat().st_mode) == 0o777


def test_set_group_id_directories_pass_their_group_on(mnt):
    os.chown(mnt, 0, 555)
    mnt.chmod(0o2775)
    (mnt / "d").mkdir()
    (mnt / "f").touch()
    assert (mnt / "d").stat().st_gid == (mnt / "f").stat().st_gid == 555
    assert (mnt / "d").stat().st_mode & stat.S_ISGID


def test_atime_is_relative(mnt):
    (mnt / "f").write_bytes(b"x")
    os.utime(mnt / "f", ns=(1, 2))
    Path("/proc/sys/vm/drop_caches").write_text("1")
    (mnt / "f").read_bytes()
    moved = (mnt / "f").stat().st_atime_ns
    assert moved > 2
    Path("/proc/sys/vm/drop_caches").write_text("1")
    (mnt / "f").read_bytes()
    assert (mnt / "f").stat().st_atime_ns == moved


# -- attributes


def test_xattrs(mnt):
    (mnt / "f").touch()
    os.setxattr(mnt / "f", "user.a", b"1", os.XATTR_CREATE)
    with fails(errno.EEXIST):
        os.setxattr(mnt / "f", "user.a", b"2", os.XATTR_CREATE)
    with fails(errno.ENODATA):
        os.setxattr(mnt / "f", "user.b", b"2", os.XATTR_REPLACE)
    with fails(errno.ENODATA):
        os.getxattr(mnt / "f", "user.none")
    os.setxattr(mnt / "f", "trusted.t", b"x" * 60_000)
    assert sorted(os.listxattr(mnt / "f")) == ["trusted.t", "user.a"]
    os.removexattr(mnt / "f", "user.a")
    with fails(errno.ENODATA):
        os.removexattr(mnt / "f", "user.a")
    assert b'"at_risk"' in os.getxattr(mnt / "f", "user.qss.state")
    with fails(errno.EPERM):
        os.setxattr(mnt / "f", "user.qss.state", b"no")


def test_capabilities(mnt):
    (mnt / "f").write_bytes(b"x")
    value = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    os.setxattr(mnt / "f", "security.capability", value)
    assert os.getxattr(mnt / "f", "security.capability") == value
    with open(mnt / "f", "ab") as file:
        file.write(b"y")
    with fails(errno.ENODATA):
        os.getxattr(mnt / "f", "security.capability")
    with open(mnt / "new", "wb", buffering=0) as file:  # past the kernel's memory: the kernel does not look
        file.write(b"x")
        os.setxattr(mnt / "new", "security.capability", value)
        file.write(b"y")
        with fails(errno.ENODATA):
            os.getxattr(mnt / "new", "security.capability")


def test_readers_see_at_once_what_a_writer_of_a_new_file_writes(mnt):
    with open(mnt / "f", "wb", buffering=0) as writer, open(mnt / "f", "rb", buffering=0) as reader:
        written = bytearray()
        for number, length in enumerate((1, 4095, 10_240, 2048, 3, 1_048_576, 100_001)):
            part = bytes([number + 1]) * length
            assert writer.write(part) == length
            written += part
            assert os.fstat(reader.fileno()).st_size == len(written)
            assert os.pread(reader.fileno(), len(written) + 1, 0) == written  # and is in the kernel's memory now
        with mmap.mmap(reader.fileno(), 0, prot=mmap.PROT_READ) as view:
            assert view[:] == written
            for start in (0, 4095, 5000, 1_050_000):
                os.pwrite(writer.fileno(), b"changed", start)
                written[start : start + 7] = b"changed"
                assert view[start : start + 7] == b"changed"
            assert view[:] == written
        os.truncate(mnt / "f", 5000)
        os.pwrite(writer.fileno(), b"end", 9000)
        assert (mnt / "f").read_bytes() == bytes(written[:5000]) + bytes(4000) + b"end"


def test_access_lists(mnt):
    (mnt / "f").write_text("secret")
    (mnt / "f").chmod(0o640)
    entries = [(1, 6, -1), (2, 4, 3000), (4, 4, -1), (16, 6, -1), (32, 0, -1)]
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    os.setxattr(mnt / "f", "system.posix_acl_access", value)
    assert stat.S_IMODE((mnt / "f").stat().st_mode) == 0o660
    for user, allowed in ((3000, True), (3001, False)):
        command = ["setpriv", f"--reuid={user}", "--regid=9999", "--clear-groups", "test", "-r", str(mnt / "f")]
        assert (os.spawnvp(os.P_WAIT, command[0], command) == 0) is allowed
    (mnt / "f").chmod(0o600)
    mask = os.getxattr(mnt / "f", "system.posix_acl_access")[4 + 3 * 8 : 4 + 4 * 8]
    assert struct.unpack("<HHi", mask) == (16, 0, -1)
    os.setxattr(mnt, "system.posix_acl_default", value)
    (mnt / "g").touch()
    assert "system.posix_acl_access" in os.listxattr(mnt / "g")


def test_permissions_and_sticky_are_the_kernels(mnt):
    mnt.chmod(0o1777)
    (mnt / "f").write_text("x")
    user = ["setpriv", "--reuid=3000", "--regid=3000", "--clear-groups"]
    assert os.spawnvp(os.P_WAIT, user[0], [*user, "rm", "-f", str(mnt / "f")]) != 0
    assert (mnt / "f").exists()


def test_statfs_tells_the_truth(mnt):
    before = os.statvfs(mnt)
    (mnt / "f").write_bytes(os.urandom(8 << 20))
    after = os.statvfs(mnt)
    used = (after.f_blocks - after.f_bfree) - (before.f_blocks - before.f_bfree)
    assert 8 << 20 <= used * after.f_frsize <= 9 << 20
    assert after.f_files - after.f_ffree == before.f_files - before.f_ffree + 1
