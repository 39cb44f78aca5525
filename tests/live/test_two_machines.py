"""Two machines and one file system: the second is refused or takes over, and then the first only reads."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qss.app.exits import Exit
from tests.harness.demo import QSSCTL, WAIT_S_MAX, Demo, running_demo, wait_until
from tests.harness.elsewhere import Elsewhere

pytestmark = pytest.mark.live


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with running_demo(tmp_path / "demo", k=2, m=1) as started:
        yield started


def test_the_second_is_refused_or_takes_over_and_the_first_only_reads(demo: Demo, tmp_path: Path) -> None:
    (demo.mnt / "shared").write_bytes(b"both know this")
    demo.sync()
    wait_until("the first holds it", lambda: demo.status()["offload"]["root_generation"] > 0)
    second = Elsewhere(demo, tmp_path / "second")
    refused = second.recover(code=Exit.REFUSED).stderr
    assert str(demo.state) in refused
    assert "take it over" in refused
    assert "its last root is" in refused

    held = (demo.mnt / "open").open("wb", buffering=0)
    second.recover("--take-over")
    with second.mounted():
        assert (second.mnt / "shared").read_bytes() == b"both know this"
        (second.mnt / "of-the-second").write_bytes(b"2" * 100_000)
        second.qssctl("sync")
        # The first may have gone on until it learns of it, and then does not: neither new files nor open ones.
        try:
            wrote = (demo.mnt / "unsent").write_bytes(b"1" * 100_000)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            wrote = 0
        wait_until("the first only reads", lambda: demo.status()["fenced"])
        with pytest.raises(OSError, match="Read-only") as caught:
            (demo.mnt / "more").write_bytes(b"x")
        assert caught.value.errno == errno.EROFS
        with pytest.raises(OSError, match="Read-only"):
            held.write(b"x")
        held.close()
        assert (demo.mnt / "shared").read_bytes() == b"both know this"
        status = demo.status()
        assert "taken over" in status["fenced"] or "another machine" in status["fenced"]
        assert "READ-ONLY" in demo.qssctl("status").stdout
        assert demo.qssctl("sync", check=False).returncode == 3
        out = tmp_path / "out"
        demo.qssctl("export-unsent", str(out))
        assert not wrote or (out / "unsent").read_bytes() == b"1" * 100_000

        # It stays so over a new mount, and a take-over with this old state is refused: it would undo the second's work.
        demo.qssctl("umount")
        again = demo.qssctl("mount", str(demo.mnt), "--take-over", check=False)
        assert again.returncode == 3, again
        assert "empty state directory" in again.stderr
        demo.qssctl("mount", str(demo.mnt))
        with pytest.raises(OSError, match="Read-only"):
            (demo.mnt / "more").write_bytes(b"x")
        (second.mnt / "after").write_bytes(b"it goes on")
        second.qssctl("sync")
        report = json.loads(second.qssctl("fsck", "--remote", "--json", code=None).stdout.splitlines()[-1])
        # The first may have sent something in vain before it learnt of the second.
        assert {each["kind"] for each in report["findings"]} <= {"object-stray"}, report


class Copy:
    """`cp -a` of the state directory, as it is at one moment; paths in a configuration are relative to it."""

    def __init__(self, demo: Demo, root: Path) -> None:
        root.mkdir()
        self.mnt, self.config = root / "mnt", root / "qss.toml"
        with demo.standing_still():
            for name in ("state", "qss.toml", "credentials"):
                subprocess.run(["cp", "-a", str(demo.root / name), str(root / name)], check=True)

    def qssctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(QSSCTL), "--config", str(self.config), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S_MAX, check=False)

    def mount(self) -> subprocess.CompletedProcess[str]:
        return self.qssctl("mount", str(self.mnt))


def test_of_two_copies_of_a_state_directory_one_writes_and_nothing_is_lost(demo: Demo, tmp_path: Path) -> None:
    (demo.mnt / "before").write_bytes(b"in both" * 10_000)
    demo.sync()
    demo.qssctl("umount")
    stopped = Copy(demo, tmp_path / "stopped")
    demo.qssctl("mount", str(demo.mnt))
    (demo.mnt / "of-the-first").write_bytes(b"1" * 100_000)
    demo.sync()

    # A copy from before: the first has written since. It is told so, and only read.
    mounted = stopped.mount()
    try:
        assert mounted.returncode == 0, mounted
        assert "a copy of this state directory has written root" in mounted.stderr
        assert (stopped.mnt / "before").read_bytes() == b"in both" * 10_000
        with pytest.raises(OSError, match="Read-only"):
            (stopped.mnt / "more").write_bytes(b"x")
    finally:
        stopped.qssctl("umount", "--lazy", "--drain", "1s")
    insisted = stopped.qssctl("mount", str(stopped.mnt), "--take-over")
    assert insisted.returncode == 3, insisted
    assert "empty state directory" in insisted.stderr

    # A copy of one that runs: it is told who holds the file system; or that it has written, should it have.
    running = Copy(demo, tmp_path / "running")
    refused = running.mount()
    try:
        if refused.returncode:
            assert refused.returncode == 3, refused
            assert f"{demo.state}" in refused.stderr
            assert "holds this file system" in refused.stderr
            assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
        else:
            assert "a copy of this state directory has written root" in refused.stderr
    finally:
        if os.path.ismount(running.mnt):
            running.qssctl("umount", "--lazy", "--drain", "1s")

    (demo.mnt / "after").write_bytes(b"it goes on")
    demo.sync()
    assert not demo.status()["fenced"]
    demo.evict_all()
    assert (demo.mnt / "before").read_bytes() == b"in both" * 10_000
    assert (demo.mnt / "of-the-first").read_bytes() == b"1" * 100_000
    assert demo.qssctl("fsck", "--remote", check=False).returncode == 0
