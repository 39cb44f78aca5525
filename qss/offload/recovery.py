"""The machine has burnt: from the key and any k locations back to a file system.

    find the newest root → bring its checkpoint and journals back → (cache: replay them) → find where the others are

What to do with them is the caller's: offload does not know the cache.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import trio

from qss.errors import Damaged, QssError, Refused, TooFewShards, Unreachable, WrongKey
from qss.formats.root import Root
from qss.ids import SegmentId
from qss.offload.census import locate
from qss.offload.presence import count_shards, every_root
from qss.offload.roots import RootBook
from qss.offload.vault import Vault
from qss.segments import Receipt, RestorePoint, SealedSegment, SegmentKind

SEGMENTS_AT_ONCE: Final = 4

Stage = Literal["roots", "journals", "replay", "segments", "objects"]
Progress = Callable[[Stage, int, int], None]
"""(what is being done, how many are done, of how many; 0: nobody knows)."""
Found = tuple[SealedSegment, Receipt]
Lost = tuple[SegmentId, str]
"""A segment of which fewer than k shards answer now, and why."""
PathOf = Callable[[SegmentId, SegmentKind], Path]
Rebuild = Callable[[RestorePoint, list[Path]], Awaitable[Iterable[SegmentId]]]
"""Make a cache of the checkpoint and the journals, oldest first; returns the segments whose places it wants to know."""
Adopt = Callable[[Sequence[Found]], Awaitable[None]]
"""Take what was found of those segments."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A root newer than the one restored, and why it was not."""

    generation: int
    created_ns: int
    cut_ns: int
    why: str


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    root: Root  # restored: its point.cut_ns is the moment everything is as of
    newest: Root  # seen; the same unless some of its journals are lost
    skipped: tuple[Skipped, ...]  # newest first: what came after the point and is lost
    answered: int  # locations that showed a root
    locations: int
    majority: bool  # False: a newer root may be at locations that did not answer
    journals: int
    found: tuple[Found, ...]
    incomplete: tuple[SegmentId, ...]  # k or more shards, but not all: will be repaired
    lost: tuple[Lost, ...]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A root whose logs are here."""

    root: Root
    newest: Root  # seen
    skipped: tuple[Skipped, ...]  # that would have been restored rather
    paths: tuple[Path, ...]  # of its checkpoint and journals, in order
    answered: int  # locations that showed a root
    locations: int
    majority: bool

    def report(self, found: Sequence[Found], lost: Sequence[Lost]) -> RecoveryReport:
        return RecoveryReport(
            root=self.root,
            newest=self.newest,
            skipped=self.skipped,
            answered=self.answered,
            locations=self.locations,
            majority=self.majority,
            journals=len(self.paths),
            found=tuple(found),
            incomplete=tuple(sealed.id for sealed, receipt in found if not receipt.complete),
            lost=tuple(lost),
        )


class Recovery:
    def __init__(self, vault: Vault, book: RootBook, progress: Progress | None = None) -> None:
        self._vault = vault
        self._book = book
        self._progress = progress or (lambda _stage, _done, _total: None)

    async def find_root(self) -> Root:
        """As `newest_root`."""
        return await newest_root(self._book)

    async def census(self, segment: SegmentId) -> Receipt:
        """Which shards of a segment exist where. Raises TooFewShards below k."""
        return (await self.find(segment))[1]

    async def find(self, segment: SegmentId) -> Found:
        """Facts and places of a segment, from what the locations hold now. Raises TooFewShards."""
        vault = self._vault
        manifest, census = await locate(vault.nodes, vault.keys, vault.manifests, segment)
        vault.manifests.save(manifest)
        total = max(header.total for header in census.found.values() if header.seal == manifest.seal)
        return manifest.segment, manifest.receipt(total)

    async def fetch_segment(self, segment: SegmentId, into: Path) -> None:
        """Bring a whole segment back, verified and synced. Raises TooFewShards, Damaged."""
        await self._vault.fetch_segment(segment, into)

    async def run(self, path_of: PathOf, rebuild: Rebuild, adopt: Adopt) -> RecoveryReport:
        """Restore the newest root whose checkpoint and journals can all be brought back. `path_of`: where they lie.

        Raises WrongKey (nothing opens with this key), Unreachable (nor do most locations answer), TooFewShards (no
        root can be restored now), and what the callbacks raise. Can be repeated: journals brought
        back before are fetched again and replaced.
        """
        chosen = await self.choose(path_of)
        self._progress("replay", 0, 1)
        wanted = list(await rebuild(chosen.root.point, list(chosen.paths)))
        self._progress("replay", 1, 1)
        found, lost = await self.find_all(wanted)
        await adopt(found)
        return chosen.report(found, lost)

    async def choose(self, path_of: PathOf, at_ns: int | None = None) -> Chosen:
        """The newest root, or the newest that is not younger than `at_ns` (wall clock), whose checkpoint and journals
        can all be brought back, and they are: to where `path_of` says.

        Raises WrongKey (nothing opens with this key), Unreachable (nor do most locations answer), Refused (no root is
        so old), TooFewShards (no root can be restored now).
        """
        current, answered = await self._book.survey()
        newest: Root | None = None
        skipped: list[Skipped] = []
        self._progress("roots", 0, 1)
        async with aclosing(self._candidates(at_ns)) as roots:
            async for newest, root in roots:
                self._progress("roots", 1, 1)
                if skipped and not root.point.logs:
                    continue  # the first root: an empty file system is no substitute
                try:
                    paths = await self._fetch_all(root.point, path_of)
                except Damaged as error:
                    skipped.append(Skipped(root.generation, root.created_ns, root.point.cut_ns, str(error)))
                    continue
                places, majority = len(self._vault.nodes), answered >= self._book.majority
                return Chosen(root, newest, tuple(skipped), tuple(paths), len(current), places, majority)
        if newest is None:
            raise _no_root(self._book, answered)
        raise TooFewShards(f"no root can be restored from the locations that answer; newest: {skipped[0].why}")

    async def _candidates(self, at_ns: int | None) -> AsyncGenerator[tuple[Root, Root], None]:
        """(the newest root there is, one to try), the best first."""
        if at_ns is None:
            newest: Root | None = None
            async with aclosing(self._book.newest_first()) as roots:
                async for root in roots:
                    newest = newest or root
                    yield newest, root
            return
        every = await every_root(self._vault.nodes, self._vault.keys, self._book)
        stored = [root for root in every if root.point.logs]
        if not stored:
            return
        fitting = [root for root in stored if root.point.cut_ns <= at_ns]
        if not fitting:
            oldest = utc_text(min(root.point.cut_ns for root in stored))
            raise Refused(f"no root is that old: the oldest is of {oldest} UTC; qssctl recover --list shows them all")
        newest = await newest_root(self._book)
        for root in sorted(fitting, key=lambda r: (r.point.cut_ns, r.order), reverse=True):
            yield newest, root

    async def _fetch_all(self, point: RestorePoint, path_of: PathOf) -> list[Path]:
        paths = {segment: path_of(segment, kind) for segment, kind in point.logs.items()}
        trouble: list[QssError] = []
        done = 0
        slots = trio.CapacityLimiter(SEGMENTS_AT_ONCE)

        async def fetch(segment: SegmentId) -> None:
            nonlocal done
            async with slots:
                try:
                    await self._vault.fetch_segment(segment, paths[segment])
                except QssError as error:
                    trouble.append(error)
                    nursery.cancel_scope.cancel()
                    return
            done += 1
            self._progress("journals", done, len(paths))

        async with trio.open_nursery() as nursery:
            for segment in paths:
                nursery.start_soon(fetch, segment)
        if trouble:
            raise trouble[0]
        return list(paths.values())

    async def missing(self, wanted: Mapping[SegmentId, int]) -> list[Lost]:
        """Those of these segments of which fewer than k shards answer now, and why. Values: k of each, 0 if unknown."""
        counted = await count_shards(
            self._vault.nodes, self._vault.keys, wanted, lambda seen: self._progress("objects", seen, 0)
        )
        suspects = [segment for segment, k in wanted.items() if counted[segment] < max(k, 1)]
        return (await self.find_all(suspects))[1]

    async def find_all(self, wanted: Sequence[SegmentId]) -> tuple[list[Found], list[Lost]]:
        """Facts and places of segments; and those of which fewer than k shards answer now, and why."""
        found: list[Found] = []
        lost: list[Lost] = []
        slots = trio.CapacityLimiter(4 * SEGMENTS_AT_ONCE)

        async def find(segment: SegmentId) -> None:
            async with slots:
                try:
                    found.append(await self.find(segment))
                except QssError as error:
                    lost.append((segment, str(error)))
            self._progress("segments", len(found) + len(lost), len(wanted))

        async with trio.open_nursery() as nursery:
            for segment in wanted:
                nursery.start_soon(find, segment)
        return sorted(found, key=lambda one: one[0].id), sorted(lost)


async def newest_root(book: RootBook) -> Root:
    """The newest root that verifies. Raises WrongKey when none is found and a majority answers, Unreachable when fewer
    do."""
    async with aclosing(book.newest_first()) as roots:
        async for root in roots:
            return root
    raise _no_root(book, (await book.survey())[1])


def utc_text(at_ns: int) -> str:
    """A moment, for people: 2026-11-21 09:00:00."""
    return datetime.fromtimestamp(at_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _no_root(book: RootBook, answered: int) -> QssError:
    """Only a majority can say that there is none: roots are where one took them."""
    if answered < book.majority:
        return Unreachable(
            f"of {book.size} locations {answered} answer, without a root that this key opens: try again when more do"
        )
    return WrongKey(
        "no location holds a root that this key opens: the key is another file system's, these are not its locations,"
        " or nothing of it was ever published"
    )
