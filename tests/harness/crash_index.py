"""LMDB under a power cut. Its writes do not go through host.disk, so its file is watched from outside.

LMDB writes the pages of a commit in any order and its meta page last, and nothing is ordered before `sync`. So after a
cut each 4 KiB page is, by itself, as of the last sync or as it is now; a bad disk adds pages that are neither, and
somebody with `rm` adds no file at all. Commit and sync count as operations of the crash disk: the power goes there too.
"""

from __future__ import annotations

import contextlib
import enum
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from qss.cache.index import Index
from tests.harness.crash_disk import CrashDisk

PAGE = 4096


class IndexFate(enum.Enum):
    """What is found of LMDB's file at the next start."""

    GONE = 1
    SYNCED = 2  # as of its last sync
    NOW = 3  # as LMDB sees it
    MIXED = 4  # each page the one or the other
    DAMAGED = 5  # as NOW, some pages overwritten


class IndexFile:
    """The index of one cache on a crash disk, for one life of the process."""

    def __init__(self, root: Path) -> None:
        self.path = root / "index" / "data.mdb"
        self.synced = self._read()
        self._opened: list[Index] = []

    def _read(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""

    @contextlib.contextmanager
    def watched(self, disk: CrashDisk) -> Iterator[None]:
        """Until the context ends; then LMDB lets go of the file as a kill makes it: nothing more is committed."""
        make, commit, sync = Index.__init__, Index.checkpoint, Index.sync
        watch = self

        def opened(index: Index, path: Path, *args: object, **options: object) -> None:
            make(index, path, *args, **options)  # type: ignore[arg-type]
            watch._opened.append(index)
            index.is_watched = path == watch.path.parent  # type: ignore[attr-defined]

        def committed(index: Index, *args: object) -> int:
            if index.is_watched:  # type: ignore[attr-defined]
                disk.changing("commit", watch.path)
            return commit(index, *args)  # type: ignore[arg-type]

        def synced(index: Index) -> None:
            if index.is_watched:  # type: ignore[attr-defined]
                disk.changing("sync", watch.path)
                watch.synced = watch._read()
            else:
                sync(index)

        Index.__init__, Index.checkpoint, Index.sync = opened, committed, synced  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            Index.__init__, Index.checkpoint, Index.sync = make, commit, sync  # type: ignore[method-assign]
            for index in self._opened:
                with contextlib.suppress(Exception):
                    index.close()  # aborts what is not committed
            self._opened.clear()

    def after_cut(self, fate: IndexFate, rng: random.Random, now: bytes) -> None:
        """Make the file what `fate` says. `now`: what it was when the process ended."""
        shutil.rmtree(self.path.parent, ignore_errors=True)
        if fate is IndexFate.GONE:
            return
        found = bytearray(self.synced if fate is IndexFate.SYNCED else now)
        if fate is IndexFate.MIXED:
            found = bytearray(max(self.synced, now, key=len))
            for at in range(0, len(found), PAGE):
                page = rng.choice((self.synced, now))[at : at + PAGE]
                found[at : at + PAGE] = page.ljust(min(PAGE, len(found) - at), b"\0")
        if fate is IndexFate.DAMAGED:
            overwrite_pages(found, rng)
        if found:
            self.path.parent.mkdir(parents=True)
            self.path.write_bytes(found)

    def now(self) -> bytes:
        return self._read()


def overwrite_pages(content: bytearray, rng: random.Random) -> None:
    """Some pages become garbage, the two that LMDB starts from mostly spared."""
    pages = len(content) // PAGE
    for _ in range(rng.randint(1, 4) if pages else 0):
        at = rng.randrange(pages) if pages <= 2 or rng.random() < 0.1 else rng.randrange(2, pages)
        content[at * PAGE : (at + 1) * PAGE] = rng.randbytes(PAGE)
