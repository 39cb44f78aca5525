"""Programs that keep something of their own in a bucket: a backup, and two file systems."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.clients.judge import Judge, hashes
from tests.harness.clients.programs import COMMAND_S_MAX, INSTALLED, Server, environment, run
from tests.harness.waiting import until

pytestmark = pytest.mark.live

LARGE_BYTES = 12 * 2**20


def make_tree(folder: Path, seed: str) -> None:
    rng = random.Random(seed)
    for number in range(40):
        path = folder / f"dir {number % 5}" / f"Datei-ü {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.randrange(60_000)))
    (folder / "large").write_bytes(rng.randbytes(LARGE_BYTES))


def test_restic(server: Server, tmp_path: Path) -> None:
    env = environment(server, tmp_path) | {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "RESTIC_REPOSITORY": f"s3:{server.endpoint}/restic",
        "RESTIC_PASSWORD": "for a test",
    }
    trust: list[str | Path] = ["--cacert", server.ca] if server.ca else []

    def restic(*arguments: str | Path) -> str:
        return run(["/usr/bin/restic", "--no-cache", *trust, *arguments], env)

    tree, back = tmp_path / "tree", tmp_path / "back"
    make_tree(tree, server.host)
    restic("init")
    restic("backup", tree)
    first = hashes(tree)
    (tree / "dir 1" / "Datei-ü 1").write_bytes(b"changed")
    (tree / "large").unlink()
    assert "Files:           0 new,     1 changed,    39 unmodified" in restic("backup", tree)
    restic("check", "--read-data")
    snapshots = [line.split()[0] for line in restic("snapshots").splitlines() if str(tree) in line]
    restic("restore", snapshots[0], "--target", back)
    assert hashes(back / tree.relative_to("/")) == first
    judge = Judge(server, "restic")
    before = sum(size for _, _, size in judge.writes().values())
    restic("forget", "--keep-last", "1", "--prune")
    assert sum(size for _, _, size in judge.writes().values()) < before - LARGE_BYTES * 9 // 10
    restic("check", "--read-data")
    shutil.rmtree(back)
    restic("restore", "latest", "--target", back)
    assert hashes(back / tree.relative_to("/")) == hashes(tree)


@contextmanager
def process(argv: list[str | Path], env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Runs beside, what it says goes to ours; ended at the end, however that comes."""
    started = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(COMMAND_S_MAX)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@pytest.fixture
def mount_point(tmp_path: Path) -> Iterator[Path]:
    if not os.access("/dev/fuse", os.W_OK):
        pytest.skip("no /dev/fuse here")
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    if path.is_mount():
        subprocess.run(["fusermount3", "-u", "-z", path], check=False)


async def _mounted(started: subprocess.Popen[bytes], point: Path) -> None:
    await until(lambda: point.is_mount() or started.poll() is not None)
    assert point.is_mount(), f"it ended with {started.poll()}"


async def _unmounted(started: subprocess.Popen[bytes], point: Path) -> None:
    run(["fusermount3", "-u", point], {"PATH": os.environ["PATH"]})
    await until(lambda: started.poll() is not None)


def _use(point: Path, tree: Path) -> dict[str, str]:
    """Returns what must be found there afterwards."""
    make_tree(tree, point.parent.name)
    shutil.copytree(tree, point / "tree")
    assert hashes(point / "tree") == hashes(tree)
    for root in (tree, point / "tree"):
        (root / "dir 1" / "Datei-ü 1").rename(root / "renamed + moved %20")
        (root / "dir 2" / "Datei-ü 2").unlink()
        with (root / "dir 3" / "Datei-ü 3").open("ab") as file:
            file.write(b"more")
        with (root / "large").open("r+b") as file:
            file.seek(6_000_000)
            file.write(b"in the middle")
        os.truncate(root / "dir 4" / "Datei-ü 4", 100)
        (root / "dir 0" / "Datei-ü 5").chmod(0o640)
        shutil.rmtree(root / "dir 4")
        (root / "new" / "deeper").mkdir(parents=True)
    return hashes(tree)


def _check(point: Path, wanted: dict[str, str]) -> None:
    assert hashes(point / "tree") == wanted
    assert (point / "tree" / "dir 0" / "Datei-ü 5").stat().st_mode & 0o777 == 0o640
    assert (point / "tree" / "new" / "deeper").is_dir()


async def test_s3fs_fuse(server: Server, tmp_path: Path, mount_point: Path) -> None:
    Judge(server, "s3fs-fuse").s3.create_bucket(Bucket="s3fs-fuse")
    secret = tmp_path / "passwd"
    secret.touch(0o600)
    secret.write_text(f"{server.access_key}:{server.secret_key}\n")
    options = f"url={server.endpoint},use_path_request_style,passwd_file={secret}"
    argv: list[str | Path] = ["/usr/bin/s3fs", "s3fs-fuse", mount_point, "-f", "-o", options]
    wanted: dict[str, str] = {}
    for step in (lambda: wanted.update(_use(mount_point, tmp_path / "tree")), lambda: _check(mount_point, wanted)):
        with process(argv, environment(server, tmp_path)) as started:
            await _mounted(started, mount_point)
            step()
            await _unmounted(started, mount_point)
    assert Judge(server, "s3fs-fuse").hash("tree/renamed + moved %20") == wanted["renamed + moved %20"]


async def test_juicefs(server: Server, tmp_path: Path, mount_point: Path) -> None:
    env = environment(server, tmp_path) | {"ACCESS_KEY": server.access_key, "SECRET_KEY": server.secret_key}
    juicefs, meta = INSTALLED / "juicefs", f"sqlite3://{tmp_path / 'meta.db'}"
    bucket = f"{server.endpoint}/juicefs"
    run([juicefs, "format", "--storage", "s3", "--bucket", bucket, "--trash-days", "0", meta, "vol"], env)
    argv: list[str | Path] = [juicefs, "mount", "--no-usage-report", "--no-syslog", "--backup-meta", "0"]
    argv += ["--metrics", "127.0.0.1:0"]
    wanted: dict[str, str] = {}
    for number, step in enumerate(
        (lambda: wanted.update(_use(mount_point, tmp_path / "tree")), lambda: _check(mount_point, wanted))
    ):
        cache = tmp_path / f"cache {number}"  # the second mount finds nothing at hand
        with process([*argv, "--cache-dir", cache, meta, mount_point], env) as started:
            await _mounted(started, mount_point)
            step()
            await _unmounted(started, mount_point)
    assert run([juicefs, "fsck", meta], env) is not None
    volume = next(line.split('"')[3] for line in run([juicefs, "status", meta], env).splitlines() if '"UUID"' in line)
    run([juicefs, "destroy", "--yes", meta, volume], env)
    assert Judge(server, "juicefs").writes() == {}
