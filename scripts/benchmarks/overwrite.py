"""fs-random: fio overwrites 4 KiB here and there in one file, one write at a time."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from benchmarks import files
from benchmarks.figures import Figure
from benchmarks.measure import Step, side_by_side
from benchmarks.systems import Lineup, System

_RUNTIME_S_MAX = 60
_FILE_BYTES = 256 * files.MIB
_TARGET = "≥ 5,000/s with writeback"


def overwrite(lineup: Lineup, count: int, rounds: int) -> list[Figure]:
    """`count` overwrites at the same random places on each system: as fast as they are taken, and until synced."""
    if shutil.which("fio") is None:
        return [Figure("fs-random", None, "", note="fio is not installed; scripts/setup --test installs it")]

    def lay(system: System, number: int) -> None:
        path = _path(system)
        if not path.exists():
            files.write_file(path, _FILE_BYTES)

    def taken(system: System, number: int) -> float:
        return count / _fio_iops(_path(system), count, synced=False)

    def synced(system: System, number: int) -> float:
        return count / _fio_iops(_path(system), count, synced=True)

    steps = [
        Step("fs-random 4 KiB overwrite", count, taken, "IOPS", lay, _TARGET),
        Step("fs-random 4 KiB overwrite + fsync at the end", count, synced, "IOPS", lay, _TARGET),
    ]
    return side_by_side(lineup, steps, rounds)


def _path(system: System) -> Path:
    return system.place / "random"


def _fio_iops(path: Path, count: int, *, synced: bool) -> float:
    """Overwrites a second as fio counts them; the time of the fsync at the end is in it."""
    command = [
        "fio", "--name=random", f"--filename={path}", "--rw=randwrite", "--bs=4k", f"--size={_FILE_BYTES}",
        f"--io_size={count * 4096}", "--ioengine=psync", "--iodepth=1", f"--end_fsync={int(synced)}",
        f"--runtime={_RUNTIME_S_MAX}", "--randrepeat=1", "--allow_file_create=0", "--output-format=json",
    ]  # fmt: skip
    answer = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
    [job] = json.loads(answer[answer.index("{") :])["jobs"]
    return float(job["write"]["iops"])
