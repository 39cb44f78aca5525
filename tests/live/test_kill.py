"""kill -9 of the mount process under load, at many seeded points: nothing that was answered is lost, nothing else is
there, and fsck finds nothing.

25 kills in every run; QSS_KILLS=1000 makes it a thousand (some half an hour).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qss.fsck.offline import look
from qss.host import Host
from tests.harness.kill_runner import OPTIONS
from tests.harness.kill_writers import WRITERS, Note, Tree, apply
from tests.harness.mounted import ROOT, Mounted

pytestmark = pytest.mark.live

KILLS = int(os.environ.get("QSS_KILLS", "25"))
SEED = int(os.environ.get("QSS_KILLS_SEED", "1"))
FSCK_EVERY = 20
FRESH_EVERY = 100  # kills of one file system
WAIT_S = 180
PAGE_BYTES = 4096


class Machine:
    """One file system, its writers, and what they know of it."""

    def __init__(self, folder: Path) -> None:
        self.mounted = Mounted(folder, module="tests.harness.kill_runner")
        self.ledgers = folder / "ledgers"
        self.ledgers.mkdir()
        self.scratch = folder / "scratch"
        self.trees: list[Tree] = [{} for _ in range(WRITERS)]
        self.operations = 0

    def kill_once(self, seed: int) -> None:
        """Look at what the kill before has left; kill a random time after the writers began, or a random number of
        operations."""
        rng = random.Random(seed)
        self.mounted.start()
        self.compare()
        command = [sys.executable, "-m", "tests.harness.kill_writers", self.mounted.path, self.ledgers, str(seed)]
        writers = subprocess.Popen(command, cwd=ROOT)
        try:
            if rng.random() < 0.5:
                time.sleep(rng.uniform(0.05, 0.6))
            else:
                self._wait_for(rng.randint(1, 400), writers)
            self.mounted.kill()
            assert writers.wait(WAIT_S) == 0
        finally:
            writers.kill()
            writers.wait()

    def _wait_for(self, operations: int, writers: subprocess.Popen[bytes]) -> None:
        ledger, deadline = self.ledgers / "w0", time.monotonic() + WAIT_S
        while not ledger.exists() or ledger.read_bytes().count(b"done") < operations:
            assert time.monotonic() < deadline, "the writers do not get on"
            assert writers.poll() is None
            time.sleep(0.002)

    def compare(self) -> None:
        """Every directory is what its ledger says, with the operation under way at the kill or without it."""
        for number in range(WRITERS):
            self.trees[number] = self._checked(number)
            (self.ledgers / f"w{number}").unlink(missing_ok=True)

    def _checked(self, number: int) -> Tree:
        done, last = self._notes(number)
        tree = dict(self.trees[number])
        for note in done:
            apply(tree, note)
        self.operations += len(done)
        folder = self.mounted.path / f"w{number}"
        found = {entry.name: Path(entry).read_bytes() for entry in os.scandir(folder)} if folder.exists() else {}
        if last is not None:
            tree = next((each for each in outcomes(tree, last) if each == found), tree)
        wrong = sorted(name for name in found.keys() | tree.keys() if found.get(name) != tree.get(name))
        assert not wrong, f"writer {number}: {wrong}; the last operation was {last}, before it {done[-3:]}"
        return tree

    def _notes(self, number: int) -> tuple[list[Note], Note | None]:
        ledger = self.ledgers / f"w{number}"
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        notes = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        answered = lines.count("done")
        return notes[:answered], notes[answered] if len(notes) > answered else None

    def fsck(self) -> None:
        looked = look(self.mounted.state, Host(), OPTIONS, self.scratch, data=True, on_stage=lambda *_: None)
        assert looked.report.findings == []

    def close(self) -> None:
        self.mounted.close()


def outcomes(tree: Tree, last: Note) -> Iterator[Tree]:
    """What an operation that was not answered may leave. The kernel cuts a write at the ends of pages."""
    yield tree
    counts = [last.get("count", 0)]
    if last["op"] == "write":
        counts += range(-last["at"] % PAGE_BYTES or PAGE_BYTES, last["count"], PAGE_BYTES)
    for count in counts:
        after = dict(tree)
        apply(after, last, count)
        yield after


def test_nothing_answered_is_lost_by_kill_9(tmp_path: Path) -> None:
    killed = operations = 0
    while killed < KILLS:
        folder = tmp_path / f"from-{killed}"
        folder.mkdir()
        machine = Machine(folder)
        try:
            for _ in range(min(FRESH_EVERY, KILLS - killed)):
                killed += 1
                machine.kill_once(SEED * 1_000_000 + killed)
                if killed % FSCK_EVERY == 0:
                    machine.fsck()
            machine.mounted.start()
            machine.compare()
        except BaseException as error:
            raise AssertionError(f"kill {killed} with seed {SEED}") from error
        finally:
            machine.close()
        operations += machine.operations
        shutil.rmtree(folder)
    assert operations > 10 * KILLS
    print(f"{killed} kills, {operations} operations")
