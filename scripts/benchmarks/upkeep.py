"""repair: one location lost for good, its shards rebuilt elsewhere. misses: cached reads while others miss."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import files
from benchmarks.figures import Figure
from benchmarks.rig import Demo, Rig, cpu_s, drop_caches
from qss.app.talk import call
from qss.config import environment, load

POLL_S = 0.05
WAIT_S_MAX = 300.0
BLOCK = 4096


def repair(rig: Rig, size: int = 1024 * files.MIB) -> list[Figure]:
    """MB/s of content whose lost shard was rebuilt at the seventh node, from the moment its location was given up until
    every segment has been verified by hash; 4+2."""
    with Demo(rig.root / "repair", 4, 2, nodes=7) as demo:
        demo.reconfigure("offload", 'repair_grace = "0s"')
        files.write_file(demo.mnt / "content", size, sync=False)
        demo.qssctl("sync")
        os.kill(demo.pid("trove-1"), signal.SIGKILL)
        _wait(demo, lambda now: now["given_up"])
        began, before = time.monotonic(), cpu_s(demo.pids("offload"))
        nodes_before = cpu_s(demo.pids("trove-2", "trove-3", "trove-4", "trove-5", "trove-6", "trove-7"))
        done = _wait(demo, lambda now: now["repaired_segments"] and not now["queued"])
        took_s = time.monotonic() - began
        used_s = cpu_s(demo.pids("offload")) - before
        nodes_s = cpu_s(demo.pids("trove-2", "trove-3", "trove-4", "trove-5", "trove-6", "trove-7")) - nodes_before
        megabytes = done["repaired_bytes"] / 1e6
    note = f"CPU s/GB: ours {used_s / megabytes * 1000:.2f}, nodes {nodes_s / megabytes * 1000:.2f}"
    return [Figure("repair, one of six lost", megabytes / took_s, "MB/s", None, "≥ 150 MB/s", note)]


def _wait(demo: Demo, true: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    deadline = time.monotonic() + WAIT_S_MAX
    socket = load(demo.root / "qss.toml", environment()).offload_socket
    while time.monotonic() < deadline:
        now: dict[str, Any] = call(socket, "repair.status")  # a qssctl each time would take a core from the repair
        if true(now):
            return now
        time.sleep(POLL_S)
    raise TimeoutError("the repair does not end")


def misses(rig: Rig, readers: int = 20, probes: int = 2000) -> list[Figure]:
    """p99 of 4 KiB of a cached file, past the kernel's cache: alone, and beside `readers` of evicted files."""
    hot = rig.mnt / "hot"
    cold = [rig.mnt / f"cold-{number}" for number in range(readers)]
    for path in cold:
        files.write_file(path, 24 * files.MIB, sync=False)
    rig.qssctl("sync")
    rig.qssctl("retention", "run", "--all")
    files.write_file(hot, 16 * files.MIB, sync=False)
    drop_caches()
    quiet = _p99_ms(hot, probes, None)
    running = [
        subprocess.Popen(["dd", f"if={path}", "of=/dev/null", "bs=128K", "status=none"], stdin=subprocess.DEVNULL)
        for path in cold
    ]
    try:
        busy = _p99_ms(hot, probes, running)
    finally:
        for each in running:
            each.kill()
            each.wait()
    for path in (hot, *cold):
        path.unlink()
    note = f"{busy / quiet:.1f} times; {readers} readers on {os.cpu_count()} cores"
    return [
        Figure("cached read alone, p99", quiet, "ms", None, ""),
        Figure("cached read beside misses, p99", busy, "ms", None, f"≤ {2 * quiet:.2f} ms", note),
    ]


def _p99_ms(path: Path, count: int, beside: list[subprocess.Popen] | None) -> float:
    """Of reads until `count`, or until everybody beside has ended."""
    taken: list[float] = []
    handle = os.open(path, os.O_RDONLY)
    blocks = os.fstat(handle).st_size // BLOCK
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
    try:
        for number in range(count):
            at = number * 7919 % blocks * BLOCK
            os.posix_fadvise(handle, at, BLOCK, os.POSIX_FADV_DONTNEED)
            began = time.perf_counter()
            os.pread(handle, BLOCK, at)
            taken.append(time.perf_counter() - began)
            if beside is not None and len(taken) > 100 and all(each.poll() is not None for each in beside):
                break
            time.sleep(0.001)
    finally:
        os.close(handle)
    return sorted(taken)[int(len(taken) * 0.99)] * 1e3
