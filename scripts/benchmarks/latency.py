"""fs-latency: how long a stat takes while a large file is copied onto the same system."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

from benchmarks import files
from benchmarks.figures import Figure
from benchmarks.measure import not_measured, say
from benchmarks.rig import drop_caches
from benchmarks.systems import Lineup, System

_PAUSE_S = 0.002
_NAMES = {"p50": 0.50, "p99": 0.99, "max": 1.0}


def stat_under_copy(lineup: Lineup, scratch: Path, size: int) -> list[Figure]:
    """`dd` copies a file with an fsync at its end; meanwhile stat of a name the kernel does not know, every 2 ms."""
    source = scratch / "copy-source"
    files.write_file(source, size)
    seen: dict[str, list[float]] = {}
    notes: dict[str, str] = {}
    for system in list(lineup.systems):
        say(f"fs-latency, {system.name}")
        try:
            waits, copy_s = _one(system, source)
        except (OSError, subprocess.SubprocessError) as error:
            lineup.drop(system, str(error))
            continue
        seen[system.name] = waits
        notes[system.name] = f"{len(waits):,} stats; copy at {size / files.MIB / copy_s:,.0f} MiB/s"
    source.unlink()
    figures = []
    for label, share in _NAMES.items():
        native_ms = _quantile(seen["native"], share) if "native" in seen else None
        for name, waits in seen.items():
            target = "≤ 10 ms" if label == "p99" and name.startswith("QSS") else ""
            note = notes[name] if label == "p50" else ""
            figures.append(
                Figure(f"fs-latency stat {label}", _quantile(waits, share), "ms", native_ms, target, note, name)
            )
    return figures + not_measured("fs-latency stat", lineup)


def _one(system: System, source: Path) -> tuple[list[float], float]:
    """Milliseconds of each stat, and the seconds of the copy."""
    target = system.place / "copy"
    drop_caches()
    began = time.monotonic()
    copy = subprocess.Popen(
        ["dd", f"if={source}", f"of={target}", "bs=1M", "conv=fsync"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        waits: list[float] = []
        while copy.poll() is None:
            waits.append(_stat_ms(system.place / f"nobody-{len(waits)}"))
            time.sleep(_PAUSE_S)
        copy_s = time.monotonic() - began
    finally:
        copy.kill()
        copy.wait()
    if copy.returncode:
        raise subprocess.CalledProcessError(copy.returncode, "dd")
    target.unlink()
    system.settle()
    return waits, copy_s


def _stat_ms(path: Path) -> float:
    began = time.perf_counter()
    with contextlib.suppress(FileNotFoundError):
        os.stat(path)
    return (time.perf_counter() - began) * 1e3


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
