"""Index against log: what LMDB holds must be what replaying the journals gives, row for row.

The logs are the truth, so the replay into a scratch index is also what the other checks look at. The real index is
opened and brought to the same point inside a transaction that is thrown away: nothing is changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qss.cache.index import Index
from qss.cache.index_file import DATA_FILE, last_txnid
from qss.cache.marker import read_marker
from qss.cache.recovery import INDEX_DIR, load_newest, open_trusted, replay_into
from qss.cache.scan import file_length
from qss.cache.segment_log import log_path
from qss.errors import CorruptData, Damaged
from qss.formats.tables import SegmentRow, Table, u64_key
from qss.fsck.extents import live_findings
from qss.fsck.findings import Check, Finding, Kind, Where
from qss.fsck.rows import Row
from qss.host import Host
from qss.ids import SegmentId
from qss.segments import SegmentKind

PAUSE_ROWS: Final = 10_000
_NOT_JOURNALED: Final = b"index.applied"


@dataclass(frozen=True, slots=True)
class Opened:
    """Both views of one cache; close them."""

    logged: Index | None  # what the logs say; None: they cannot be replayed
    indexed: Index | None  # what LMDB says; None: there is nothing that a mount would trust
    log_problem: str = ""  # why they cannot be replayed
    index_problem: str = ""  # why LMDB's file is of no use, where it should be

    @property
    def view(self) -> Index | None:
        """What the file system is: the logs, else what was made of them while they were whole."""
        return self.logged or self.indexed

    def close(self) -> None:
        for index in (self.logged, self.indexed):
            if index is not None:
                index.close()


def open_both(root: Path, host: Host, map_bytes: int, scratch: Path) -> Opened:
    """`scratch`: an empty directory. Changes nothing in `root`."""
    marker = read_marker(host, root)
    same_boot = marker is not None and marker.boot_id == host.clock.boot_id()
    replayed = Index(scratch, map_bytes)
    logged: Index | None = replayed
    log_problem = ""
    try:
        replay_into(replayed, root, host, load_newest(replayed, root, host.disk), same_boot=same_boot)
    except Damaged as error:
        replayed.close()
        logged, log_problem = None, str(error)
    if marker is None or not host.disk.exists(root / INDEX_DIR / DATA_FILE):
        return Opened(logged, None, log_problem)
    try:
        if not same_boot and last_txnid(root / INDEX_DIR / DATA_FILE) != marker.txnid:
            return Opened(logged, None, log_problem)  # a mount builds it anew: it is only as the power cut left it
        indexed, applied = open_trusted(root, map_bytes, marker, same_boot)
    except Damaged as error:
        return Opened(logged, None, log_problem, str(error))
    try:
        replay_into(indexed, root, host, applied, same_boot=same_boot)
    except Damaged as error:
        indexed.close()
        return Opened(logged, None, log_problem, str(error))
    return Opened(logged, indexed, log_problem)


def check_replay(opened: Opened) -> Check:
    """Row for row, and the live bytes of every segment."""
    if opened.log_problem:
        sentence = f"The journals cannot be replayed: {opened.log_problem}."
        yield Finding(Kind.JOURNAL_DAMAGED, "the journals", sentence)
    if opened.index_problem:
        sentence = f"The index does not fit the journals: {opened.index_problem}."
        yield Finding(Kind.INDEX_DIFFERS, "the index", sentence, lost=opened.logged is None)
    if opened.indexed is None or opened.logged is None:
        return
    for table in Table:
        if table is Table.LIVE:
            continue
        looked_at = 0
        for key, logged, indexed in _side_by_side(opened.logged, opened.indexed, table):
            looked_at += 1
            if logged != indexed and (table, key) != (Table.META, _NOT_JOURNALED):
                what = "has a row the log does not know" if logged is None else "lacks or contradicts a row of the log"
                subject = f"table {table.name}, key {key.hex()}"
                yield Finding(Kind.INDEX_DIFFERS, subject, f"The index {what}: {subject}.", Where(table, key))
            if looked_at == PAUSE_ROWS:
                yield looked_at
                looked_at = 0
        yield looked_at
    yield from live_findings(Counter(opened.logged.live_all()), opened.indexed.live_all())


def _side_by_side(one: Index, other: Index, table: Table) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """Rows of both in key order: (key, value in the one, value in the other)."""
    left, right = one.scan(table, b""), other.scan(table, b"")
    a: Row | None = next(left, None)
    b: Row | None = next(right, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a[0] < b[0]):
            assert a is not None
            yield a[0], a[1], None
            a = next(left, None)
        elif a is None or b[0] < a[0]:
            yield b[0], None, b[1]
            b = next(right, None)
        else:
            yield a[0], a[1], b[1]
            a, b = next(left, None), next(right, None)


class OfflineReach:
    """How far data segments reach when nobody has them open: by row, else by the file that is here."""

    def __init__(self, index: Index, root: Path, host: Host) -> None:
        self._index = index
        self._root = root
        self._disk = host.disk

    def __call__(self, segment: SegmentId) -> int | None:
        packed = self._index.get(Table.SEGMENTS, u64_key(segment))
        if packed is not None:
            try:
                row = SegmentRow.unpack(packed)
            except CorruptData:
                return None
            return row.length if row.kind is SegmentKind.DATA else None
        path = log_path(self._root, SegmentKind.DATA, segment)
        return file_length(self._disk, path) if self._disk.exists(path) else None
