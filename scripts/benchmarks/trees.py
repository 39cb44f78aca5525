"""fs-rsync and fs-untar: trees of small files made from Python's own library, the same every time."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import subprocess
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.measure import Step, side_by_side
from benchmarks.rig import timed
from benchmarks.systems import Lineup, System

_DATE = 1_700_000_000
_SMALL_MAX = 8192
_DIRECTORIES = 200


def rsync(lineup: Lineup, scratch: Path, count: int, rounds: int) -> list[Figure]:
    """`rsync -a` of small files in 200 directories from the native file system; then again, with nothing to do."""
    source = scratch / "rsync-source"
    say_bytes = _small_files(source, count)

    def target(system: System, number: int) -> Path:
        return system.place / f"rsync-{number}"

    def copy(system: System, number: int) -> float:
        return timed(lambda: _run("rsync", "-a", f"{source}/", f"{target(system, number)}/"))

    def forget(system: System, number: int) -> None:
        if number:
            shutil.rmtree(target(system, number - 1))

    note = f"{count:,} files, {say_bytes / 1e6:.0f} MB"
    steps = [
        Step("fs-rsync -a of small files", count, copy, "s", forget, "faster than every peer", note),
        Step("fs-rsync -a again, nothing new", count, copy, "s"),
    ]
    try:
        return side_by_side(lineup, steps, rounds)
    finally:
        shutil.rmtree(source, ignore_errors=True)


def untar(lineup: Lineup, scratch: Path, count: int, rounds: int) -> list[Figure]:
    """GNU tar unpacks a source tree; then `rm -r` of it."""
    archive = scratch / "source.tar"
    size = _source_archive(archive, count)

    def target(system: System, number: int) -> Path:
        return system.place / f"untar-{number}"

    def unpack(system: System, number: int) -> float:
        target(system, number).mkdir()
        return timed(lambda: _run("tar", "-xf", archive, "-C", target(system, number)))

    def remove(system: System, number: int) -> float:
        return timed(lambda: _run("rm", "-r", target(system, number)))

    steps = [
        Step("fs-untar", count, unpack, "s", None, "ratio ≤ 2.5", f"{count:,} files, {size / 1e6:.0f} MB"),
        Step("fs-untar rm -r", count, remove, "s"),
    ]
    try:
        return side_by_side(lineup, steps, rounds)
    finally:
        archive.unlink(missing_ok=True)


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, stdin=subprocess.DEVNULL, capture_output=True)


def _library() -> list[Path]:
    """Python's own library, sorted: text, mostly small, some files large."""
    root = Path(sysconfig.get_paths()["stdlib"])
    return sorted(path for path in root.rglob("*.py") if "site-packages" not in path.parts and path.is_file())


def _source_archive(archive: Path, count: int) -> int:
    """A tar of `count` files: the library over and over, under another directory each time. Bytes of content."""
    library, root, total = _library(), Path(sysconfig.get_paths()["stdlib"]), 0
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
        made: set[Path] = set()
        for number in range(count):
            path = library[number % len(library)]
            name = Path(f"copy-{number // len(library)}") / path.relative_to(root)
            for parent in reversed(name.parents[:-1]):
                if parent not in made:
                    made.add(parent)
                    tar.addfile(_entry(str(parent), 0o755, tarfile.DIRTYPE))
            content = path.read_bytes()
            entry = _entry(str(name), 0o644)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
            total += len(content)
    return total


def _entry(name: str, mode: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.type, entry.mtime = mode, kind, _DATE
    return entry


def _small_files(source: Path, count: int) -> int:
    """`count` files in 200 directories, each a piece of the library of 1 byte to 8 KiB. Bytes of content."""
    source.mkdir()
    pieces, total = _pieces(), 0
    for number in range(count):
        directory = source / f"directory-{number % _DIRECTORIES:03d}"
        if number < _DIRECTORIES:
            directory.mkdir()
        path, piece = directory / f"file-{number:06d}.py", next(pieces)
        path.write_bytes(piece)
        os.utime(path, (_DATE + number, _DATE + number))
        total += len(piece)
    return total


def _pieces() -> Iterator[bytes]:
    for path in itertools.cycle(_library()):
        content = path.read_bytes()
        if content:
            yield content[: 1 + (len(content) * 7919) % _SMALL_MAX]
