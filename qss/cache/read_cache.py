"""Reading: open files, record tables, fetched stripes. Nothing leaves here unverified.

What is cached is what the directories show: a segment file, or single stripes of it. `read_now` never waits;
`read` fetches the missing stripe through the vault, one fetch a stripe however many readers wait for it.
"""

from __future__ import annotations

import contextlib
import errno
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final, TypedDict

import trio

from qss.cache.access import AGAIN, WHOLE, CachedFile, FileKey, Ghosts
from qss.cache.damage import DamageBook
from qss.cache.scan import file_length
from qss.errors import CorruptData, Damaged, FsError, NoSpace, QssError, Retryable
from qss.formats.record import decode_head, head_bytes, verify_blocks
from qss.formats.tables import ExtentRow
from qss.host import Disk
from qss.host.disk import Handle
from qss.ids import SegmentId, StripeNo, segment_text
from qss.limits import BLOCK_BYTES, STRIPE_BYTES
from qss.segments import SegmentVault

STRIPE_SUFFIX: Final = ".stripe"
OPEN_FILES_MAX: Final = 256
TABLES_MAX: Final = 16_384  # records; at most 1 KiB of table each
FETCHES_IN_FLIGHT_MAX: Final = 8
READAHEAD_STRIPES: Final = 3
"""Kept under way before a sequential reader: touching one of them starts the next, so that it never waits."""
MISSED_MAX: Final = 64  # stripes remembered, to tell who reads one after another
COPIES_MAX: Final = 2  # here: the whole segment, and a stripe fetched before; the third is fresh from the locations
FETCH_WAIT_S_FIRST: Final = 0.25
FETCH_WAIT_S_MAX: Final = 2.0

StripeKey = tuple[SegmentId, StripeNo]
Following = Callable[[SegmentId], tuple[SegmentId, int] | None]
"""The data segment written after this one and its number of stripes elsewhere, if it is known."""


class Figures(TypedDict):
    """Part of CacheFacts."""

    data_local_bytes: int
    journal_local_bytes: int
    stripe_bytes: int
    fetches_in_flight: int
    fetches: int
    fetch_bytes: int
    fetch_failures: int
    damaged_reads: int
    damage_healed: int
    damage_open: int


class ReadCache:
    """Owner of everything that is read. Lives on the trio thread."""

    def __init__(
        self, disk: Disk, stripes: Path, vault: SegmentVault | None, fetch_deadline_s: float, following: Following
    ) -> None:
        self._disk = disk
        self._following = following
        self._stripes_path = stripes
        self._vault = vault
        self._deadline_s = fetch_deadline_s
        self._handles: OrderedDict[FileKey, Handle] = OrderedDict()
        self._dropped: list[Handle] = []  # of removed files, to be closed by `free_dropped`
        self._tables: OrderedDict[tuple[SegmentId, int], bytes] = OrderedDict()
        self._fetches: dict[StripeKey, trio.Event] = {}
        self._slots = trio.CapacityLimiter(FETCHES_IN_FLIGHT_MAX)
        self._serving = trio.Lock()  # of those whose stripe has come: one a turn of the loop
        self._missed: OrderedDict[StripeKey, None] = OrderedDict()
        self._ahead: OrderedDict[FileKey, int] = OrderedDict()  # fetched ahead, untouched: stripes of its segment
        self.room: Callable[[int], Awaitable[None]] | None = None  # for so many bytes; raises NoSpace
        self.nursery: trio.Nursery | None = None  # background fetches; without one only what is asked for is fetched
        self.files: dict[FileKey, CachedFile] = {}
        self.ghosts = Ghosts()
        self.bad_local: set[FileKey] = set()  # whole segments with a damaged block: read through stripes instead
        self.damage = DamageBook()
        self.may_drop: Callable[[SegmentId], bool] = lambda _: False
        """Whether the local copy of a segment is not needed: all shards of it are placed."""
        self.fetches = 0
        self.fetch_bytes = 0
        self.fetch_failures = 0

    # -- what is here

    def add_segment(self, segment: SegmentId, path: Path, length: int, used_s: float) -> None:
        self.files[segment, WHOLE] = CachedFile(path, length, used_s)

    def add_stripe(self, key: StripeKey, length: int, used_s: float) -> None:
        stale = self._handles.pop(key, None)
        if stale is not None:
            self._disk.close(stale)
        file = self.files[key] = CachedFile(self.stripe_path(key), length, used_s)
        if self.ghosts.came_back(key):
            file.visits = AGAIN

    def stripe_path(self, key: StripeKey) -> Path:
        return self._stripes_path / f"{segment_text(key[0])}-{key[1]}{STRIPE_SUFFIX}"

    def segment_file(self, segment: SegmentId) -> CachedFile | None:
        return self.files.get((segment, WHOLE))

    def drop(self, key: FileKey) -> int:
        """Forget and unlink one cached file; the bytes that frees, once `free_dropped` has returned."""
        file = self.files.pop(key, None)
        self._ahead.pop(key, None)
        if file is None:
            return 0
        handle = self._handles.pop(key, None)
        self.bad_local.discard(key)
        if handle is None:
            with contextlib.suppress(OSError):
                handle = self._disk.open(file.path)
        with contextlib.suppress(FileNotFoundError):
            self._disk.remove(file.path)
        if handle is not None:
            self._dropped.append(handle)
        return file.length

    async def free_dropped(self) -> None:
        """Close what was dropped. Whoever closes a removed file last waits until its blocks are free: a fifth of a
        second for 64 MiB on a busy ext4, in which a thread may wait, and no `ls`."""
        dropped, self._dropped = self._dropped, []
        if dropped:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._close_all, dropped)

    def let_go(self) -> None:
        """Close what somebody else has unlinked: an open file keeps its space. For files that are not ours."""
        for key in [key for key in self._handles if key in self.files and not self._disk.exists(self.files[key].path)]:
            self._disk.close(self._handles.pop(key))
            del self.files[key]

    def _close_all(self, handles: list[Handle]) -> None:
        for handle in handles:
            self._disk.close(handle)

    def close(self) -> None:
        self._close_all([*self._handles.values(), *self._dropped])
        self._handles.clear()
        self._dropped.clear()

    def take_up(self, segments: Iterable[tuple[SegmentId, Path, int]], wall_ns: int) -> None:
        """At start: the segments that are here (number, file, bytes), and stripes; what a fetch left half done goes."""
        now = trio.current_time()

        def used_s(path: Path) -> float:
            return now - max(wall_ns - self._disk.mtime_ns(path), 0) / 1e9

        for segment, path, length in segments:
            self.add_segment(segment, path, length, used_s(path))
        self._find_stripes(used_s)

    def _find_stripes(self, used_s: Callable[[Path], float]) -> None:
        for name in self._disk.listdir(self._stripes_path):
            path = self._stripes_path / name
            segment, _, stripe = name.removesuffix(STRIPE_SUFFIX).partition("-")
            try:
                key = (SegmentId(int(segment, 16)), StripeNo(int(stripe)))
            except ValueError:
                key = None
            if key is None or self.stripe_path(key) != path:
                self._disk.remove(path)
            else:
                self.add_stripe(key, file_length(self._disk, path), used_s(path))

    def figures(self, journals: set[SegmentId]) -> Figures:
        """Our part of CacheFacts."""
        whole = [(segment, file.length) for (segment, stripe), file in self.files.items() if stripe == WHOLE]
        return {
            "data_local_bytes": sum(length for segment, length in whole if segment not in journals),
            "journal_local_bytes": sum(length for segment, length in whole if segment in journals),
            "stripe_bytes": sum(file.length for (_, stripe), file in self.files.items() if stripe != WHOLE),
            "fetches_in_flight": len(self._fetches),
            "fetches": self.fetches,
            "fetch_bytes": self.fetch_bytes,
            "fetch_failures": self.fetch_failures,
            "damaged_reads": self.damage.found_count,
            "damage_healed": self.damage.healed_count,
            "damage_open": len(self.damage.open),
        }

    # -- reading what is here

    def read_now(self, extent: ExtentRow, start: int, stop: int) -> bytes | memoryview | None:
        """Verified bytes [start, stop) of the extent if they are here; None: a miss. Raises CorruptData, also when the
        disk cannot read them."""
        try:
            return self._read_here(extent, start, stop)
        except OSError as error:
            raise CorruptData(f"the cache disk cannot be read: {error}") from error

    def _read_here(self, extent: ExtentRow, start: int, stop: int) -> bytes | memoryview | None:
        segment, position, record_length, skip, _ = extent
        handle, base = self._locate(segment, position, position + skip + start)
        if handle is None:
            return None
        start += skip
        stop += skip
        assert 0 <= start < stop <= record_length
        payload_at = position - base + head_bytes(record_length)
        if record_length <= BLOCK_BYTES:
            whole = self._disk.pread(handle, payload_at - position + base + record_length, position - base)
            head = decode_head(whole)
            if head.length != record_length or len(whole) < head_bytes(record_length) + record_length:
                raise CorruptData("a record is not the one the index names")
            payload = memoryview(whole)[head_bytes(record_length) :]
            verify_blocks(head.table, 0, payload)
            return payload[start:stop]
        table = self._table(handle, base, extent)
        first = start // BLOCK_BYTES
        block_start = first * BLOCK_BYTES
        block_stop = min(-(-stop // BLOCK_BYTES) * BLOCK_BYTES, record_length)
        data = self._disk.pread_once(handle, block_stop - block_start, payload_at + block_start)
        if len(data) < block_stop - block_start:
            raise CorruptData("a record is cut short")
        verify_blocks(table, first, data)
        if block_start == start and block_stop == stop:
            return data
        return data[start - block_start : stop - block_start]

    def _locate(self, segment: SegmentId, position: int, touched: int) -> tuple[Handle | None, int]:
        """Open file with this place of a segment, and the place in the segment where that file begins. `touched`:
        where exactly it is read."""
        key: FileKey = (segment, WHOLE)
        base = 0
        file = self.files.get(key)
        if file is None or (self.bad_local and key in self.bad_local):
            stripe = position // STRIPE_BYTES
            fetched = self.files.get((segment, stripe))
            if fetched is not None:
                key, base, file = (segment, stripe), stripe * STRIPE_BYTES, fetched
                if self._ahead and key in self._ahead:
                    self._touch(segment, StripeNo(stripe))
            elif file is None:
                return None, 0
        file.touch(trio.current_time(), touched)
        handles = self._handles
        handle = handles.get(key)
        if handle is not None:
            handles.move_to_end(key)
            return handle, base
        try:
            handle = self._disk.open(file.path)
        except FileNotFoundError:
            del self.files[key]  # somebody removed it by hand: not cached then
            return None, 0
        handles[key] = handle
        if len(handles) > OPEN_FILES_MAX:
            self._disk.close(handles.popitem(last=False)[1])
        return handle, base

    def _table(self, handle: Handle, base: int, extent: ExtentRow) -> bytes:
        segment, position, record_length, _, _ = extent
        tables = self._tables
        table = tables.get((segment, position))
        if table is not None:
            tables.move_to_end((segment, position))
            return table
        head = decode_head(self._disk.pread(handle, head_bytes(record_length), position - base))
        if head.length != record_length:
            raise CorruptData("a record is not the one the index names")
        tables[segment, position] = head.table
        if len(tables) > TABLES_MAX:
            tables.popitem(last=False)
        return head.table

    # -- reading what is elsewhere

    async def read(self, extent: ExtentRow, start: int, stop: int, stripes_total: int) -> bytes | memoryview:
        """As `read_now`, fetching on a miss. `stripes_total`: of the segment if it is offloaded, else 0.

        Raises FsError(EIO) when the bytes cannot be had in time, or verify nowhere.
        """
        key = (extent.segment, StripeNo(extent.record_position // STRIPE_BYTES))
        distrusted = 0
        deadline = trio.current_time() + self._deadline_s
        while True:
            try:
                data = self.read_now(extent, start, stop)
            except CorruptData as error:
                self.damage.found(extent, start, stop, str(error))
                if not stripes_total or self._vault is None or distrusted == COPIES_MAX:
                    raise FsError(errno.EIO, str(error)) from error
                distrusted += 1
                self._distrust(key, extent)
                if key in self.files:
                    continue  # fetched some time ago
            else:
                if data is not None:
                    if distrusted:
                        self._healed(extent)
                    return data
                if not stripes_total or self._vault is None:
                    raise FsError(errno.EIO, "the segment is neither here nor at the locations")
            if trio.current_time() >= deadline:
                raise FsError(errno.EIO, "the locations did not answer in time")
            self._read_ahead(key, stripes_total)
            with trio.move_on_at(deadline):
                await self._fetched(key)
            async with self._serving:
                pass  # many wait for one stripe, with a MiB each: between two of them cached reads have a turn

    async def bring(self, key: StripeKey) -> Path:
        """The file of one stripe, fetched if it is not here. Raises FsError(EIO) when it cannot be had in time."""
        if key not in self.files and self._vault is not None:
            await self._fetched(key)
        file = self.files.get(key)
        if file is None:
            raise FsError(errno.EIO, "a stripe cannot be had now")
        return file.path

    def _distrust(self, key: StripeKey, extent: ExtentRow) -> None:
        """What was just read is damaged: a fetched stripe goes; of a whole segment, what is fetched comes first."""
        self._tables.pop((extent.segment, extent.record_position), None)
        whole = (extent.segment, WHOLE)
        if whole in self.files and (whole not in self.bad_local or key not in self.files):
            self.bad_local.add(whole)
        else:
            self.drop(key)

    def _healed(self, extent: ExtentRow) -> None:
        """The locations gave what the local copy did not: it goes, unless some of it is only here."""
        self.damage.healed(extent)
        if (extent.segment, WHOLE) in self.bad_local and self.may_drop(extent.segment):
            self.drop((extent.segment, WHOLE))

    async def _fetched(self, key: StripeKey) -> None:
        """Return when a fetch of this stripe has ended, well or not."""
        running = self._fetches.get(key)
        if running is not None:
            await running.wait()
        elif self.nursery is not None:
            await self._start(key, self.nursery).wait()
        else:
            self._fetches[key] = done = trio.Event()
            await self._fetch(key, done)

    def _start(self, key: StripeKey, nursery: trio.Nursery) -> trio.Event:
        self._fetches[key] = done = trio.Event()
        nursery.start_soon(self._fetch, key, done)
        return done

    def _read_ahead(self, key: StripeKey, stripes_total: int) -> None:
        """On a miss: a reader who comes from the stripe before goes on to the next ones, it seems."""
        segment, stripe = key
        if key in self._ahead:
            self._touch(segment, stripe)
            return
        sequential = (segment, StripeNo(stripe - 1)) in self._missed
        self._note_missed(key)
        if self.nursery is None or not sequential or key in self._fetches:
            return
        self._start(key, self.nursery)
        self._fetch_after(segment, stripe, stripes_total)

    def _touch(self, segment: SegmentId, stripe: StripeNo) -> None:
        """The reader has come to a stripe that was fetched ahead."""
        self._fetch_after(segment, stripe, self._ahead.pop((segment, stripe)))

    def _fetch_after(self, segment: SegmentId, stripe: StripeNo, stripes_total: int) -> None:
        """Have the next READAHEAD_STRIPES here or under way, also where the data goes on in the next segment."""
        for _ in range(READAHEAD_STRIPES):
            stripe = StripeNo(stripe + 1)
            if stripe >= stripes_total:
                following = self._following(segment)
                if following is None:
                    return
                segment, stripes_total = following
                stripe = StripeNo(0)
            key = (segment, stripe)
            if stripe >= stripes_total or (segment, WHOLE) in self.files or self.nursery is None:
                return
            if key in self.files or key in self._fetches:
                continue
            if len(self._fetches) >= FETCHES_IN_FLIGHT_MAX:
                return
            self._note_missed(key)
            self._ahead[key] = stripes_total
            if len(self._ahead) > MISSED_MAX:
                self._ahead.popitem(last=False)
            self._start(key, self.nursery)

    def _note_missed(self, key: StripeKey) -> None:
        self._missed[key] = None
        if len(self._missed) > MISSED_MAX:
            self._missed.popitem(last=False)

    async def _fetch(self, key: StripeKey, done: trio.Event) -> None:
        """Try until the deadline. Failure is only that the stripe is still not there."""
        assert self._vault is not None
        wait_s = FETCH_WAIT_S_FIRST
        path = self.stripe_path(key)
        try:
            async with self._slots:
                with trio.move_on_after(self._deadline_s):
                    while True:
                        try:
                            if self.room is not None:
                                await self.room(STRIPE_BYTES)
                            await self._vault.fetch(*key, path)
                            break
                        except (Damaged, Retryable, NoSpace):
                            self.fetch_failures += 1
                        await trio.sleep(wait_s)
                        wait_s = min(wait_s * 2, FETCH_WAIT_S_MAX)
                    length = file_length(self._disk, path)
                    self.add_stripe(key, length, trio.current_time())
                    self.fetches += 1
                    self.fetch_bytes += length
        except (QssError, OSError):
            self.fetch_failures += 1  # the reader finds no stripe and asks again until its own deadline
            await trio.sleep(FETCH_WAIT_S_FIRST)
        finally:
            del self._fetches[key]
            done.set()
