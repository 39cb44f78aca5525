"""The index of a node: LMDB, derived from the volumes and disposable. The one importer of lmdb in Trove.

LMDB runs without syncing of its own. After a kill of the process the page cache has it all; after a power cut it may
be anything. The marker file says which: it names the boot it was written in and, if nothing has been written since the
last sync, that transaction. It is made to say "written since", durably, before the first change after a sync: later
changes reuse pages of the synced state, so an unchanged transaction number alone proves nothing. Same boot, or synced
and not written since: trusted, and only the tails of the volumes are replayed. Otherwise the index is thrown away and
made again from the volumes.
"""

from __future__ import annotations

import json
import shutil
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import lmdb

from qss.errors import CorruptData, Retryable
from qss.limits import GIB
from qss.trove.counted import Databases, Totals
from qss.trove.durable import replace_durably
from qss.trove.tables import Tables, load_totals

MAP_BYTES: Final = 256 * GIB  # address space, not memory and not disk
FORMAT: Final = 3  # 2: objects and bytes of each bucket are counted; 3: parts say whether they are encrypted

_NAMES: Final = (
    "state", "buckets", "keys", "uploads", "parts", "owners", "amends", "graves", "volumes", "damage",
    "versions", "documents",
)  # fmt: skip


class Reading:
    """A reading transaction, for all who read until the next write: each call of LMDB lets go of the GIL, and whoever
    takes it then gives it back when he is through (docs/adr/0151)."""

    __slots__ = ("_dbs", "_over", "_readers", "_totals", "_txn")

    def __init__(self, env: Any, dbs: Databases, totals: Totals) -> None:
        self._txn = env.begin()
        self._dbs = dbs
        self._totals = totals
        self._readers = 0
        self._over = False

    def __enter__(self) -> Tables:
        self._readers += 1
        return Tables(self._txn, self._dbs, self._totals)

    def __exit__(self, *_: object) -> None:
        self._readers -= 1
        if self._over and not self._readers:
            self._txn.abort()

    def end(self) -> None:
        """Nobody begins here any more; who is reading still sees what he saw."""
        self._over = True
        if not self._readers:
            self._txn.abort()


class Index:
    """One environment. Used from one thread; of transactions only one for reading outlives a call, until a write."""

    def __init__(self, directory: Path, boot_id: str, *, anew: bool = False) -> None:
        """`anew`: do not look at what is there."""
        self._directory = directory
        self._boot_id = boot_id
        self._env: Any = None
        self._reading: Reading | None = None
        self._dbs: Databases
        self._lock = threading.Lock()  # between a writing transaction and the end of a checkpoint in a thread
        self._clean = False  # the marker names the state as it is
        self._unsynced = False  # a sync has failed: after a power cut the index is made again
        self.totals = Totals()
        self.rebuilding = anew or not self._open_trusted()
        if self.rebuilding:
            self._start_anew()

    def _open_trusted(self) -> bool:
        """Open what is there. False: it cannot be trusted."""
        if not (self._directory / "data.mdb").exists():
            return False
        try:
            marker = json.loads(self._marker.read_bytes())
            self._open()
            same_boot = marker["boot_id"] == self._boot_id
            if marker["format"] == FORMAT and (same_boot or marker["txnid"] == self._txnid()):
                self._load_totals()
                self._clean = marker["txnid"] == self._txnid()  # what says otherwise is written with the first change
                if not self._clean:
                    self._write_marker(None)
                return True
        except (OSError, ValueError, KeyError, TypeError, CorruptData, struct.error, lmdb.Error):
            pass
        self.close()
        return False

    def _start_anew(self) -> None:
        self._marker.unlink(missing_ok=True)  # before the files: a crash between leaves "not trusted"
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(mode=0o700, parents=True)
        self.totals = Totals()
        self._open()

    @property
    def settings(self) -> int:
        """Moves with every change of a bucket or of a document."""
        return self.totals.settings

    def trust(self) -> None:
        """Call when a rebuild is through: from now on a start finds the index whole."""
        self.rebuilding = False
        self._write_marker(None)

    def _open(self) -> None:
        self._env = lmdb.open(
            str(self._directory),
            map_size=MAP_BYTES,
            max_dbs=len(_NAMES),
            sync=False,
            metasync=False,
            lock=False,  # one process (flock on the data directory), one thread
            readahead=False,
            mode=0o600,
        )
        self._dbs = Databases(*(self._env.open_db(name.encode()) for name in _NAMES))

    def _load_totals(self) -> None:
        with self._env.begin() as txn:
            self.totals = load_totals(txn, self._dbs)

    def read(self) -> Reading:
        """Enter it for the tables as they are now."""
        reading = self._reading
        if reading is None:
            reading = self._reading = Reading(self._env, self._dbs, self.totals)
        return reading

    def _end_reading(self) -> None:
        """Before anything is written: pages that somebody reads are not used again."""
        if self._reading is not None:
            self._reading.end()
            self._reading = None

    @contextmanager
    def write(self) -> Iterator[Tables]:
        """One atomic change. On an error nothing of it stays, counters included. Raises Retryable when the disk does
        not take it."""
        self._end_reading()
        try:
            with self._lock:
                if self._clean:
                    self._write_marker(None)  # if that fails, it is still to be said
                    self._clean = False
                with self._env.begin(write=True) as txn:
                    tables = Tables(txn, self._dbs, self.totals)
                    yield tables
                    tables.flush()
        except BaseException as error:
            settings = self.totals.settings
            self._load_totals()
            self.totals.settings = settings + 1
            if isinstance(error, lmdb.Error):
                raise Retryable(f"the index did not take the change: {error}") from error
            raise

    def checkpoint(self) -> None:
        """Sync the database, then say so. May block for as long as the disk does; may run in a thread. Raises Retryable
        when the disk fails; that is final: the next sync knows nothing of the pages this one has lost."""
        txnid = self._txnid()
        try:
            self._env.sync(True)
        except lmdb.Error as error:
            self._unsynced = True
            raise Retryable(f"the index cannot be synced: {error}") from error
        with self._lock:
            if not (self.rebuilding or self._unsynced or self._clean) and txnid == self._txnid():
                self._write_marker(txnid)
                self._clean = True

    def close(self) -> None:
        self._end_reading()
        if self._env is not None:
            self._env.close()
            self._env = None

    @property
    def _marker(self) -> Path:
        return self._directory / "marker.json"

    def _txnid(self) -> int:
        return int(self._env.info()["last_txnid"])

    def _write_marker(self, txnid: int | None) -> None:
        """Durable when it returns. None: written since the last sync."""
        said = {"format": FORMAT, "boot_id": self._boot_id, "txnid": txnid}
        replace_durably(self._marker, json.dumps(said).encode())
