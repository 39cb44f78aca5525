"""Results → HTTP responses. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from email.header import Header
from urllib.parse import quote

from qss.s3.backend import (
    Bucket,
    Checksum,
    DeleteOutcome,
    DeleteRequest,
    ListPage,
    Part,
    StoredObject,
    Upload,
    UploadRef,
    UploadsPage,
    VersionEntry,
    VersionsPage,
)
from qss.s3.checksums import header_of
from qss.s3.dates import http_date, iso
from qss.s3.errors import S3Error
from qss.s3.listed import ListedObjects, contents
from qss.s3.lock import UNLOCKED, ObjectLock
from qss.s3.message import Headers, Response
from qss.s3.operations import ListBuckets, ListObjects, ListParts, ListUploads
from qss.s3.parse import make_token
from qss.s3.subresources import ListVersions
from qss.s3.xml import document, element, leaf

XML_TYPE = ("content-type", "application/xml")
OWNER = element("Owner", leaf("ID", "trove"), leaf("DisplayName", "trove"))


def xml_response(name: str, content: Iterable[str]) -> Response:
    """A document with S3's namespace."""
    return Response(200, (XML_TYPE,), document(name, content))


def error(found: S3Error, resource: str, request_id: str, *, with_body: bool) -> Response:
    """`with_body` False for HEAD."""
    headers: list[tuple[str, str]] = list(found.headers)
    if found.retry_after_s is not None:
        headers.append(("retry-after", str(max(1, round(found.retry_after_s)))))
    code = found.code
    if not with_body or code.status == 304:
        return Response(code.status, tuple(headers))
    body = document(
        "Error",
        [
            leaf("Code", code.wire),
            leaf("Message", str(found)),
            *(leaf(name, text) for name, text in found.elements),
            leaf("Resource", resource),
            leaf("RequestId", request_id),
            leaf("HostId", base64.b64encode(request_id.encode()).decode()),
        ],
        namespace=False,
    )
    return Response(code.status, (XML_TYPE, *headers), body)


# -- objects
def _header_text(text: str) -> str:
    """Header values are ASCII; others go as RFC 2047, as S3 does."""
    return text if text.isascii() and text.isprintable() else Header(text, "utf-8", maxlinelen=10**6).encode()


def version_headers(version_id: str | None) -> Headers:
    """None: the bucket has no versioning."""
    return () if version_id is None else (("x-amz-version-id", version_id),)


def checksum_type(composite: bool) -> str:
    """As in x-amz-checksum-type and ChecksumType."""
    return "COMPOSITE" if composite else "FULL_OBJECT"


def checksum_headers(checksum: Checksum | None) -> list[tuple[str, str]]:
    if checksum is None:
        return []
    return [
        (header_of(checksum.algorithm), checksum.value),
        ("x-amz-checksum-type", checksum_type(checksum.composite)),
    ]


def object_headers(found: StoredObject, overrides: Mapping[str, str]) -> list[tuple[str, str]]:
    """What get and head say of an object, but for its length."""
    attributes = found.attributes
    content = {"content-type": "binary/octet-stream", **attributes.headers, **overrides}
    headers = [
        ("etag", f'"{found.etag}"'),
        ("last-modified", http_date(found.modified_ns)),
        ("accept-ranges", "bytes"),
        *((name, _header_text(value)) for name, value in content.items()),
        *((f"x-amz-meta-{name}", _header_text(value)) for name, value in attributes.metadata.items()),
    ]
    if attributes.tags:
        headers.append(("x-amz-tagging-count", str(len(attributes.tags))))
    if attributes.storage_class != "STANDARD":
        headers.append(("x-amz-storage-class", attributes.storage_class))
    headers += version_headers(found.version_id)
    if attributes.lock is not UNLOCKED:
        headers += _lock_headers(attributes.lock)
    if found.part_bytes:
        headers.append(("x-amz-mp-parts-count", str(len(found.part_bytes))))
    return headers


def _lock_headers(lock: ObjectLock) -> list[tuple[str, str]]:
    headers = []
    if lock.retention is not None:
        headers.append(("x-amz-object-lock-mode", lock.retention.mode.value))
        headers.append(("x-amz-object-lock-retain-until-date", iso(lock.retention.until_ns)))
    if lock.legal_hold is not None:
        headers.append(("x-amz-object-lock-legal-hold", "ON" if lock.legal_hold else "OFF"))
    return headers


def stored_headers(found: StoredObject) -> list[tuple[str, str]]:
    """What a put answers."""
    etag = ("etag", f'"{found.etag}"')
    return [etag, *checksum_headers(found.checksum), *version_headers(found.version_id)]


def copied(name: str, found: StoredObject | Part, source: StoredObject) -> Response:
    """CopyObjectResult or CopyPartResult."""
    content = [leaf("LastModified", iso(found.modified_ns)), leaf("ETag", f'"{found.etag}"')]
    if found.checksum is not None:
        content.append(leaf(f"Checksum{found.checksum.algorithm}", found.checksum.value))
    told = version_headers(found.version_id) if isinstance(found, StoredObject) else ()
    if source.version_id is not None:
        told = (*told, ("x-amz-copy-source-version-id", source.version_id))
    return xml_response(name, content).and_headers(told)


def deletion_headers(outcome: DeleteOutcome) -> Headers:
    """What the deletion of one object answers."""
    marker = (("x-amz-delete-marker", "true"),) if outcome.delete_marker else ()
    return (*marker, *version_headers(outcome.version_id))


def _deleted(request: DeleteRequest, outcome: DeleteOutcome) -> str:
    content = [leaf("Key", outcome.key)]
    if request.version_id is not None:
        content.append(leaf("VersionId", request.version_id))
    if outcome.delete_marker:
        content += [leaf("DeleteMarker", True), leaf("DeleteMarkerVersionId", outcome.version_id)]
    return element("Deleted", *content)


def deleted(requests: Sequence[DeleteRequest], outcomes: Sequence[DeleteOutcome], *, quiet: bool) -> Response:
    content = []
    for request, outcome in zip(requests, outcomes, strict=True):
        if outcome.error is not None:
            code = outcome.error.code
            version = [] if request.version_id is None else [leaf("VersionId", request.version_id)]
            said = leaf("Code", code.wire), leaf("Message", str(outcome.error))
            content.append(element("Error", leaf("Key", outcome.key), *version, *said))
        elif not quiet:
            content.append(_deleted(request, outcome))
    return xml_response("DeleteResult", content)


def tagging(tags: tuple[tuple[str, str], ...]) -> Response:
    content = [element("Tag", leaf("Key", name), leaf("Value", value)) for name, value in tags]
    return xml_response("Tagging", [element("TagSet", *content)])


# -- buckets
def buckets(asked: ListBuckets, found: Sequence[Bucket]) -> Response:
    """ListAllMyBucketsResult: the page asked for of all buckets, in order."""
    wanted = [
        each
        for each in found
        if each.name.startswith(asked.prefix) and each.name > asked.after and asked.region in (None, each.region)
    ]
    shown = wanted[: asked.limit]
    content = []
    for each in shown:
        said = leaf("Name", each.name), leaf("CreationDate", iso(each.created_ns)), leaf("BucketRegion", each.region)
        content.append(element("Bucket", *said))
    rest = [leaf("Prefix", asked.prefix)] if asked.prefix else []
    if len(shown) < len(wanted):
        rest.append(leaf("ContinuationToken", make_token(shown[-1].name)))
    return xml_response("ListAllMyBucketsResult", [OWNER, element("Buckets", *content), *rest])


def location(bucket: Bucket) -> Response:
    """us-east-1 is the empty constraint."""
    region = "" if bucket.region == "us-east-1" else bucket.region
    return Response(200, (XML_TYPE,), document("LocationConstraint", [region]))


# -- listings
class _Text:
    """Names in a listing: as they are, or percent-encoded."""

    def __init__(self, encode: bool) -> None:
        self._encode = encode

    def leaf(self, name: str, value: str) -> str:
        return leaf(name, quote(value, safe="/") if self._encode else value)

    def optional(self, name: str, value: str | None) -> list[str]:
        return [self.leaf(name, value)] if value else []

    def kind(self) -> list[str]:
        return [leaf("EncodingType", "url")] if self._encode else []

    def prefixes(self, prefixes: Sequence[str]) -> list[str]:
        return [element("CommonPrefixes", self.leaf("Prefix", each)) for each in prefixes]


def _contents(text: _Text, found: StoredObject, *, owner: bool) -> str:
    content = [
        text.leaf("Key", found.key),
        leaf("LastModified", iso(found.modified_ns)),
        leaf("ETag", f'"{found.etag}"'),
        leaf("Size", found.size),
        leaf("StorageClass", found.attributes.storage_class),
    ]
    if found.checksum is not None:
        content.append(leaf("ChecksumAlgorithm", found.checksum.algorithm))
    if owner:
        content.append(OWNER)
    return element("Contents", *content)


def listing(asked: ListObjects, page: ListPage) -> Response:
    """ListBucketResult of version 1 or 2."""
    query, text = asked.query, _Text(asked.encode)
    content = [
        leaf("Name", query.bucket),
        text.leaf("Prefix", query.prefix),
        *text.optional("Delimiter", query.delimiter),
    ]
    content += [leaf("MaxKeys", query.limit), *text.kind(), leaf("IsTruncated", page.next_after is not None)]
    if asked.v2:
        content.append(leaf("KeyCount", len(page.objects) + len(page.prefixes)))
        content += text.optional("StartAfter", asked.start_after)
        if asked.token is not None:
            content.append(leaf("ContinuationToken", asked.token))
        if page.next_after is not None:
            content.append(leaf("NextContinuationToken", make_token(page.next_after)))
    else:
        content.append(text.leaf("Marker", query.after))
        content += text.optional("NextMarker", page.next_after)
    if isinstance(page.objects, ListedObjects):
        content += contents(page.objects.rows, OWNER if asked.fetch_owner else "", encode=asked.encode)
    else:
        content += [_contents(text, each, owner=asked.fetch_owner) for each in page.objects]
    content += text.prefixes(page.prefixes)
    return xml_response("ListBucketResult", content)


def _version(text: _Text, entry: VersionEntry) -> str:
    found = entry.object
    content = [
        text.leaf("Key", found.key),
        leaf("VersionId", found.version_id),
        leaf("IsLatest", entry.latest),
        leaf("LastModified", iso(found.modified_ns)),
    ]
    if entry.marker:
        return element("DeleteMarker", *content, OWNER)
    content += [leaf("ETag", f'"{found.etag}"'), leaf("Size", found.size)]
    return element("Version", *content, leaf("StorageClass", found.attributes.storage_class), OWNER)


def versions(asked: ListVersions, page: VersionsPage) -> Response:
    """ListVersionsResult."""
    query, text = asked.query, _Text(asked.encode)
    content = [
        leaf("Name", query.bucket),
        text.leaf("Prefix", query.prefix),
        *text.optional("Delimiter", query.delimiter),
        text.leaf("KeyMarker", query.key_after),
        leaf("VersionIdMarker", query.version_after or ""),
        leaf("MaxKeys", query.limit),
        *text.kind(),
        leaf("IsTruncated", page.next_after is not None),
    ]
    if page.next_after is not None:
        key, version_id = page.next_after
        content.append(text.leaf("NextKeyMarker", key))
        if version_id is not None:
            content.append(leaf("NextVersionIdMarker", version_id))
    content += [_version(text, each) for each in page.entries]
    content += text.prefixes(page.prefixes)
    return xml_response("ListVersionsResult", content)


# -- multipart
def _checksums_of(upload: Upload) -> list[str]:
    """What was announced at its start."""
    if upload.checksum_algorithm is None:
        return []
    kind = leaf("ChecksumType", checksum_type(upload.checksum_composite))
    return [leaf("ChecksumAlgorithm", upload.checksum_algorithm), kind]


def upload_started(ref: UploadRef, upload: Upload) -> Response:
    content = [leaf("Bucket", ref.bucket), leaf("Key", ref.key), leaf("UploadId", upload.upload_id)]
    response = xml_response("InitiateMultipartUploadResult", content)
    if upload.checksum_algorithm is None:
        return response
    kind = checksum_type(upload.checksum_composite)
    return response.and_headers(
        (("x-amz-checksum-algorithm", upload.checksum_algorithm), ("x-amz-checksum-type", kind))
    )


def upload_completed(ref: UploadRef, found: StoredObject, place: str) -> Response:
    """CompleteMultipartUploadResult."""
    content = [
        leaf("Location", place),
        leaf("Bucket", ref.bucket),
        leaf("Key", ref.key),
        leaf("ETag", f'"{found.etag}"'),
    ]
    if found.checksum is not None:
        content.append(leaf(f"Checksum{found.checksum.algorithm}", found.checksum.value))
        content.append(leaf("ChecksumType", checksum_type(found.checksum.composite)))
    return xml_response("CompleteMultipartUploadResult", content).and_headers(version_headers(found.version_id))


def parts(asked: ListParts, upload: Upload, found: Sequence[Part], *, more: bool) -> Response:
    """ListPartsResult."""
    text = _Text(asked.encode)
    content = [leaf("Bucket", asked.ref.bucket), text.leaf("Key", asked.ref.key), leaf("UploadId", asked.ref.upload_id)]
    content += [OWNER, leaf("StorageClass", upload.attributes.storage_class)]
    content += [leaf("PartNumberMarker", asked.after), *text.kind()]
    content += _checksums_of(upload)
    content += [leaf("MaxParts", asked.limit), leaf("IsTruncated", more)]
    if more:
        content.append(leaf("NextPartNumberMarker", found[-1].number if found else asked.after))
    for part in found:
        inner = [leaf("PartNumber", part.number), leaf("LastModified", iso(part.modified_ns))]
        inner += [leaf("ETag", f'"{part.etag}"'), leaf("Size", part.size)]
        if part.checksum is not None:
            inner.append(leaf(f"Checksum{part.checksum.algorithm}", part.checksum.value))
        content.append(element("Part", *inner))
    return xml_response("ListPartsResult", content)


def uploads(asked: ListUploads, page: UploadsPage) -> Response:
    query, text = asked.query, _Text(asked.encode)
    content = [leaf("Bucket", query.bucket), text.leaf("KeyMarker", query.key_after)]
    content += [leaf("UploadIdMarker", query.upload_id_after), text.leaf("Prefix", query.prefix), *text.kind()]
    content += [*text.optional("Delimiter", query.delimiter), leaf("MaxUploads", query.limit)]
    content.append(leaf("IsTruncated", page.next_after is not None))
    if page.next_after is not None:
        content += [text.leaf("NextKeyMarker", page.next_after[0]), leaf("NextUploadIdMarker", page.next_after[1])]
    for each in page.uploads:
        inner = [text.leaf("Key", each.key), leaf("UploadId", each.upload_id), leaf("Initiated", iso(each.started_ns))]
        inner += [OWNER, leaf("StorageClass", each.attributes.storage_class), *_checksums_of(each)]
        content.append(element("Upload", *inner))
    content += text.prefixes(page.prefixes)
    return xml_response("ListMultipartUploadsResult", content)
