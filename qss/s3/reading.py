"""What a read answers, and the body that a copy is made of. Pure, but for the reader that is handed on."""

from __future__ import annotations

from typing import Final

from qss.s3 import operations as op
from qss.s3 import render
from qss.s3.backend import EtagMode, ObjectReader, StoredObject
from qss.s3.body import BodyClaims, CheckedBody
from qss.s3.errors import Code, S3Error
from qss.s3.message import Headers

COPY_BYTES_MAX: Final = 5 * 1024**3
_TOLD_AGAIN: Final = frozenset({"etag", "last-modified", "cache-control", "expires", "x-amz-version-id"})
"""What a cache is told with 304: which of its answers that is, and how long it holds. Source: RFC 9110, 15.4.5."""


def copied_body(reader: ObjectReader, start: int, stop: int, algorithm: str | None, etag_mode: EtagMode) -> CheckedBody:
    """Bytes [start, stop) of an object as the body of a put, with a checksum of this algorithm. Raises S3Error."""
    if stop - start > COPY_BYTES_MAX:
        raise S3Error(
            Code.INVALID_REQUEST, "The specified copy source is larger than the maximum allowable size: 5 GiB"
        )
    return CheckedBody(reader.chunks(start, stop), BodyClaims(stop - start, want_checksum=algorithm), etag_mode)


def plan_read(asked: op.GetObject, found: StoredObject) -> tuple[int, int, int, Headers]:
    """Status, [start, stop), headers. Raises S3Error, also NOT_MODIFIED."""
    headers = render.object_headers(found, asked.overrides)
    try:
        asked.condition.check(found)
    except S3Error as error:
        if error.code is not Code.NOT_MODIFIED:
            raise
        told = tuple((name, value) for name, value in headers if name in _TOLD_AGAIN)
        raise S3Error(Code.NOT_MODIFIED, headers=told) from None
    if asked.part_number is not None:
        start, stop = _part_range(found, asked.part_number)
        whole = not found.part_bytes
    elif asked.range is not None and asked.condition.takes_range(found):
        start, stop = asked.range.resolve(found.size)
        whole = False
    else:
        start, stop, whole = 0, found.size, True
    if asked.checksum_mode and (whole or stop - start == found.size):
        headers += render.checksum_headers(found.checksum)
    if whole:
        return 200, start, stop, tuple(headers)
    headers.append(("content-range", f"bytes {start}-{stop - 1}/{found.size}"))
    return 206, start, stop, tuple(headers)


def _part_range(found: StoredObject, number: int) -> tuple[int, int]:
    sizes = found.part_bytes or (found.size,)
    if number > len(sizes):
        raise S3Error(Code.INVALID_PART_NUMBER)
    start = sum(sizes[: number - 1])
    return start, start + sizes[number - 1]
