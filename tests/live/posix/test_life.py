"""From mount to umount as users do it: without privileges, through /etc/fstab, after a crash, in use, read-only."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qss.app.running import is_locked
from tests.harness.demo import wait_until
from tests.harness.mounted import ROOT, run
from tests.harness.whole import QSSCTL, WAIT_S, Whole, whole

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not os.access("/dev/fuse", os.W_OK) or os.geteuid() != 0, reason="needs /dev/fuse and root"),
]


@pytest.fixture(scope="module")
def owned() -> Iterator[Whole]:
    with whole() as made:
        yield made


@pytest.fixture(scope="module")
def unprivileged() -> Iterator[Whole]:
    with whole("nobody") as made:
        yield made


@pytest.fixture
def fs(owned: Whole) -> Iterator[Whole]:
    yield owned
    owned.close()
    gone(owned)


def gone(fs: Whole) -> None:
    """It lets go of the state directory last."""
    wait_until("the process has ended", lambda: not is_locked(fs.folder / "state"))


def test_a_user_without_privileges(unprivileged: Whole) -> None:
    fs = unprivileged
    fs.qssctl("mount")
    assert "allow_other" not in fs.mount_options()
    assert {"nosuid", "nodev", f"user_id={fs.user.pw_uid}"} <= fs.mount_options()
    assert fs.run("stat", "-c", "%U %a", fs.mnt).stdout == "nobody 755\n"
    fs.run("sh", "-c", f"echo kept > {fs.mnt}/file && mkdir {fs.mnt}/dir && sync {fs.mnt}/file")
    fs.run("fusermount3", "-u", fs.mnt)
    gone(fs)
    fs.qssctl("mount")
    os.kill(fs.pid, signal.SIGKILL)
    gone(fs)
    wait_until("the mount is dead", lambda: fs.run("ls", fs.mnt, check=False).returncode)
    fs.qssctl("mount")  # clears what is left there, through fusermount3
    assert fs.run("cat", fs.mnt / "file").stdout == "kept\n"
    assert "everything is safe" in fs.qssctl("umount", "--drain", "60s").stdout


def test_a_line_of_fstab(fs: Whole) -> None:
    # mount(8) looks for helpers in /sbin and nowhere else: in this name space that holds ours alone.
    helpers = fs.folder / "sbin"
    helpers.mkdir()
    (helpers / "mount.qss").symlink_to(QSSCTL.parent / "mount.qss")
    table = fs.folder / "fstab"
    table.write_text(f"{fs.config}  {fs.mnt}  qss  _netdev,nofail,noatime,x-systemd.automount,nosuid  0 0\n")
    fs.run("mount", "--bind", helpers, "/usr/sbin")
    try:
        fs.run("mount", "-T", table, fs.mnt)
        assert {"rw", "noatime", "nosuid"} <= fs.mount_options()
        fs.run("touch", fs.mnt / "made")
        fs.run("umount", "-i", fs.mnt)
        gone(fs)
        fs.run("mount", "-T", table, "-o", "ro", fs.mnt)
        assert "ro" in fs.mount_options()
        fs.run("umount", "-i", fs.mnt)
        gone(fs)
        refused = fs.run("mount", "-t", "qss", "-o", "max_read=4096", fs.config, fs.mnt, check=False)
        assert (refused.returncode, "max_read is set by libfuse" in refused.stderr) == (3, True)
    finally:
        fs.run("umount", "-i", "/usr/sbin")


def test_in_use_it_stays_and_lazily_it_goes(fs: Whole) -> None:
    fs.qssctl("mount")
    held = subprocess.Popen(
        [*fs.enter, "sh", "-c", f"exec 3> {fs.mnt}/held; echo open; read line; echo late >&3"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert held.stdout is not None
    assert held.stdout.readline() == "open\n"
    busy = fs.qssctl("umount", check=False)
    assert (busy.returncode, "is in use" in busy.stderr) == (3, True)
    assert fs.run("ls", fs.mnt).stdout.split().count("held") == 1
    fs.qssctl("umount", "--lazy")
    assert not fs.is_mounted()
    _, said = held.communicate("go\n", timeout=WAIT_S)
    assert (held.returncode, "echo" in said) == (1, True)  # an error, and no hanging


def test_a_read_only_mount_waits_for_nothing(fs: Whole) -> None:
    """What an earlier mount left at risk, with no location in reach, holds up the end of a read-only one by no hour."""
    fs.trove.kill()
    fs.qssctl("mount", "-o", "drain=1s")
    fs.run("sh", "-c", f"echo risky > {fs.mnt}/risky")
    assert "only on this machine" in fs.qssctl("umount", "--drain", "1s").stderr
    fs.qssctl("mount", "-o", "ro,drain=1h")
    assert fs.run("cat", fs.mnt / "risky").stdout == "risky\n"
    assert fs.run("touch", fs.mnt / "new", check=False).returncode == 1
    fs.run("umount", "-i", fs.mnt)
    gone(fs)  # within the bound of the wait
    fs.trove.start()


def test_sigterm_says_what_is_at_risk(fs: Whole) -> None:
    fs.trove.kill()
    fs.qssctl("mount", "-o", "drain=1s")
    fs.run("sh", "-c", f"echo risky > {fs.mnt}/risk")
    os.kill(fs.pid, signal.SIGTERM)
    gone(fs)
    assert not fs.is_mounted()
    log = (fs.folder / "state" / "log" / "qss.log").read_text().splitlines()
    assert [line for line in log if "bytes are only on this machine" in line][-1:] != []
    fs.trove.start()
    fs.qssctl("mount")
    assert fs.run("cat", fs.mnt / "risk").stdout == "risky\n"
    assert "everything is safe" in fs.qssctl("umount", "--drain", "60s").stdout


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_the_unit_of_systemd(tmp_path: Path) -> None:
    unit = tmp_path / "qss@.service"
    text = (ROOT / "docs" / "systemd" / unit.name).read_text()
    unit.write_text(text.replace("/usr/local/bin/qssctl", str(QSSCTL)))
    assert str(QSSCTL) in unit.read_text()
    run("systemd-analyze", "verify", "--man=no", tmp_path / "qss@home.service")
