"""fs-seq and fs-small: the mount beside the native file system of the same disk, and beside a FUSE file system in C."""

from __future__ import annotations

import itertools
from pathlib import Path

from benchmarks import files, peers
from benchmarks.figures import Figure
from benchmarks.rig import Rig, best, cpu_s, drop_caches

_serial = itertools.count()


def sequential(rig: Rig, size: int = 1024 * files.MIB, rounds: int = 3) -> list[Figure]:
    """Write and fsync, read back warm, read back after dropping caches; offload runs meanwhile, as it would."""
    with peers.bindfs(rig) as peer:
        places = [rig.native, rig.mnt] + ([peer] if peer is not None else [])
        figures = _beside("write+fsync", size, _written(rig, places, size, rounds), "ratio ≥ 0.5", "offload running")
        paths = [place / f"read-{number}" for number, place in enumerate(places)]
        for path in paths:
            files.write_file(path, size)
        before = cpu_s([rig.pid("mount")])
        cold = best(rounds, *(lambda path=path: _cold(path) for path in paths))  # type: ignore[misc]
        note = f"mount {(cpu_s([rig.pid('mount')]) - before) / rounds / (size / files.MIB / 1024):.2f} CPU s/GiB"
        figures += _beside("read, caches dropped", size, cold, "", note)
        for path in paths:
            files.read_file(path)
        warm = best(rounds, *(lambda path=path: files.read_file(path) for path in paths))  # type: ignore[misc]
        figures += _beside("read, warm", size, warm, "ratio ≥ 0.8", "no request reaches us; see docs/performance.md")
        for path in paths:
            path.unlink()
    return figures


def _written(rig: Rig, places: list[Path], size: int, rounds: int) -> list[float]:
    def write(directory: Path) -> float:
        path = directory / f"seq-{next(_serial)}"
        try:
            return files.write_file(path, size)
        finally:
            path.unlink()

    return best(rounds, *(lambda place=place: write(place) for place in places))  # type: ignore[misc]


def _beside(name: str, size: int, seconds: list[float], target: str, note: str) -> list[Figure]:
    """`seconds`: native, mount and, where there is one, the peer."""
    native, mount, *peer = [size / files.MIB / each for each in seconds]
    figures = [Figure(f"fs-seq {name}", mount, "MiB/s", native, target, note)]
    return figures + [Figure(f"fs-seq {name}", value, "MiB/s", native, "", peers.NAME) for value in peer]


def _cold(path: Path) -> float:
    drop_caches()
    return files.read_file(path)


def small(rig: Rig, count: int = 10_000) -> list[Figure]:
    """10,000 files of 4 KiB: create, stat (cold and warm), read, unlink."""
    with peers.bindfs(rig) as peer:
        directories = [rig.native / "small", rig.mnt / "small"] + ([peer / "peer"] if peer is not None else [])
        before = cpu_s([rig.pid("mount")])
        create = [files.create_small(directory, count) for directory in directories]
        note = f"mount {(cpu_s([rig.pid('mount')]) - before) / count * 1e6:.0f} CPU µs/file"
        rows = [("create+write+close 4 KiB", create, "≥ 2,500/s", note)]
        drop_caches()
        rows.append(("stat, caches dropped", [files.stat_small(d, count) for d in directories], "≥ 15,000/s", ""))
        rows.append(("stat, warm", [files.stat_small(d, count) for d in directories], "", ""))
        rows.append(("open+read+close", [files.read_small(d, count) for d in directories], "", ""))
        rows.append(("unlink", [files.unlink_small(d, count) for d in directories], "", ""))
    figures = []
    for name, (native_s, mount_s, *peer_s), target, note in rows:
        figures.append(Figure(f"fs-small {name}", count / mount_s, "files/s", count / native_s, target, note))
        figures += [
            Figure(f"fs-small {name}", count / seconds, "files/s", count / native_s, "", peers.NAME)
            for seconds in peer_s
        ]
    return figures
