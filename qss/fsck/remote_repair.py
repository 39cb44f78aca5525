"""Repairs that need the locations: shards put there again, journals brought back.

Before everything else, for the logs must be whole before the index is looked at. A crash leaves a location with one
shard more, or a journal that is back; the next run finds less to do.
"""

from __future__ import annotations

from qss.errors import QssError
from qss.formats.tables import u64_of_key
from qss.fsck.findings import Finding, Kind, Report
from qss.fsck.segments import SegmentRows, Shelves, elsewhere, text
from qss.ids import SegmentId
from qss.offload.census import take_census
from qss.offload.vault import Vault

_LOGS = {Kind.JOURNAL_MISSING, Kind.JOURNAL_DAMAGED, Kind.CHECKPOINT_MISSING, Kind.CHECKPOINT_DAMAGED}
_SHARDS = {Kind.SHARDS_MISSING, Kind.SHARD_DAMAGED}


def to_fetch(report: Report, rows: SegmentRows) -> list[SegmentId]:
    """Journals and checkpoint parts that are damaged or gone here and can be had from the locations. Pure."""
    found = {segment for each in report.findings if each.kind in _LOGS and (segment := _segment_of(each))}
    return sorted(segment for segment in found if segment in rows and elsewhere(rows[segment]))


def to_complete(report: Report) -> list[SegmentId]:
    """Segments that miss shards and have k. Pure."""
    lost = {_segment_of(each) for each in report.findings if each.kind is Kind.SHARDS_BELOW_K}
    found = {segment for each in report.findings if each.kind in _SHARDS and (segment := _segment_of(each))}
    return sorted(found - lost)


def _segment_of(finding: Finding) -> SegmentId | None:
    return None if finding.where is None else SegmentId(u64_of_key(finding.where.key))


def plan(report: Report, rows: SegmentRows) -> list[str]:
    """The sentences of `repair_remote`, if all goes well. Pure."""
    return [_fetched(each, rows) for each in to_fetch(report, rows)] + [
        _completed(each) for each in to_complete(report)
    ]


async def repair_remote(vault: Vault, shelves: Shelves, report: Report, rows: SegmentRows) -> list[str]:
    """What was done. What a location refuses now is left, and found again."""
    done = []
    for segment in to_fetch(report, rows):
        try:
            await vault.fetch_segment(segment, shelves.path_of(segment, rows[segment].kind))
        except QssError:
            continue
        done.append(_fetched(segment, rows))
    for segment in to_complete(report):
        try:
            receipt = await vault.complete(segment)
        except QssError:
            continue
        census = await take_census(vault.nodes, vault.keys, segment)  # a receipt trusts those who do not answer
        if len(census.of_seal(receipt.seal)) == receipt.k + receipt.m:
            done.append(_completed(segment))
    return done


def _fetched(segment: SegmentId, rows: SegmentRows) -> str:
    return f"Brought the {rows[segment].kind.name.lower()} {text(segment)} back from the locations."


def _completed(segment: SegmentId) -> str:
    return f"Put the missing shards of {text(segment)} to their locations again."
