"""The scrub: every shard of every stored segment is looked at once in a period, whoever reads it or not.

A location that hashes in place does so for all its shards. One that does not (plain S3) is asked for the header of
each, and for the whole of one in `SAMPLE_ROUNDS`, chosen by segment, shard and round, so that each is read once in so
many rounds. What is found goes to the damage list, and so to the mender. How far a round is, is in the book: after a
restart it goes on there.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from typing import Final

import trio
from blake3 import blake3

from qss.errors import QssError, TooFewShards
from qss.formats.manifest import Manifest
from qss.ids import SegmentId, ShardNo, segment_text
from qss.offload.bandwidth import Pace
from qss.offload.repair_book import ScrubMark
from qss.offload.vault import Vault
from qss.offload.verifier import Look, Verdict
from qss.segments import SegmentShelf, StoredSegment

_log = logging.getLogger(__name__)

SAMPLE_ROUNDS: Final = 8
METERED_ROUNDS: Final = 4 * SAMPLE_ROUNDS
"""The same at locations where reading costs money."""
POLL_S: Final = 5.0
"""Between looks whether a round is due, and after trouble."""
SAVE_S: Final = 5.0
"""Of work done again after a crash, at most about so much."""
STEP_BACK_S: Final = 0.5
"""Before each segment while new segments wait to be stored."""


def in_sample(segment: SegmentId, shard: ShardNo, round_number: int, rounds: int = SAMPLE_ROUNDS) -> bool:
    """Whether a shard is read whole in this round, at a location that does not hash in place. Pure: in any
    so many `rounds` in a row each shard is once."""
    draw = blake3(f"qss scrub {segment} {shard}".encode()).digest(length=2)
    return (int.from_bytes(draw, "little") + round_number) % rounds == 0


class Scrubber:
    """Lives on the courier's thread. `busy`: segments others work on; they are left to them."""

    def __init__(
        self, shelf: SegmentShelf, vault: Vault, busy: Collection[SegmentId], foreground: Callable[[], bool]
    ) -> None:
        self._shelf = shelf
        self._vault = vault
        self._busy = busy
        self._foreground = foreground
        self._book = vault.book
        self._wake = trio.Event()
        self._pace = Pace(vault.options.scrub_bytes_per_s)
        self._paid = 0  # bytes of this round that the pace has heard of
        self._saved_s = float("-inf")
        self.total = 0  # segments of this round
        self.done = 0
        self.verdicts: Counter[tuple[str, str]] = Counter()  # (location, verdict), since start

    @property
    def mark(self) -> ScrubMark:
        return self._book.facts.scrub

    def start(self) -> None:
        """A round begins now, or goes on."""
        mark = self.mark
        mark.stopped = False
        if not mark.started_ns:
            self._begin()
        self._book.save()
        self._wake.set()

    def stop(self) -> None:
        """No scrub until `start`; it will go on where it is."""
        self.mark.stopped = True
        self._book.save()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                if self._due():
                    await self.round()
            except (QssError, OSError) as error:
                _log.info("scrub: %s", error)
            with trio.move_on_after(POLL_S):
                await self._wake.wait()
            self._wake = trio.Event()

    def _due(self) -> bool:
        mark, period_s = self.mark, self._vault.options.scrub_period_s
        if mark.stopped:
            return False
        if mark.started_ns:
            return True
        return period_s is not None and self._vault.clock.now_ns() - mark.ended_ns >= period_s * 1e9

    def _begin(self) -> None:
        mark = self.mark
        mark.started_ns, mark.after = self._vault.clock.now_ns(), SegmentId(0)
        mark.shards = mark.found = mark.bytes = mark.unseen = 0

    async def round(self) -> None:
        """To the end of a round, begun or gone on with, or until it is stopped. Raises what the shelf does."""
        mark = self.mark
        if not mark.started_ns:
            self._begin()
        self._paid = mark.bytes
        stored = await self._shelf.stored_segments()
        self.total = len(stored)
        for number, each in enumerate(stored):
            self.done = number
            if each.segment.id <= mark.after:
                continue
            if mark.stopped:
                self._book.save()
                return
            if self._foreground():
                await trio.sleep(STEP_BACK_S)  # once for each segment: slower, but it goes on
            if each.segment.id not in self._busy:  # who works on it looks at it
                self._note(await self._look(each))
            mark.after = each.segment.id
            await self._step_done()
        mark.ended_ns, mark.started_ns, mark.after = self._vault.clock.now_ns(), 0, SegmentId(0)
        mark.round += 1
        self.done = self.total
        self._book.save()

    async def _look(self, each: StoredSegment) -> list[Look]:
        segment = each.segment.id
        try:
            manifest = await self._vault.manifest_of(segment)
        except TooFewShards as error:
            _log.warning("scrub: segment %s cannot be read now: %s", segment_text(segment), error)
            return []
        return await self._vault.verifier.look(manifest, whole=partial(self._whole, manifest, self.mark.round))

    def _whole(self, manifest: Manifest, number: int, shard: ShardNo) -> bool:
        place, nodes = manifest.placed[shard], self._vault.nodes
        metered = place is not None and place in nodes and nodes[place].metered
        rounds = METERED_ROUNDS if metered else SAMPLE_ROUNDS
        return in_sample(manifest.segment.id, shard, number, rounds)

    def _note(self, looks: list[Look]) -> None:
        mark = self.mark
        for look in looks:
            self.verdicts[str(look.location), look.verdict.value] += 1
            mark.shards += 1
            mark.bytes += look.bytes
            mark.found += look.verdict is Verdict.BAD
            mark.unseen += look.verdict is Verdict.SILENT

    async def _step_done(self) -> None:
        now_s = trio.current_time()
        if now_s - self._saved_s >= SAVE_S:
            self._book.save()
            self._saved_s = now_s
        count, self._paid = self.mark.bytes - self._paid, self.mark.bytes
        await self._pace.wait(max(0, count))
