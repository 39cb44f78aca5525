"""Deleting the shards of dead segments, when the shelf says that no root needs them.

    1. shards deleted at every location   crash: deleted again; deleting what is not there is nothing
    2. shelf.mark_deleted                 crash: the same

A location that is down keeps its shard, and the segment stays on the list until it is back: nothing is forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Final

import trio

from qss.errors import QssError
from qss.ids import SegmentId, segment_text
from qss.offload.roots import Roots
from qss.offload.vault import Vault
from qss.segments import SegmentShelf

_log = logging.getLogger(__name__)

DELETES_AT_ONCE: Final = 4
"""Segments; k+m requests each."""
DELETES_A_ROUND_MAX: Final = 256
"""Segments, so that a round ends and what is under way is looked at again."""


class Disposal:
    """Lives on the courier's thread."""

    def __init__(self, shelf: SegmentShelf, vault: Vault, roots: Roots) -> None:
        self._shelf = shelf
        self._vault = vault
        self._roots = roots
        self.deleted = 0  # segments, since start
        self.current: set[SegmentId] = set()  # nobody may put shards of these

    async def round(self, busy: Collection[SegmentId]) -> None:
        """Delete what may go but for segments under way (`busy` may change meanwhile). Raises the first trouble when
        the others are done."""
        if self._roots.last is None or len(self._roots.behind) >= self._vault.options.k:
            return  # k locations could be asked that all know only older roots
        segments = [each for each in await self._shelf.condemned() if each not in busy][:DELETES_A_ROUND_MAX]
        slots = trio.CapacityLimiter(DELETES_AT_ONCE)
        trouble: list[QssError] = []

        async def delete(segment: SegmentId) -> None:
            async with slots:
                if segment in busy:
                    return
                self.current.add(segment)
                try:
                    await self._vault.delete(segment)  # 1.
                    await self._shelf.mark_deleted(segment)  # 2.
                except QssError as error:
                    trouble.append(error)
                else:
                    self.deleted += 1
                    _log.info("segment %s is deleted", segment_text(segment))
                finally:
                    self.current.discard(segment)

        async with trio.open_nursery() as nursery:
            for segment in segments:
                nursery.start_soon(delete, segment)
        if trouble:
            raise trouble[0]
