"""Carrying out the retention policy: which copies are here, what the policy says of them, and letting them go."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import trio

from qss.cache.durability import Durability
from qss.cache.ledger import Ledger
from qss.cache.options import RetentionOptions
from qss.cache.read_cache import WHOLE, ReadCache
from qss.cache.retention import Candidate, EvictionReport, Victim, plan
from qss.cache.shelf import Shelf
from qss.formats.journal import Op
from qss.formats.tables import SegmentState, Table
from qss.host import Disk
from qss.ids import StripeNo
from qss.segments import SegmentKind

RETENTION_KEY: Final = b"cache.retention"


class Eviction:
    """Local copies of one cache. Lives on its trio thread; owner of the retention in force."""

    def __init__(
        self,
        disk: Disk,
        root: Path,
        ledger: Ledger,
        shelf: Shelf,
        reads: ReadCache,
        durability: Durability,
        configured: RetentionOptions,
    ) -> None:
        self._disk = disk
        self._root = root
        self._ledger = ledger
        self._shelf = shelf
        self._reads = reads
        self._durability = durability
        self.retention = self._stored() or configured

    def set_retention(self, retention: RetentionOptions) -> None:
        """From now on, and after a restart, in place of what was configured. Raises NoSpace."""
        value = json.dumps(asdict(retention)).encode()
        before = self._ledger.index.get(Table.META, RETENTION_KEY)
        if before != value:
            self._ledger.write([Op(Table.META, RETENTION_KEY, before, value)])
        self.retention = retention

    def plan(self, *, all_: bool = False, free_bytes_min: int | None = None) -> list[Victim]:
        """What would go now, and why. `free_bytes_min` in place of the one in force."""
        retention = self.retention
        if free_bytes_min is not None:
            retention = replace(retention, free_bytes_min=free_bytes_min)
        now = trio.current_time()
        candidates = []
        kept = 0
        for (segment, stripe), file in self._reads.files.items():
            row = self._shelf.rows.get(segment)
            if row is not None and row.kind is not SegmentKind.DATA:
                continue
            kept += file.length
            if stripe != WHOLE or (row is not None and row.state is not SegmentState.SEALED):
                number = None if stripe == WHOLE else StripeNo(stripe)
                candidates.append(Candidate(segment, number, file.length, now - file.used_s))
        free, _ = self._disk.free_bytes(self._root)
        return plan(candidates, retention, kept, free, all_=all_)

    async def evict(self, victims: list[Victim]) -> EvictionReport:
        """Unlink these copies. Raises FsError when the receipts cannot be made durable; then nothing goes."""
        if victims:
            await self._durability.sync_local()  # the receipts must be durable before the bytes go
        segments = stripes = freed = 0
        for victim in victims:
            copy = victim.copy
            freed += self._reads.drop((copy.segment, WHOLE if copy.stripe is None else copy.stripe))
            segments += copy.stripe is None
            stripes += copy.stripe is not None
        await self._reads.let_go()
        return EvictionReport(segments, stripes, freed)

    def _stored(self) -> RetentionOptions | None:
        stored = self._ledger.index.get(Table.META, RETENTION_KEY)
        if stored is None:
            return None
        try:
            return RetentionOptions(**json.loads(stored))
        except (ValueError, TypeError):
            return None  # a field of another version: what is configured holds
