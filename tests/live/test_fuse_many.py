"""Many files, and the programs that make them, on a real mount."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

import pytest
import trio

from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.fs.attrs import User
from qss.fs.filesystem import FileSystem
from qss.host import Host
from qss.ids import ROOT_INO
from tests.harness.mounted import Mounted, run

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not os.access("/dev/fuse", os.W_OK), reason="no /dev/fuse here"),
]

POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@pytest.fixture
def mounted(tmp_path):
    mount = Mounted(tmp_path)
    yield mount
    mount.close()


@pytest.fixture
def mnt(mounted) -> Path:
    mounted.start()
    return mounted.path


async def fill(state: Path, count: int) -> None:
    """A directory `many` with files 0 … count - 1, made without the mount: that is not what is tested."""
    cache = await SegmentCache.open(state, Host(), CacheOptions(), None)
    fs = FileSystem(cache, Host().clock)
    directory = fs.mkdir(ROOT_INO, b"many", 0o755, User()).ino
    for number in range(count):
        fs.create(directory, str(number).encode(), 0o644, User())
    fs.detach()
    await cache.close()


def test_100_000_entries_are_listed_once_each_while_others_come_and_go(mounted):
    count = 100_000
    trio.run(fill, mounted.state, count)
    mounted.start()
    many = mounted.path / "many"
    passing = itertools.count()
    listed: list[str] = []
    with os.scandir(many) as entries:
        for entry in entries:
            listed.append(entry.name)
            if len(listed) % 500 == 0:
                name = many / f"passing-{next(passing)}"
                name.touch()
                if len(listed) % 1_000 == 0:
                    name.unlink()
                os.unlink(many / str(count - len(listed) // 500))  # from the end, before the listing gets there
    gone = {str(count - number) for number in range(1, next(passing) + 1)}
    stayed = [name for name in listed if not name.startswith("passing") and name not in gone]
    assert len(stayed) == len(set(stayed))
    assert set(stayed) == {str(number) for number in range(count)} - gone
    assert (many).stat().st_nlink == 2


def test_find_deletes_20_000_files_and_their_space(mounted):
    trio.run(fill, mounted.state, 20_000)
    mounted.start()
    many = mounted.path / "many"
    assert run("find", many, "-type", "f", "-name", "1*").count("\n") == 11_111
    before = os.statvfs(mounted.path)
    run("find", many, "-delete")
    after = os.statvfs(mounted.path)
    assert not many.exists()
    assert (before.f_files - before.f_ffree) - (after.f_files - after.f_ffree) == 20_001


@pytest.mark.skipif(not (shutil.which("make") and shutil.which("cc")), reason="no make, no compiler")
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
    assert "up to date" in run("make", "-j4", cwd=mnt) or "Nothing to be done" in run("make", cwd=mnt)
    (mnt / "part7.c").write_text("int part7(void) { return 1007; }\n")
    assert run("make", cwd=mnt).count("cc -c") == 1
    assert run(mnt / "program") == str(sum(range(40)) + 1000)


def test_a_virtual_environment_with_pip(mnt):
    run(sys.executable, "-m", "venv", mnt / "venv")
    pip = subprocess.run([mnt / "venv/bin/pip", "--version"], check=True, capture_output=True, text=True)
    assert str(mnt / "venv") in pip.stdout
    project = mnt / "project"
    (project / "hello_mount").mkdir(parents=True)
    (project / "hello_mount" / "__init__.py").write_text("word = 'here'\n")
    wheel = mnt / "hello_mount-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(project / "hello_mount" / "__init__.py", "hello_mount/__init__.py")
        archive.writestr(
            "hello_mount-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: hello-mount\nVersion: 1.0\n"
        )
        archive.writestr(
            "hello_mount-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("hello_mount-1.0.dist-info/RECORD", "")
    run(mnt / "venv/bin/pip", "install", "--no-index", "--no-deps", "--disable-pip-version-check", wheel)
    assert run(mnt / "venv/bin/python", "-c", "import hello_mount; print(hello_mount.word)") == "here\n"
    run(mnt / "venv/bin/pip", "uninstall", "-y", "--disable-pip-version-check", "hello-mount")


def test_unzip(mnt, tmp_path):
    source = Path(sysconfig.get_path("stdlib")) / "json"
    archive = shutil.make_archive(str(mnt / "json"), "zip", source)
    if shutil.which("unzip"):
        run("unzip", "-q", archive, "-d", mnt / "out")
    else:
        shutil.unpack_archive(archive, mnt / "out")
    run("diff", "-r", source, mnt / "out")


@pytest.mark.skipif(POSTGRES is None or os.geteuid() != 0, reason="PostgreSQL is not installed, or we are not root")
def test_postgresql_survives_kill_9_of_itself():
    assert POSTGRES is not None
    with tempfile.TemporaryDirectory(prefix="qss-postgres-") as folder:  # pytest's own are closed to others
        Path(folder).chmod(0o755)
        mount = Mounted(Path(folder))
        mount.start()
        try:
            use_postgresql(POSTGRES, mount.path)
        finally:
            mount.close()


def use_postgresql(programs: Path, mnt: Path) -> None:
    data = mnt / "data"
    data.mkdir()
    shutil.chown(data, "postgres")

    def postgres(program: str, *arguments: str | Path) -> str:
        return run("setpriv", "--reuid=postgres", "--clear-groups", programs / program, *arguments, cwd=mnt)

    postgres("initdb", "-D", data, "-A", "trust")
    options = f"-c listen_addresses= -c unix_socket_directories={data}"
    start = ("-D", data, "-w", "-o", options, "-l", data / "log", "start")
    postgres("pg_ctl", *start)
    try:
        postgres("pgbench", "-h", data, "-i", "-s", "1", "-q", "postgres")
        postgres("pgbench", "-h", data, "-c", "4", "-t", "50", "postgres")
        postgres("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
        postgres("pg_ctl", *start)
        count = postgres("psql", "-h", data, "-Atc", "select count(*) from pgbench_history", "postgres")
        assert count == "200\n"
    finally:
        postgres("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
