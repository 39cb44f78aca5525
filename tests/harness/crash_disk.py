"""A disk in memory that can lose its power: it forgets, keeps or tears what was not synced.

Counts every change. `cut_at` names the change before which the power goes; from then on everything raises PowerCut.
`after_cut` then gives the disk as it is found at the next boot. What lies under an `index` directory is LMDB's and
goes straight to the real disk; scenarios delete it with every cut.
"""

from __future__ import annotations

import enum
import functools
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from qss.errors import NoSpace
from qss.host import PosixDisk
from qss.host.disk import Handle

SECTOR = 512


class PowerCut(BaseException):
    """Not an Exception: nobody may handle it."""


class Fate(enum.Enum):
    """What becomes of unsynced writes."""

    LOST = 1
    KEPT = 2
    TORN = 3  # each by itself: lost, kept, or kept up to some sector


@dataclass(eq=False)
class _File:
    now: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # (position, bytes); None: truncate

    def apply(self, target: bytearray, position: int, data: bytes | None) -> None:
        if data is None:
            del target[position:]
            target.extend(bytes(position - len(target)))
            return
        if len(target) < position:
            target.extend(bytes(position - len(target)))
        target[position : position + len(data)] = data

    def change(self, position: int, data: bytes | None) -> None:
        self.apply(self.now, position, data)
        self.pending.append((position, data))


_P = ParamSpec("_P")
_T = TypeVar("_T")


def _locked(method: Callable[Concatenate[CrashDisk, _P], _T]) -> Callable[Concatenate[CrashDisk, _P], _T]:
    @functools.wraps(method)
    def call(self: CrashDisk, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with self._lock:
            return method(self, *args, **kwargs)

    return call


class CrashDisk:
    """Implements qss.host.Disk."""

    def __init__(self) -> None:
        self._real = PosixDisk()
        self._names: dict[Path, _File] = {}
        self._durable_names: dict[Path, _File] = {}
        self._handles: dict[int, _File] = {}
        self._next_handle = 1_000_000
        self._lock = threading.RLock()  # syncs come from threads
        self.changes = 0
        self.cut_at: int | None = None
        self.log: list[str] = []
        self.free = 1 << 40

    # -- power

    def _changing(self, what: str) -> None:
        if self.cut_at is not None and self.changes >= self.cut_at:
            raise PowerCut
        self.changes += 1
        self.log.append(what)

    @property
    def dead(self) -> bool:
        return self.cut_at is not None and self.changes >= self.cut_at

    def after_cut(self, fate: Fate, rng: random.Random) -> CrashDisk:
        """The disk at the next boot."""
        disk = CrashDisk()
        names = dict(self._durable_names)
        for path in {*self._names, *self._durable_names}:
            if self._names.get(path) is not names.get(path) and (
                fate is Fate.KEPT or (fate is Fate.TORN and rng.random() < 0.5)
            ):
                if path in self._names:
                    names[path] = self._names[path]
                else:
                    del names[path]
        for path, file in names.items():
            found = _File(bytearray(file.durable))
            for position, data in file.pending:
                survives = _survivor(data, fate, rng)
                if survives is not None or (data is None and fate is not Fate.LOST):
                    found.apply(found.now, position, survives)
            found.durable = bytearray(found.now)
            disk._names[path] = disk._durable_names[path] = found
        return disk

    def lose(self, path: Path) -> None:
        """A test takes a file away."""
        del self._names[path]
        self._durable_names.pop(path, None)

    def flip(self, path: Path, position: int) -> None:
        """A test damages one byte."""
        self._names[path].now[position] ^= 0x40
        self._names[path].durable = bytearray(self._names[path].now)

    # -- Disk

    @_locked
    def create(self, path: Path) -> Handle:
        self._changing(f"create {path.name}")
        if path in self._names:
            raise FileExistsError(path)
        self._names[path] = _File()
        return self._handle(self._names[path])

    def open(self, path: Path, *, write: bool = False) -> Handle:
        if path not in self._names:
            raise FileNotFoundError(path)
        return self._handle(self._names[path])

    def open_direct(self, path: Path) -> Handle | None:
        return None

    def _handle(self, file: _File) -> Handle:
        self._next_handle += 1
        self._handles[self._next_handle] = file
        return Handle(self._next_handle)

    def close(self, handle: Handle) -> None:
        self._handles.pop(handle, None)

    @_locked
    def pwrite(self, handle: Handle, parts: list[bytes | memoryview], position: int) -> int:
        self._changing("pwrite")
        data = b"".join(bytes(part) for part in parts)
        if len(data) > self.free:
            self._handles[handle].change(position, data[: self.free])
            self.free = 0
            raise NoSpace("the crash disk is full")
        self.free -= len(data)
        self._handles[handle].change(position, data)
        return len(data)

    def pread(self, handle: Handle, count: int, position: int) -> bytes:
        return bytes(self._handles[handle].now[position : position + count])

    def size(self, handle: Handle) -> int:
        return len(self._handles[handle].now)

    @_locked
    def truncate(self, handle: Handle, length: int) -> None:
        self._changing("truncate")
        self._handles[handle].change(length, None)

    @_locked
    def sync_data(self, handle: Handle) -> None:
        self._changing("sync_data")
        file = self._handles[handle]
        file.durable = bytearray(file.now)
        file.pending.clear()

    @_locked
    def sync_dir(self, path: Path) -> None:
        self._changing(f"sync_dir {path.name}")
        for name in [name for name in self._durable_names if name.parent == path and name not in self._names]:
            del self._durable_names[name]
        self._durable_names.update({name: file for name, file in self._names.items() if name.parent == path})

    @_locked
    def rename(self, source: Path, target: Path) -> None:
        self._changing(f"rename {target.name}")
        self._names[target] = self._names.pop(source)

    @_locked
    def remove(self, path: Path) -> None:
        if path.parent.name == "index":
            self._real.remove(path)
            return
        if path not in self._names:
            raise FileNotFoundError(path)
        self._changing(f"remove {path.name}")
        del self._names[path]

    @_locked
    def listdir(self, path: Path) -> list[str]:
        if path.name == "index":
            return self._real.listdir(path)
        return [name.name for name in self._names if name.parent == path]

    def makedirs(self, path: Path) -> None:
        self._real.makedirs(path)

    def exists(self, path: Path) -> bool:
        return self._real.exists(path) if path.parent.name == "index" else path in self._names

    def mtime_ns(self, path: Path) -> int:
        return 0

    def free_bytes(self, path: Path) -> tuple[int, int]:
        return self.free, 1 << 40


def _survivor(data: bytes | None, fate: Fate, rng: random.Random) -> bytes | None:
    """What of one unsynced write is found after the cut; None: nothing."""
    if data is None or fate is Fate.LOST:
        return None
    if fate is Fate.KEPT:
        return data
    luck = rng.random()
    if luck < 0.4:
        return data
    if luck < 0.6:
        return bytes(len(data))  # the length has reached the disk, the bytes have not
    if luck < 0.8:
        return data[: rng.randrange(len(data) + 1) // SECTOR * SECTOR] or None
    return None


@dataclass
class FixedClock:
    """Implements qss.host.Clock."""

    boot: str = "boot-1"
    ns: int = 1_700_000_000_000_000_000

    def now_ns(self) -> int:
        self.ns += 1
        return self.ns

    def boot_id(self) -> str:
        return self.boot
