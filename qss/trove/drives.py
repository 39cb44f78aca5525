"""The drives of a node, one for each data directory: how well each one is, and which one takes the next volume.

    ok ──error──► suspect ──three writes in a row fail, or writing is refused──► read-only
     ▲               │  ▲                                                             │
     └──well again───┘  └── well again ── failed ◄── the directory or device is gone ─┘
A suspect drive is read and written, but new volumes go elsewhere as long as a sound one has room. Bad sectors alone
never fail a drive: what can still be read of it is served. A failed one is not asked for data at all, since each
question may hang; what is on it is answered with ServiceUnavailable.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final

from qss.errors import NoSpace, Retryable
from qss.host import Clock, Disk
from qss.host.disk import Handle
from qss.limits import MIB

log = logging.getLogger(__name__)

WRITE_FAILURES_MAX: Final = 3
"""So many writes or syncs failed, none succeeded between: no more are sent there."""
QUIET_S: Final = 60.0
"""Without an error for so long, and probed: well again."""
ALLOWANCE_BYTES: Final = 16 * MIB
RESERVE_BYTES: Final = 64 * MIB
"""Disk space kept for tombstones and the index: deletes work on a full disk."""
_PROBE: Final = "probe.tmp"

assert ALLOWANCE_BYTES < RESERVE_BYTES  # what is allowed ahead cannot eat the reserve


class DriveHealth(Enum):
    OK = "ok"
    SUSPECT = "suspect"
    READ_ONLY = "read-only"
    FAILED = "failed"


class Event(Enum):
    """What happens to a drive."""

    READ_ERROR = "a read failed"
    WRITE_ERROR = "a write or sync failed"
    WRITES_FAIL = "writes fail one after the other"
    REFUSED = "it takes no writes"
    GONE = "it is not there"
    WELL = "it is well again"


NEXT: Final[dict[tuple[DriveHealth, Event], DriveHealth]] = {
    (DriveHealth.OK, Event.READ_ERROR): DriveHealth.SUSPECT,
    (DriveHealth.OK, Event.WRITE_ERROR): DriveHealth.SUSPECT,
    (DriveHealth.OK, Event.WRITES_FAIL): DriveHealth.READ_ONLY,
    (DriveHealth.OK, Event.REFUSED): DriveHealth.READ_ONLY,
    (DriveHealth.OK, Event.GONE): DriveHealth.FAILED,
    (DriveHealth.SUSPECT, Event.WRITES_FAIL): DriveHealth.READ_ONLY,
    (DriveHealth.SUSPECT, Event.REFUSED): DriveHealth.READ_ONLY,
    (DriveHealth.SUSPECT, Event.GONE): DriveHealth.FAILED,
    (DriveHealth.SUSPECT, Event.WELL): DriveHealth.OK,
    (DriveHealth.READ_ONLY, Event.GONE): DriveHealth.FAILED,
    (DriveHealth.READ_ONLY, Event.WELL): DriveHealth.OK,
    (DriveHealth.FAILED, Event.WELL): DriveHealth.SUSPECT,
}
"""A pair that is missing changes nothing."""

_GONE: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ENOTCONN, errno.ESHUTDOWN}
)
_REFUSED: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def event_of(error: OSError, *, writing: bool) -> Event:
    """What an error of the operating system says about the drive."""
    if error.errno in _GONE:
        return Event.GONE
    if not writing:
        return Event.READ_ERROR
    return Event.REFUSED if error.errno in _REFUSED else Event.WRITE_ERROR


@dataclass(slots=True, eq=False)
class Drive:
    """One data directory. Errors may be noted from any thread."""

    path: Path
    id: str  # 32 hex digits, in its marker; empty in tests that need none
    clock: Clock
    health: DriveHealth = DriveHealth.OK
    why: str = ""
    since_ns: int = 0  # of this health
    errors: int = 0  # since start
    last_error_ns: int = 0
    writes_failed: int = 0  # in a row
    allowance: int = 0  # bytes that may be written before free space is asked for again
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def volumes(self) -> Path:
        return self.path / "volumes"

    @property
    def writable(self) -> bool:
        return self.health is DriveHealth.OK or self.health is DriveHealth.SUSPECT

    @property
    def readable(self) -> bool:
        return self.health is not DriveHealth.FAILED

    def note(self, error: OSError, *, writing: bool) -> None:
        """An operation on this drive failed. Moves its health on."""
        event = event_of(error, writing=writing)
        with self._lock:
            self.errors += 1
            self.last_error_ns = self.clock.now_ns()
            if writing:
                self.writes_failed += 1
                if event is Event.WRITE_ERROR and self.writes_failed >= WRITE_FAILURES_MAX:
                    event = Event.WRITES_FAIL
            self._apply(event, error.strerror or "")

    def wrote(self) -> None:
        """A sync succeeded."""
        self.writes_failed = 0

    def well(self) -> None:
        """A probe found nothing. Counts once there has been no error for a while."""
        with self._lock:
            if self.clock.now_ns() - self.last_error_ns >= QUIET_S * 1e9:
                self.writes_failed = 0
                self._apply(Event.WELL, "")

    def missing(self, why: str) -> None:
        """It was not there when the node started."""
        with self._lock:
            self._apply(Event.GONE, why)

    def _apply(self, event: Event, detail: str) -> None:
        after = NEXT.get((self.health, event))
        if after is None or after is self.health:
            return
        before, self.health = self.health, after
        self.since_ns = self.clock.now_ns()
        self.allowance = 0
        self.why = "" if after is DriveHealth.OK else event.value + (f": {detail}" if detail else "")
        log.warning("drive %s: %s → %s, %s", self.path, before.value, after.value, self.why or event.value)

    def status(self, disk: Disk) -> dict[str, Any]:
        """For the admin API. Sizes in bytes."""
        free, total = free_bytes(disk, self)
        return {
            "id": self.id,
            "path": str(self.path),
            "health": self.health.value,
            "failed": self.health is DriveHealth.FAILED,
            "why": self.why,
            "since_ns": self.since_ns,
            "errors": self.errors,
            "free": free,
            "total": total,
        }


def free_bytes(disk: Disk, drive: Drive) -> tuple[int, int]:
    """(available, total) bytes; zeros for a drive that cannot tell."""
    if not drive.readable:
        return 0, 0
    try:
        return disk.free_bytes(drive.path)
    except OSError as error:
        drive.note(error, writing=False)
        return 0, 0


class Space:
    """Who may write how much where. Bodies leave the reserve alone; what makes room or keeps order may use it."""

    def __init__(self, drives: Sequence[Drive], disk: Disk) -> None:
        self._drives = drives
        self._disk = disk

    def allow(self, drive: Drive, length: int) -> bool:
        """Whether a body record of `length` bytes may go to this drive; then it counts as written.

        Asks the system once for many small ones. Without room for the index, on the first drive, no drive takes bodies.
        """
        if not drive.writable:
            return False
        if length > drive.allowance:
            room = free_bytes(self._disk, drive)[0] - RESERVE_BYTES
            first = self._drives[0]
            if first is not drive and free_bytes(self._disk, first)[0] < RESERVE_BYTES // 2:
                room = 0
            drive.allowance = min(room, max(ALLOWANCE_BYTES, length))
            if length > drive.allowance:
                return False
        drive.allowance -= length
        return True

    def better(self, drive: Drive) -> bool:
        """Whether there is a sound drive for what would go to this one, which is not."""
        return drive.health is not DriveHealth.OK and any(
            each.health is DriveHealth.OK and free_bytes(self._disk, each)[0] > RESERVE_BYTES for each in self._drives
        )

    def choose(self, length: int, *, body: bool) -> Drive:
        """The drive for a new volume: sound before suspect, then the one with the most room.

        Raises NoSpace when those that could be written are full or read-only, Retryable when all have failed.
        """
        free = {drive: free_bytes(self._disk, drive)[0] for drive in self._drives if drive.writable}
        ranked = sorted(free, key=lambda drive: (drive.health is not DriveHealth.OK, -free[drive]))
        for drive in ranked:
            if not body or self.allow(drive, length):
                return drive
        if any(drive.readable for drive in self._drives):
            raise NoSpace("every drive of this node is full" if ranked else "every drive of this node is read-only")
        raise Retryable("no drive of this node takes writes")


def probe(disk: Disk, drive: Drive, reads: Callable[[], object]) -> None:
    """Ask a drive whether it is there, and one that is not well whether it takes writes. May block; in a thread.

    `reads` reads something through an open handle, so that a device that went away is not taken for the one that
    stands at its path now.
    """
    writing = False
    try:
        disk.listdir(drive.volumes)
        reads()
        if drive.health is not DriveHealth.OK:
            writing = True
            _write_probe(disk, drive.path / _PROBE)
    except NoSpace:
        pass  # full is well
    except OSError as error:
        drive.note(error, writing=writing)
        return
    drive.well()


def _write_probe(disk: Disk, path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        disk.remove(path)
    handle: Handle = disk.create(path)
    try:
        disk.pwrite(handle, [bytes(4096)], 0)
        disk.sync_data(handle)
    finally:
        disk.close(handle)
        disk.remove(path)
