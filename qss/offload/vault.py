"""The vault: stores segments at the locations, completes what is missing, brings stripes back.

Implements qss.segments.SegmentVault. Lives on one trio thread; owns the manifests, the buffers and the damage list.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

import trio

from qss.errors import CorruptData, QssError, Retryable, TooFewShards, Unreachable
from qss.formats.manifest import DEK_BYTES, Manifest
from qss.formats.shard import SEAL_BYTES
from qss.host import Host
from qss.host.page_cache import memory_is_lent
from qss.ids import LocationId, SegmentId, ShardNo, StripeNo, segment_text
from qss.limits import MIB
from qss.offload.buffers import Buffers
from qss.offload.census import GENERATION, Census, locate, take_census
from qss.offload.damage import DamageList
from qss.offload.fetcher import Fetcher
from qss.offload.keys import FsKeys
from qss.offload.manifests import Manifests
from qss.offload.nodes import Nodes
from qss.offload.options import OffloadOptions
from qss.offload.pipeline import CodedSegment, Pipeline, blocks_of
from qss.offload.placement import PlacementPolicy, room_for
from qss.offload.plan import UploadPlan, choose_homes
from qss.offload.repair import Repairer
from qss.offload.repair_book import RepairBook
from qss.offload.seal import SealContext, suite_for
from qss.offload.uploader import Uploader, object_length
from qss.offload.verifier import Verdict, Verifier
from qss.segments import Receipt, SealedSegment

_log = logging.getLogger(__name__)

SCRATCH_BYTES: Final = 24 * MIB
"""Kept out of the budget for the threads that read, compress and decode."""


class Vault:
    def __init__(
        self,
        nodes: Nodes,
        keys: FsKeys,
        options: OffloadOptions,
        host: Host,
        state: Path,
        suite: int | None = None,
        on_sent: Callable[[int], None] | None = None,
    ) -> None:
        """`state`: a directory of this machine, mode 0700, e.g. `state/offload`. `suite`: of new
        segments; None: what this processor is good at. `on_sent` hears of bytes uploaded."""
        self.on_short: Callable[[SegmentId, int], None] = lambda _segment, _missing: None
        """Hears of segments that have got too few shards to count as stored, and how many are missing."""
        self.nodes = nodes
        self.keys = keys
        self.options = options
        self.damage = DamageList()
        self.manifests = Manifests(state / "manifests", keys, host.entropy)
        self.buffers = Buffers(max(options.memory_bytes - SCRATCH_BYTES, 8 * MIB), state / "spill")
        self.book = RepairBook(state / "repair.json")
        self.damage.recall(self.book.facts.damaged)
        self.clock = host.clock
        self._host = host
        self._suite = suite or suite_for(_cpuinfo())
        self.policy = PlacementPolicy(options.max_per_domain)
        self._pipeline = Pipeline(self.buffers, options.compression_level, forgets=memory_is_lent())
        self._uploader = Uploader(nodes, keys, on_sent)
        self._fetcher = Fetcher(nodes, keys, options, self.damage)
        self._repairer = Repairer(nodes, keys, self.policy, self._fetcher, self._uploader, self.buffers)
        self.verifier = Verifier(nodes, keys, self.damage)
        self._locating = trio.Lock()

    @property
    def fetcher(self) -> Fetcher:
        """For whoever moves shards."""
        return self._fetcher

    @property
    def uploader(self) -> Uploader:
        """For whoever moves shards."""
        return self._uploader

    @property
    def repairer(self) -> Repairer:
        """For whoever moves shards."""
        return self._repairer

    def adopt(self, manifest: Manifest) -> Receipt:
        """From now on the shards are where this manifest says: somebody has moved one and read it back."""
        box = self.manifests.save(manifest)
        self.damage.settle(manifest.segment.id, manifest.placed)
        return manifest.receipt(object_length(manifest, len(box)))

    async def store(self, sealed: SealedSegment, path: Path) -> Receipt:
        """Put a segment's shards at k+m locations, or complete what an earlier call began.

        The receipt may have gaps, never below options.safe_shards. Raises Retryable when too few shards could be placed
        now, CorruptData or OSError when the file cannot be read whole. Idempotent.
        """
        if self.manifests.load(sealed.id) is not None:
            receipt = await self._resume(sealed)
            if receipt is not None:
                return receipt
        return await self._store_fresh(sealed, path)

    def trim(self) -> None:
        """Give back memory that is not in use."""
        self.buffers.trim()
        self._fetcher.trim()

    async def complete(self, segment: SegmentId, lost: Collection[LocationId] = ()) -> Receipt:
        """Rebuild and put what is missing or damaged of a stored segment, or at a location that is given up for lost,
        as far as locations answer now.

        Raises TooFewShards when fewer than k shards are found, Retryable when that is for want of answers.
        """
        known = self.manifests.load(segment)
        census = await take_census(self.nodes, self.keys, segment)
        if known is None or len(census.of_seal(known.seal)) < known.k:
            best, census = await locate(self.nodes, self.keys, self.manifests, segment)
            if known is not None and known.seal != best.seal:
                _refuse_another(known, best)
                _log.warning("segment %s is stored under another seal than was known here", segment_text(segment))
            known = best
        manifest = _confirmed(known, census)
        manifest, object_bytes = await self._repairer.repair(manifest, census, self.damage, self.manifests, lost)
        return manifest.receipt(object_bytes)

    async def fetch(self, segment: SegmentId, stripe: StripeNo, into: Path) -> None:
        """As qss.segments.SegmentVault.fetch."""
        manifest = await self.manifest_of(segment)
        try:
            await self._fetcher.fetch(manifest, stripe, into)
        except TooFewShards:
            again = await self._locate(segment, manifest)  # have its shards moved?
            if (again.seal, again.placed) == (manifest.seal, manifest.placed):
                raise
            await self._fetcher.fetch(again, stripe, into)

    async def fetch_segment(self, segment: SegmentId, into: Path) -> Manifest:
        """Rebuild a whole segment at `into` (0600), synced, whole or not at all. Raises TooFewShards, Damaged."""
        manifest = await self.manifest_of(segment)
        beside = into.with_name(into.name + ".new")
        file = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            await self._fill(manifest, file)
            if os.fstat(file).st_size != manifest.segment.length:
                raise CorruptData(f"segment {segment_text(segment)} came back with another length")
            await trio.to_thread.run_sync(os.fsync, file)
        finally:
            os.close(file)
        beside.rename(into)
        return manifest

    async def manifest_of(self, segment: SegmentId) -> Manifest:
        """What is known here, else what the locations say. Raises TooFewShards."""
        return self.manifests.load(segment) or await self._locate(segment, None)

    async def _fill(self, manifest: Manifest, file: int) -> None:
        trouble: list[QssError] = []

        async def fetch(stripe: StripeNo) -> None:
            try:
                await self._fetcher.fetch_to(manifest, stripe, file)
            except QssError as error:
                trouble.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for number in range(len(manifest.stripes)):
                nursery.start_soon(fetch, StripeNo(number))
        if trouble:
            raise trouble[0]

    async def delete(self, segment: SegmentId) -> None:
        """Delete a segment's shards everywhere. Raises Retryable when a location does not answer: call again.

        Only for segments that no published root names.
        """
        trouble: list[QssError] = []

        async def delete(location: LocationId) -> None:
            try:
                await self.nodes[location].delete(self.keys.shard_name(segment, GENERATION, location))
            except QssError as error:
                trouble.append(error)

        async with trio.open_nursery() as nursery:
            for location in self.nodes:
                nursery.start_soon(delete, location)
        if trouble:
            raise trouble[0]
        self.manifests.forget(segment)
        self.damage.forget(segment)

    async def _resume(self, sealed: SealedSegment) -> Receipt | None:
        """Complete an earlier attempt; None if it cannot have come to k shards and nothing is lost by a new one.

        A new attempt overwrites the shards of the old one under the same names, and a root may name the segment
        already: so not while k shards of the old seal may exist, whole or at locations that are silent. A shard that
        was marked as damaged before is looked at again: one spoiled answer marks it, too.
        """
        known = self.manifests.load(sealed.id)
        assert known is not None
        if known.segment != sealed:
            return None
        marked = self.damage.where(sealed.id, known.placed)
        try:
            receipt = await self.complete(sealed.id)
        except (TooFewShards, Retryable) as error:
            census = await take_census(self.nodes, self.keys, sealed.id)
            at_marked = tuple(marked.get(ShardNo(number)) for number in range(len(known.placed)))
            looks = await self.verifier.look(known.with_placed(at_marked))
            bad = {look.shard for look in looks if look.verdict is Verdict.BAD}
            if _may_exist(known, census, bad) >= known.k:
                raise Unreachable(f"segment {segment_text(sealed.id)} waits for its locations: {error}") from error
            return None
        self._check_enough(sealed.id, receipt, "its locations do not answer")
        return receipt

    async def _store_fresh(self, sealed: SealedSegment, path: Path) -> Receipt:
        """A crash after 1 or in 2: the next attempt looks what is there. After 3: it finds all in place."""
        options = self.options
        entropy = self._host.entropy
        context = SealContext(
            fs_id=self.keys.fs_id,
            segment=sealed.id,
            seal=entropy.token(SEAL_BYTES),
            dek=entropy.token(DEK_BYTES),
            suite=self._suite,
            k=options.k,
            m=options.m,
            stripes=sealed.stripe_count,
        )
        async with self._pipeline.coded(sealed, path, context) as coded:
            manifest = self._manifest(sealed, coded)
            homes, spares = choose_homes(sealed.id, options.k + options.m, self.nodes.placement(), self.policy)
            planned = manifest.with_placed(tuple(home for _, home in sorted(homes.items())))
            self.manifests.save(manifest)  # 1. from here on a seal of this segment may exist out there
            plan = UploadPlan(homes, spares, options.safe_shards, fits=room_for(self.nodes.placement(), self.policy))
            box = self.manifests.seal(planned)
            trouble = await self._uploader.run(plan, planned, box, lambda shard: blocks_of(coded, shard))  # 2.
        manifest = manifest.with_placed(plan.placed)
        self.manifests.save(manifest)  # 3. what is where
        receipt = manifest.receipt(object_length(manifest, len(box)))
        self._check_enough(sealed.id, receipt, trouble)
        return receipt

    def _manifest(self, sealed: SealedSegment, coded: CodedSegment) -> Manifest:
        context = coded.context
        return Manifest(
            fs_id=context.fs_id,
            segment=sealed,
            seal=context.seal,
            dek=context.dek,
            suite=context.suite,
            k=context.k,
            m=context.m,
            created_ns=self._host.clock.now_ns(),
            stripes=coded.facts,
            hashes=coded.hashes,
            placed=(None,) * (context.k + context.m),
        )

    def _check_enough(self, segment: SegmentId, receipt: Receipt, trouble: str) -> None:
        there, safe = receipt.k + receipt.m - receipt.missing, min(self.options.safe_shards, receipt.k + receipt.m)
        if there < safe:
            self.on_short(segment, receipt.missing)
            raise Unreachable(f"segment {segment_text(segment)}: {there} of {safe} shards placed: {trouble}")

    async def _locate(self, segment: SegmentId, stale: Manifest | None) -> Manifest:
        """Look at the locations; one at a time, since many stripes of one segment ask at once."""
        async with self._locating:
            known = self.manifests.load(segment)
            if known is not None and known is not stale:
                return known
            manifest, census = await locate(self.nodes, self.keys, self.manifests, segment)
            if stale is not None:
                _refuse_another(stale, manifest)
            if stale is not None and stale.seal == manifest.seal:
                manifest = _confirmed(stale, census)
            self.manifests.save(manifest)
            return manifest


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _refuse_another(known: Manifest, found: Manifest) -> None:
    """Another seal may be of the same segment, or of other content with its number: of a machine that has lost the file
    system, or of a copy of this state directory. Raises TooFewShards."""
    if found.segment != known.segment:
        raise TooFewShards(
            f"segment {segment_text(known.segment.id)}: what the locations hold is another one with this number"
        )


def _confirmed(known: Manifest, census: Census) -> Manifest:
    """Places as the census saw them; a location that is silent keeps what it was known to hold."""
    where = census.of_seal(known.seal)
    placed = []
    for number, before in enumerate(known.placed):
        still = before if before in census.silent else None
        placed.append(where.get(ShardNo(number), still))
    return known.with_placed(tuple(placed))


def _may_exist(known: Manifest, census: Census, bad: Collection[ShardNo]) -> int:
    """How many whole shards of a known seal there may be. A manifest without places was saved before its upload."""
    found = len(set(census.of_seal(known.seal)).difference(bad))
    attempted = any(known.placed)
    silent = [location for location in census.silent if not attempted or location in known.placed]
    return found + len(silent)
