"""Carry out the lifecycle rules of all buckets: pass after pass through their listings, deletion by deletion.

What a pass deletes it deletes on condition that it is still what was looked at, so a PUT in the meantime is safe; what
object lock holds stays and is looked at again in the next pass. A pass that breaks off leaves nothing half done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Final

from qss.errors import CorruptData, QssError
from qss.host import Clock
from qss.s3.backend import Bucket, DeleteRequest, UploadRef, UploadsQuery, VersionsQuery, WriteCondition
from qss.s3.errors import Code, S3Error
from qss.s3.expiry import LIFECYCLE
from qss.s3.lifecycle import Rule, Standing, Standings, due, stale
from qss.s3.lifecycle_documents import rules_of
from qss.s3.lock import DAY_NS
from qss.trove.store import TroveStore

log = logging.getLogger(__name__)

FIRST_AFTER_S: Final = 60.0
EVERY_S: Final = 3600.0
DELETIONS_AT_ONCE_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Tally:
    """What passes have done."""

    passes: int = 0
    expired: int = 0  # objects that are not there any more
    versions: int = 0  # older versions and delete markers
    uploads: int = 0
    held: int = 0  # by object lock


class Lifecycle:
    """`day_ns`: a day, but in tests."""

    def __init__(self, store: TroveStore, clock: Clock, day_ns: int = DAY_NS) -> None:
        self._store = store
        self._clock = clock
        self._day_ns = day_ns
        self.tally = Tally()

    async def run(self) -> None:
        """Pass after pass, until cancelled. What fails is tried again in the next one."""
        while True:
            await asyncio.sleep(min(FIRST_AFTER_S if not self.tally.passes else EVERY_S, self._day_ns / 1e9))
            try:
                await self.once()
            except QssError as error:
                log.warning("lifecycle rules will be looked at again: %s", error)

    async def once(self) -> None:
        """One pass over all buckets."""
        for bucket in await self._store.list_buckets():
            try:
                content = await self._store.get_document(bucket.name, LIFECYCLE)
                if content is not None:
                    await self._bucket(bucket, rules_of(content))
            except S3Error as error:
                if error.code is not Code.NO_SUCH_BUCKET:  # deleted meanwhile
                    raise
            except CorruptData as error:
                log.error("the lifecycle rules of bucket %s are not carried out: %s", bucket.name, error)
        self.tally = replace(self.tally, passes=self.tally.passes + 1)

    async def _bucket(self, bucket: Bucket, rules: tuple[Rule, ...]) -> None:
        batch: list[tuple[Standing, DeleteRequest]] = []
        async for standing in self._standings(bucket.name):
            if await self._ends(bucket.name, rules, standing):
                batch.append((standing, _request(standing)))
            if len(batch) == DELETIONS_AT_ONCE_MAX:
                await self._delete(bucket.name, batch)
                batch = []
        await self._delete(bucket.name, batch)
        await self._uploads(bucket.name, rules)

    async def _standings(self, bucket: str) -> AsyncIterator[Standing]:
        standings, query = Standings(), VersionsQuery(bucket)
        while True:
            page = await self._store.list_versions(query)
            for entry in page.entries:
                standing = standings.take(entry)
                if standing is not None:
                    yield standing
            await asyncio.sleep(0)  # requests go first
            if page.next_after is None:
                break
            query = VersionsQuery(bucket, "", "", *page.next_after)
        last = standings.end()
        if last is not None:
            yield last

    async def _ends(self, bucket: str, rules: tuple[Rule, ...], standing: Standing) -> bool:
        found = list(due(rules, standing, self._clock.now_ns(), self._day_ns))
        if not found or any(not rule.filter.tags for rule in found):
            return bool(found)
        told = standing.entry.object
        try:
            tags = (await self._store.head(bucket, told.key, told.version_id)).attributes.tags
        except (S3Error, CorruptData):  # gone, or damaged: that is not ours to end
            return False
        return any(rule.filter.takes_tags(tags) for rule in found)

    async def _delete(self, bucket: str, batch: list[tuple[Standing, DeleteRequest]]) -> None:
        outcomes = await self._store.delete(bucket, [request for _, request in batch])
        expired = versions = held = 0
        for (standing, request), outcome in zip(batch, outcomes, strict=True):
            if outcome.error is None:
                current = standing.successor_ns is None and not standing.entry.marker
                expired, versions = expired + current, versions + (not current)
            elif outcome.error.code is Code.ACCESS_DENIED:
                held += 1
            elif outcome.error.code not in (Code.PRECONDITION_FAILED, Code.NO_SUCH_KEY):
                log.warning("%s/%s is not expired now: %s", bucket, request.key, outcome.error)
        tally = self.tally
        self.tally = replace(
            tally, expired=tally.expired + expired, versions=tally.versions + versions, held=tally.held + held
        )

    async def _uploads(self, bucket: str, rules: tuple[Rule, ...]) -> None:
        query = UploadsQuery(bucket)
        while True:
            page = await self._store.list_uploads(query)
            old = [each for each in page.uploads if stale(rules, each, self._clock.now_ns(), self._day_ns)]
            if page.next_after is not None:
                query = UploadsQuery(bucket, "", "", *page.next_after)
            for upload in old:
                await self._abort(UploadRef(bucket, upload.key, upload.upload_id))
            if page.next_after is None:
                return

    async def _abort(self, ref: UploadRef) -> None:
        try:
            await self._store.abort_upload(ref)
        except S3Error as error:
            if error.code is not Code.NO_SUCH_UPLOAD:  # completed or aborted meanwhile
                raise
            return
        self.tally = replace(self.tally, uploads=self.tally.uploads + 1)


def _request(standing: Standing) -> DeleteRequest:
    """The newest version ends as by any DELETE: with a delete marker where there is versioning."""
    found = standing.entry.object
    condition = WriteCondition(if_modified_ns=found.modified_ns)
    by_id = standing.entry.marker or standing.successor_ns is not None
    return DeleteRequest(found.key, found.version_id if by_id else None, condition)
