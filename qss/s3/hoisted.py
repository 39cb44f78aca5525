"""Headers that a presigned URL carries in its query, as the JavaScript SDK and others write them (`hoisting`).

S3 takes them as the headers they stand for. To pass over them would be to do something else than what was signed: to
drop metadata, to store plain, to put nothing in the place of a copy, to delete without a condition. All of a query is
signed; a header of the request goes before it, and is signed as well or was refused. How a body is sent and checked is
no matter of the URL's: it was made before there was a body.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from qss.s3.message import RequestHead

_BEGINNINGS: Final = (
    "x-amz-meta-", "x-amz-object-lock-", "x-amz-server-side-encryption", "x-amz-grant-", "x-amz-copy-source",
    "x-amz-if-match-",
)  # fmt: skip
_NAMES: Final = frozenset(
    {
        "x-amz-acl", "x-amz-bypass-governance-retention", "x-amz-checksum-algorithm", "x-amz-checksum-mode",
        "x-amz-checksum-type", "x-amz-max-parts", "x-amz-metadata-directive", "x-amz-object-attributes",
        "x-amz-object-ownership", "x-amz-part-number-marker", "x-amz-bucket-object-lock-enabled",
        "x-amz-storage-class", "x-amz-tagging", "x-amz-tagging-directive", "x-amz-website-redirect-location",
        "x-amz-write-offset-bytes",
    }
)  # fmt: skip


def with_hoisted(head: RequestHead) -> RequestHead:
    """The head of a presigned request whose signature holds, with the headers of its query among the others."""
    if "X-Amz-Signature=" not in head.query:
        return head
    found: dict[str, str] = {}
    for raw, value in head.params():
        name = raw.lower()
        if name in _NAMES or name.startswith(_BEGINNINGS):
            found.setdefault(name, value)
    return replace(head, headers={**found, **head.headers}) if found else head
