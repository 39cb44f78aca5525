"""qssctl fsck on real nodes: mounted and busy, unmounted, with shards deleted at a node, with damage to repair."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qss.app.exits import Exit
from tests.harness.demo import WAIT_S_MAX, Demo, running_demo
from tests.harness.tree import real_tree

pytestmark = pytest.mark.live


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with running_demo(tmp_path / "demo", k=2, m=1) as started:
        yield started


def fsck(demo: Demo, *options: str) -> tuple[int, dict[str, Any]]:
    done = demo.qssctl("fsck", "--json", *options, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def delete_two_shards(demo: Demo, node: str) -> None:
    """As somebody at the node would, past us."""
    s3 = demo.s3(node)
    objects = s3.list_objects_v2(Bucket="qss")["Contents"]
    for each in sorted(objects, key=lambda each: -each["Size"])[:2]:
        s3.delete_object(Bucket="qss", Key=each["Key"])


def umount(demo: Demo) -> None:
    demo.qssctl("umount")


def test_mounted_unmounted_and_at_the_locations(demo: Demo, tmp_path: Path) -> None:
    real_tree(tmp_path / "tree", files_min=300, bytes_min=10**6)
    subprocess.run(["cp", "-a", str(tmp_path / "tree"), str(demo.mnt / "tree")], check=True)
    (demo.mnt / "large").write_bytes(os.urandom(3 << 20))
    demo.sync()

    copying = subprocess.Popen(["cp", "-a", str(tmp_path / "tree"), str(demo.mnt / "again")])
    try:
        for _ in range(3):
            code, document = fsck(demo, "--data")
            assert (code, document["findings"]) == (Exit.OK, [])
    finally:
        assert copying.wait(WAIT_S_MAX) == 0
    refused = demo.qssctl("fsck", "--repair", check=False)
    assert refused.returncode == Exit.REFUSED
    assert "umount" in refused.stderr
    demo.sync()
    code, document = fsck(demo, "--remote")
    assert (code, document["findings"]) == (Exit.OK, [])
    assert document["looked_at"]["locations"] > 0

    delete_two_shards(demo, "trove-2")
    for mounted in (True, False):
        code, document = fsck(demo, "--remote")
        assert code == Exit.FOUND
        assert document["mounted"] is mounted
        assert [each["kind"] for each in document["findings"]] == ["shards-missing"] * 2
        assert all("2 of 3" in each["sentence"] for each in document["findings"])
        if mounted:
            umount(demo)
    code, document = fsck(demo, "--data")
    assert (code, document["findings"]) == (Exit.OK, [])
    journal = min((demo.state / "cache" / "journal").glob("*.log"))
    journal.unlink()
    code, document = fsck(demo, "--remote")
    assert code == Exit.DATA
    assert "journal-missing" in document["counts"]
    code, document = fsck(demo, "--remote", "--repair")
    assert code == Exit.CORRECTED, document
    assert len(document["repaired"]) == 3
    assert "Everything holds." in demo.qssctl("fsck").stdout


def test_repair(demo: Demo) -> None:
    """The index is garbage and a safe segment's local copy has rotted: both are put right, and the bytes are back."""
    content = os.urandom(2 << 20)
    (demo.mnt / "file").write_bytes(content)
    demo.sync()
    umount(demo)
    index = demo.state / "cache" / "index" / "data.mdb"
    index.write_bytes(b"rotten" * 1000)
    segment = max((demo.state / "cache" / "data").glob("*.log"), key=lambda path: path.stat().st_size)
    rotten = bytearray(segment.read_bytes())
    rotten[len(rotten) // 2] ^= 1
    segment.write_bytes(rotten)

    code, document = fsck(demo, "--data")
    assert code == Exit.FOUND
    assert {each["kind"] for each in document["findings"]} == {"index-differs", "data-damaged"}
    code, planned = fsck(demo, "--data", "--repair", "--dry-run")
    assert code == Exit.FOUND
    assert len(planned["would_repair"]) == 2
    code, document = fsck(demo, "--data", "--repair")
    assert code == Exit.CORRECTED
    assert document["repaired"] == planned["would_repair"]
    assert fsck(demo, "--data", "--remote")[0] == Exit.OK
    demo.start()
    assert (demo.mnt / "file").read_bytes() == content
