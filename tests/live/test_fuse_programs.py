"""Real programs on a real mount: what they make there is what they make on a native file system."""

from __future__ import annotations

import fcntl
import hashlib
import json
import mmap
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.harness.mounted import run

pytestmark = pytest.mark.live

MIB = 1 << 20
STDLIB = Path(sysconfig.get_path("stdlib"))
EVERYTHING = "-aHAXS"  # rsync: archive, hard links, ACLs, attributes, holes


@pytest.fixture(scope="session")
def tree(tmp_path_factory) -> Path:
    """A real tree with everything in it: hundreds of modules, every type of file, links, odd times, holes, attributes,
    access lists. Made on the native file system."""
    root = tmp_path_factory.mktemp("tree") / "tree"
    for package in ("email", "asyncio"):
        shutil.copytree(STDLIB / package, root / package)
    (root / "link").symlink_to("email/parser.py")
    (root / "dangling").symlink_to("/nowhere/" + "t" * 200)
    os.link(root / "email" / "parser.py", root / "hard")
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "character", 0o620 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(root / "block", 0o660 | stat.S_IFBLK, os.makedev(7, 200))
    os.mknod(root / "socket", 0o755 | stat.S_IFSOCK)
    os.link(root / "dangling", root / "dangling too", follow_symlinks=False)
    for name, times in (("old", (-5_000_000_001, -7_000_000_002)), ("future", (5 * 10**18 + 1, 5 * 10**18 + 2))):
        (root / name).write_text(name)
        os.utime(root / name, ns=times)
    (root / ("n" * 255)).write_text("long")
    os.mkdir(os.fsencode(root) + b"/not\xffutf-8\n")
    with open(root / "sparse", "wb") as file:
        file.truncate(50_000_000)
        file.seek(20_000_000)
        file.write(b"middle")
    (root / "empty").touch()
    os.chown(root / "future", 100_000, 70_000)
    os.chmod(root / "empty", 0o6755)
    (root / "email").chmod(0o1777)
    os.setxattr(root / "old", "user.note", b"some \0 value")
    os.setxattr(root / "email", "trusted.large", b"x" * 2_000)
    os.setxattr(root / "empty", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0))
    run("setfacl", "-m", "u:3000:rw,g:4000:r,m::rw", root / "old")
    run("setfacl", "-m", "d:u:3000:rwx,d:o::-", root / "asyncio")
    # Long ago: what is made anew in the same second passes with rsync for the same time.
    for at, path in enumerate([*root.rglob("*"), root]):
        if path.name not in {"old", "future"}:
            os.utime(path, ns=(10**18 + 3, 10**18 + at), follow_symlinks=False)
    return root


def facts(root: Path, *without: str) -> dict[str, tuple]:
    """Everything of every path that a copy has to keep."""
    found = {}
    first: dict[int, str] = {}
    for folder, dirs, files in os.walk(root):
        for path in (Path(folder, name) for name in [*dirs, *files]):
            name = str(path.relative_to(root))
            if name in without:
                continue
            info = path.lstat()
            content: object = None
            if path.is_symlink():
                content = os.readlink(path)
            elif path.is_file():
                content = (info.st_size, hashlib.blake2b(path.read_bytes()).hexdigest())
            attributes = {key: os.getxattr(path, key, follow_symlinks=False) for key in listed(path)}
            kept = (info.st_mode, info.st_nlink, info.st_uid, info.st_gid, info.st_rdev, info.st_mtime_ns)
            found[name] = (*kept, first.setdefault(info.st_ino, name), attributes, content)
    return found


def listed(path: Path) -> list[str]:
    return sorted(os.listxattr(path, follow_symlinks=False))


def assert_same(copy: Path, original: Path, *without: str) -> None:
    expected, found = facts(original, *without), facts(copy, *without)
    assert found.keys() == expected.keys()
    assert {name: (each, expected[name]) for name, each in found.items() if each != expected[name]} == {}
    assert stored_bytes(copy / "sparse") < MIB


def stored_bytes(path: Path) -> int:
    return path.stat().st_blocks * 512


# -- copying


def test_cp_keeps_everything(mnt, tree, tmp_path):
    run("cp", "-a", tree, mnt / "copy")
    assert_same(mnt / "copy", tree)
    run("cp", "-a", mnt / "copy", mnt / "again")
    run("cp", "-a", "--sparse=always", mnt / "again", tmp_path / "back")
    assert_same(tmp_path / "back", tree)


def test_cp_makes_and_fills_holes(mnt, tree):
    for how, least, most in (("always", 0, MIB), ("auto", 0, MIB), ("never", 50_000_000, 50_000_000 + MIB)):
        run("cp", "-a", f"--sparse={how}", tree / "sparse", mnt / how)
        assert least <= stored_bytes(mnt / how) < most
    run("cp", "--sparse=always", mnt / "never", mnt / "holes again")
    assert stored_bytes(mnt / "holes again") < MIB
    for name in ("always", "auto", "never", "holes again"):
        run("cmp", tree / "sparse", mnt / name)


def test_rsync_the_second_time_transfers_nothing(mnt, tree, tmp_path):
    shutil.copytree(tree / "asyncio", tmp_path / "source" / "asyncio")
    run("rsync", EVERYTHING, f"{tree}/", tmp_path / "source")
    copy = ("rsync", EVERYTHING, "--delete", "--itemize-changes", "--stats", f"{tmp_path}/source/", mnt / "copy")
    run(*copy)
    assert_same(mnt / "copy", tree)
    for again in (run(*copy), run(*copy, "--checksum")):
        assert again.splitlines()[0] == "", again  # no item before the figures
        for figure in ("created files", "deleted files", "regular files transferred"):
            assert f"Number of {figure}: 0\n" in again
        assert "Total transferred file size: 0 bytes" in again

    (tmp_path / "source" / "future").unlink()
    (mnt / "copy" / "stray").mkdir()
    (mnt / "copy" / "stray" / "file").touch()
    (tmp_path / "source" / "old").write_text("new")
    items = run(*copy).split("\n\n")[0].splitlines()
    assert {item.split(maxsplit=1)[1] for item in items} - {"./"} == {"future", "stray/", "stray/file", "old"}
    assert run("rsync", EVERYTHING, "--delete", "--itemize-changes", f"{mnt}/copy/", tmp_path / "source") == ""


def test_tar_round_trip_of_all_types(mnt, tree, tmp_path):
    """But sockets, which no archive holds; see cp for those."""
    tar = ("tar", "--xattrs", "--xattrs-include=*", "--acls", "--sparse", "--numeric-owner", "--format=posix")
    run(*tar, "--exclude=tree/socket", "-C", tree.parent, "-cf", mnt / "t.tar", "tree")
    run(*tar, "-C", mnt, "-xpf", mnt / "t.tar")
    assert_same(mnt / "tree", tree, "socket")
    run(*tar, "-C", mnt, "-cf", tmp_path / "back.tar", "tree")
    run(*tar, "-C", tmp_path, "-xpf", tmp_path / "back.tar")
    assert_same(tmp_path / "tree", tree, "socket")
    run("tar", "-C", mnt, "--compare", "-f", tmp_path / "back.tar")
    run("rm", "-r", mnt / "tree")
    assert os.listdir(mnt) == ["t.tar"]


@pytest.mark.skipif(not shutil.which("restic"), reason="no restic")
def test_restic_restores_everything_and_sees_no_change_after_a_remount(mounted, tree, tmp_path):
    mnt = mounted.path
    run("cp", "-a", tree, mnt / "tree")
    known = {"RESTIC_PASSWORD": "x", "RESTIC_REPOSITORY": str(tmp_path / "repo"), "XDG_CACHE_HOME": str(tmp_path)}
    run("restic", "init", **known)

    def backup() -> dict[str, int]:
        said = run("restic", "backup", "--json", mnt / "tree", **known)
        return json.loads(said.splitlines()[-1])

    assert backup()["files_new"] > 100
    assert mounted.stop() == 0
    mounted.start()
    again = backup()
    assert (again["files_new"], again["files_changed"], again["data_blobs"]) == (0, 0, 0)
    run("restic", "check", "--read-data", **known)
    run("restic", "restore", "latest", "--target", mnt / "restored", **known)
    run("cp", "-a", "--sparse=always", mnt / "restored" / mnt.relative_to("/") / "tree", mnt / "found")
    assert_same(mnt / "found", tree, "socket", "dangling", "dangling too")  # no sockets, no hard links of links


@pytest.mark.skipif(not shutil.which("rclone"), reason="no rclone")
def test_rclone_sync_the_second_time_transfers_nothing(mnt, tmp_path):
    shutil.copytree(STDLIB / "email", tmp_path / "source")
    source, copy, log = tmp_path / "source", mnt / "copy", tmp_path / "log"
    rclone = ("rclone", "--config", tmp_path / "none")

    def sync(origin: Path, target: Path) -> tuple[int, int]:
        """Files transferred, files deleted."""
        log.unlink(missing_ok=True)
        run(*rclone, "--log-file", log, "--use-json-log", "-v", "sync", origin, target)
        figures = json.loads(log.read_text().splitlines()[-1])["stats"]
        return figures["transfers"], figures["deletes"]

    assert sync(source, copy) == (sum(path.is_file() for path in source.rglob("*")), 0)
    run(*rclone, "check", "--download", source, copy)
    (copy / "stray").write_text("stray")
    (source / "new").write_text("new")
    assert sync(source, copy) == (1, 1)
    assert sync(source, copy) == (0, 0)
    assert sync(copy, source) == (0, 0)


def test_fifo_and_socket_work(mnt):
    os.mkfifo(mnt / "fifo")
    with subprocess.Popen(["cat", mnt / "fifo"], stdout=subprocess.PIPE) as reader:
        (mnt / "fifo").write_bytes(b"through the fifo")
        assert reader.stdout is not None
        assert reader.stdout.read() == b"through the fifo"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(mnt / "socket"))
        server.listen()
        client.connect(str(mnt / "socket"))
        client.sendall(b"through the socket")
        assert server.accept()[0].recv(100) == b"through the socket"


def test_unzip(mnt):
    archive = shutil.make_archive(str(mnt / "json"), "zip", STDLIB / "json")
    run("unzip", "-q", archive, "-d", mnt / "out")
    run("diff", "-r", STDLIB / "json", mnt / "out")
    run("unzip", "-tq", archive)


def test_dd_with_fsync_survives_kill_9(mounted):
    mnt = mounted.path
    source = mounted.state.parent / "source"
    source.write_bytes(os.urandom(8 * MIB + 123))
    run("dd", f"if={source}", f"of={mnt}/a", "bs=64k", "conv=fsync", "status=none")
    run("dd", f"if={source}", f"of={mnt}/b", "bs=1000k", "oflag=dsync", "status=none")
    run("dd", f"if={source}", f"of={mnt}/c", "bs=1M", "count=8", "oflag=direct", "conv=fdatasync", "status=none")
    run("dd", f"if={source}", f"of={mnt}/d", "bs=4k", "seek=5", "skip=5", "conv=fsync,sparse", "status=none")
    run("dd", f"if={source}", f"of={mnt}/d", "bs=4k", "count=5", "conv=notrunc,fsync", "status=none")
    mounted.kill()
    mounted.start()
    for name in "abd":
        run("cmp", source, mnt / name)
    run("cmp", "-n", str(8 * MIB), source, mnt / "c")
    run("dd", f"if={mnt}/c", f"of={source}", "bs=1M", "iflag=direct", "status=none")
    run("cmp", source, mnt / "c")


# -- building


def test_compiler_and_mmap(mnt):
    (mnt / "a.c").write_text('#include <stdio.h>\nint main(void){puts("built");return 0;}\n')
    run("gcc", "-o", mnt / "a.out", mnt / "a.c")
    assert run(mnt / "a.out") == "built\n"


def test_make_with_four_jobs(mnt):
    rules = ["all: program", "program: $(patsubst %.c,%.o,$(wildcard *.c))", "\tcc -o $@ $^", "%.o: %.c", "\tcc -c $<"]
    (mnt / "Makefile").write_text("\n".join(rules) + "\n")
    for number in range(40):
        (mnt / f"part{number}.c").write_text(f"int part{number}(void) {{ return {number}; }}\n")
    calls = "+".join(f"part{number}()" for number in range(40))
    declared = "".join(f"int part{number}(void);" for number in range(40))
    (mnt / "main.c").write_text(f'#include <stdio.h>\n{declared}int main(void) {{ printf("%d", {calls}); }}\n')
    run("make", "-j4", "-s", cwd=mnt)
    assert run(mnt / "program") == str(sum(range(40)))
    assert "Nothing to be done" in run("make", "-j4", cwd=mnt)
    (mnt / "part7.c").write_text("int part7(void) { return 1007; }\n")
    assert run("make", cwd=mnt).count("cc -c") == 1
    assert run(mnt / "program") == str(sum(range(40)) + 1000)


def test_pip_installs_into_a_virtual_environment(mnt):
    wheel = mnt / "hello_mount-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("hello_mount/__init__.py", "word = 'here'\n")
        about = "hello_mount-1.0.dist-info"
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: hello-mount\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    run(sys.executable, "-m", "venv", mnt / "venv")
    pip = (mnt / "venv/bin/python", "-m", "pip", "--disable-pip-version-check")
    assert str(mnt / "venv") in run(*pip, "--version")
    run(*pip, "install", "--no-index", wheel)
    assert run(mnt / "venv/bin/python", "-c", "import hello_mount; print(hello_mount.word)") == "here\n"
    assert run(*pip, "check") == "No broken requirements found.\n"
    run(*pip, "uninstall", "-y", "hello-mount")
    assert not list(mnt.glob("venv/lib/*/site-packages/hello_mount*"))


# -- input and output


FIO = {
    "random": ("--rw=randwrite", "--bs=4k", "--size=8m"),
    "four jobs": ("--rw=randwrite", "--bsrange=512-128k", "--bs_unaligned", "--size=8m", "--numjobs=4"),
    "mmap": ("--rw=randwrite", "--bs=4k", "--size=8m", "--ioengine=mmap", "--numjobs=2"),
    "direct": ("--rw=randwrite", "--bs=16k", "--size=8m", "--ioengine=libaio", "--iodepth=16", "--direct=1"),
    "append": ("--rw=write", "--bs=700", "--size=1050000", "--fsync=50"),
}


def test_fio_verifies_before_and_after_a_remount(mounted):
    commands = [
        ("fio", f"--name={name.replace(' ', '-')}", f"--directory={mounted.path}", "--verify=crc32c", "--end_fsync=1",
         "--fallocate=truncate", "--verify_state_save=0", "--verify_fatal=1", "--group_reporting", *flags)
        for name, flags in FIO.items()
    ]  # fmt: skip
    for command in commands:
        run(*command, cwd=mounted.state.parent)
    assert mounted.stop() == 0
    mounted.start()
    for command in commands:
        run(*command, "--verify_only=1", cwd=mounted.state.parent)


def test_fio_verifies_reads_among_writes(mnt):
    run(
        "fio", "--name=mixed", f"--directory={mnt}", "--rw=randrw", "--rwmixread=40", "--bs=4k", "--size=8m",
        "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=64", "--ioengine=psync", "--numjobs=4",
        "--group_reporting", "--verify_state_save=0", cwd=mnt,
    )  # fmt: skip


# -- editing


def vim(file: Path, *commands: str) -> None:
    editor = shutil.which("vim") or shutil.which("vim.tiny")
    assert editor is not None
    run(
        editor, "-u", "NONE", "-N", "-n", "-es", *(part for each in commands for part in ("-c", each)), "-c", "wq", file
    )


@pytest.mark.skipif(not (shutil.which("vim") or shutil.which("vim.tiny")), reason="no vim")
@pytest.mark.parametrize("way", ["no", "yes"])
def test_vim_replaces_a_file(mnt, way):
    """backupcopy=no: the old file is renamed away and a new one written; yes: copied away and written over."""
    doc = mnt / "doc"
    doc.write_text("one\n")
    doc.chmod(0o640)
    os.setxattr(doc, "user.note", b"kept by writing over")
    before = doc.stat()
    with open(doc) as reader:
        vim(doc, f"set backup backupskip= backupcopy={way} fsync", "%s/one/two/")
        after = doc.stat()
        assert (after.st_ino == before.st_ino) is (way == "yes")
        assert reader.read() == ("one\n" if way == "no" else "two\n")
    assert (doc.read_text(), (mnt / "doc~").read_text()) == ("two\n", "one\n")
    assert stat.S_IMODE(after.st_mode) == 0o640
    assert sorted(os.listdir(mnt)) == ["doc", "doc~"]


def test_sed_replaces_a_file(mnt):
    (mnt / "doc").write_text("one\n")
    with open(mnt / "doc") as reader:
        run("sed", "-i.old", "s/one/two/", mnt / "doc")
        assert reader.read() == "one\n"
    assert ((mnt / "doc").read_text(), (mnt / "doc.old").read_text()) == ("two\n", "one\n")


def test_what_an_editor_has_saved_survives_kill_9(mounted):
    mnt = mounted.path
    for number in range(20):
        with open(mnt / ".doc.new", "w") as file:
            file.write(f"version {number}\n" * 1000)
            file.flush()
            os.fsync(file.fileno())
        os.replace(mnt / ".doc.new", mnt / "doc")
    folder = os.open(mnt, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    mounted.kill()
    mounted.start()
    assert os.listdir(mnt) == ["doc"]
    assert (mnt / "doc").read_text() == "version 19\n" * 1000


def test_what_msync_has_written_survives_kill_9(mounted):
    file = mounted.path / "file"
    file.write_bytes(bytes(3 * MIB))
    with open(file, "r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        for offset in range(0, 3 * MIB, 70_000):
            mapped[offset : offset + 5] = b"%05d" % (offset // 70_000)
        mapped.flush()
        mounted.kill()
    mounted.start()
    content = file.read_bytes()
    assert [content[at : at + 5] for at in range(0, 3 * MIB, 70_000)] == [b"%05d" % number for number in range(45)]


# -- what is not there


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
    with open(mnt / "lock", "w") as one, open(mnt / "lock", "w") as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
