"""What the product must show (a to e of the first issue), with real nodes, a real mount and real kills."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from qss.app.running import is_alive
from tests.harness.demo import WAIT_S_MAX, Demo, running_demo, wait_until
from tests.harness.tree import assert_same_tree, listing, real_tree

pytestmark = [pytest.mark.live, pytest.mark.slow]

MIB = 1 << 20


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with running_demo(tmp_path / "demo") as started:
        yield started


def noise(seed: int, size: int) -> bytes:
    """The same incompressible bytes every time."""
    return random.Random(seed).randbytes(size)


def test_two_of_six_nodes_die_and_nothing_is_missing(demo: Demo, tmp_path: Path) -> None:
    """a. A real tree is copied in, made safe, evicted; two nodes are killed; `diff -r` finds no difference."""
    source = tmp_path / "tree"
    real_tree(source, files_min=5_000, bytes_min=200 * 10**6)
    target = demo.mnt / "tree"
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
    demo.sync()
    at_risk = demo.status()["at_risk_bytes"]
    before = demo.local_segment_bytes()
    demo.evict_all()
    assert at_risk == 0
    assert before > 100 * MIB
    assert demo.local_segment_bytes() < before / 100

    fetches = demo.status()["cache"]["fetches"]
    listed = subprocess.run(["ls", "-lR", str(target)], capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) > 5_000
    assert demo.status()["cache"]["fetches"] == fetches, "a listing must not need the locations"

    demo.kill("trove-2")
    demo.kill("trove-5")
    difference = subprocess.run(["diff", "-r", "--no-dereference", source, target], capture_output=True, check=False)
    assert (difference.returncode, difference.stdout) == (0, b"")
    assert_same_tree(source, target)
    assert demo.status()["cache"]["fetches"] > fetches


def test_with_three_dead_only_the_missing_waits(demo: Demo) -> None:
    """b. Reads of evicted data get EIO after the deadline; all else goes on; a node returns and the same read works."""
    evicted = demo.mnt / "evicted"
    evicted.write_bytes(noise(1, 5 * MIB))
    demo.sync()
    demo.evict_all()
    cached = demo.mnt / "cached"
    cached.write_bytes(noise(2, MIB))
    for name in ("trove-1", "trove-3", "trove-6"):
        demo.kill(name)

    outcome: list[object] = []

    def read() -> None:
        try:
            outcome.append(evicted.read_bytes())
        except OSError as error:
            outcome.append(error.errno)

    reader = threading.Thread(target=read)
    reader.start()
    while reader.is_alive():  # all of this goes on while the read waits for its deadline
        assert cached.read_bytes() == noise(2, MIB)
        assert {"evicted", "cached"} <= set(os.listdir(demo.mnt))
        assert os.statvfs(demo.mnt).f_blocks > 0
        (demo.mnt / "new").write_bytes(noise(3, 100_000))
        assert (demo.mnt / "new").read_bytes() == noise(3, 100_000)
        reader.join(0.2)
    assert outcome == [errno.EIO]

    demo.start()  # what is not running returns
    wait_until("the evicted file is readable", lambda: _reads(evicted, noise(1, 5 * MIB)))


def _reads(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def test_offload_killed_during_an_upload_is_made_good(demo: Demo) -> None:
    """c. kill -9 of the offload process in the middle of its work: it returns and finishes by itself."""
    for number in range(6):
        (demo.mnt / f"file-{number}").write_bytes(noise(number, 24 * MIB))
        if number in (2, 4):
            demo.kill("offload")
            wait_until("a new offload process", lambda: _running(demo, "offload"))
    wait_until("everything is safe without help", lambda: demo.status()["at_risk_bytes"] == 0)
    demo.sync()
    demo.evict_all()
    for number in range(6):
        assert (demo.mnt / f"file-{number}").read_bytes() == noise(number, 24 * MIB)


def _running(demo: Demo, name: str) -> bool:
    try:
        return is_alive(demo.pid(name))
    except (FileNotFoundError, ValueError):
        return False


def test_mount_killed_during_a_copy_keeps_what_it_acknowledged(demo: Demo) -> None:
    """c. kill -9 of the mount process during a copy: after a restart nothing acknowledged is missing."""
    acknowledged: dict[str, bytes] = {}
    started = threading.Event()

    def copy() -> None:
        try:
            for number in range(10_000):
                content = noise(number, 1000 + number * 37 % 300_000)
                (demo.mnt / f"copied-{number}").write_bytes(content)
                acknowledged[f"copied-{number}"] = content
                if number == 150:
                    started.set()
        except OSError:
            started.set()  # the mount is gone, as intended

    copier = threading.Thread(target=copy)
    copier.start()
    assert started.wait(WAIT_S_MAX)
    demo.kill("mount")
    copier.join(WAIT_S_MAX)
    assert not copier.is_alive()
    assert len(acknowledged) > 150
    offload = demo.pid("offload")
    wait_until("offload does not outlive its mount", lambda: not is_alive(offload))

    demo.start()
    for name, content in acknowledged.items():
        assert (demo.mnt / name).read_bytes() == content
    wait_until("every sealed segment is offloaded without help", lambda: demo.status()["at_risk_bytes"] == 0)


def test_the_machine_burns(demo: Demo, tmp_path: Path) -> None:
    """d. From the key and any four nodes, on an empty state directory, the file system of the last sync comes back."""
    source = tmp_path / "tree"
    real_tree(source, files_min=200, bytes_min=5 * 10**6)
    _odd_entries(source)
    subprocess.run(["cp", "-a", str(source), str(demo.mnt / "tree")], check=True)
    demo.sync()
    (demo.mnt / "after-the-sync").write_bytes(noise(9, 10_000))
    key = tmp_path / "key-on-paper"
    shutil.copy(demo.state / "key", key)
    demo.lose_machine()
    for node in ("1", "4"):
        demo.kill(f"trove-{node}")
        shutil.rmtree(demo.root / "nodes" / node)

    recovered = demo.qssctl("recover", "--key", str(key), "--json")
    report = json.loads(recovered.stdout.splitlines()[-1])
    assert report["point"]["cut_ns"] > 0
    assert report["lost_segments"] == []
    demo.qssctl("mount", str(demo.mnt))
    assert_same_tree(source, demo.mnt / "tree")
    assert (demo.mnt / "tree/hard-1").stat().st_ino == (demo.mnt / "tree/hard-2").stat().st_ino


def _odd_entries(root: Path) -> None:
    """What a careless backup forgets."""
    (root / "empty").mkdir()
    (root / "secret").write_text("s")
    (root / "secret").chmod(0o600)
    os.chown(root / "secret", 12345, 54321)
    os.utime(root / "secret", ns=(1, 999_999_999))
    os.utime(root / "empty", ns=(-5_000_000_000, -1))
    (root / "hard-1").write_text("linked")
    os.link(root / "hard-1", root / "hard-2")
    (root / "symlink").symlink_to("nowhere/at all")
    os.mkfifo(root / "fifo")
    with (root / "sparse").open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 30)
        file.write(b"island")
        file.truncate((1 << 30) + 6)
    (root / "späße-\udcff").write_text("a name that is no UTF-8")


MARKER = b"QSS-PLAINTEXT-MARKER-7f3a"


def test_locations_see_nothing_and_damage_never_reaches_a_reader(demo: Demo) -> None:
    """e. No plaintext, no name at any location; a flipped byte in a shard is rebuilt from others and reported."""
    folder = demo.mnt / "MARKER-DIRECTORY-NAME"
    folder.mkdir()
    contents = {f"MARKER-FILE-NAME-{number}": MARKER * 100_000 + noise(number, 5 * MIB) for number in range(4)}
    for name, content in contents.items():  # each in a segment of its own, so that every node holds some data shard
        (folder / name).write_bytes(content)
        demo.sync()
    markers = [MARKER, b"MARKER-DIRECTORY-NAME", b"MARKER-FILE-NAME"]
    demo.stop()
    volumes = [path for path in (demo.root / "nodes").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in volumes) > 20 * MIB
    for path in volumes:
        stored = path.read_bytes()
        assert not any(marker in stored for marker in markers), path

    for node in ("3", "4"):
        assert _flip_large_volumes(demo.root / "nodes" / node) > 0
    demo.start()
    demo.evict_all()
    for name, content in contents.items():
        assert (folder / name).read_bytes() == content
    wait_until("the damage is reported", lambda: demo.status()["damage"]["found"] > 0)


def _flip_large_volumes(node: Path) -> int:
    """Flip a byte every 256 KiB of every big file of a node: no shard on it stays whole."""
    flipped = 0
    for path in node.rglob("*"):
        if path.is_file() and path.suffix != ".mdb" and path.stat().st_size > MIB:
            with path.open("r+b") as file:
                for position in range(128 * 1024, path.stat().st_size, 256 * 1024):
                    file.seek(position)
                    byte = file.read(1)
                    if byte not in (b"", b"\0"):
                        file.seek(position)
                        file.write(bytes([byte[0] ^ 0x40]))
                        flipped += 1
    return flipped


def test_second_start_brings_the_same_back(tmp_path: Path) -> None:
    """Stopping and starting again on the same directory: same data, and a listing equal to the last bit."""
    with running_demo(tmp_path / "demo") as demo:
        real_tree(tmp_path / "tree", files_min=100, bytes_min=10**6)
        subprocess.run(["cp", "-a", str(tmp_path / "tree"), str(demo.mnt / "tree")], check=True)
        before = listing(demo.mnt)
        demo.stop()
        assert not os.path.ismount(demo.mnt)
        demo.start()
        assert listing(demo.mnt) == before
        assert_same_tree(tmp_path / "tree", demo.mnt / "tree")


def test_foreground_run_stops_in_order_on_interrupt(tmp_path: Path) -> None:
    """scripts/run in the foreground: Ctrl-C stops everything it started."""
    root = tmp_path / "demo"
    script = Path(__file__).resolve().parents[2] / "scripts" / "run"
    process = subprocess.Popen([str(script), "--dir", str(root)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert process.stdout is not None
        assert any(b"it brings the same data back" in line for line in process.stdout), "it ended by itself"
        (root / "mnt" / "file").write_text("hello")
        pids = [int(path.read_text()) for path in (root / "run").glob("*.pid")]
        assert len(pids) == 8
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S_MAX) == 0
        assert not any(is_alive(pid) for pid in pids)
        assert not os.path.ismount(root / "mnt")
    finally:
        process.kill()
        process.communicate()
        subprocess.run([str(script), "--stop", "--dir", str(root)], check=False, stdout=sys.stderr)
