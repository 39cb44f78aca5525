"""A cache disk smaller than what is written, with locations that do not answer: writers slow down, wait, get ENOSPC;
names go on; when the locations are back everything is brought away and nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qss.app.talk import call_mount
from qss.config import load
from qss.config.write import with_values
from tests.harness.demo import Demo, wait_until
from tests.harness.small_disk import Balloon, small_disk

pytestmark = [pytest.mark.live, pytest.mark.slow]

MIB = 1 << 20
DISK = 256 * MIB
HARD = 24 * MIB
DEADLINE_S = 10
FILE_BYTES = 2 * MIB
TROVES = ("trove-1", "trove-2", "trove-3")


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """State directory on the small disk; nodes elsewhere."""
    demo = Demo(tmp_path / "demo", k=2, m=1)
    demo.root.mkdir(mode=0o700)
    with small_disk(tmp_path / "disk", demo.state, DISK):
        try:
            demo.start()
            demo.stop()
            text = demo.config.read_text()
            limits = {
                "segment_size": "8M", "seal_after": "2s", "soft_free": "64M", "hard_free": "24M",
                "admit_deadline": f"{DEADLINE_S}s",
            }  # fmt: skip
            text = with_values(text, "cache", limits)
            demo.config.write_text(with_values(text, "retention", {"min_free": "48M"}))
            demo.start()
            yield demo
        finally:
            signal_troves(demo, signal.SIGCONT)
            demo.stop()


def signal_troves(demo: Demo, number: signal.Signals) -> None:
    for name in TROVES:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(demo.pid(name), number)


def write_file(path: Path, seed: int) -> str:
    """Written and synced, or an exception; its digest."""
    content = hashlib.shake_128(seed.to_bytes(8, "big")).digest(FILE_BYTES)
    with path.open("wb") as file:
        file.write(content)
        os.fsync(file.fileno())
    return hashlib.blake2b(content).hexdigest()


def digest_of(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes()).hexdigest()


class Watch(threading.Thread):
    """Looks at the pressure and lists the directory, again and again, while others write. It asks the mount process
    itself: a program that has to start first sees little of what passes."""

    def __init__(self, demo: Demo, folder: Path) -> None:
        super().__init__()
        self.settings = load(demo.config, {})
        self.folder = folder
        self.states: list[str] = []
        self.lists = 0
        self.failure: Exception | None = None
        self.stopping = threading.Event()

    def run(self) -> None:
        try:
            while not self.stopping.wait(0.05):
                list(self.folder.iterdir())
                self.lists += 1
                state = call_mount(self.settings, "status")["pressure"]["state"]
                if state not in self.states:
                    self.states.append(state)
        except Exception as failure:
            self.failure = failure

    def end(self) -> None:
        self.stopping.set()
        self.join()
        if self.failure is not None:
            raise self.failure


def fill(folder: Path, digests: dict[str, str]) -> float:
    """Write synced files until there is ENOSPC; seconds that the refused one took."""
    for seed in range(DISK // FILE_BYTES + 1):
        began = time.monotonic()
        try:
            digests[f"{seed:04}"] = write_file(folder / f"{seed:04}", seed)
        except OSError as failure:
            if failure.errno != errno.ENOSPC:
                raise
            return time.monotonic() - began
    raise AssertionError("the disk took more than it holds")


def test_a_full_disk_and_dead_locations(demo: Demo) -> None:
    folder = demo.mnt / "d"
    folder.mkdir()
    digests: dict[str, str] = {}
    signal_troves(demo, signal.SIGSTOP)
    watch = Watch(demo, folder)
    watch.start()
    took_s = fill(folder, digests)
    watch.end()
    assert took_s >= DEADLINE_S - 1
    assert len(digests) * FILE_BYTES > DISK // 3
    assert watch.states[0] in ("ok", "slow")
    assert {"slow", "waiting"} <= set(watch.states)
    assert demo.status()["pressure"]["state"] == "full"
    assert demo.status()["pressure"]["refused_writes"] >= 1

    # Names, attributes, syncs and deletions go on.
    (folder / "more").mkdir()
    os.rename(folder / "0000", folder / "more" / "first")
    digests["more/first"] = digests.pop("0000")
    (folder / "0001").unlink()
    del digests["0001"]
    os.utime(folder / "0002", (1, 1))
    handle = os.open(folder / "0003", os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
    assert {path.name for path in folder.iterdir()} >= {"more", "0002", "0003"}

    # Somebody else takes what is left: nothing new is made, deleting goes on; then there is nothing at all.
    balloon = Balloon(demo.state / "balloon")
    balloon.leave(HARD // 2 - 2 * MIB)
    wait_until("it is seen", lambda: demo.status()["pressure"]["free_bytes"] < HARD // 2)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        (folder / "refused").mkdir()
    os.rename(folder / "more" / "first", folder / "0000")
    digests["0000"] = digests.pop("more/first")
    (folder / "more").rmdir()
    (folder / "0002").unlink()
    del digests["0002"]
    balloon.leave(0)
    for number in range(200):  # LMDB must not be written, and the mount must not mind
        with contextlib.suppress(OSError):
            os.utime(folder / "0003", (number, number))
    log = demo.root / "log" / "qss.log"
    wait_until("a checkpoint was due meanwhile", lambda: "no room to write the index" in log.read_text())
    assert {path.name for path in folder.iterdir()} >= set(digests)
    assert digest_of(folder / "0003") == digests["0003"]
    balloon.pop()

    # The locations are back: all of it is brought away, and writing goes on.
    signal_troves(demo, signal.SIGCONT)
    wait_until("nothing is at risk", lambda: demo.status()["at_risk_bytes"] == 0, 300)
    wait_until("writers are free", lambda: demo.status()["pressure"]["state"] in ("ok", "slow"))
    for seed in range(1000, 1000 + DISK // FILE_BYTES * 5 // 4):  # more than the disk holds, and nobody is refused
        digests[f"{seed}"] = write_file(folder / f"{seed}", seed)
    demo.sync()
    demo.evict_all()
    for name, digest in digests.items():
        assert digest_of(folder / name) == digest, name
    demo.qssctl("fsck")
