"""fs-seq, fs-small and fs-fsync: one large file, many small ones, and what an fsync costs and does."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks import files
from benchmarks.figures import Figure
from benchmarks.measure import Step, not_measured, say, side_by_side
from benchmarks.rig import drop_caches
from benchmarks.systems import Lineup, System


def sequential(lineup: Lineup, size: int, rounds: int) -> list[Figure]:
    """Write and fsync, read after dropping caches, read again. An operation is 1 MiB."""
    operations = size / files.MIB

    def path(system: System) -> Path:
        return system.place / "sequential"

    def forget(system: System, number: int) -> None:
        path(system).unlink(missing_ok=True)

    def cold(system: System, number: int) -> float:
        drop_caches()
        return files.read_file(path(system))

    def warm_up(system: System, number: int) -> None:
        files.read_file(path(system))

    def read(system: System, number: int) -> float:
        return files.read_file(path(system))

    def write(system: System, number: int) -> float:
        return files.write_file(path(system), size)

    steps = [
        Step("fs-seq write+fsync", operations, write, "MiB/s", forget, "ratio ≥ 0.8"),
        Step("fs-seq read, caches dropped", operations, cold, "MiB/s", target="ratio ≥ 0.7"),
        Step("fs-seq read, warm", operations, read, "MiB/s", warm_up, "ratio ≥ 0.95"),
    ]
    return side_by_side(lineup, steps, rounds)


def small(lineup: Lineup, count: int, rounds: int) -> list[Figure]:
    """Files of 4 KiB in one directory: create, stat and read (cold and warm), unlink."""

    def directory(system: System, number: int) -> Path:
        return system.place / f"small-{number}"

    def forget(system: System, number: int) -> None:
        drop_caches()

    def create(system: System, number: int) -> float:
        return files.create_small(directory(system, number), count)

    def stat(system: System, number: int) -> float:
        return files.stat_small(directory(system, number), count)

    def stat_once(system: System, number: int) -> None:
        stat(system, number)

    def read(system: System, number: int) -> float:
        return files.read_small(directory(system, number), count)

    def read_once(system: System, number: int) -> None:
        read(system, number)

    def unlink(system: System, number: int) -> float:
        return files.unlink_small(directory(system, number), count)

    steps = [
        Step("fs-small create+write+close 4 KiB", count, create, target="≥ 2,500/s"),
        Step("fs-small stat, caches dropped", count, stat, prepare=forget, target="≥ 15,000/s"),
        Step("fs-small stat, warm", count, stat, prepare=stat_once),
        Step("fs-small open+read+close, caches dropped", count, read, prepare=forget),
        Step("fs-small open+read+close, warm", count, read, prepare=read_once),
        Step("fs-small unlink", count, unlink),
    ]
    return side_by_side(lineup, steps, rounds)


def fsync(lineup: Lineup, count: int, rounds: int) -> list[Figure]:
    """Append 4 KiB and fsync, again and again; and, where strace is, how many syncs that was for the disk."""

    def append(system: System, number: int) -> float:
        return files.append_synced(system.place / "synced", count)

    systems = list(lineup.systems)
    figures = side_by_side(lineup, [Step("fs-fsync append 4 KiB + fsync", count, append, "fsyncs/s")], rounds)
    if shutil.which("strace") is None:
        return figures
    say("fs-fsync: counting syncs with strace")
    counts = {system.name: _syncs_each(system) for system in systems if system in lineup.systems}
    shown = [
        replace(figure, note=_joined(figure.note, f"{counts[figure.system]:.1f} syncs of its processes for each"))
        if counts.get(figure.system) is not None
        else figure
        for figure in figures
    ]
    return shown + not_measured("fs-fsync append 4 KiB + fsync", lineup, {figure.system for figure in shown})


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _syncs_each(system: System, count: int = 50) -> float | None:
    """How many fsync, fdatasync and the like its processes call for each fsync of a program; None: it has none."""
    pids = [pid for part in system.parts().values() for pid in part]
    if not pids:
        return None
    with tempfile.NamedTemporaryFile() as trace:
        tracer = subprocess.Popen(
            ["strace", "-f", "-o", trace.name, "-e", "trace=fsync,fdatasync,syncfs,sync_file_range,msync"]
            + [word for pid in pids for word in ("-p", str(pid))],
            stderr=subprocess.PIPE,
        )
        try:
            assert tracer.stderr is not None
            attached: set[bytes] = set()
            while len(attached) < len(pids) and (line := tracer.stderr.readline()):
                attached |= {word for word in line.split() if word.isdigit() and int(word) in pids}
            files.append_synced(system.place / "synced", count)
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.communicate()
        calls = [line for line in Path(trace.name).read_text().splitlines() if "sync" in line and "resumed" not in line]
    return len(calls) / count
