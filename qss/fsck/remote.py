"""Segments against manifests against locations: is what counts as safe really there, and nothing else?

Asked of the locations themselves, by whoever runs fsck, with a client of its own: the running processes are not
involved. Headers describe themselves and are authenticated; blocks are verified by scrub, not here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, cast

import trio

from qss.errors import ObjectMissing, QssError
from qss.formats.root import Root
from qss.formats.shard import ShardHeader
from qss.formats.tables import SegmentRow, SegmentState, Table, u64_key
from qss.fsck.findings import Finding, Kind, Report, Where
from qss.fsck.segments import SegmentRows, text
from qss.ids import LocationId, SegmentId
from qss.offload.census import GENERATION, Census, take_census
from qss.offload.keys import FsKeys
from qss.offload.manifests import Manifests
from qss.offload.roots import PROBE_AHEAD, RootBook
from qss.s3.store import ObjectInfo, ObjectStore

SEGMENTS_AT_ONCE: Final = 8
STRAYS_MAX: Final = 1_000
"""Objects of one location that are reported."""
SEALED_MEANWHILE_MAX: Final = 1_024
"""Segments that may come into being while a location is listed."""
SILENT_AFTER_S: Final = 10.0
LOOKS_MAX: Final = 4
"""At what looks wrong while the file system goes on: after this many it is said, whatever changes meanwhile."""

RowsNow = Callable[[], Awaitable[SegmentRows]]
"""The rows of the sealed segments, as they are now."""


@dataclass(frozen=True, slots=True)
class Remote:
    """What the remote checks ask and know."""

    nodes: Mapping[LocationId, ObjectStore]
    keys: FsKeys
    manifests: Manifests
    book: RootBook


@dataclass(frozen=True, slots=True)
class Shards:
    """What was found of one segment. `sizes`: of the objects whose header verifies, in bytes."""

    census: Census
    sizes: Mapping[LocationId, int | None]


async def check_remote(remote: Remote, rows_now: RowsNow, report: Report) -> Report:
    """Adds to the report. Never raises for what a location says.

    The file system may be in use: what looks wrong is looked at again, against rows taken again, before it is said.
    A row is condemned before the first of its shards is deleted, so a shard is missed only where the row was the same
    before the look and after it.
    """
    silent = await _silent(remote)
    for location in sorted(silent):
        report.add(Finding(Kind.LOCATION_SILENT, f"location {location}", f"Location {location} does not answer."))
    rows = await rows_now()
    safe = _safe(rows)
    suspects = set(await _look_for_all(remote, (rows, silent), safe))
    strays = {
        location: await _strays(remote, location, rows, report) for location in remote.nodes if location not in silent
    }
    report.looked_at["locations"] += len(safe)
    if suspects or any(strays.values()):
        rows = await rows_now()
    for finding in await _still_wrong(remote, (rows, silent), suspects, rows_now):
        report.add(finding)
    for finding in await _root_findings(remote, rows_now):
        report.add(finding)
    for location, objects in strays.items():
        names = _known_names(remote, location, rows) | await _root_names(remote)
        for finding in _stray_findings(location, [each for each in objects if each.key not in names]):
            report.add(finding)
    return report


def _safe(rows: SegmentRows) -> set[SegmentId]:
    """Segments whose shards must all be there."""
    return {segment for segment, row in rows.items() if row.state is SegmentState.OFFLOADED}


async def _still_wrong(
    remote: Remote, known: tuple[SegmentRows, set[LocationId]], suspects: set[SegmentId], rows_now: RowsNow
) -> list[Finding]:
    """What is wrong with the suspects at another look, before and after which their rows are the same. `known`: the
    rows, and who does not answer anyway."""
    said: dict[SegmentId, list[Finding]] = {}
    rows, silent = known
    for looks_left in reversed(range(LOOKS_MAX)):
        suspects &= _safe(rows)
        if not suspects:
            break
        before, found = rows, await _look_for_all(remote, (rows, silent), suspects)
        rows = await rows_now() if found else rows
        settled = {segment for segment in found if rows.get(segment) == before[segment] or not looks_left}
        said |= {segment: found[segment] for segment in settled & _safe(rows)}
        suspects = set(found) - settled
    return [finding for _, findings in sorted(said.items()) for finding in findings]


async def _look_for_all(
    remote: Remote, known: tuple[SegmentRows, set[LocationId]], wanted: Iterable[SegmentId]
) -> dict[SegmentId, list[Finding]]:
    """Segments with something wrong, and what. `known`: the rows, and who does not answer anyway."""
    rows, silent = known
    slots = trio.CapacityLimiter(SEGMENTS_AT_ONCE)
    found: dict[SegmentId, list[Finding]] = {}

    async def look(segment: SegmentId) -> None:
        async with slots:
            shards = await look_for(remote, segment)
        findings = shard_findings(segment, rows[segment], shards, silent)
        findings += manifest_findings(segment, rows[segment], remote.manifests)
        if findings:
            found[segment] = findings

    async with trio.open_nursery() as nursery:
        for segment in sorted(wanted):
            nursery.start_soon(look, segment)
    return found


async def _silent(remote: Remote) -> set[LocationId]:
    silent = set(remote.nodes)

    async def ask(location: LocationId, node: ObjectStore) -> None:
        try:
            await node.head(remote.keys.probe_name())
        except ObjectMissing:
            silent.discard(location)
        except QssError:
            return
        silent.discard(location)

    with trio.move_on_after(SILENT_AFTER_S):
        async with trio.open_nursery() as nursery:
            for location, node in remote.nodes.items():
                nursery.start_soon(ask, location, node)
    return silent


async def look_for(remote: Remote, segment: SegmentId) -> Shards:
    """Headers and lengths of what the locations hold of a segment."""
    census = await take_census(remote.nodes, remote.keys, segment)
    sizes: dict[LocationId, int | None] = {}

    async def size(location: LocationId) -> None:
        try:
            found = await remote.nodes[location].head(remote.keys.shard_name(segment, GENERATION, location))
            sizes[location] = found.size
        except QssError:
            sizes[location] = None

    async with trio.open_nursery() as nursery:
        for location in census.found:
            nursery.start_soon(size, location)
    return Shards(census, sizes)


def shard_findings(
    segment: SegmentId, row: SegmentRow, shards: Shards, silent: Collection[LocationId] = ()
) -> list[Finding]:
    """What is wrong with the shards of a segment that counts as safe. `silent`: locations that are reported already;
    what only they may hold is not missed once more. Pure."""
    census, odd = shards.census, _odd_sizes(shards.census.found, shards.sizes)
    subject, where = text(segment), Where(Table.SEGMENTS, u64_key(segment))
    found = [
        Finding(Kind.SHARD_DAMAGED, subject, f"The shard of {subject} at {place} is not what it should be.", where)
        for place in sorted({*census.damaged, *odd})
    ]
    others = sorted(place for place, header in census.found.items() if header.seal != row.seal)
    if others:
        sentence = f"{subject.capitalize()} is at {', '.join(others)} under another seal than the index knows."
        found.append(Finding(Kind.SHARD_SEAL, subject, sentence, where))
    good = sum(1 for place in census.of_seal(row.seal).values() if place not in odd)
    total, excused = row.k + row.m, sum(1 for place in census.silent if place in silent)
    if good + len(census.silent) < row.k:
        sentence = f"Only {good} of the {row.k} shards needed for {subject} are at the locations."
        found.append(Finding(Kind.SHARDS_BELOW_K, subject, sentence, where))
    elif good + excused < total:
        unsure = f" ({', '.join(census.silent)} did not answer)" if census.silent else ""
        sentence = f"{good} of {total} shards of {subject} are at the locations{unsure}."
        found.append(Finding(Kind.SHARDS_MISSING, subject, sentence, where))
    return found


def manifest_findings(segment: SegmentId, row: SegmentRow, manifests: Manifests) -> list[Finding]:
    """The manifest that is kept here, if one is, is of the seal the index knows."""
    manifest = manifests.load(segment)
    if manifest is None or manifest.seal == row.seal:
        return []
    sentence = f"The manifest of {text(segment)} on this machine is of another seal than the index knows."
    return [Finding(Kind.SHARD_SEAL, text(segment), sentence, Where(Table.SEGMENTS, u64_key(segment)))]


def _odd_sizes(headers: Mapping[LocationId, ShardHeader], sizes: Mapping[LocationId, int | None]) -> set[LocationId]:
    return {place for place, header in headers.items() if sizes.get(place) not in (None, header.total)}


async def _root_findings(remote: Remote, rows_now: RowsNow) -> list[Finding]:
    """The newest root is there and names only segments this index knows as safe. Rows are taken after the root, which
    names nothing that was not safe before it; what it names may go when newer ones are there: then once more."""
    findings: list[Finding] = []
    for _ in range(LOOKS_MAX):
        roots, answered = await remote.book.survey()
        rows = await rows_now()
        findings = root_findings(roots, rows) if answered else []
        if not findings:
            break
    return findings


def root_findings(roots: Collection[Root], rows: SegmentRows) -> list[Finding]:
    """What is wrong with the newest of the roots. Pure."""
    if not _safe(rows):
        return []
    if not any(root.point.logs for root in roots):
        sentence = "Segments are at the locations, but no root names any: they could not be found again from there."
        return [Finding(Kind.ROOT_UNPUBLISHED, "the root", sentence)]
    newest = max(roots, key=lambda root: root.order)
    found = []
    for segment in (*newest.point.checkpoint, *newest.point.journals):
        row = rows.get(segment)
        if row is None or (row.state is SegmentState.SEALED and row.placed < max(row.k, 1)):  # more: with a margin
            sentence = f"The newest root names {text(segment)}, which does not count as safe here."
            found.append(Finding(Kind.ROOT_UNPUBLISHED, text(segment), sentence))
    return found


async def _root_names(remote: Remote) -> set[str]:
    """Names of all roots that may be at the locations."""
    roots, _ = await remote.book.survey()
    newest = max((root.generation for root in roots), default=0)
    names = {remote.keys.root_name(None), remote.keys.probe_name(), remote.keys.hold_name()}
    return names | {remote.keys.root_name(number) for number in range(1, newest + PROBE_AHEAD + 1)}


def _known_names(remote: Remote, location: LocationId, rows: SegmentRows) -> set[str]:
    """Names of the shards this location may hold: of segments with a row, and of those sealed since."""
    newest = max(rows, default=SegmentId(0))
    segments = [*rows, *(SegmentId(number) for number in range(newest + 1, newest + 1 + SEALED_MEANWHILE_MAX))]
    return {remote.keys.shard_name(segment, GENERATION, location) for segment in segments}


async def _strays(remote: Remote, location: LocationId, rows: SegmentRows, report: Report) -> list[ObjectInfo]:
    """Objects that are no root and no shard of a segment there is."""
    names = _known_names(remote, location, rows) | await _root_names(remote)
    found: list[ObjectInfo] = []
    try:
        # Every ObjectStore.list is an async generator; the port's type says less.
        async with aclosing(cast("AsyncGenerator[ObjectInfo, None]", remote.nodes[location].list())) as listing:
            async for info in listing:
                report.looked_at["objects"] += 1
                if info.key not in names and len(found) < STRAYS_MAX:
                    found.append(info)
    except QssError as error:
        sentence = f"The objects of location {location} cannot be listed: {error}"
        report.add(Finding(Kind.LOCATION_SILENT, f"location {location}", sentence))
    return found


def _stray_findings(location: LocationId, objects: list[ObjectInfo]) -> list[Finding]:
    return [
        Finding(
            Kind.OBJECT_STRAY,
            f"{location}: {info.key[:64]}",
            f"Location {location} keeps an object of {info.size} bytes that belongs to no segment and no root.",
        )
        for info in objects
    ]
