"""The document of GetObjectAttributes. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from qss.s3.backend import Checksum, StoredObject
from qss.s3.dates import http_date
from qss.s3.message import Response
from qss.s3.render import checksum_type, version_headers, xml_response
from qss.s3.subresources import Wanted
from qss.s3.xml import element, leaf

Checksums = Sequence[Checksum | None]


def attributes(found: StoredObject, wanted: Wanted, checksums: Checksums = ()) -> Response:
    """GetObjectAttributesResponse, with what was asked for and is there. `checksums`: of the parts, if known."""
    content: list[str] = []
    if "ETag" in wanted.names:
        content.append(leaf("ETag", found.etag))
    if "Checksum" in wanted.names and found.checksum is not None:
        content.append(_checksum(found.checksum))
    if "ObjectParts" in wanted.names and found.part_bytes:
        content.append(_parts(found.part_bytes, wanted, checksums))
    if "StorageClass" in wanted.names:
        content.append(leaf("StorageClass", found.attributes.storage_class))
    if "ObjectSize" in wanted.names:
        content.append(leaf("ObjectSize", found.size))
    told = ("last-modified", http_date(found.modified_ns)), *version_headers(found.version_id)
    return xml_response("GetObjectAttributesResponse", content).and_headers(told)


def _checksum(checksum: Checksum) -> str:
    value = checksum.value.partition("-")[0]  # how many parts a composite one is of, says ObjectParts
    kind = checksum_type(checksum.composite)
    return element("Checksum", leaf(f"Checksum{checksum.algorithm}", value), leaf("ChecksumType", kind))


def _parts(sizes: tuple[int, ...], wanted: Wanted, checksums: Checksums) -> str:
    """Parts count from 1 as GET's partNumber does, whatever numbers they were uploaded under."""
    shown = list(enumerate(sizes, 1))[wanted.after_part : wanted.after_part + wanted.parts_max]
    last = shown[-1][0] if shown else wanted.after_part
    content = [
        leaf("PartsCount", len(sizes)),
        leaf("PartNumberMarker", wanted.after_part),
        leaf("NextPartNumberMarker", last),
        leaf("MaxParts", wanted.parts_max),
        leaf("IsTruncated", last < len(sizes)),
    ]
    for number, size in shown:
        known = checksums[number - 1] if checksums else None
        own = "" if known is None else leaf(f"Checksum{known.algorithm}", known.value)
        content.append(element("Part", own, leaf("PartNumber", number), leaf("Size", size)))
    return element("ObjectParts", *content)
