"""start: time to the first answer with very many files, after a clean stop, a kill, and the loss of the index."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure
from benchmarks.measure import say
from benchmarks.rig import Rig

ROUNDS = 3
WORK_S = 4.5
"""Before a kill: LMDB commits every five seconds, so this is nearly the most that can be left to replay."""


def starts(rig: Rig, count: int) -> list[Figure]:
    """In processes of their own, without kernel and locations; imports included."""
    root = rig.root / "start"
    say(f"start: making {count:,} files of 100 bytes")
    began_s = time.monotonic()
    _life("fill", root, count)
    figures = [Figure("start files made, no kernel", count / (time.monotonic() - began_s), "files/s")]
    figures += [
        Figure(f"start {what} on disk", sum(map(_size, (root / folder).iterdir())) / count, "bytes/file", target=target)
        for what, folder, target in (
            ("index", "index", "≤ 400"), ("journals", "journal", ""), ("checkpoints", "checkpoint", ""),
        )
    ]  # fmt: skip
    say("start: after a clean stop")
    figures.append(_figure("after a clean stop", [_started(root) for _ in range(ROUNDS)], "≤ 0.5"))
    say("start: after kill -9")
    killed = []
    for _ in range(ROUNDS):
        _kill_at_work(root)
        killed.append(_started(root))
    figures.append(_figure("after kill -9 at work", killed, "≤ 3", worst=True))
    say("start: without the index")
    shutil.rmtree(root / "index")
    figures.append(_figure("index lost: checkpoint and journals", [_started(root)], ""))
    return figures


def _figure(name: str, found: list[dict[str, Any]], target: str, *, worst: bool = False) -> Figure:
    chosen = (max if worst else min)(found, key=lambda each: each["cpu_s"])
    note = f"CPU {chosen['cpu_s']:.2f} s, {chosen['replayed']:,} batches replayed"
    return Figure(f"start {name}", chosen["wall_s"], "s", target=target, note=note)


def _size(path: Path) -> int:
    return path.stat().st_blocks * 512


def _command(what: str, root: Path, count: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.lives", what, str(root), str(count)]


def _life(what: str, root: Path, count: int = 0) -> str:
    return subprocess.run(_command(what, root, count), check=True, capture_output=True, text=True).stdout


def _started(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_life("start", root))
    return found


def _kill_at_work(root: Path) -> None:
    with subprocess.Popen(_command("work", root, 0), stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(WORK_S)
        child.kill()
