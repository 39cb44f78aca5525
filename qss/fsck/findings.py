"""What fsck can find: one kind for each invariant, and the value that says where it does not hold. Pure.

docs/fsck.md explains every kind to the person who reads it; tests/unit/fsck damages a state for each.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from qss.formats.tables import Table

KEPT_OF_A_KIND_MAX: Final = 200
"""Findings of one kind that are kept with their sentence; all are counted."""


class Severity(enum.StrEnum):
    LOSS = "loss"  # content or names that no copy here gives back
    ERROR = "error"  # a structure does not hold
    WARNING = "warning"  # nothing is lost; redundancy is less than it should be, or something lies about


class Kind(enum.StrEnum):
    """In the order of repair: what later ones build on comes first."""

    INDEX_DIFFERS = "index-differs"
    LIVE_WRONG = "live-wrong"
    ROOT_MISSING = "root-missing"
    INODE_INVALID = "inode-invalid"
    MODE_INVALID = "mode-invalid"
    SIZE_INVALID = "size-invalid"
    NEXT_INO = "next-ino"
    ENTRY_INVALID = "entry-invalid"
    ENTRY_NAME = "entry-name"
    ENTRY_PARENT = "entry-parent"
    ENTRY_WITHOUT_INODE = "entry-without-inode"
    ORDER_WITHOUT_ENTRY = "order-without-entry"
    ENTRY_TYPE = "entry-type"
    COOKIE_NEXT = "cookie-next"
    ENTRY_ORDER = "entry-order"
    DIR_NAMED_TWICE = "dir-named-twice"
    DIR_PARENT = "dir-parent"
    DIR_UNREACHABLE = "dir-unreachable"
    INODE_UNNAMED = "inode-unnamed"
    LINK_COUNT = "link-count"
    ORPHAN_LINKED = "orphan-linked"
    ORPHAN_STRAY = "orphan-stray"
    INODE_LEAKED = "inode-leaked"
    SYMLINK_MISSING = "symlink-missing"
    SYMLINK_SIZE = "symlink-size"
    SYMLINK_STRAY = "symlink-stray"
    XATTR_STRAY = "xattr-stray"
    EXTENT_INVALID = "extent-invalid"
    EXTENT_STRAY = "extent-stray"
    EXTENT_OVERLAP = "extent-overlap"
    EXTENT_BEYOND_END = "extent-beyond-end"
    EXTENT_SEGMENT = "extent-segment"
    EXTENT_RECORD = "extent-record"
    ALLOCATED = "allocated"
    DEATH_WRONG = "death-wrong"
    SEGMENT_INVALID = "segment-invalid"
    SNAPSHOT_INVALID = "snapshot-invalid"
    SNAPSHOT_LOST = "snapshot-lost"
    SEGMENT_MISSING = "segment-missing"
    SEGMENT_FILE = "segment-file"
    JOURNAL_MISSING = "journal-missing"
    JOURNAL_CHAIN = "journal-chain"
    JOURNAL_DAMAGED = "journal-damaged"
    CHECKPOINT_MISSING = "checkpoint-missing"
    CHECKPOINT_DAMAGED = "checkpoint-damaged"
    DATA_DAMAGED = "data-damaged"
    STRIPE_DAMAGED = "stripe-damaged"
    LOCATION_SILENT = "location-silent"
    SHARDS_BELOW_K = "shards-below-k"
    SHARDS_MISSING = "shards-missing"
    SHARD_DAMAGED = "shard-damaged"
    SHARD_SEAL = "shard-seal"
    ROOT_UNPUBLISHED = "root-unpublished"
    OBJECT_STRAY = "object-stray"


class KindFacts(NamedTuple):
    severity: Severity
    repairable: bool  # by `qssctl fsck --repair`; a finding may say otherwise


_LOSS, _ERROR, _WARNING = Severity.LOSS, Severity.ERROR, Severity.WARNING
_LOST_KINDS: Final = {
    Kind.INODE_INVALID, Kind.SYMLINK_MISSING, Kind.EXTENT_INVALID, Kind.EXTENT_SEGMENT, Kind.EXTENT_RECORD,
    Kind.SEGMENT_MISSING, Kind.JOURNAL_MISSING, Kind.JOURNAL_CHAIN, Kind.JOURNAL_DAMAGED, Kind.CHECKPOINT_MISSING,
    Kind.CHECKPOINT_DAMAGED, Kind.SHARDS_BELOW_K,
    Kind.SNAPSHOT_INVALID, Kind.SNAPSHOT_LOST,
}  # fmt: skip
_ERRORS_TO_STAY: Final = {
    Kind.MODE_INVALID, Kind.SIZE_INVALID, Kind.EXTENT_OVERLAP, Kind.SEGMENT_INVALID, Kind.ROOT_UNPUBLISHED,
}  # fmt: skip
_WARNINGS: Final = {Kind.LOCATION_SILENT, Kind.SHARDS_MISSING, Kind.SHARD_DAMAGED, Kind.SHARD_SEAL, Kind.OBJECT_STRAY}


def facts_of(kind: Kind) -> KindFacts:
    """How bad it is, and whether it is repaired here. Total."""
    if kind in _LOST_KINDS:
        return KindFacts(_LOSS, False)
    if kind in _WARNINGS:
        return KindFacts(_WARNING, False)
    return KindFacts(_ERROR, kind not in _ERRORS_TO_STAY)


class Where(NamedTuple):
    """The row, or the segment, a finding is about; what its repair starts from."""

    table: Table
    key: bytes
    value: int = 0  # what was counted, where something was


@dataclass(frozen=True, slots=True)
class Finding:
    """One invariant that does not hold."""

    kind: Kind
    subject: str  # "inode 17"
    sentence: str
    where: Where | None = None
    lost: bool = False  # loss and not repairable, though others of its kind may be

    @property
    def severity(self) -> Severity:
        return Severity.LOSS if self.lost else facts_of(self.kind).severity

    @property
    def repairable(self) -> bool:
        return facts_of(self.kind).repairable and not self.lost

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": str(self.kind), "severity": str(self.severity), "subject": self.subject,
            "sentence": self.sentence, "repairable": self.repairable,
        }  # fmt: skip


Step = Finding | int
"""What a check yields: a finding, or the number of rows (files, stripes) it has looked at since the last. At a number,
and only there, it may be left waiting: between two of them it sees one moment."""
Check = Iterator[Step]


@dataclass(slots=True)
class Report:
    """What a run has found. Bounded."""

    kept_max: int = KEPT_OF_A_KIND_MAX
    counts: Counter[Kind] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    looked_at: Counter[str] = field(default_factory=Counter)  # by stage
    repaired: list[str] = field(default_factory=list)  # sentences
    _lost: int = 0
    _open: int = 0

    def add(self, finding: Finding) -> None:
        self.counts[finding.kind] += 1
        self._lost += finding.severity is Severity.LOSS
        self._open += 1
        if self.counts[finding.kind] <= self.kept_max:
            self.findings.append(finding)

    def absorb(self, document: dict[str, Any]) -> None:
        """What another process has found (its `to_json`)."""
        for each in document["findings"]:
            kind = Kind(each["kind"])
            lost = each["severity"] == Severity.LOSS and facts_of(kind).severity is not Severity.LOSS
            self.add(Finding(kind, each["subject"], each["sentence"], None, lost))
        kept = Counter(Kind(each["kind"]) for each in document["findings"])
        for name, count in document["counts"].items():  # those that came without their sentence
            more = count - kept[Kind(name)]
            self.counts[Kind(name)] += more
            self._open += more
        self.looked_at.update(document["looked_at"])

    @property
    def clean(self) -> bool:
        return not self._open

    @property
    def lost(self) -> bool:
        """Whether something that is lost, or may be, was found."""
        return self._lost > 0

    def to_json(self) -> dict[str, Any]:
        return {
            "clean": self.clean,
            "lost": self.lost,
            "counts": {str(kind): count for kind, count in sorted(self.counts.items())},
            "findings": [finding.to_json() for finding in self.findings],
            "looked_at": dict(self.looked_at),
            "repaired": self.repaired,
        }


def run(stage: str, check: Check, report: Report) -> Report:
    """One check to its end, without pauses."""
    for step in check:
        if isinstance(step, int):
            report.looked_at[stage] += step
        else:
            report.add(step)
    return report
