"""XML request bodies → what the operation carries. Pure; raises S3Error for what does not hold."""

from __future__ import annotations

from typing import Final

from qss.errors import CorruptData
from qss.s3.backend import PART_NUMBER_MAX, Checksum, DeleteRequest, WantedPart
from qss.s3.checksums import ALGORITHMS
from qss.s3.conditions import delete_condition
from qss.s3.errors import Code, S3Error
from qss.s3.parse import TAGS_MAX, check_key, check_tags
from qss.s3.scalars import number_of
from qss.s3.xml import Node, parse

DELETE_MAX: Final = 1000


def xml_body(data: bytes, root: str) -> Node:
    """Raises S3Error MALFORMED_XML unless it is a document with that root."""
    try:
        node = parse(data)
    except CorruptData:
        raise S3Error(Code.MALFORMED_XML) from None
    if node.name != root:
        raise S3Error(Code.MALFORMED_XML)
    return node


def delete_body(data: bytes) -> tuple[list[DeleteRequest], bool]:
    """What to delete, and whether to answer only errors."""
    root = xml_body(data, "Delete")
    requests = []
    for node in root.all("Object"):
        key = node.get("Key")
        if not key:
            raise S3Error(Code.MALFORMED_XML)
        check_key(key)
        said = (node.get(name) or None for name in ("ETag", "LastModifiedTime", "Size"))
        requests.append(DeleteRequest(key, node.get("VersionId") or None, delete_condition(*said)))
    if not 1 <= len(requests) <= DELETE_MAX:
        raise S3Error(Code.MALFORMED_XML)
    return requests, root.get("Quiet").lower() == "true"


def complete_body(data: bytes) -> list[WantedPart]:
    parts = []
    for node in xml_body(data, "CompleteMultipartUpload").all("Part"):
        number = number_of(node.get("PartNumber"), 8)
        if number is None:
            raise S3Error(Code.MALFORMED_XML)
        sums = [Checksum(name, value) for name in ALGORITHMS if (value := node.get(f"Checksum{name}"))]
        parts.append(WantedPart(number, node.get("ETag").strip('"'), sums[0] if sums else None))
    if not 1 <= len(parts) <= PART_NUMBER_MAX:
        raise S3Error(Code.MALFORMED_XML)
    return parts


def tags_body(data: bytes, most: int = TAGS_MAX) -> tuple[tuple[str, str], ...]:
    tag_set = xml_body(data, "Tagging").find("TagSet")
    if tag_set is None:
        raise S3Error(Code.MALFORMED_XML)
    tags = tuple((node.get("Key"), node.get("Value")) for node in tag_set.all("Tag"))
    check_tags(tags, most)
    return tags


def location_body(data: bytes, default: str) -> str:
    """The region of CreateBucketConfiguration; an empty body means the default."""
    if not data:
        return default
    root = xml_body(data, "CreateBucketConfiguration")
    if root.find("Bucket") is not None or root.find("Location") is not None:
        raise S3Error(Code.NOT_IMPLEMENTED, "There are no directory buckets here.")
    if root.find("Tags") is not None:
        raise S3Error(Code.NOT_IMPLEMENTED, "Tag a bucket once it is there: PutBucketTagging.")
    return root.get("LocationConstraint") or default
