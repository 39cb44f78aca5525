"""What a bucket holds, asked of the index: two numbers that each commit keeps true, and the parts of open uploads."""

from __future__ import annotations

from qss.trove.facts import parts_of
from qss.trove.index import Index
from qss.trove.quotas import Usage
from qss.trove.rows import TENANT, decode_named, decode_upload


def usage_of(index: Index, bucket: str) -> Usage:
    """Zero for a bucket that is not there."""
    with index.read() as tables:
        number = tables.bucket_id(TENANT, bucket.encode())
        return Usage() if number is None else Usage(*tables.usage(number))


def bytes_in_uploads(index: Index, bucket: str) -> int:
    """Bytes of the parts of uploads in progress."""
    total, prefix = 0, bucket.encode() + b"/"
    with index.read() as tables:
        for key, value in tables.scan(tables.dbs.uploads):
            if decode_upload(decode_named(value).meta)[0].startswith(prefix):
                total += sum(part.size for _, part in parts_of(tables, key))
    return total
