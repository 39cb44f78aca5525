"""The same scripts of system calls on a mount and in a directory of the native file system, compared."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.harness.mounted import ROOT, WAIT_S

Transcript = list[Any]


def transcripts(folder: Path, scripts: Sequence[str], *, make: bool = True) -> list[Transcript]:
    """Each script in a new directory below `folder`, which is made too; or, not `make`, all in `folder` as it is."""
    if make:
        folder.mkdir()
        folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "tests.harness.syscalls", str(folder), *([] if make else ["as-it-is"])],
        check=False, cwd=ROOT, input=json.dumps(list(scripts)), capture_output=True, text=True, timeout=4 * WAIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said: list[Transcript] = json.loads(done.stdout)
    return said


def has_fine_times(folder: Path) -> bool:
    """Whether changes a moment apart can be told there (Linux 6.13 and later); else times stand still between ticks."""
    probe = folder / "probe"
    seen = set()
    for _ in range(20):
        probe.write_bytes(b"x")
        seen.add(probe.stat().st_mtime_ns)
    probe.unlink()
    return len(seen) == 20


def differences(native: Transcript, mounted: Transcript, *, times: bool = True) -> list[str]:
    """What the mount said otherwise; `times`: also in the times it moved."""
    found = []
    for here, there in zip(native[:-1], mounted[:-1], strict=True):
        if here[: 2 + times] != there[: 2 + times]:
            found.append(f"{here[0]}: native {here[1:]}, mount {there[1:]}")
    end, seen = native[-1], mounted[-1]
    others = [name for name in sorted(end.keys() | seen.keys()) if end.get(name) != seen.get(name)]
    return found + [f"at the end {name!r}: native {end.get(name)}, mount {seen.get(name)}" for name in others]
