"""Carrying out the retention policy: which copies are here, what the policy says of them, letting them go, and
bringing back what is pinned."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import trio

from qss.cache.access import AGAIN, WHOLE, FileKey
from qss.cache.durability import Durability
from qss.cache.ledger import Ledger
from qss.cache.options import RetentionOptions
from qss.cache.read_cache import ReadCache
from qss.cache.retention import NO_PROTECTION, Candidate, EvictionReport, Guard, Reason, Victim, eviction_order, plan
from qss.cache.shelf import Shelf, is_safe
from qss.errors import CorruptData, NoSpace, QssError
from qss.formats.access import Ghost, Use, decode_access, encode_access
from qss.formats.journal import Op
from qss.formats.tables import SegmentState, Table
from qss.host import Host
from qss.ids import SegmentId, StripeNo
from qss.segments import SegmentKind

RETENTION_KEY: Final = b"cache.retention"
ACCESS: Final = "access"
EVICT_EVERY_S: Final = 5.0
NOTE_EVERY_S: Final = 60.0
"""Access times are written so often, if there is anything new in them."""
BRING_PAUSE_S: Final = 30.0
"""After a pinned stripe could not be had."""

_log = logging.getLogger("qss.cache")


class Eviction:
    """Local copies of one cache. Lives on its trio thread; owner of the retention in force."""

    def __init__(
        self,
        host: Host,
        root: Path,
        ledger: Ledger,
        shelf: Shelf,
        reads: ReadCache,
        durability: Durability,
        configured: RetentionOptions,
    ) -> None:
        self._host = host
        self._root = root
        self._ledger = ledger
        self._shelf = shelf
        self._reads = reads
        self._durability = durability
        self.retention = self._stored() or configured
        self.guard: Guard | None = None
        self.on_evicted: Callable[[EvictionReport], None] = lambda _report: None
        self._noted: bytes | None = None

    async def run(self) -> None:
        """Eviction, access times, pinned content: for as long as the cache is in use."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._bring_loop)
            noted_s = trio.current_time()
            while True:
                await trio.sleep(EVICT_EVERY_S)
                try:
                    await self.refresh()
                    await self.evict(self.plan())
                except (QssError, OSError):
                    _log.exception("local copies could not be evicted; trying again")
                if trio.current_time() - noted_s >= NOTE_EVERY_S:
                    noted_s = trio.current_time()
                    self.note_access()

    # -- what holds

    def set_retention(self, retention: RetentionOptions) -> None:
        """From now on, and after a restart, in place of what was configured. Raises NoSpace."""
        value = json.dumps(asdict(retention)).encode()
        before = self._ledger.index.get(Table.META, RETENTION_KEY)
        if before != value:
            self._ledger.write([Op(Table.META, RETENTION_KEY, before, value)])
        self.retention = retention

    def _stored(self) -> RetentionOptions | None:
        stored = self._ledger.index.get(Table.META, RETENTION_KEY)
        if stored is None:
            return None
        try:
            return RetentionOptions.of_json(json.loads(stored))
        except (ValueError, TypeError):
            return None  # a field of another version: what is configured holds

    # -- eviction

    async def refresh(self) -> None:
        """Learn which copies are pinned; to be awaited before `plan`."""
        if self.guard is not None:
            await self.guard.refresh()

    def plan(self, *, all_: bool = False, free_bytes_min: int | None = None) -> list[Victim]:
        """What would go now, and why. `free_bytes_min` in place of the one in force."""
        retention = self.retention
        if free_bytes_min is not None:
            retention = replace(retention, free_bytes_min=free_bytes_min)
        candidates, kept = self._candidates()
        free, _ = self._host.disk.free_bytes(self._root)
        return plan(candidates, retention, kept, free, all_=all_)

    def order(self) -> tuple[list[Candidate], list[Candidate]]:
        """All copies that may go at all, first what goes first; and the pinned ones."""
        candidates, _ = self._candidates()
        return eviction_order(candidates), [copy for copy in candidates if copy.protection.pin is not None]

    def _candidates(self) -> tuple[list[Candidate], int]:
        """Copies that are safe elsewhere, and the bytes of all that are here."""
        now, guard, missing_max = trio.current_time(), self.guard, self.retention.missing_max
        candidates = []
        kept = 0
        for (segment, stripe), file in self._reads.files.items():
            row = self._shelf.rows.get(segment)
            if row is not None and row.kind is not SegmentKind.DATA:
                continue
            kept += file.length
            safe = row is not None and (row.state is not SegmentState.SEALED or is_safe(row, missing_max))
            if stripe != WHOLE or safe:
                number = None if stripe == WHOLE else StripeNo(stripe)
                protection = NO_PROTECTION if guard is None else guard.protection(segment, number)
                idle_s, again = now - file.used_s, file.visits >= AGAIN
                candidates.append(Candidate(segment, number, file.length, idle_s, again, protection))
        return candidates, kept

    async def evict(self, victims: list[Victim]) -> EvictionReport:
        """Unlink these copies. Raises FsError when the receipts cannot be made durable; then nothing goes."""
        if not victims:
            return EvictionReport(0, 0, 0)
        await self._durability.sync_local()  # the receipts must be durable before the bytes go
        segments = stripes = freed = 0
        for victim in victims:
            count = self._drop((victim.copy.segment, WHOLE if victim.copy.stripe is None else victim.copy.stripe))
            freed += count
            segments += victim.copy.stripe is None and count > 0
            stripes += victim.copy.stripe is not None and count > 0
        reasons: tuple[Reason, ...] = tuple(dict.fromkeys(victim.reason for victim in victims))
        report = EvictionReport(segments, stripes, freed, reasons)
        await self._reads.free_dropped()
        if freed:
            self.on_evicted(report)
        return report

    def _drop(self, key: FileKey) -> int:
        file = self._reads.files.get(key)
        if file is not None and file.visits:
            self._reads.ghosts.add(key, file.length, self.retention.size_bytes_max // 2)
        return self._reads.drop(key)

    # -- pinned content

    async def _bring_loop(self) -> None:
        """Bring pinned stripes back, one at a time, while the disk has more room than it should keep free."""
        while True:
            await trio.sleep(EVICT_EVERY_S)
            if self.guard is None:
                continue
            for segment, stripe in self.guard.wanted():
                if not self._may_bring(segment, stripe):
                    continue
                try:
                    await self._reads.bring((segment, stripe))
                except (QssError, OSError) as error:
                    _log.info("a pinned stripe is not here yet: %s", error)
                    await trio.sleep(BRING_PAUSE_S)
                    break

    def _may_bring(self, segment: SegmentId, stripe: StripeNo) -> bool:
        files = self._reads.files
        if (segment, WHOLE) in files or (segment, stripe) in files or not self._shelf.stripes_elsewhere(segment):
            return False
        return self._host.disk.free_bytes(self._root)[0] > self.retention.free_bytes_min

    # -- access times

    def note_access(self) -> None:
        """Write down when copies were used, for the next start. Cheap and not synced: it may be lost."""
        now_s, now_ns = trio.current_time(), self._host.clock.now_ns()
        uses = [
            Use(segment, stripe, now_ns - int((now_s - file.used_s) * 1e9), file.visits)
            for (segment, stripe), file in self._reads.files.items()
            if file.visits
        ]
        ghosts = [Ghost(segment, stripe, length) for (segment, stripe), length in self._reads.ghosts.all()]
        # To the second: whoever looks twice without a read in between finds nothing new.
        data = encode_access([use._replace(used_ns=use.used_ns // 10**9 * 10**9) for use in uses], ghosts)
        if data == self._noted or (self._noted is None and not uses and not ghosts):
            return
        disk, path = self._host.disk, self._root / ACCESS
        fresh = path.with_name(ACCESS + ".new")
        with contextlib.suppress(NoSpace, OSError):
            with contextlib.suppress(FileNotFoundError):
                disk.remove(fresh)
            handle = disk.create(fresh)
            try:
                disk.pwrite(handle, [data], 0)
            finally:
                disk.close(handle)
            disk.rename(fresh, path)
            self._noted = data

    def recall_access(self) -> None:
        """At start: what the last `note_access` wrote, as far as it is there and the copies are."""
        try:
            data = self._access_file()
            uses, ghosts = decode_access(data)
        except (CorruptData, OSError):
            return  # none, or none that can be read: copies count as used when they were written
        self._noted = data
        now_s, now_ns = trio.current_time(), self._host.clock.now_ns()
        for use in uses:
            file = self._reads.files.get((use.segment, use.stripe))
            if file is not None:
                file.used_s = max(file.used_s, now_s - max(now_ns - use.used_ns, 0) / 1e9)
                file.visits = use.visits
        for ghost in ghosts:
            key = (ghost.segment, ghost.stripe)
            self._reads.ghosts.add(key, ghost.length, self.retention.size_bytes_max // 2)

    def _access_file(self) -> bytes:
        disk = self._host.disk
        handle = disk.open(self._root / ACCESS)
        try:
            return disk.pread(handle, disk.size(handle), 0)
        finally:
            disk.close(handle)
