"""Snapshots as a person uses them: kept, read beside the live file system, compared, given up, and brought back
elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qss.app.mountpoint import mounted_type, unmount
from qss.app.running import is_alive, is_held
from tests.harness.demo import WAIT_S_MAX, Demo, running_demo, wait_until
from tests.harness.elsewhere import Elsewhere
from tests.harness.tree import assert_same_tree, real_tree

pytestmark = pytest.mark.live

MIB = 1 << 20


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with running_demo(tmp_path / "demo", k=2, m=1) as started:
        yield started


def remote_bytes(demo: Demo) -> int:
    """Of all objects at one node."""
    pages = demo.s3("trove-1").get_paginator("list_objects_v2").paginate(Bucket="qss")
    return sum(each["Size"] for page in pages for each in page.get("Contents", []))


def listed(demo: Demo) -> dict[str, dict]:
    return {each["name"]: each for each in json.loads(demo.qssctl("snapshot", "list", "--json").stdout)["snapshots"]}


def changes(demo: Demo, *names: str) -> set[str]:
    done = demo.qssctl("snapshot", "diff", *names, check=False)
    assert done.returncode == (12 if done.stdout else 0), done.stderr
    return set(done.stdout.splitlines())


def refusal(demo: Demo, *arguments: str) -> str:
    done = demo.qssctl(*arguments, check=False)
    assert done.returncode == 3, done
    return done.stderr


def kill(pid: int) -> None:
    """SIGKILL, and wait until it holds neither lock nor mount."""
    os.kill(pid, 9)
    wait_until("it is gone", lambda: not is_alive(pid))


def umount(path: Path) -> None:
    subprocess.run(["umount", str(path)], check=True, timeout=WAIT_S_MAX)


def test_a_snapshot_is_the_old_state_until_it_is_deleted_and_elsewhere(demo: Demo, tmp_path: Path) -> None:
    tree, seen, state = tmp_path / "tree", tmp_path / "seen", demo.state / "snapshots"
    real_tree(tree, files_min=150, bytes_min=3 * MIB)
    (tree / "large").write_bytes(os.urandom(12 * MIB))
    subprocess.run(["cp", "-a", str(tree), str(demo.mnt / "t")], check=True, timeout=WAIT_S_MAX)
    demo.qssctl("snapshot", "create", "before", "--comment", "all of it")
    assert "already" in refusal(demo, "snapshot", "create", "before")
    assert "letters" in refusal(demo, "snapshot", "create", "a/b")

    # Changed and deleted: the snapshot does not see it, here or from the locations.
    (demo.mnt / "t" / "large").rename(demo.mnt / "moved")
    (demo.mnt / "new").write_bytes(b"new")
    assert changes(demo, "before") == {"+ /new", "R /t/large -> /moved"}
    shutil.rmtree(demo.mnt / "t")
    (demo.mnt / "moved").unlink()
    demo.qssctl("snapshot", "create", "after")
    assert changes(demo, "after") == set()
    assert "- /t/large" in changes(demo, "before", "after")
    demo.sync()
    demo.evict_all()
    assert demo.local_segment_bytes() < 1 * MIB
    demo.qssctl("snapshot", "mount", "before", str(seen))
    assert_same_tree(tree, seen / "t")
    with pytest.raises(OSError, match="Read-only"):
        (seen / "x").write_bytes(b"x")
    assert "mounted on" in refusal(demo, "snapshot", "delete", "before")
    assert "mounted already" in refusal(demo, "snapshot", "mount", "before", str(tmp_path / "second"))
    subprocess.run(["cp", "-a", str(seen / "t"), str(demo.mnt / "back")], check=True, timeout=WAIT_S_MAX)
    assert_same_tree(tree, demo.mnt / "back")
    shutil.rmtree(demo.mnt / "back")
    assert listed(demo)["before"]["mounted_on"] == str(seen)
    umount(seen)
    wait_until("its scratch state is gone", lambda: not any(state.iterdir()))

    # Without the live mount, and while it is there: the same.
    demo.qssctl("umount")
    demo.qssctl("snapshot", "mount", "before", str(seen))
    assert_same_tree(tree, seen / "t")
    before = listed(demo)["before"]
    assert before["protected"]
    assert before["alone_bytes"] > 15 * MIB
    demo.qssctl("umount", str(seen))
    assert mounted_type(seen) is None
    demo.start()
    demo.qssctl("fsck", "--remote")

    # A new machine, while the old one goes on.
    there = Elsewhere(demo, tmp_path / "elsewhere", ("trove-1", "trove-3"))
    assert [each["name"] for each in there.recovered("--list")["snapshots"]] == ["before", "after"]
    assert not there.config.exists()
    report = there.recovered("--snapshot", "before")
    assert (report["snapshot"], report["lost_segments"]) == ("before", [])
    with there.mounted():
        assert_same_tree(tree, there.mnt / "t")
        assert json.loads(there.qssctl("status", "--json").stdout)["snapshot"] == "before"
    (demo.mnt / "goes on").write_bytes(b"here")
    demo.sync()
    wait_until("nothing is wrong, or not any more", lambda: demo.status()["errors"] == [])

    # Given up, its space comes back here and there.
    before_bytes = remote_bytes(demo)
    demo.qssctl("snapshot", "delete", "before")
    demo.qssctl("snapshot", "delete", "after")
    demo.sync()
    freed_bytes = 0.45 * 12 * MIB  # k = 2, and the tree compresses
    wait_until("remote bytes go", lambda: remote_bytes(demo) < before_bytes - freed_bytes)
    wait_until("nothing waits any more", lambda: demo.status()["cache"]["segments_condemned"] == 0)
    assert demo.status()["cache"]["snapshot_bytes"] == 0
    demo.qssctl("fsck", "--remote")


def test_a_killed_snapshot_mount_leaves_nothing_that_stays(demo: Demo, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    (demo.mnt / "f").write_bytes(b"kept")
    demo.qssctl("snapshot", "create", "one")
    pid = json.loads(demo.qssctl("snapshot", "mount", "one", str(seen), "--json").stdout)["pid"]
    kill(pid)
    (folder,) = (demo.state / "snapshots").iterdir()
    assert not is_held(folder / "lock")
    assert listed(demo)["one"]["mounted_on"] == ""
    demo.qssctl("snapshot", "mount", "one", str(seen))
    assert (seen / "f").read_bytes() == b"kept"
    pid = json.loads((folder / "mount.json").read_text())["pid"]
    kill(pid)
    assert not is_held(folder / "lock")
    unmount(seen, lazy=True)
    demo.stop()
    demo.start()
    assert not list((demo.state / "snapshots").iterdir())
    demo.qssctl("snapshot", "schedule", "set", "hourly=2")
    demo.kill("mount")
    unmount(demo.mnt, lazy=True)
    demo.start()  # the schedule is kept, and what it asks for is made
    wait_until("one is made", lambda: any(each["automatic"] for each in listed(demo).values()))
    assert demo.qssctl("snapshot", "schedule", "show").stdout == "hourly=2\n"
    assert "one" in listed(demo)
