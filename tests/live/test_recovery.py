"""Recovery as a person does it, on real nodes: to a moment, with something lost beyond what the code makes good, and
drills."""

from __future__ import annotations

import errno
import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qss.app.exits import Exit
from qss.ids import LocationId, SegmentId
from qss.offload.keyfiles import read_key_file
from qss.offload.keys import FsKeys
from tests.harness.demo import QSSCTL, REPOSITORY, Demo, running_demo, wait_until
from tests.harness.elsewhere import Elsewhere

pytestmark = pytest.mark.live

KIB = 1 << 10
PAGE = 4 * KIB


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with running_demo(tmp_path / "demo", k=2, m=1) as started:
        yield started


class Bucket:
    """The objects of one node."""

    def __init__(self, demo: Demo, name: str) -> None:
        self.location = LocationId(name)
        self.keys = FsKeys.derive(read_key_file(demo.state / "key"))
        self.client = demo.s3(name)

    def take(self, segment: SegmentId) -> bytes:
        """Delete its shard of a segment; what it was."""
        name = self.keys.shard_name(segment, 0, self.location)
        shard: bytes = self.client.get_object(Bucket="qss", Key=name)["Body"].read()
        self.client.delete_object(Bucket="qss", Key=name)
        return shard

    def has(self, segment: SegmentId) -> bool:
        name = self.keys.shard_name(segment, 0, self.location)
        return "Contents" in self.client.list_objects_v2(Bucket="qss", Prefix=name)

    def give_back(self, segment: SegmentId, shard: bytes) -> None:
        self.client.put_object(Bucket="qss", Key=self.keys.shard_name(segment, 0, self.location), Body=shard)


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
    buckets = [Bucket(demo, name) for name in ("trove-1", "trove-3")]
    there = Elsewhere(demo, tmp_path / "there")

    # The newest journal cannot be had: an older root could, but what came since might be at locations that are away.
    journals = sorted(int(path.stem, 16) for path in (demo.state / "cache" / "journal").glob("*.log"))
    journal = next(SegmentId(number) for number in reversed(journals) if buckets[0].has(SegmentId(number)))
    shards = [bucket.take(journal) for bucket in buckets]
    report = json.loads(there.recover("--json", code=Exit.DATA).stdout)
    assert not report["restored"]
    assert report["skipped_roots"][0][0] == report["newest_generation"] > report["generation"]
    assert sorted(path.name for path in there.root.iterdir()) == ["key"]
    for bucket, shard in zip(buckets, shards, strict=True):
        bucket.give_back(journal, shard)
        bucket.take(segments[1])

    # Without an option: exactly what is lost, and nothing is changed.
    report = json.loads(there.recover("--json", code=Exit.DATA).stdout)
    assert not report["restored"]
    assert report["damaged_files"] == [
        {
            "paths": ["/folder file", "/linked"], "ino": report["damaged_files"][0]["ino"], "size": 192 * KIB,
            "lost_bytes": 64 * KIB, "ranges": [[64 * KIB, 128 * KIB]],
        }
    ]  # fmt: skip
    assert [segment for segment, _ in report["lost_segments"]] == [segments[1]]
    assert sorted(path.name for path in there.root.iterdir()) == ["key"]
    said = there.recover(code=Exit.DATA).stdout
    assert "65536-131071" in said
    assert "nothing was changed" in said

    # With it: everything else, the list, and EIO for just these bytes.
    assert "lost.json" in there.recover("--partial", code=Exit.DATA).stdout
    with there.mounted():
        assert (there.mnt / "whole").read_bytes() == content[0]
        assert bad_pages(there.mnt / "folder file") == set(range(16, 32))
        with (there.mnt / "linked").open("rb") as file:
            assert os.pread(file.fileno(), 64 * KIB, 0) == content[0]
            assert os.pread(file.fileno(), 64 * KIB, 128 * KIB) == content[2]

        def unreadable() -> list[dict]:
            return json.loads(there.qssctl("status", "--json").stdout)["damage"]["unreadable"]

        wait_until("status names the files", lambda: [each["paths"] for each in unreadable()])
        assert [(each["segment"], each["paths"]) for each in unreadable()] == [
            (segments[1], ["/folder file", "/linked"])
        ]
        document = json.loads(there.qssctl("fsck", "--remote", "--json", code=Exit.DATA).stdout.splitlines()[-1])
        below = [each for each in document["findings"] if each["kind"] == "shards-below-k"]
        assert [each["subject"] for each in below] == [f"segment {segments[1]:016x}"]
        assert document["damaged_files"] == report["damaged_files"]
        (there.mnt / "new").write_bytes(b"life goes on")
        there.qssctl("sync")


def picture(folder: Path) -> dict[str, tuple[int, int]]:
    """Sizes and times of what is in a directory, as far as nobody uses it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_drills_and_a_moment_in_the_past(demo: Demo, tmp_path: Path) -> None:
    demo.start_again_with("cache", seal_after="1h")  # nothing gets into a root that is not told to
    (demo.mnt / "old").write_bytes(os.urandom(5 << 20))
    demo.sync()
    cut_ns = demo.status()["published_cut_ns"]
    (demo.mnt / "new").write_bytes(b"new" * PAGE)
    demo.sync()
    (demo.mnt / "newer").write_bytes(b"in no root yet")

    # Beside the mount.
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    lines = demo.qssctl("drill", "--full", "--json", "--scratch", str(scratch)).stdout.splitlines()
    report = json.loads(lines[-1])
    assert {json.loads(line)["stage"] for line in lines[:-1]} >= {"journals", "objects", "live index"}
    assert report["restorable"]
    assert report["files"] == 3
    assert report["content"]["compared_bytes"] == report["content"]["bytes"] > 5 << 20
    assert (report["live"]["why_not"], report["live"]["different"]) == ("", 0)
    assert "Restorable." in demo.qssctl("drill", "--sample", "1").stdout
    assert list(scratch.iterdir()) == []

    # Interrupted, it removes what it made.
    drill = subprocess.Popen(
        [QSSCTL, "--config", demo.config, "drill", "--full", "--json", "--scratch", scratch], stdout=subprocess.PIPE
    )
    assert drill.stdout is not None
    assert b"stage" in drill.stdout.readline()
    drill.terminate()
    drill.stdout.read()
    assert drill.wait(120) in (130, 0)
    drill.stdout.close()
    assert list(scratch.iterdir()) == []

    # On a machine that has the key and knows the locations.
    there = Elsewhere(demo, tmp_path / "there")
    before = picture(there.root)
    drill_there = ["drill", "--key", str(there.key), *there.places]
    assert json.loads(there.qssctl(*drill_there, "--json").stdout.splitlines()[-1])["live"]["why_not"]
    assert picture(there.root) == before
    listed = there.recovered("--list")
    assert cut_ns in [each["cut_ns"] for each in listed["roots"]]
    assert all(each["logs_there"] for each in listed["roots"])
    at = f"{(cut_ns // 1000 + 1) / 1e6:.6f}"
    moment = subprocess.run(
        ["date", "--utc", "--date", f"@{at}", "+%Y-%m-%d %H:%M:%S.%6N"], capture_output=True, text=True, check=True
    ).stdout.strip()
    then = there.qssctl(*drill_there, "--at", moment, "--json")
    assert json.loads(then.stdout.splitlines()[-1])["cut_ns"] == cut_ns
    refused = there.qssctl(*drill_there, "--at", "2001-01-01", code=Exit.REFUSED)
    assert "no root is that old" in refused.stderr

    content = (demo.mnt / "old").read_bytes()
    demo.qssctl("umount")
    report = there.recovered("--at", moment)
    assert report["point"]["cut_ns"] == cut_ns
    assert report["newest_generation"] > report["generation"]
    with there.mounted():
        assert sorted(path.name for path in there.mnt.iterdir()) == ["old"]
        assert (there.mnt / "old").read_bytes() == content
        (there.mnt / "another").write_bytes(b"goes on from there")
        there.qssctl("sync")


def test_a_degraded_start(demo: Demo) -> None:
    content = os.urandom(64 * KIB)
    (demo.mnt / "file").write_bytes(content)
    demo.sync()
    demo.qssctl("umount")
    for name in ("trove-1", "trove-2", "trove-3"):
        demo.kill(name)
    mounted = demo.qssctl("mount", str(demo.mnt))
    assert "most locations do not answer" in mounted.stderr
    assert (demo.mnt / "file").read_bytes() == content
    (demo.mnt / "more").write_bytes(content)
    wait_until("the locations are down", lambda: not any(each["up"] for each in demo.status()["locations"]))

    # An offload process that cannot start is said, and tried again.
    book, good = demo.state / "offload" / "root.json", (demo.state / "offload" / "root.json").read_bytes()
    book.write_bytes(b"no json")
    demo.kill("offload")
    wait_until("it is said", lambda: any("root.json" in line for line in demo.status()["errors"]))
    (line,) = demo.status()["errors"]
    assert "started again" in line
    book.write_bytes(good)
    demo.start()  # the nodes
    demo.sync()
    wait_until("nothing is wrong any more", lambda: demo.status()["errors"] == [])


def examples() -> list[str]:
    """The commands of docs/recovery.md, in order."""
    text = (REPOSITORY / "docs" / "recovery.md").read_text()
    lines = [line for block in text.split("```")[1::2] for line in block.splitlines()]
    return [line.partition("  #")[0].strip() for line in lines if line.startswith("qssctl ")]


def test_every_example_of_the_page_works(demo: Demo, tmp_path: Path) -> None:
    (demo.mnt / "file").write_bytes(os.urandom(64 * KIB))
    demo.qssctl("snapshot", "create", "before-upgrade")
    demo.sync()
    machines = [Elsewhere(demo, tmp_path / "0")]
    recovered = 0
    for line in examples():
        words = shlex.split(line)[1:]
        new_machine = "$LOCATIONS" in words
        if not new_machine and not recovered:
            assert demo.qssctl(*words).returncode == 0, line
            continue
        if new_machine and words[0] == "recover" and "--list" not in words:
            if not recovered:
                demo.qssctl("umount")
            elif machines[-1].mnt.is_mount():
                machines[-1].qssctl("umount", "--drain", "1s")
            recovered += 1
            machines.append(Elsewhere(demo, tmp_path / str(recovered)))
        there = machines[-1]
        known = {"$LOCATIONS": there.places, "KEY": [str(there.key)], "/mnt/qss": [str(there.mnt)],
                 "2026-11-21 09:00": ["0s"]}  # fmt: skip
        done = there.qssctl(*[part for word in words for part in known.get(word, [word])])
        assert done.stdout or done.stderr, line
    assert recovered == 4
    machines[-1].qssctl("umount", "--drain", "1s", code=0 if machines[-1].mnt.is_mount() else Exit.UNREACHABLE)
