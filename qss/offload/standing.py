"""How far each stored segment is from loss now: how many shards more than k it has at locations that answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import trio

from qss.ids import LocationId, SegmentId
from qss.offload.vault import Vault
from qss.segments import StoredSegment

MANIFESTS_A_STEP: Final = 32


@dataclass(frozen=True, slots=True)
class Standing:
    segments: int
    stored_bytes: int
    by_spare: dict[int, int]  # shards that may still be lost → segments; below 0: cannot be read now
    weakest: SegmentId | None
    weakest_code: tuple[int, int]  # its k and m
    missing: int  # shards that are nowhere: never placed, damaged, or given up
    silent: int  # shards at locations that do not answer now

    @property
    def weakest_spare(self) -> int | None:
        return min(self.by_spare, default=None)


async def standing(stored: Collection[StoredSegment], vault: Vault, lost: Collection[LocationId]) -> Standing:
    """From what is known here (manifests, damage found, which locations answer); no location is asked."""
    up = {location for location, node in vault.nodes.items() if node.up} - set(lost)
    damaged = {(one.segment, one.shard, one.location) for one in vault.damage.open}
    by_spare: Counter[int] = Counter()
    worst: tuple[int, int, StoredSegment] | None = None
    missing = silent = 0
    for count, each in enumerate(stored):
        if count % MANIFESTS_A_STEP == 0:
            await trio.lowlevel.checkpoint()
        manifest = vault.manifests.load(each.segment.id)
        if manifest is None:
            there, hushed = each.placed, 0
        else:
            whole = [
                place
                for shard, place in enumerate(manifest.placed)
                if place is not None and place not in lost and (each.segment.id, shard, place) not in damaged
            ]
            there = sum(1 for place in whole if place in up)
            hushed = len(whole) - there
        silent += hushed
        missing += each.k + each.m - there - hushed
        spare = there - each.k
        by_spare[spare] += 1
        if worst is None or (spare, each.segment.id) < worst[:2]:
            worst = spare, each.segment.id, each
    return Standing(
        segments=len(stored),
        stored_bytes=sum(each.stored_bytes for each in stored),
        by_spare=dict(sorted(by_spare.items())),
        weakest=worst[2].segment.id if worst else None,
        weakest_code=(worst[2].k, worst[2].m) if worst else (0, 0),
        missing=missing,
        silent=silent,
    )
