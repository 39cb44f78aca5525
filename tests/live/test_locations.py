"""Locations come, are drained while somebody writes, go, and are lost, under one mount; in the end every shard is where
it should be, by looking, and a new machine recovers from the set as it is then."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from qss.app.demo_nodes import DemoNodes, start_nodes, stop_nodes
from qss.app.exits import Exit
from qss.app.locations import open_nodes
from qss.app.talk import call_mount
from qss.config import load
from qss.host import Host
from qss.ids import LocationId, SegmentId, StripeNo
from qss.offload.census import Census, find_manifest, take_census
from qss.offload.keyfiles import read_key_file
from qss.offload.keys import FsKeys
from qss.offload.manifests import Manifests
from qss.offload.nodes import Nodes
from qss.offload.seal import hash_of
from tests.harness.demo import WAIT_S_MAX, Demo, running_demo, wait_until

pytestmark = pytest.mark.live

MIB = 1 << 20


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with running_demo(tmp_path / "demo", k=4, m=2) as started:
        try:
            yield started
        finally:
            stop_nodes(DemoNodes(started.root, 8))


def url_of(demo: Demo, urls: dict[str, str], name: str) -> str:
    return f"{urls[name]}/qss?access_key=demo&secret_key_file={demo.root / 'credentials'}"


def census(demo: Demo, scratch: Path) -> dict[LocationId, int]:
    """Shards at each configured location, each block of them verified against the manifest. Fails for a segment that
    is not whole, or has a shard twice."""
    wait_until("every shard is placed", lambda: by_spare(demo) == {"2"})
    settings = load(demo.config, {})
    stored = [SegmentId(each["id"]) for each in call_mount(settings, "shelf.held_segments")]
    assert stored
    keys = FsKeys.derive(read_key_file(settings.key_file))
    counts: dict[LocationId, int] = dict.fromkeys((each.name for each in settings.locations), 0)

    async def look() -> None:
        host = Host()
        async with open_nodes(settings, host) as nodes:
            manifests = Manifests(scratch, keys, host.entropy)
            for segment in stored:
                found = await heard_from_all(nodes, keys, segment)
                assert len(found.found) == 6, f"segment {segment}: {found}"
                seal = found.seals()[0]
                manifest = await find_manifest(found, seal, nodes, keys, manifests)
                assert sorted(found.of_seal(seal)) == list(range(6))
                for shard, location in found.of_seal(seal).items():
                    counts[location] += 1
                    name = keys.shard_name(segment, 0, location)
                    for number, facts in enumerate(manifest.stripes):
                        start = manifest.block_offset(StripeNo(number))
                        block = await nodes[location].get(name, start, start + facts.block)
                        assert hash_of(memoryview(block)) == manifest.hash_of(StripeNo(number), shard)

    trio.run(look)
    return counts


async def heard_from_all(nodes: Nodes, keys: FsKeys, segment: SegmentId) -> Census:
    """All of them run: whoever was silent was too slow, and is asked again."""
    with trio.fail_after(WAIT_S_MAX):
        while (found := await take_census(nodes, keys, segment)).silent:
            pass
    return found


def by_spare(demo: Demo) -> set[str]:
    """How many shards may be lost yet, of any segment."""
    return set(json.loads(demo.qssctl("durability", "--json").stdout)["standing"]["by_spare"])


def rows(demo: Demo) -> list[dict]:
    return json.loads(demo.qssctl("location", "list", "--json").stdout)


def states(demo: Demo) -> dict[str, str]:
    return {each["name"]: each["state"] for each in rows(demo)}


def test_a_life_of_locations(demo: Demo, tmp_path: Path) -> None:
    urls = start_nodes(DemoNodes(demo.root, 8))
    offload = demo.pid("offload")
    contents = {f"f{number}": os.urandom(3 * MIB + number) for number in range(8)}
    for name, content in contents.items():
        (demo.mnt / name).write_bytes(content)
    demo.sync()
    wait_until("each says how much it can take yet", lambda: all(each["free_bytes"] for each in rows(demo)))

    # -- a wrong change is refused, and nothing has happened
    text = demo.config.read_text()
    assert demo.qssctl("location", "drain", "trove-2", check=False).returncode == Exit.REFUSED  # 5 < k+m would be left
    assert demo.qssctl("location", "remove", "trove-2", check=False).returncode == Exit.REFUSED
    wrong = demo.qssctl(
        "location", "add", "new", "http://127.0.0.1:1/qss?access_key=a&secret_key=env:HOME", check=False
    )
    assert wrong.returncode == Exit.UNREACHABLE
    assert demo.config.read_text() == text

    # -- a seventh, and one drained while somebody writes
    demo.config.write_text("# my own comment\n" + text)
    demo.qssctl("location", "add", "trove-7", url_of(demo, urls, "trove-7"), "--label", "node=trove-7")
    assert demo.config.read_text().startswith("# my own comment\n" + text.rstrip())
    held = {each["name"]: each for each in json.loads(demo.qssctl("location", "list", "--json").stdout)}
    assert held["trove-2"]["shards"] > 0 == held["trove-7"]["shards"]
    done = threading.Event()
    written: dict[str, bytes] = {}

    def write() -> None:
        while not done.is_set() and len(written) < 40:
            content = os.urandom(MIB)
            (demo.mnt / f"w{len(written)}").write_bytes(content)
            written[f"w{len(written)}"] = content
            demo.sync()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        lines = demo.qssctl("location", "drain", "trove-2", "--json").stdout.splitlines()
    finally:
        done.set()
        writer.join()
    assert json.loads(lines[-1])["drained"]
    assert any("shards_left" in json.loads(line) for line in lines)
    contents |= written
    demo.sync()
    demo.qssctl("location", "drain", "trove-2")  # what was under way when it began has left too
    wait_until("it is said", lambda: states(demo)["trove-2"] == "drained")
    counts = census(demo, tmp_path / "m1")
    assert counts["trove-2"] == 0 < counts["trove-7"]
    demo.qssctl("location", "remove", "trove-2")
    assert "trove-2" not in states(demo)

    # -- one dies for good; another takes its place
    demo.qssctl("location", "add", "trove-8", url_of(demo, urls, "trove-8"), "--label", "node=trove-8")
    demo.kill("trove-5")
    shutil.rmtree(demo.root / "nodes" / "5")
    wait_until("it is seen to be down", lambda: states(demo)["trove-5"] == "down")
    assert demo.qssctl("location", "remove", "trove-5", check=False).returncode == Exit.REFUSED
    report = json.loads(demo.qssctl("location", "remove", "trove-5", "--lost", "--json").stdout.splitlines()[-1])
    assert report["missing_shards"] > 0 == len(report["lost_segments"])
    counts = census(demo, tmp_path / "m2")
    assert sorted(counts) == ["trove-1", "trove-3", "trove-4", "trove-6", "trove-7", "trove-8"]
    assert len(set(counts.values())) == 1

    # -- weights
    moved = json.loads(demo.qssctl("location", "rebalance", "--json").stdout.splitlines()[-1])
    assert moved["moved"] == 0, "six locations for six shards"
    demo.evict_all()
    for name, content in contents.items():
        assert (demo.mnt / name).read_bytes() == content
    assert demo.pid("offload") == offload, "nothing was started again"

    # -- a new machine, from four of the locations as they are now
    key = tmp_path / "key"
    shutil.copy(demo.state / "key", key)
    demo.stop()
    start_nodes(DemoNodes(demo.root, 8))
    chosen = [part for name in ("trove-7", "trove-8", "trove-1", "trove-3")
              for part in ("--location", url_of(demo, urls, name) + f"&name={name}")]  # fmt: skip
    other = Demo(tmp_path / "other")
    other.root.mkdir()
    other.qssctl("recover", *chosen, "--key", str(key), "--state", str(other.state))
    settings = load(other.config, {})
    assert sorted(each.name for each in settings.locations) == sorted(counts)
    other.mnt.mkdir()
    other.qssctl("mount", str(other.mnt))
    try:
        for name, content in contents.items():
            assert (other.mnt / name).read_bytes() == content
    finally:
        other.qssctl("umount", str(other.mnt))


def test_the_file_is_taken_over_in_use_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    with running_demo(tmp_path / "demo", k=2, m=1) as demo:
        urls = start_nodes(DemoNodes(demo.root, 4))
        text, offload = demo.config.read_text(), demo.pid("offload")
        (demo.mnt / "file").write_bytes(b"x" * MIB)
        demo.sync()

        demo.config.write_text(text.replace("[[location]]", "[[locations]]"))
        os.kill(offload, signal.SIGHUP)
        log = demo.root / "log" / "qss.log"
        wait_until("it says why not", lambda: "the configuration is not taken over" in log.read_text())
        demo.config.write_text(text.replace("[[location]]", "[[location]]\nweight = 3.0", 1))
        assert demo.qssctl("location", "reload").stdout == "changed: trove-1\n"
        assert demo.qssctl("location", "reload").stdout == "The locations are as they were.\n"

        demo.qssctl("location", "replace", "trove-1", "trove-4", url_of(demo, urls, "trove-4"))
        wait_until("all are up", lambda: states(demo) == {"trove-2": "up", "trove-3": "up", "trove-4": "up"})
        listed = demo.qssctl("location", "list").stdout
        assert f"{urls['trove-4']}/qss " in listed, "never cut"
        assert len(listed.splitlines()) == 4
        demo.evict_all()
        assert (demo.mnt / "file").read_bytes() == b"x" * MIB
        assert demo.pid("offload") == offload

        demo.stop()
        demo.start()
        assert (demo.mnt / "file").read_bytes() == b"x" * MIB
        stop_nodes(DemoNodes(demo.root, 4))
