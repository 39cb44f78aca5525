"""Real programs on a real mount."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.harness.mounted import Mounted, run

pytestmark = pytest.mark.live

needs_fuse = pytest.mark.skipif(not os.access("/dev/fuse", os.W_OK), reason="no /dev/fuse here")


@pytest.fixture
def mounted(tmp_path):
    mount = Mounted(tmp_path)
    mount.start()
    yield mount
    mount.close()


@pytest.fixture
def mnt(mounted) -> Path:
    return mounted.path


@pytest.fixture(scope="session")
def tree(tmp_path_factory) -> Path:
    """A real tree with everything in it: some hundred modules, links, a fifo, odd times, holes, attributes."""
    root = tmp_path_factory.mktemp("tree") / "tree"
    shutil.copytree(Path(sysconfig.get_path("stdlib")) / "email", root / "email")
    shutil.copytree(Path(sysconfig.get_path("stdlib")) / "asyncio", root / "asyncio")
    (root / "link").symlink_to("email/parser.py")
    os.link(root / "email" / "parser.py", root / "hard")
    os.mkfifo(root / "fifo", 0o640)
    (root / "empty").touch()
    (root / "old").write_text("old")
    os.utime(root / "old", ns=(-5_000_000_001, -7_000_000_002))
    (root / "future").write_text("future")
    os.utime(root / "future", ns=(5_000_000_000_000_000_001, 5_000_000_000_000_000_002))
    (root / ("n" * 255)).write_text("long")
    os.chmod(root / "empty", 0o4755)
    with open(root / "sparse", "wb") as file:
        file.truncate(50_000_000)
        file.seek(20_000_000)
        file.write(b"middle")
    if os.geteuid() == 0:
        os.chown(root / "future", 100_000, 70_000)
    os.setxattr(root / "old", "user.note", b"some value")
    return root


def listing(root: Path) -> dict[str, tuple]:
    found = {}
    for folder, dirs, files in os.walk(root):
        for name in [*dirs, *files]:
            path = Path(folder, name)
            info = path.lstat()
            size = 0 if stat.S_ISDIR(info.st_mode) else info.st_size
            times = info.st_mtime_ns
            found[str(path.relative_to(root))] = (info.st_mode, info.st_nlink, info.st_uid, info.st_gid, size, times)
    return found


def test_cp_keeps_everything(mnt, tree):
    run("cp", "-a", tree, mnt / "copy")
    assert listing(mnt / "copy") == listing(tree)
    run("diff", "-r", "--no-dereference", "-x", "fifo", tree, mnt / "copy")
    assert os.getxattr(mnt / "copy" / "old", "user.note") == b"some value"
    assert (mnt / "copy" / "sparse").stat().st_blocks * 512 < 5_000_000


def test_rsync_the_second_time_transfers_nothing(mnt, tree):
    run("rsync", "-aHAXS", "--delete", f"{tree}/", mnt / "copy")
    again = run("rsync", "-aHAXS", "--delete", "--itemize-changes", f"{tree}/", mnt / "copy")
    assert again == ""
    assert run("rsync", "-aHAXSc", "--itemize-changes", f"{tree}/", mnt / "copy") == ""


def test_tar_round_trip(mnt, tree, tmp_path):
    run("tar", "--xattrs", "-C", tree.parent, "-cf", mnt / "t.tar", "tree")
    run("tar", "--xattrs", "-C", mnt, "-xf", mnt / "t.tar")
    assert listing(mnt / "tree") == listing(tree)
    run("rm", "-r", mnt / "tree")
    assert os.listdir(mnt) == ["t.tar"]


def test_git(mnt):
    repo = mnt / "repo"
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    run("git", "init", "-q", repo)
    for number in range(15):
        (repo / f"file{number % 4}").write_text(f"{number}\n" * 100)
        run("git", "add", ".", cwd=repo)
        run("git", "commit", "-q", "-m", str(number), cwd=repo, **who)
    run("git", "gc", "-q", "--aggressive", cwd=repo)
    run("git", "fsck", "--full", "--strict", cwd=repo)
    run("git", "clone", "-q", repo, mnt / "clone")
    assert run("git", "log", "--oneline", cwd=mnt / "clone").count("\n") == 15
    assert run("git", "status", "--porcelain", cwd=mnt / "clone") == ""


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_sqlite(mnt, mode):
    with contextlib.closing(sqlite3.connect(mnt / "db")) as db:
        assert db.execute(f"pragma journal_mode={mode}").fetchone() == (mode,)
        db.execute("create table t (a, b)")
        for number in range(20):
            with db:
                db.executemany("insert into t values (?, ?)", [(number, "x" * n) for n in range(50)])
        with contextlib.closing(sqlite3.connect(mnt / "db")) as other:
            assert other.execute("select count(*) from t").fetchone() == (1000,)
            assert other.execute("pragma integrity_check").fetchone() == ("ok",)


def test_compiler_and_mmap(mnt):
    (mnt / "a.c").write_text('#include <stdio.h>\nint main(void){puts("built");return 0;}\n')
    run("gcc", "-o", mnt / "a.out", mnt / "a.c")
    assert run(mnt / "a.out") == "built\n"


def test_fio_verifies(mnt):
    run(
        "fio", "--name=v", f"--directory={mnt}", "--rw=randrw", "--bs=4k", "--size=4m", "--verify=crc32c",
        "--ioengine=psync", "--end_fsync=1", "--numjobs=2", "--group_reporting", "--verify_state_save=0",
    )  # fmt: skip
    run(
        "fio", "--name=m", f"--directory={mnt}", "--rw=randwrite", "--bs=4k", "--size=4m", "--verify=crc32c",
        "--ioengine=mmap", "--verify_state_save=0",
    )  # fmt: skip


def test_replace_by_rename_as_editors_do(mnt):
    (mnt / "doc").write_text("one")
    (mnt / ".doc.new").write_text("two")
    os.replace(mnt / ".doc.new", mnt / "doc")
    assert (mnt / "doc").read_text() == "two"
    assert os.listdir(mnt) == ["doc"]


def test_what_fuse_cannot_do_fails_so_that_programs_fall_back(mnt):
    (mnt / "a").write_bytes(b"abc" * 1000)
    run("cp", "--reflink=auto", "--sparse=auto", mnt / "a", mnt / "b")
    with open(mnt / "c", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 100_000)
    assert (mnt / "c").stat().st_size == 100_000
    done = subprocess.run(["cp", "--reflink=always", mnt / "a", mnt / "d"], check=False, capture_output=True)
    assert done.returncode != 0
    shutil.copyfile(mnt / "a", mnt / "e")
    assert (mnt / "b").read_bytes() == (mnt / "e").read_bytes() == (mnt / "a").read_bytes()


def test_locks(mnt):
    import fcntl

    with open(mnt / "lock", "w") as one, open(mnt / "lock", "w") as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
