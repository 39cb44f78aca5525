"""What happens at start: which index can be trusted, what of the journal still has to be applied, where the logs end.

    same boot as noted      the page cache has survived: LMDB is whole, and so is every complete write of the logs
                            (its file is looked at nevertheless: qss.cache.index_file)
    another boot            LMDB is trusted only if its last transaction is the one noted as synced (the logs were
                            synced before it was noted); log tails are verified frame by frame and record by record
    LMDB missing, damaged,  the index is rebuilt from the newest checkpoint that is whole and the journals behind it;
    or not to be trusted    without one, from every journal

A sync that failed in this boot: the index is rebuilt and what had no row is written anew (qss.cache.failed_sync).

Replay stops at the first batch that does not verify, is not the next one, or names data that is not there. What
lies behind is cut off: it was never covered by an fsync. docs/crash-points.md goes through the cuts one by one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from qss.cache.applied import NOTHING_APPLIED, Applied
from qss.cache.checkpoint_files import NEW_DIR, Checkpoint, checkpoints_in, clear_new, load
from qss.cache.failed_sync import has_note, write_anew
from qss.cache.index import Index
from qss.cache.index_file import DATA_FILE, digest_of, last_txnid, verify_tree
from qss.cache.marker import Marker, read_marker
from qss.cache.scan import any_op, file_length, frames_of, header_of, segments_in, verified_length
from qss.cache.segment_log import FOLDERS, LogFile, Numbers, SegmentLog, log_path
from qss.cache.shelf import is_quiet
from qss.errors import CorruptData, Damaged
from qss.formats.journal import Batch, ops_of
from qss.formats.record import SEGMENT_HEADER_BYTES, SegmentHeader
from qss.formats.tables import Table, u64_key, u64_of_key
from qss.host import Disk, Host
from qss.ids import SEGMENT_ID_NONE, SegmentId
from qss.segments import SegmentKind

INDEX_DIR: Final = "index"
STARTS_MAX: Final = 3
"""Starts that came to nothing, one after the other: whatever it is, it is not tried a fourth time with this index."""
_WHOLE_SEGMENT: Final = 2**32
_NO_SEGMENT: Final = (SEGMENT_ID_NONE, 0)


class Frame(NamedTuple):
    """One frame of the journal and where it stands."""

    journal: SegmentId
    end: int  # position behind it
    batch: Batch


@dataclass(slots=True)
class Recovered:
    """A cache ready to go on."""

    index: Index
    data: SegmentLog
    journal: SegmentLog
    checkpoints: SegmentLog
    numbers: Numbers
    replayed: int = 0  # batches
    rebuilt: bool = False  # the index was not trusted, or not there: made from checkpoint and journals
    cut_bytes: int = 0  # taken off the tails
    unsealed: bool = False  # a kill has left changes in the open journal: they are in no root yet
    local: dict[SegmentKind, dict[SegmentId, int]] = field(default_factory=dict)  # every log file here → its length


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild on a new machine has made."""

    batches: int  # replayed
    next_segment: SegmentId
    unplaced: tuple[SegmentId, ...]  # segments whose place at the locations is not known yet: adopt them


def recover(root: Path, host: Host, map_bytes: int, *, data_elsewhere: bool = False) -> Recovered:
    """Bring logs and index of the cache in `root` together. Blocks; may take seconds after a power cut.

    `data_elsewhere`: the journals come from the locations, and so will the data they name.

    Raises Damaged when a journal is damaged in the middle: cutting there would lose what an fsync has covered.
    """
    marker = read_marker(host, root)
    same_boot = marker is not None and marker.boot_id == host.clock.boot_id()
    numbers = Numbers(SegmentId(1))
    data, journal, checkpoints = (
        SegmentLog(host.disk, root / FOLDERS[kind], kind, numbers)
        for kind in (SegmentKind.DATA, SegmentKind.JOURNAL, SegmentKind.CHECKPOINT)
    )
    _make_directories(root, host, marker)
    if has_note(host, root):
        drop_index(root, host)
    index, applied, rebuilt = _open_index(root, host, map_bytes, marker, same_boot)
    try:
        recovery = _Recovery(host, index, data, journal, same_boot, data_elsewhere, marker)
        recovered = recovery.run(applied, checkpoints)
    except BaseException as error:
        index.close()
        if rebuilt or not isinstance(error, CorruptData):
            raise
        # The index did not fit the journal after all: start again from the logs alone.
        index, applied = _rebuilt_index(root, host, map_bytes)
        rebuilt = True
        recovery = _Recovery(host, index, data, journal, same_boot, data_elsewhere, marker)
        try:
            recovered = recovery.run(applied, checkpoints)
        except BaseException:
            index.close()
            raise
    recovered.rebuilt = rebuilt and (applied != NOTHING_APPLIED or bool(recovered.local[SegmentKind.JOURNAL]))
    return recovered


def _make_directories(root: Path, host: Host, marker: Marker | None) -> None:
    disk = host.disk
    for path in (*(root / folder for folder in FOLDERS.values()), root / "stripes", root / INDEX_DIR):
        disk.makedirs(path)
    clear_new(disk, root / NEW_DIR)
    if marker is None:  # the first start: a name in a directory that a power cut takes away is no name
        disk.sync_dir(root.parent)
        disk.sync_dir(root)


def catch_up(root: Path, host: Host, map_bytes: int, data: SegmentLog, journal: SegmentLog) -> Index:
    """While the cache is in use: an index as of the end of the journal, from what LMDB still has.

    Raises Damaged when that fails too.
    """
    index, applied, _ = _open_index(root, host, map_bytes, read_marker(host, root), same_boot=True)
    _Recovery(host, index, data, journal, same_boot=True).replay(applied)
    return index


def load_newest(index: Index, root: Path, disk: Disk) -> Applied:
    """Fill an empty index from the newest checkpoint that is whole and whose journal is here; how far it goes then.

    Without one the index stays empty. Nothing is committed.
    """
    directory = root / FOLDERS[SegmentKind.CHECKPOINT]
    for checkpoint in checkpoints_in(disk, directory):
        if _goes_on(disk, root, checkpoint):
            try:
                load(index, disk, directory, checkpoint)
            except CorruptData:
                index.forget()  # an older one then, if the journals reach so far back
            else:
                return checkpoint.applied
    return NOTHING_APPLIED


def _goes_on(disk: Disk, root: Path, checkpoint: Checkpoint) -> bool:
    """Whether the journal is here that goes on behind a checkpoint."""
    path = log_path(root, SegmentKind.JOURNAL, checkpoint.applied.journal)
    return disk.exists(path) and file_length(disk, path) >= checkpoint.applied.position


def replay_into(
    index: Index, root: Path, host: Host, applied: Applied, *, same_boot: bool, data_elsewhere: bool = False
) -> Applied:
    """Bring an index to the end of the journal and touch nothing else, neither logs nor LMDB's file (nothing is
    committed): for qss.fsck and snapshots. Raises CorruptData (it does not fit the journal) and Damaged."""
    numbers = Numbers(SegmentId(1))
    data = SegmentLog(host.disk, root / FOLDERS[SegmentKind.DATA], SegmentKind.DATA, numbers)
    journal = SegmentLog(host.disk, root / FOLDERS[SegmentKind.JOURNAL], SegmentKind.JOURNAL, numbers)
    recovery = _Recovery(host, index, data, journal, same_boot, data_elsewhere, marker=read_marker(host, root))
    reached, _ = recovery.replay(applied)
    recovery.to_cut(reached)
    return reached


def drop_index(root: Path, host: Host) -> None:
    """Remove LMDB's files; the journal has everything."""
    host.disk.makedirs(root / INDEX_DIR)
    for name in host.disk.listdir(root / INDEX_DIR):
        host.disk.remove(root / INDEX_DIR / name)


def _open_index(
    root: Path, host: Host, map_bytes: int, marker: Marker | None, same_boot: bool
) -> tuple[Index, Applied, bool]:
    """The index, how far it has come, and whether it was built anew."""
    if marker is not None and marker.starts < STARTS_MAX:
        with contextlib.suppress(Damaged):
            return *open_trusted(root, map_bytes, marker, same_boot), False
    return *_rebuilt_index(root, host, map_bytes), True


def _rebuilt_index(root: Path, host: Host, map_bytes: int) -> tuple[Index, Applied]:
    drop_index(root, host)
    index = Index(root / INDEX_DIR, map_bytes)
    return index, load_newest(index, root, host.disk)


def open_trusted(root: Path, map_bytes: int, marker: Marker, same_boot: bool) -> tuple[Index, Applied]:
    """The index that is there and how far it has come. Raises Damaged when it is not to be trusted.

    Nothing of the file is given to LMDB before it has been looked at: LMDB does not survive a damaged one.
    """
    file = root / INDEX_DIR / DATA_FILE
    txnid = last_txnid(file)
    if not same_boot and txnid != marker.txnid:
        raise Damaged("the index is only as a power cut left it")
    if txnid == marker.txnid and marker.digest:
        if digest_of(file) != marker.digest:
            raise CorruptData("the index is not the one that was closed")
    else:
        verify_tree(file)
    index = Index(file.parent, map_bytes)
    try:
        if index.applied is None:
            raise CorruptData("the index does not say how far it has come")
        return index, Applied.unpack(index.applied)
    except Damaged:
        index.close()
        raise


class _Recovery:
    """One run of it. The steps are in the order of `run`."""

    def __init__(
        self,
        host: Host,
        index: Index,
        data: SegmentLog,
        journal: SegmentLog,
        same_boot: bool,
        data_elsewhere: bool = False,
        marker: Marker | None = None,
    ) -> None:
        self._disk = host.disk
        self._index = index
        self._data = data
        self._journal = journal
        self._same_boot = same_boot
        self._data_elsewhere = data_elsewhere
        self._marker = marker
        self._rewrite = has_note(host, data.directory.parent)
        self._data_ids = segments_in(self._disk, data.directory)
        self._journal_ids = segments_in(self._disk, journal.directory)
        self._lengths: dict[SegmentId, int] = {}  # data segment → bytes known to be there
        self._rows_ahead: set[SegmentId] | None = None
        self._needs: dict[SegmentId, SegmentId] = {}  # journal → newest data segment its frames name
        self._cut = 0

    def run(self, applied: Applied, checkpoints: SegmentLog) -> Recovered:
        reached, replayed = self.replay(applied)
        self._end_journal(reached)
        self._end_data(reached)
        seen = [*self._data_ids, *self._journal_ids, SegmentId(reached.next_segment - 1)]
        seen += self._end_checkpoints(checkpoints)
        last_row = self._index.floor(Table.SEGMENTS, b"\xff" * 8)
        if last_row is not None:
            seen.append(SegmentId(u64_of_key(last_row[0])))
        numbers = self._data.numbers
        numbers.next_segment = SegmentId(max(seen) + 1)
        recovered = Recovered(self._index, self._data, self._journal, checkpoints, numbers, replayed)
        recovered.cut_bytes = self._cut
        left = self._journal.open
        recovered.unsealed = left is not None and any_op(self._disk, left.handle, lambda op: not is_quiet(op))
        for log in (self._data, self._journal, checkpoints):
            ids = segments_in(self._disk, log.directory)
            recovered.local[log.kind] = {segment: file_length(self._disk, log.path_of(segment)) for segment in ids}
        return recovered

    # -- 1. replay

    def replay(self, applied: Applied) -> tuple[Applied, int]:
        """Apply what the index has not seen; how far the journal is good, and the number of batches applied."""
        reached, replayed = applied, 0
        waiting: list[Batch] = []
        for frame in self._frames(applied):
            batch = frame.batch
            if not self._reaches(batch.data_segment, batch.data_bytes):
                break
            waiting.append(batch)
            self._needs[frame.journal] = batch.data_segment
            if batch.more_follows:
                continue
            for part in waiting:
                self._index.replay(ops_of(part))
            waiting.clear()
            replayed += 1
            reached = Applied(
                frame.journal, frame.end, batch.number + 1, batch.data_segment, batch.data_bytes, reached.next_segment
            )
        return reached, replayed

    def _frames(self, start: Applied) -> Iterator[Frame]:
        """Frames from `start` on, as long as they verify and follow each other."""
        journals = [segment for segment in self._journal_ids if segment >= start.journal]
        if start.journal and (not journals or journals[0] != start.journal):
            raise CorruptData("the index is ahead of the journal")
        before = _NO_SEGMENT
        for segment in journals:
            handle = self._disk.open(self._journal.path_of(segment))
            try:
                header = header_of(self._disk, self._journal.path_of(segment), segment)
                position, count = SEGMENT_HEADER_BYTES, 0
                if segment == start.journal:
                    position, count = start.position, start.frames
                    if self._disk.size(handle) < position:
                        raise CorruptData("the index is ahead of the journal")
                elif header is None or (header.previous, header.previous_length) != before:
                    # The first journal of all may be lost with the power before anything was synced; no row names it.
                    if header is not None and self._sealed_between(before[0], header):
                        raise Damaged(f"journal segment {header.previous:016x} is missing")
                    return
                for end, batch in frames_of(self._disk, handle, position):
                    if batch.number != count:
                        return
                    position, count = end, count + 1
                    yield Frame(segment, end, batch)
                before = (segment, position)
                if self._disk.size(handle) > position:
                    return  # a torn tail: nothing behind it counts
            finally:
                self._disk.close(handle)

    def _sealed_between(self, before: SegmentId, header: SegmentHeader) -> bool:
        """Whether a journal that was sealed should stand before this one and is not here: no torn tail."""
        return header.previous > before and header.previous in self._sealed_ahead()

    # -- 2. is the data there that a batch names?

    def _reaches(self, segment: SegmentId, count: int) -> bool:
        """Whether the data log is whole up to `count` bytes of this segment."""
        if segment == SEGMENT_ID_NONE or self._data_elsewhere:
            return True
        if self._marker is not None and (segment, count) <= (self._marker.data, self._marker.data_bytes):
            return True  # synced: what is not there now is damage of content, and no reason to cut the journal
        if segment not in self._lengths:
            self._lengths[segment] = self._length_of(segment)
        # What is sealed was whole; damage of a copy since then is no reason to cut the journal.
        return count <= self._lengths[segment] or segment in self._sealed_ahead()

    def _length_of(self, segment: SegmentId) -> int:
        if self._index.get(Table.SEGMENTS, u64_key(segment)) is not None:
            return _WHOLE_SEGMENT  # synced before it got its row; if it is not here now, it was evicted
        path = self._data.path_of(segment)
        if self._same_boot and self._disk.exists(path):
            length = file_length(self._disk, path)
        elif segment in self._sealed_ahead():
            return _WHOLE_SEGMENT
        elif self._disk.exists(path):
            length = verified_length(self._disk, path)
        else:
            return -1
        header = header_of(self._disk, path, segment)
        if header is None or not self._reaches(header.previous, header.previous_length):
            return -1
        return length

    def _sealed_ahead(self) -> set[SegmentId]:
        """Segments whose row stands anywhere in the journals here: each was synced before the row was written."""
        if self._rows_ahead is None:
            self._rows_ahead = set()
            for segment in self._journal_ids:
                self._rows_ahead |= self._rows_in(segment)
        return self._rows_ahead

    def _rows_in(self, journal: SegmentId) -> set[SegmentId]:
        handle = self._disk.open(self._journal.path_of(journal))
        found = set()
        try:
            with contextlib.suppress(CorruptData):
                for _, batch in frames_of(self._disk, handle, SEGMENT_HEADER_BYTES):
                    for op in ops_of(batch):
                        if op.table is Table.SEGMENTS and op.is_put:
                            found.add(SegmentId(u64_of_key(op.key)))
        finally:
            self._disk.close(handle)
        return found

    # -- 3. cut the tails, newest file first, so that a crash in between leaves a tail that is still torn

    def to_cut(self, reached: Applied) -> tuple[list[SegmentId], list[SegmentId]]:
        """Journals to keep and to remove. Raises Damaged where that would lose what an fsync has covered."""
        marker = None if self._data_elsewhere else self._marker
        synced = _NO_SEGMENT
        if marker is not None and marker.journal_bytes > SEGMENT_HEADER_BYTES:  # else there is no frame in it to miss
            synced = (marker.journal, marker.journal_bytes)
        if (reached.journal, reached.position) < synced:
            raise Damaged(f"journal segment {reached.journal:016x} is damaged behind byte {reached.position}")
        keep = [segment for segment in self._journal_ids if segment <= reached.journal]
        drop = [segment for segment in self._journal_ids if segment > reached.journal]
        if drop:
            sealed = self._sealed_ahead()
            torn = [
                segment
                for segment in keep[-1:]
                if file_length(self._disk, self._journal.path_of(segment)) > reached.position
            ]
            if any(segment in sealed for segment in torn + drop):
                raise Damaged(f"journal segment {reached.journal:016x} is damaged behind byte {reached.position}")
        return keep, drop

    def _end_journal(self, reached: Applied) -> None:
        keep, drop = self.to_cut(reached)
        for segment in reversed(drop):
            self._remove(self._journal, segment)
        rowless = [segment for segment in keep if not self._has_row(segment)]
        for segment in rowless:
            newest = segment == keep[-1]
            length = reached.position if newest else file_length(self._disk, self._journal.path_of(segment))
            file = self._take_over(self._journal, segment, length, reached.frames if newest else 0)
            if newest and not self._data_elsewhere:
                self._journal.open = file
            else:
                earlier = max((d for d in self._data_ids if d < segment), default=SEGMENT_ID_NONE)
                file.needs_upto = self._needs.get(segment, earlier)
                self._journal.closing.append(file)
        closed = [segment for segment in keep if self._journal.open is None or segment != self._journal.open.segment]
        if closed:
            self._journal.last = (closed[-1], file_length(self._disk, self._journal.path_of(closed[-1])))
            self._journal.last_count = reached.frames if closed[-1] == reached.journal else 0

    def _end_data(self, reached: Applied) -> None:
        for segment in reversed(self._data_ids):
            if segment > reached.data_segment and not self._has_row(segment):
                self._remove(self._data, segment)
        for segment in self._data_ids:
            if segment <= reached.data_segment and not self._has_row(segment):
                newest = segment == reached.data_segment
                length = reached.data_bytes if newest else file_length(self._disk, self._data.path_of(segment))
                self._data.closing.append(self._take_over(self._data, segment, length, 0))
        if not self._data_elsewhere:  # else the chain of data segments begins anew
            self._data.last = (reached.data_segment, reached.data_bytes)

    def _end_checkpoints(self, log: SegmentLog) -> list[SegmentId]:
        """Those that are whole get the rows a crash has kept from them; parts of others without rows go. The ids."""
        whole = {segment: each for each in checkpoints_in(self._disk, log.directory) for segment, _ in each.parts}
        found = segments_in(self._disk, log.directory)
        for segment in found:
            if self._has_row(segment):
                continue
            if segment in whole:
                length = file_length(self._disk, log.path_of(segment))
                file = self._take_over(log, segment, length, 0)
                file.needs_upto = whole[segment].applied.journal
                log.closing.append(file)
            else:
                self._remove(log, segment)
        return found

    def _has_row(self, segment: SegmentId) -> bool:
        return self._index.get(Table.SEGMENTS, u64_key(segment)) is not None

    def _take_over(self, log: SegmentLog, segment: SegmentId, length: int, count: int) -> LogFile:
        if self._rewrite:
            write_anew(self._disk, log.path_of(segment), length)
        file = log.take_over(segment, length, count)
        tail = self._disk.size(file.handle) - length
        if tail > 0:
            self._disk.truncate(file.handle, length)
            self._cut += tail
        return file

    def _remove(self, log: SegmentLog, segment: SegmentId) -> None:
        self._cut += file_length(self._disk, log.path_of(segment))
        self._disk.remove(log.path_of(segment))
        self._disk.sync_dir(log.directory)
