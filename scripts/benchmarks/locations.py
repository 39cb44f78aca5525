"""offload, fetch, memory: plaintext sealed to safe, and evicted data read back."""

from __future__ import annotations

import itertools
import os
import threading
import time
from functools import partial

from benchmarks import files
from benchmarks.figures import Figure
from benchmarks.rig import Rig, best, cpu_s, drop_caches, resident_mib, timed

_OURS = ("mount", "offload")
_serial = itertools.count()


def offload(rig: Rig, size: int = 1024 * files.MIB, rounds: int = 3) -> list[Figure]:
    """MB/s of plaintext from the first byte written until `qssctl sync` says that all of it is safe; the best round.

    The native figure is one copy of the same bytes with fsync; we write 1 + (k+m)/k copies to the same disk.
    """
    megabytes = size / 1e6
    rig.qssctl("sync")
    before = cpu_s(rig.pids(*_OURS)), cpu_s(rig.pids("trove"))

    def native() -> float:
        path = rig.native / "offload"
        try:
            return files.write_file(path, size)
        finally:
            path.unlink()

    def ours() -> float:
        path = rig.mnt / f"offload-{next(_serial)}"

        def work() -> None:
            files.write_file(path, size, sync=False)
            rig.qssctl("sync")

        return timed(work)

    native_s, ours_s = best(rounds, native, ours)
    client_s, nodes_s = cpu_s(rig.pids(*_OURS)) - before[0], cpu_s(rig.pids("trove")) - before[1]
    gigabytes = megabytes * rounds / 1000
    note = f"CPU s/GB: ours {client_s / gigabytes:.2f}, nodes {nodes_s / gigabytes:.2f}"
    return [Figure("offload write→safe", megabytes / ours_s, "MB/s", megabytes / native_s, "≥ 150 MB/s", note)]


def fetch(rig: Rig, size: int = 1024 * files.MIB, probes: int = 10) -> list[Figure]:
    """Evicted data read back: MB/s from end to end, and the time to the first 4 KiB of an evicted file."""
    path, native = rig.mnt / "fetch", rig.native / "fetch"
    files.write_file(path, size, sync=False)
    files.write_file(native, size)
    small = [rig.mnt / f"probe-{number}" for number in range(probes)]
    for probe in small:
        files.write_file(probe, 8 * files.MIB, sync=False)
    rig.qssctl("sync")

    first_bytes = []
    for probe in small:
        rig.qssctl("retention", "run", "--all")
        drop_caches()
        handle = os.open(probe, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
        first_bytes.append(timed(partial(os.pread, handle, 4096, 0)))
        os.close(handle)
    rig.qssctl("retention", "run", "--all")
    drop_caches()
    before = cpu_s(rig.pids(*_OURS))
    ours_s = files.read_file(path) if path.stat().st_size == size else 0.0
    used_s = cpu_s(rig.pids(*_OURS)) - before
    drop_caches()
    native_s = files.read_file(native)
    megabytes = size / 1e6
    for leftover in (path, native, *small):
        leftover.unlink()
    ordered = sorted(first_bytes)
    return [
        Figure(
            "fetch evicted, sequential",
            megabytes / ours_s,
            "MB/s",
            megabytes / native_s,
            "≥ 150 MB/s",
            f"ours {used_s / (megabytes / 1000):.2f} CPU s/GB",
        ),
        Figure("fetch first 4 KiB, median", ordered[len(ordered) // 2] * 1e3, "ms", None, "≤ 50 ms"),
        Figure("fetch first 4 KiB, worst", ordered[-1] * 1e3, "ms", None, "", f"of {probes}"),
    ]


def memory(rig: Rig, size: int = 4096 * files.MIB) -> list[Figure]:
    """Highest resident memory of the mount and offload processes while a large file is copied in and made safe."""
    peak = [0.0]
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            peak[0] = max(peak[0], resident_mib(rig.pids(*_OURS)))
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        files.write_file(rig.mnt / "large", size)
        rig.qssctl("sync")
    finally:
        stop.set()
        watcher.join()
    (rig.mnt / "large").unlink()
    note = f"copy of {size // (1024 * files.MIB)} GiB"
    return [Figure("memory, mount + offload", peak[0], "MiB", None, "≤ 300 MiB", note)]
