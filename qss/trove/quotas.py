"""Quotas: how many bytes and objects a bucket may hold, kept in the ledger and enforced before a body is taken.

What a bucket holds is counted by the index, with each commit. To it come the puts under way (reserved here) and the
parts of uploads not yet completed, so that neither side by side nor by multipart more fits than was said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from qss.s3.errors import Code, S3Error
from qss.trove.ledger import Ledger

KIND: Final = "quota"


@dataclass(frozen=True, slots=True)
class Quota:
    """None: no limit."""

    bytes_max: int | None = None
    objects_max: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a bucket holds, or what something adds to it."""

    objects: int = 0
    bytes: int = 0


class Quotas:
    """`usage` tells what the index counts of a bucket; `in_uploads` the bytes of parts in its open uploads."""

    def __init__(self, ledger: Ledger, usage: Callable[[str], Usage], in_uploads: Callable[[str], int]) -> None:
        self._ledger = ledger
        self._usage = usage
        self._in_uploads = in_uploads
        self._quotas = {name: _quota(value) for name, value in ledger.load(KIND).items()}
        self._reserved: dict[str, Usage] = {}

    def of(self, bucket: str) -> Quota | None:
        return self._quotas.get(bucket)

    async def set(self, bucket: str, quota: Quota | None) -> None:
        """None or an empty one removes it. A bucket above its new quota keeps what it has and takes nothing more."""
        if quota is None or quota == Quota():
            await self._ledger.remove(KIND, bucket)
            self._quotas.pop(bucket, None)
            return
        await self._ledger.put(KIND, bucket, {"bytes_max": quota.bytes_max, "objects_max": quota.objects_max})
        self._quotas[bucket] = quota

    @contextmanager
    def room(self, bucket: str, adds: Usage, *, completes: bool = False) -> Iterator[None]:
        """Hold room for `adds` until the block ends; by then the index has counted it, or it has failed.
        `completes`: its bytes are those of parts, which have their room. Raises S3Error QUOTA_EXCEEDED."""
        quota = self._quotas.get(bucket)
        if quota is None:
            yield
            return
        held = self._reserved.get(bucket, Usage())
        has = self._usage(bucket)
        parts = 0 if completes else self._in_uploads(bucket)
        _check("bytes", adds.bytes, has.bytes + held.bytes + parts, quota.bytes_max)
        _check("objects", adds.objects, has.objects + held.objects, quota.objects_max)
        self._reserve(bucket, adds, +1)
        try:
            yield
        finally:
            self._reserve(bucket, adds, -1)

    def _reserve(self, bucket: str, adds: Usage, sign: int) -> None:
        held = self._reserved.get(bucket, Usage())
        now = Usage(held.objects + sign * max(adds.objects, 0), held.bytes + sign * max(adds.bytes, 0))
        if now == Usage():
            self._reserved.pop(bucket, None)
        else:
            self._reserved[bucket] = now


def _check(what: str, adds: int, has: int, limit: int | None) -> None:
    if limit is not None and adds > 0 and has + adds > limit:
        raise S3Error(Code.QUOTA_EXCEEDED, f"This bucket may hold {limit:,} {what}; {has:,} are used or spoken for.")


def _quota(value: dict[str, Any]) -> Quota:
    return Quota(value.get("bytes_max"), value.get("objects_max"))
