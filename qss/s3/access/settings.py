"""What a bucket's configuration documents say about access, and what holds where there are none. Pure.

Documents are kept as the XML (policy: JSON) that was put, checked before. Where AWS tells "never set" (its defaults of
April 2023: everything public is blocked, the bucket's owner owns all) from "deleted" (nothing is blocked), DELETED is
kept in place of the document.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from qss.errors import CorruptData
from qss.s3.xml import Node, parse

DELETED: Final = b"deleted"
ENFORCED: Final = "BucketOwnerEnforced"


@dataclass(frozen=True, slots=True)
class PublicAccess:
    """The four switches. The default is that of a new bucket."""

    block_public_acls: bool = True
    ignore_public_acls: bool = True
    block_public_policy: bool = True
    restrict_public_buckets: bool = True


NOTHING_BLOCKED: Final = PublicAccess(False, False, False, False)
XML_NAMES: Final = {
    "block_public_acls": "BlockPublicAcls",
    "ignore_public_acls": "IgnorePublicAcls",
    "block_public_policy": "BlockPublicPolicy",
    "restrict_public_buckets": "RestrictPublicBuckets",
}
assert list(XML_NAMES) == [field.name for field in fields(PublicAccess)]


def public_access_of(root: Node) -> PublicAccess:
    """From PublicAccessBlockConfiguration. Raises CorruptData. What is not named is off."""
    values = {}
    for field, name in XML_NAMES.items():
        text = root.get(name, "false").strip().lower()
        if text not in ("true", "false"):
            raise CorruptData(f"{name} is neither true nor false")
        values[field] = text == "true"
    if unknown := {child.name for child in root.children} - set(XML_NAMES.values()):
        raise CorruptData(f"{min(unknown)} is not known")
    return PublicAccess(**values)


def public_access(document: bytes | None) -> PublicAccess:
    """What a kept document means. One that cannot be read blocks everything."""
    if document is None:
        return PublicAccess()
    if document == DELETED:
        return NOTHING_BLOCKED
    try:
        return public_access_of(parse(document))
    except CorruptData:
        return PublicAccess()
