"""What lifecycle rules have in store for an object or an upload, told with it: `x-amz-expiration`, `x-amz-abort-date`.

Source: PutObject, GetObject and CreateMultipartUpload of the S3 API reference. The earliest date counts, and the rule
that brings it. Of older versions nothing is told, as by AWS.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from qss.errors import CorruptData
from qss.s3.backend import ObjectBackend, StoredObject, Upload, VersionEntry
from qss.s3.dates import http_date
from qss.s3.lifecycle import Rule, Tags, aborts_ns, ends_ns
from qss.s3.lifecycle_documents import rules_of
from qss.s3.lock import DAY_NS
from qss.s3.message import Headers

LIFECYCLE: Final = "lifecycle"
"""Name of the document with a bucket's rules."""


@lru_cache(256)
def _rules(content: bytes) -> tuple[Rule, ...]:
    return rules_of(content)


def expiration(rules: tuple[Rule, ...], found: StoredObject, tags: Tags, day_ns: int) -> Headers:
    """Of the newest version of a key."""
    entry = VersionEntry(found, latest=True)
    own = (rule for rule in rules if rule.enabled and rule.filter.takes(entry) and rule.filter.takes_tags(tags))
    ends = ((ends_ns(rule, found.modified_ns, day_ns), rule.id) for rule in own)
    dates = [(at_ns, name) for at_ns, name in ends if at_ns is not None]
    if not dates:
        return ()
    date, name = min(dates)
    return (("x-amz-expiration", f'expiry-date="{http_date(date)}", rule-id="{quote(name)}"'),)


def abortion(rules: tuple[Rule, ...], upload: Upload, day_ns: int) -> Headers:
    """Of an upload in progress."""
    ends = ((aborts_ns(rule, upload, day_ns), rule.id) for rule in rules)
    dates = [(at_ns, name) for at_ns, name in ends if at_ns is not None]
    if not dates:
        return ()
    date, name = min(dates)
    return ("x-amz-abort-date", http_date(date)), ("x-amz-abort-rule-id", quote(name))


@dataclass(frozen=True, slots=True)
class Expiry:
    """Of one backend's objects. `day_ns`: a day, but in tests."""

    backend: ObjectBackend
    day_ns: int = DAY_NS

    async def told(self, bucket: str, found: StoredObject, tags: Tags) -> Headers:
        rules = await self._of(bucket)
        return expiration(rules, found, tags, self.day_ns) if rules else ()

    async def told_upload(self, bucket: str, upload: Upload) -> Headers:
        rules = await self._of(bucket)
        return abortion(rules, upload, self.day_ns) if rules else ()

    async def _of(self, bucket: str) -> tuple[Rule, ...]:
        content = await self.backend.get_document(bucket, LIFECYCLE)
        if content is None:
            return ()
        try:
            return _rules(content)
        except CorruptData:  # not carried out either; the log says so
            return ()
