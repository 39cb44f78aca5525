"""Mount options through the kernel."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.harness.mounted import Mounted

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not os.access("/dev/fuse", os.W_OK), reason="no /dev/fuse here"),
]


MIB_OF_TEXT = b"x" * (1 << 20)  # not zeros: from memory never touched the kernel makes one request a page


@pytest.fixture
def mounted(tmp_path):
    mount = Mounted(tmp_path)
    yield mount
    mount.close()


def kernel_options(path: Path) -> set[str]:
    (line,) = [line for line in Path("/proc/mounts").read_text().splitlines() if line.split()[1] == str(path)]
    return set(line.split()[3].split(","))


def test_what_the_kernel_is_told(mounted):
    mounted.start("-o", "ro,noatime,nosuid,nodev,noexec,noallow_other")
    seen = kernel_options(mounted.path)
    assert {"ro", "noatime", "nosuid", "nodev", "noexec"} <= seen
    assert "allow_other" not in seen
    with pytest.raises(OSError, check=lambda error: error.errno == errno.EROFS):
        (mounted.path / "file").touch()


def test_owners_as_shown(mounted):
    mounted.start("-o", "uid=1234,gid=55")
    file = mounted.path / "file"
    file.touch()
    for row in (file.stat(), mounted.path.stat(), next(os.scandir(mounted.path)).stat()):
        assert (row.st_uid, row.st_gid) == (1234, 55)
    os.chown(file, 7, 8)
    assert file.stat().st_uid == 1234
    mounted.stop()
    mounted.start()
    assert (file.stat().st_uid, file.stat().st_gid) == (7, 8)


def test_noatime(mounted):
    mounted.start("-o", "noatime")
    file = mounted.path / "file"
    file.write_text("text")
    os.utime(file, ns=(1, 2))
    file.read_text()
    mounted.stop()
    mounted.start()
    assert file.stat().st_atime_ns == 1


def test_quotas(mounted):
    mounted.start("-o", "quota_bytes=1M,quota_inodes=10")
    with pytest.raises(OSError, check=lambda error: error.errno == errno.EDQUOT):
        (mounted.path / "big").write_bytes(MIB_OF_TEXT + b"x")
    (mounted.path / "big").write_bytes(MIB_OF_TEXT)
    figures = os.statvfs(mounted.path)
    assert (figures.f_blocks * figures.f_frsize, figures.f_bavail) == (1 << 20, 0)
    assert (figures.f_files, figures.f_ffree) == (10, 8)
    for number in range(8):
        (mounted.path / str(number)).touch()
    with pytest.raises(OSError, check=lambda error: error.errno == errno.EDQUOT):
        (mounted.path / "one more").touch()
    (mounted.path / "big").unlink()
    (mounted.path / "one more").write_bytes(b"now there is room")
