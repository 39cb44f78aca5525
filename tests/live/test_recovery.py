"""Recovery as a person does it, on real nodes: to a moment, with something lost beyond what the code makes good, and
drills."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from qss.app.exits import Exit
from qss.ids import LocationId, SegmentId
from qss.offload.keyfiles import read_key_file
from qss.offload.keys import FsKeys
from tests.harness.demo import QSSCTL, Demo, running_demo, wait_until

pytestmark = pytest.mark.live

KIB = 1 << 10
PAGE = 4 * KIB


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with running_demo(tmp_path / "demo", k=2, m=1) as started:
        yield started


class Elsewhere:
    """A machine that has the key and knows the locations."""

    def __init__(self, demo: Demo, root: Path) -> None:
        root.mkdir()
        self.demo, self.root, self.mnt, self.state = demo, root, root / "mnt", root / "state"
        shutil.copy(demo.state / "key", root / "key")
        ports = json.loads((demo.root / "ports.json").read_text())
        secret = f"access_key=demo&secret_key_file={demo.root / 'credentials'}"
        self.places: list[str] = []
        for name in ("trove-1", "trove-2", "trove-3"):
            self.places += ["--location", f"http://127.0.0.1:{ports[name]}/qss?{secret}"]

    def run(self, *arguments: str, code: int = 0) -> str:
        command = [str(QSSCTL), "--config", str(self.root / "qss.toml"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, (done, self.demo.logs())
        return done.stdout or done.stderr

    def recover(self, *arguments: str, code: int = 0) -> str:
        return self.run("recover", "--key", str(self.root / "key"), *self.places, *arguments, code=code)


class Bucket:
    """The objects of one node."""

    def __init__(self, demo: Demo, name: str) -> None:
        port = json.loads((demo.root / "ports.json").read_text())[name]
        secret = (demo.root / "credentials").read_text().split()[0]
        self.location = LocationId(name)
        self.keys = FsKeys.derive(read_key_file(demo.state / "key"))
        self.client = boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1", aws_access_key_id="demo",
            aws_secret_access_key=secret,
        )  # fmt: skip

    def take(self, segment: SegmentId) -> None:
        """Delete its shard of a segment."""
        name = self.keys.shard_name(segment, 0, self.location)
        self.client.head_object(Bucket="qss", Key=name)
        self.client.delete_object(Bucket="qss", Key=name)


def newest_data(demo: Demo) -> SegmentId:
    return SegmentId(max(int(path.stem, 16) for path in (demo.state / "cache" / "data").glob("*.log")))


def bad_pages(path: Path) -> set[int]:
    """Numbers of the pages of a file that give EIO."""
    found = set()
    with path.open("rb") as file:
        for page in range(-(-path.stat().st_size // PAGE)):
            try:
                os.pread(file.fileno(), PAGE, page * PAGE)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                found.add(page)
    return found


def test_what_is_lost_is_said_and_everything_else_comes_back(demo: Demo, tmp_path: Path) -> None:
    content = [os.urandom(64 * KIB) for _ in range(3)]
    (demo.mnt / "whole").write_bytes(content[0])
    segments = []
    for part in content:
        with (demo.mnt / "folder file").open("ab") as file:
            file.write(part)
        demo.sync()
        segments.append(newest_data(demo))
    os.link(demo.mnt / "folder file", demo.mnt / "linked")
    demo.sync()
    demo.qssctl("umount")
    for name in ("trove-1", "trove-3"):
        Bucket(demo, name).take(segments[1])

    # Without an option: exactly what is lost, and nothing is changed.
    there = Elsewhere(demo, tmp_path / "there")
    report = json.loads(there.recover("--json", code=Exit.DATA))
    assert not report["restored"]
    assert report["damaged_files"] == [
        {
            "paths": ["/folder file", "/linked"], "ino": report["damaged_files"][0]["ino"], "size": 192 * KIB,
            "lost_bytes": 64 * KIB, "ranges": [[64 * KIB, 128 * KIB]],
        }
    ]  # fmt: skip
    assert [segment for segment, _ in report["lost_segments"]] == [segments[1]]
    assert sorted(path.name for path in there.root.iterdir()) == ["key"]
    said = there.recover(code=Exit.DATA)
    assert "65536-131071" in said
    assert "nothing was changed" in said

    # With it: everything else, the list, and EIO for just these bytes.
    said = there.recover("--partial", code=Exit.DATA)
    assert "lost.json" in said
    there.run("mount", str(there.mnt))
    try:
        assert (there.mnt / "whole").read_bytes() == content[0]
        assert bad_pages(there.mnt / "folder file") == set(range(16, 32))
        with (there.mnt / "linked").open("rb") as file:
            assert os.pread(file.fileno(), 64 * KIB, 0) == content[0]
            assert os.pread(file.fileno(), 64 * KIB, 128 * KIB) == content[2]

        def unreadable() -> list[dict]:
            return json.loads(there.run("status", "--json"))["damage"]["unreadable"]

        wait_until("status names the files", lambda: [each["paths"] for each in unreadable()])
        assert [(each["segment"], each["paths"]) for each in unreadable()] == [
            (segments[1], ["/folder file", "/linked"])
        ]
        document = json.loads(there.run("fsck", "--remote", "--json", code=Exit.DATA).splitlines()[-1])
        below = [each for each in document["findings"] if each["kind"] == "shards-below-k"]
        assert [each["subject"] for each in below] == [f"segment {segments[1]:016x}"]
        assert document["damaged_files"] == report["damaged_files"]
        (there.mnt / "new").write_bytes(b"life goes on")
        there.run("sync")
    finally:
        there.run("umount", "--lazy", "--drain", "1s")
