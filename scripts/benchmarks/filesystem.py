"""fs-seq and fs-small: the mount beside the native file system of the same disk."""

from __future__ import annotations

import itertools
from pathlib import Path

from benchmarks import files
from benchmarks.figures import Figure
from benchmarks.rig import Rig, best, cpu_s, drop_caches

_serial = itertools.count()


def sequential(rig: Rig, size: int = 1024 * files.MIB, rounds: int = 3) -> list[Figure]:
    """Write and fsync, read back warm, read back after dropping caches; offload runs meanwhile, as it would."""
    mib = size / files.MIB

    def write(directory: Path) -> float:
        path = directory / f"seq-{next(_serial)}"
        try:
            return files.write_file(path, size)
        finally:
            path.unlink()

    native_s, mount_s = best(rounds, lambda: write(rig.native), lambda: write(rig.mnt))
    figures = [Figure("fs-seq write+fsync", mib / mount_s, "MiB/s", mib / native_s, "ratio ≥ 0.5", "offload running")]

    native, mount = rig.native / "read", rig.mnt / "read"
    files.write_file(native, size)
    files.write_file(mount, size)
    before = cpu_s([rig.pid("mount")])
    cold_native_s, cold_mount_s = best(rounds, lambda: _cold(native), lambda: _cold(mount))
    used_s = (cpu_s([rig.pid("mount")]) - before) / rounds
    note = f"mount {used_s / (mib / 1024):.2f} CPU s/GiB"
    figures.append(Figure("fs-seq read, caches dropped", mib / cold_mount_s, "MiB/s", mib / cold_native_s, "", note))
    for path in (native, mount):
        files.read_file(path)
    native_s, mount_s = best(rounds, lambda: files.read_file(native), lambda: files.read_file(mount))
    figures.append(Figure("fs-seq read, warm", mib / mount_s, "MiB/s", mib / native_s, "ratio ≥ 0.8"))
    native.unlink()
    mount.unlink()
    return figures


def _cold(path: Path) -> float:
    drop_caches()
    return files.read_file(path)


def small(rig: Rig, count: int = 10_000) -> list[Figure]:
    """10,000 files of 4 KiB: create, stat (cold and warm), read, unlink."""
    native, mount = rig.native / "small", rig.mnt / "small"
    before = cpu_s([rig.pid("mount")])
    create = [files.create_small(directory, count) for directory in (native, mount)]
    note = f"mount {(cpu_s([rig.pid('mount')]) - before) / count * 1e6:.0f} CPU µs/file"
    rows = [("create+write+close 4 KiB", create, "≥ 1,500/s", note)]
    drop_caches()
    rows.append(("stat, caches dropped", [files.stat_small(d, count) for d in (native, mount)], "", ""))
    rows.append(("stat, warm", [files.stat_small(d, count) for d in (native, mount)], "", ""))
    rows.append(("open+read+close", [files.read_small(d, count) for d in (native, mount)], "", ""))
    rows.append(("unlink", [files.unlink_small(d, count) for d in (native, mount)], "", ""))
    return [
        Figure(f"fs-small {name}", count / mount_s, "files/s", count / native_s, target, note)
        for name, (native_s, mount_s), target, note in rows
    ]
