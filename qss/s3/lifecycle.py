"""Lifecycle rules: what they say, and which of them are due for a version. Pure.

Source: "Lifecycle configuration elements" of the S3 user guide and PutBucketLifecycleConfiguration of the API
reference. Times are nanoseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from qss.s3.backend import Upload, VersionEntry

Tags = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which objects a rule is about. What is not said does not matter."""

    prefix: str = ""
    tags: Tags = ()
    larger_than: int | None = None  # bytes
    smaller_than: int | None = None  # bytes
    old_style: bool = False  # a Prefix beside the rule's ID, without Filter

    @property
    def names_only(self) -> bool:
        """Whether it looks at nothing but names."""
        return not self.tags and self.larger_than is None and self.smaller_than is None

    def takes(self, entry: VersionEntry) -> bool:
        """Whether name and size fit; tags are looked at by `takes_tags`. A delete marker has neither."""
        if not entry.object.key.startswith(self.prefix):
            return False
        if entry.marker:
            return self.names_only
        size = entry.object.size
        if self.larger_than is not None and size <= self.larger_than:
            return False
        return self.smaller_than is None or size < self.smaller_than

    def takes_tags(self, tags: Tags) -> bool:
        return set(self.tags) <= set(tags)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; at least one of its actions is there."""

    id: str
    enabled: bool
    filter: Filter = field(default_factory=Filter)
    days: int | None = None  # Expiration: after its creation
    date_ns: int | None = None  # Expiration: from a midnight on
    lone_markers: bool = False  # ExpiredObjectDeleteMarker
    noncurrent_days: int | None = None  # after the next version came
    newer_kept: int = 0  # NewerNoncurrentVersions
    abort_days: int | None = None  # after the upload was begun


@dataclass(frozen=True, slots=True)
class Standing:
    """A version among those of its key."""

    entry: VersionEntry
    successor_ns: int | None  # when it stopped being the newest; None: it is
    newer: int = 0  # versions that stopped being the newest after it
    alone: bool = False  # the key has no other


def rounded_ns(start_ns: int, days: int, day_ns: int) -> int:
    """So many days later, at the next midnight UTC."""
    return -(-(start_ns + days * day_ns) // day_ns) * day_ns


def ends_ns(rule: Rule, modified_ns: int, day_ns: int) -> int | None:
    """When the rule ends the newest version of a key, stored at this time; None: it does not."""
    if rule.date_ns is not None:
        return rule.date_ns
    return None if rule.days is None else rounded_ns(modified_ns, rule.days, day_ns)


def aborts_ns(rule: Rule, upload: Upload, day_ns: int) -> int | None:
    """When the rule aborts the upload; None: it does not."""
    if not rule.enabled or rule.abort_days is None or not upload.key.startswith(rule.filter.prefix):
        return None
    return rounded_ns(upload.started_ns, rule.abort_days, day_ns)


def due(rules: Iterable[Rule], standing: Standing, now_ns: int, day_ns: int) -> Iterator[Rule]:
    """The rules that end a version now, but for those whose tags do not fit. `day_ns` is a day, but in tests."""
    for rule in rules:
        if rule.enabled and rule.filter.takes(standing.entry) and _is_due(rule, standing, now_ns, day_ns):
            yield rule


def _is_due(rule: Rule, standing: Standing, now_ns: int, day_ns: int) -> bool:
    if standing.successor_ns is not None:
        if rule.noncurrent_days is None or standing.newer < rule.newer_kept:
            return False
        return now_ns >= rounded_ns(standing.successor_ns, rule.noncurrent_days, day_ns)
    entry = standing.entry
    if entry.marker:
        if not standing.alone or rule.date_ns is not None:
            return False
        if rule.lone_markers:
            return True
    at_ns = ends_ns(rule, entry.object.modified_ns, day_ns)
    return at_ns is not None and now_ns >= at_ns


def stale(rules: Iterable[Rule], upload: Upload, now_ns: int, day_ns: int) -> bool:
    """Whether a rule aborts an upload now."""
    moments = (aborts_ns(rule, upload, day_ns) for rule in rules)
    return any(at_ns is not None and now_ns >= at_ns for at_ns in moments)


class Standings:
    """Versions in the order of a listing → their standings, one behind the other."""

    def __init__(self) -> None:
        self._held: Standing | None = None

    def take(self, entry: VersionEntry) -> Standing | None:
        """The next version; returns the one before it, now that it is known whether that is alone. A version that a
        listing tells again, since it went on from a place that is gone, is passed over."""
        held = self._held
        if held is None or held.entry.object.key != entry.object.key:
            self._held = Standing(entry, None, alone=True)
            return held
        newer = held.entry.object.modified_ns
        if entry.object.modified_ns >= newer:
            return None
        count = 0 if held.successor_ns is None else held.newer + 1
        self._held = Standing(entry, newer, count)
        return Standing(held.entry, held.successor_ns, held.newer)

    def end(self) -> Standing | None:
        """The last one."""
        held, self._held = self._held, None
        return held
