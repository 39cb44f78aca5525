"""A disk in memory that can lose its power: it forgets, keeps or tears what was not synced. It can also fail.

Counts every change. `cut_at` names the change before which the power goes; from then on everything raises PowerCut.
`after_cut` then gives the disk as it is found at the next boot. What lies under an `index` directory is LMDB's and
goes straight to the real disk (tests/harness/crash_index.py says what becomes of it).

`fail` is asked before every change and every read, and may answer with the error to raise (tests/harness/crash_faults).
A failed sync follows Linux: the pages are clean afterwards and never written, so a later sync succeeds without them.
"""

from __future__ import annotations

import enum
import functools
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

from blake3 import blake3

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
    TORN = 3  # each by itself: lost, kept, zeros, garbage, or kept up to some sector
    PREFIX = 4  # the first so many of all files reach the disk in order; the next one is torn, nothing behind it
    GARBAGE = 5  # as KEPT, but the last write of every file is garbage


class Write(NamedTuple):
    """One unsynced change of a file."""

    order: int  # of all changes of the disk
    position: int
    data: bytes | None  # None: truncate to `position`

    def apply(self, target: bytearray) -> None:
        if self.data is None:
            del target[self.position :]
        if len(target) < self.position:
            target.extend(bytes(self.position - len(target)))
        if self.data is not None:
            target[self.position : self.position + len(self.data)] = self.data


@dataclass(eq=False)
class _File:
    now: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Write] = field(default_factory=list)

    _frozen: _File | None = None  # a copy of this as it is, that nobody changes

    def frozen(self) -> _File:
        if self._frozen is None:
            self._frozen = _File(bytearray(self.now), bytearray(self.durable), list(self.pending))
        return self._frozen

    def change(self, write: Write) -> None:
        self._frozen = None
        write.apply(self.now)
        self.pending.append(write)

    def sync(self) -> None:
        self._frozen = None
        for write in self.pending:
            write.apply(self.durable)
        self.pending.clear()

    def forget(self) -> None:
        """A sync has failed: clean in the page cache, and never written."""
        self._frozen = None
        self.pending.clear()


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
        self._folders: dict[Path, bool] = {}  # made here → whether the name is durable
        self._handles: dict[int, tuple[_File, Path]] = {}
        self._next_handle = 1_000_000
        self._lock = threading.RLock()  # syncs come from threads
        self.changes = 0
        self.reads = 0
        self.cut_at: int | None = None
        self.watch: Callable[[], None] | None = None  # called before every change
        self.log: list[str] = []
        self.free = 1 << 40
        self.fail: Callable[[str, Path, int], Exception | None] | None = None  # (verb, file, number of this kind)
        self.spoil: Callable[[Path, bytes, int], bytes] | None = None  # (file, bytes read, number of the read)

    # -- power

    def changing(self, verb: str, path: Path) -> None:
        """A change is about to be made. Raises PowerCut, or what `fail` says."""
        if self.cut_at is not None and self.changes >= self.cut_at:
            raise PowerCut
        if self.watch is not None:
            self.watch()
        self.changes += 1
        self.log.append(f"{verb} {path.parent.name}/{path.name}")
        if self.fail is not None:
            error = self.fail(verb, path, self.changes)
            if error is not None:
                raise error

    @property
    def dead(self) -> bool:
        return self.cut_at is not None and self.changes >= self.cut_at

    def copy(self) -> CrashDisk:
        """As it is now, for `after_cut`; not to be changed."""
        disk = CrashDisk()
        disk._names = {path: file.frozen() for path, file in self._names.items()}
        disk._durable_names = {path: file.frozen() for path, file in self._durable_names.items()}
        disk._folders = dict(self._folders)
        disk.changes = self.changes
        return disk

    @property
    def folders(self) -> frozenset[Path]:
        """Directories made here."""
        return frozenset(self._folders)

    def digest(self) -> bytes:
        """Of the names and contents of all files."""
        found = blake3()
        for path, file in sorted(self._names.items()):
            found.update(f"{path} {len(file.now)} ".encode())
            found.update(file.now)
        return found.digest()

    def after_cut(self, fate: Fate, rng: random.Random) -> CrashDisk:
        """The disk at the next boot. This one stays as it is."""
        disk = CrashDisk()
        names = self._names_after(fate, rng)
        files = {id(file): file for file in names.values()}.values()
        kept_upto = _prefix_end(files, rng) if fate is Fate.PREFIX else 0
        found_of: dict[int, _File] = {}
        for path, file in names.items():
            if id(file) not in found_of:
                found = bytearray(file.durable)
                for write in file.pending:
                    survivor = _survivor(write, fate, rng, kept_upto, last=write is file.pending[-1])
                    if survivor is not None:
                        survivor.apply(found)
                found_of[id(file)] = _File(found, bytearray(found))
            disk._names[path] = disk._durable_names[path] = found_of[id(file)]
        disk._folders = {path.parent: True for path in disk._names}
        return disk

    def _names_after(self, fate: Fate, rng: random.Random) -> dict[Path, _File]:
        names = dict(self._durable_names)
        for path in self._names | self._durable_names:
            changed = self._names.get(path) is not names.get(path)
            if changed and (fate in (Fate.KEPT, Fate.GARBAGE) or (fate is not Fate.LOST and rng.random() < 0.5)):
                if path in self._names:
                    names[path] = self._names[path]
                else:
                    del names[path]
        gone = {folder for folder, durable in self._folders.items() if not durable and fate is not Fate.KEPT}
        return {path: file for path, file in names.items() if not gone.intersection(path.parents)}

    def lose(self, path: Path) -> None:
        """A test takes a file away."""
        del self._names[path]
        self._durable_names.pop(path, None)

    def take_in(self, root: Path) -> None:
        """Real files below `root` come here, synced, and are real no more; but those of LMDB."""
        for path in sorted(each for each in root.rglob("*") if each.is_file() and each.parent.name != "index"):
            content = path.read_bytes()
            self._names[path] = self._durable_names[path] = _File(bytearray(content), bytearray(content))
            path.unlink()
        self._folders.update({path: True for path in root.rglob("*") if path.is_dir() and path.name != "index"})

    def moved(self, old: Path, new: Path) -> CrashDisk:
        """A copy (`cp -a`) of what lies below `old`, below `new`."""
        disk = CrashDisk()
        for path, content in self.files().items():
            if path.is_relative_to(old):
                file = _File(bytearray(content), bytearray(content))
                disk._names[new / path.relative_to(old)] = disk._durable_names[new / path.relative_to(old)] = file
        disk._folders = {path.parent: True for path in disk._names}
        return disk

    def flip(self, path: Path, position: int) -> None:
        """A test damages one byte."""
        self._names[path]._frozen = None
        self._names[path].now[position] ^= 0x40
        self._names[path].durable = bytearray(self._names[path].now)

    def files(self) -> dict[Path, bytes]:
        """Every file as a reader sees it now."""
        return {path: bytes(file.now) for path, file in self._names.items()}

    # -- Disk

    @_locked
    def create(self, path: Path) -> Handle:
        self.changing("create", path)
        if path in self._names:
            raise FileExistsError(path)
        self._names[path] = _File()
        return self._handle(path)

    def open(self, path: Path, *, write: bool = False) -> Handle:
        if path not in self._names:
            raise FileNotFoundError(path)
        return self._handle(path)

    def open_direct(self, path: Path) -> Handle | None:
        return None

    def _handle(self, path: Path) -> Handle:
        self._next_handle += 1
        self._handles[self._next_handle] = self._names[path], path
        return Handle(self._next_handle)

    def close(self, handle: Handle) -> None:
        self._handles.pop(handle, None)

    @_locked
    def pwrite(self, handle: Handle, parts: list[bytes | memoryview], position: int) -> int:
        file, path = self._handles[handle]
        data = b"".join(bytes(part) for part in parts)
        try:
            self.changing("pwrite", path)
        except (NoSpace, OSError):  # half of it was written, as a full disk does it
            file.change(Write(self.changes, position, data[: len(data) // 2]))
            raise
        if len(data) > self.free:
            file.change(Write(self.changes, position, data[: self.free]))
            self.free = 0
            raise NoSpace("the crash disk is full")
        self.free -= len(data)
        file.change(Write(self.changes, position, data))
        return len(data)

    def begin_sync(self, handle: Handle, position: int, count: int) -> None:
        pass  # what is not synced may be kept or lost, with this hint or without

    def pread(self, handle: Handle, count: int, position: int) -> bytes:
        file, path = self._handles[handle]
        self.reads += 1
        if self.fail is not None:
            error = self.fail("pread", path, self.reads)
            if error is not None:
                raise error
        data = bytes(file.now[position : position + count])
        return data if self.spoil is None else self.spoil(path, data, self.reads)

    def pread_once(self, handle: Handle, count: int, position: int) -> memoryview:
        return memoryview(self.pread(handle, count, position))

    def size(self, handle: Handle) -> int:
        return len(self._handles[handle][0].now)

    @_locked
    def truncate(self, handle: Handle, length: int) -> None:
        file, path = self._handles[handle]
        self.changing("truncate", path)
        file.change(Write(self.changes, length, None))

    @_locked
    def sync_data(self, handle: Handle) -> None:
        file, path = self._handles[handle]
        try:
            self.changing("sync_data", path)
        except OSError:
            file.forget()
            raise
        file.sync()

    @_locked
    def sync_dir(self, path: Path) -> None:
        self.changing("sync_dir", path)
        for name in [name for name in self._durable_names if name.parent == path and name not in self._names]:
            del self._durable_names[name]
        self._durable_names.update({name: file for name, file in self._names.items() if name.parent == path})
        self._folders.update(dict.fromkeys([each for each in self._folders if each.parent == path], True))

    @_locked
    def rename(self, source: Path, target: Path) -> None:
        self.changing("rename", target)
        self._names[target] = self._names.pop(source)

    @_locked
    def remove(self, path: Path) -> None:
        if path.parent.name == "index":
            self._real.remove(path)
            return
        if path not in self._names:
            raise FileNotFoundError(path)
        self.changing("remove", path)
        del self._names[path]

    @_locked
    def listdir(self, path: Path) -> list[str]:
        if path.name == "index":
            return self._real.listdir(path)
        return [name.name for name in self._names if name.parent == path]

    @_locked
    def makedirs(self, path: Path) -> None:
        if not self._real.exists(path):
            self.changing("makedirs", path)
        self._real.makedirs(path)
        if path.name != "index":
            self._folders.setdefault(path, False)

    def exists(self, path: Path) -> bool:
        if path.parent.name == "index":
            return self._real.exists(path)
        return path in self._names or self._real.exists(path)  # real: directories

    def mtime_ns(self, path: Path) -> int:
        return 0

    def free_bytes(self, path: Path) -> tuple[int, int]:
        return self.free, 1 << 40


def _prefix_end(files: object, rng: random.Random) -> int:
    orders = sorted(write.order for file in files for write in file.pending)  # type: ignore[attr-defined]
    return rng.choice([0, *orders])


def _survivor(write: Write, fate: Fate, rng: random.Random, kept_upto: int, *, last: bool) -> Write | None:
    """What of one unsynced write is found after the cut; None: nothing."""
    if fate is Fate.KEPT or (fate is Fate.GARBAGE and not last):
        return write
    if fate is Fate.LOST or (fate is Fate.PREFIX and write.order > kept_upto):
        return None
    if fate is Fate.PREFIX and write.order < kept_upto:
        return write
    if write.data is None:
        return write if rng.random() < 0.5 else None
    if fate is Fate.GARBAGE:
        return write._replace(data=rng.randbytes(len(write.data)))
    return _torn(write, write.data, rng)


def _torn(write: Write, data: bytes, rng: random.Random) -> Write | None:
    luck = rng.random()
    if luck < 0.35:
        return write
    if luck < 0.5:
        return write._replace(data=bytes(len(data)))  # the length has reached the disk, the bytes have not
    if luck < 0.6:
        return write._replace(data=rng.randbytes(len(data)))
    if luck < 0.8:
        kept = data[: rng.randrange(len(data) + 1) // SECTOR * SECTOR]
        return write._replace(data=kept) if kept else None
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
