"""Real nodes, a real mount: a location is lost for good and its shards are elsewhere after the grace, each verified by
hash in place; rot that nobody reads is found by the scrub; content comes back before it is asked for."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.demo import Demo, running_demo, wait_until

pytestmark = pytest.mark.live

MIB = 1 << 20


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with running_demo(tmp_path / "demo", k=2, m=1, nodes=5) as started:
        started.start_again_with("offload", repair_grace="1s", scrub_limit="none")
        yield started


def answer(demo: Demo, *arguments: str):
    return json.loads(demo.qssctl(*arguments, "--json").stdout.splitlines()[-1])


def stands(demo: Demo) -> dict:
    return answer(demo, "durability")["standing"]


def test_a_lost_node_rot_nobody_reads_and_warming(demo: Demo) -> None:
    contents = {f"d/f{number}": os.urandom(3 * MIB + number) for number in range(6)}
    (demo.mnt / "d").mkdir()
    for name, content in contents.items():
        (demo.mnt / name).write_bytes(content)
    demo.sync()
    wait_until("every shard is placed", lambda: stands(demo)["by_spare"].keys() == {"1"})

    # 1. a node dies for good: its shards are elsewhere after the grace
    demo.kill("trove-1")
    shutil.rmtree(demo.root / "nodes" / "1", ignore_errors=True)
    wait_until("it is given up", lambda: answer(demo, "repair")["given_up"])
    wait_until("every segment is whole again", lambda: stands(demo)["by_spare"].keys() == {"1"})
    wait_until("nothing waits", lambda: answer(demo, "repair")["queued"] == 0)
    assert answer(demo, "repair")["repaired_segments"] > 0

    # 2. rot where nobody reads: found by the scrub, repaired by itself
    wait_until("no round is under way", lambda: answer(demo, "scrub", "status")["state"] == "waiting")
    volume = max((demo.root / "nodes").rglob("*.tvol"), key=lambda path: path.stat().st_size)
    with volume.open("r+b") as file:
        for at in range(50_000, volume.stat().st_size, 100_000):
            byte = os.pread(file.fileno(), 1, at)[0]
            os.pwrite(file.fileno(), bytes([byte ^ 4]), at)
    rounds = answer(demo, "scrub", "status")["rounds"]
    answer(demo, "scrub", "start")
    wait_until("the round is done", lambda: answer(demo, "scrub", "status")["rounds"] > rounds)
    found = answer(demo, "scrub", "status")
    assert found["bad"] > 0
    assert found["shards"] > found["bad"]
    wait_until("nothing waits", lambda: answer(demo, "repair")["queued"] == 0)
    wait_until("all is whole", lambda: stands(demo)["by_spare"].keys() == {"1"})
    wait_until("no damage is left", lambda: demo.status()["damage"]["open"] == [])

    # 3. any one more node may be lost now, and everything is here before anybody asks
    demo.kill("trove-2")
    demo.evict_all()
    warmed = answer(demo, "warm", str(demo.mnt / "d"))
    assert warmed["files"] == 6
    assert warmed["local_bytes"] == warmed["total_bytes"]
    fetches = demo.status()["cache"]["fetches"]
    for name, content in contents.items():
        assert (demo.mnt / name).read_bytes() == content
    assert demo.status()["cache"]["fetches"] == fetches, "it was all here"
