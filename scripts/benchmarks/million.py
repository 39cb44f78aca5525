"""fs-million: a tree of very many files on QSS, walked twice: does the memory of the mount stay flat?"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.measure import say
from benchmarks.rig import Rig, cpu_s, drop_caches, resident_mib, timed

_PER_DIRECTORY = 1000
_SHARE_IN_ONE = 10  # a tenth of the files is in one directory


def many(rig: Rig, count: int) -> list[Figure]:
    """Empty files, nine tenths in directories of 1,000, the rest in one. The kernel forgets before each walk."""
    pid = [rig.pid("mount")]
    together = count // _SHARE_IN_ONE
    memory = {"at the start": _memory(pid)}
    figures = []

    def spent(name: str, operations: int, work_s: float, before_s: float) -> None:
        used_us = (cpu_s(pid) - before_s) / operations * 1e6
        figures.append(Figure(f"fs-million {name}", operations / work_s, "files/s", cpu_us=used_us, note="CPU: mount"))

    say(f"fs-million: creating {count:,} files")
    before_s = cpu_s(pid)
    create_s = timed(lambda: _create(rig.mnt / "many", count - together))
    spent("create, directories of 1,000", count - together, create_s, before_s)
    before_s = cpu_s(pid)
    create_s = timed(lambda: _fill(rig.mnt / "one", together))
    spent(f"create, {together:,} in one directory", together, create_s, before_s)
    memory["after creating"] = _memory(pid)
    for walk in ("first", "second"):
        say(f"fs-million: {walk} walk")
        drop_caches()
        before_s = cpu_s(pid)
        walk_s = timed(lambda: _walk(rig.mnt, count))
        spent(f"find -ls, {walk} walk", count, walk_s, before_s)
        memory[f"after the {walk} walk"] = _memory(pid)
    drop_caches(2)
    before_s = cpu_s(pid)
    list_s = timed(lambda: _listed(rig.mnt / "one", together))
    spent(f"list the directory of {together:,}", together, list_s, before_s)
    for when, (whole, own) in memory.items():
        figures.append(
            Figure(f"fs-million memory of the mount {when}", whole, "MiB", note=f"{own:.0f} without mappings")
        )
    growth = memory["after the second walk"][1] - memory["after the first walk"][1]
    return [
        *figures,
        Figure("fs-million memory, second walk over first, without mappings", growth, "MiB", target="flat"),
    ]


def _memory(pid: list[int]) -> tuple[float, float]:
    """MiB resident; MiB of it that are no mapped file (the index is one, and goes when memory is short)."""
    return resident_mib(pid), resident_mib(pid, "RssAnon")


def _create(root: Path, count: int) -> None:
    root.mkdir()
    for first in range(0, count, _PER_DIRECTORY):
        _fill(root / f"directory-{first // _PER_DIRECTORY:05d}", min(_PER_DIRECTORY, count - first))


def _fill(directory: Path, count: int) -> None:
    directory.mkdir()
    handle = os.open(directory, os.O_RDONLY)
    try:
        for number in range(count):
            os.close(os.open(f"file-{number:07d}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=handle))
    finally:
        os.close(handle)


def _walk(root: Path, count: int) -> None:
    """`find -ls` as people use it; sees that nothing is missing."""
    with subprocess.Popen(["find", root, "-type", "f", "-ls"], stdout=subprocess.PIPE) as find:
        assert find.stdout is not None
        seen = sum(1 for _ in find.stdout)
    if find.returncode or seen != count:
        raise RuntimeError(f"find saw {seen} of {count} files and exits with {find.returncode}")


def _listed(directory: Path, count: int) -> None:
    if len(os.listdir(directory)) != count:
        raise RuntimeError(f"{directory} does not list {count} names")
