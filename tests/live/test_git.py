"""git on a real mount, with a history as projects have it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.mounted import WAIT_S, run

pytestmark = pytest.mark.live

COMMITS, FILES = 1_000, 200
WHO = {
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
    "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
}  # fmt: skip


def git(*arguments: str | Path, cwd: Path) -> str:
    return run("git", *arguments, cwd=cwd, **WHO)


def history() -> Iterator[bytes]:
    """For git fast-import: each commit changes one of the files of one of 20 directories."""
    for number in range(1, COMMITS + 1):
        content = f"{number}\n".encode() * (number % 300 + 1)
        yield b"commit refs/heads/main\nmark :%d\ncommitter a <a@b> %d +0000\n" % (number, 10**9 + number)
        yield b"data 7\nchange\n\nM 100644 inline dir%d/file%d\n" % (number % 20, number % FILES)
        yield b"data %d\n%s\n" % (len(content), content)


@pytest.fixture(scope="session")
def origin(tmp_path_factory) -> Path:
    """A bare repository on the native file system."""
    path = tmp_path_factory.mktemp("git") / "origin.git"
    run("git", "init", "-q", "--bare", "-b", "main", path, **WHO)
    subprocess.run(["git", "fast-import", "--quiet"], cwd=path, input=b"".join(history()), check=True, timeout=WAIT_S)
    return path


def commits(repository: Path) -> int:
    return int(git("rev-list", "--count", "HEAD", cwd=repository))


def test_a_repository_of_1_000_commits(mnt, origin, tmp_path):
    repo = mnt / "repo"
    git("clone", "-q", f"file://{origin}", repo, cwd=mnt)
    assert commits(repo) == COMMITS
    assert len(git("ls-files", cwd=repo).splitlines()) == FILES
    assert git("status", "--porcelain", cwd=repo) == ""

    for number in range(20):
        (repo / f"dir{number}" / "new").write_text(f"{number}\n" * 100)
        git("add", ".", cwd=repo)
        git("commit", "-q", "-m", str(number), cwd=repo)
    git("checkout", "-q", "-b", "branch", "HEAD~500", cwd=repo)
    assert not (repo / "dir0" / "new").exists()
    (repo / "other").write_text("other")
    git("add", "other", cwd=repo)
    git("commit", "-q", "-m", "other", cwd=repo)
    (repo / "other").write_text("not yet")
    git("stash", "-q", cwd=repo)
    git("checkout", "-q", "main", cwd=repo)
    git("merge", "-q", "-m", "merge", "branch", cwd=repo)
    assert commits(repo) == COMMITS + 22

    git("gc", "-q", "--aggressive", "--prune=now", cwd=repo)
    assert git("count-objects", cwd=repo).startswith("0 objects")
    git("fsck", "--full", "--strict", "--no-dangling", cwd=repo)
    git("stash", "pop", "-q", cwd=repo)
    assert (repo / "other").read_text() == "not yet"
    git("reset", "-q", "--hard", cwd=repo)
    assert git("status", "--porcelain", cwd=repo) == ""
    git("push", "-q", "origin", "main:pushed", cwd=repo)
    assert git("rev-parse", "main", cwd=repo) == git("rev-parse", "pushed", cwd=origin)

    git("clone", "-q", repo, mnt / "with hard links", cwd=mnt)
    git("clone", "-q", repo, tmp_path / "back", cwd=tmp_path)
    for copy in (mnt / "with hard links", tmp_path / "back"):
        git("fsck", "--full", "--strict", cwd=copy)
        assert commits(copy) == COMMITS + 22
        assert git("rev-parse", "HEAD^{tree}", cwd=copy) == git("rev-parse", "main^{tree}", cwd=repo)
    (pack,) = (mnt / "with hard links" / ".git" / "objects" / "pack").glob("*.pack")
    assert pack.stat().st_nlink == 2


def test_what_git_has_committed_survives_kill_9(mounted, origin):
    repo = mounted.path / "repo"
    git("clone", "-q", f"file://{origin}", repo, cwd=mounted.path)
    for number in range(5):
        (repo / "new").write_text(str(number))
        git("add", "new", cwd=repo)
        git("commit", "-q", "-m", str(number), cwd=repo)
    head = git("rev-parse", "HEAD", cwd=repo)
    mounted.kill()
    mounted.start()
    assert git("rev-parse", "HEAD", cwd=repo) == head
    assert commits(repo) == COMMITS + 5
    git("fsck", "--full", "--strict", cwd=repo)
    assert git("status", "--porcelain", cwd=repo) == ""
    assert "index.lock" not in os.listdir(repo / ".git")
