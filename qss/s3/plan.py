"""What a get or a head answers of what is there. Pure."""

from __future__ import annotations

from qss.s3 import operations as op
from qss.s3 import render
from qss.s3.backend import StoredObject
from qss.s3.errors import Code, S3Error


def plan_read(asked: op.GetObject, found: StoredObject) -> tuple[int, int, int, tuple[tuple[str, str], ...]]:
    """Status, [start, stop), headers. Raises S3Error, also NOT_MODIFIED."""
    asked.condition.check(found)
    headers = render.object_headers(found, asked.overrides)
    if asked.part_number is not None:
        start, stop = _part_range(found, asked.part_number)
        whole = not found.part_bytes
    elif asked.range is not None:
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
