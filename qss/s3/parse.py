"""HTTP request head → operation. Pure; raises S3Error for what does not hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import unquote

from qss.errors import CorruptData
from qss.s3 import inplace
from qss.s3 import operations as op
from qss.s3.apart import PAGE_MAX, Apart
from qss.s3.backend import (
    KEY_BYTES_MAX,
    PART_NUMBER_MAX,
    Attributes,
    CreateUpload,
    DeleteRequest,
    EtagMode,
    ListQuery,
    PutRequest,
    UploadsQuery,
)
from qss.s3.checksums import ALGORITHMS
from qss.s3.conditions import delete_condition, parse_range, read_condition, write_condition
from qss.s3.errors import Code, S3Error
from qss.s3.message import RequestHead, parse_query
from qss.s3.parse_subresources import ROWS, bypasses, lock_of

TAGS_MAX: Final = 10
BUCKETS_MAX: Final = 10_000  # of a page
METADATA_BYTES_MAX: Final = 2048
CONTENT_HEADERS: Final = (
    "content-type", "cache-control", "content-disposition", "content-encoding", "content-language", "expires",
)  # fmt: skip
REDIRECT: Final = "x-amz-website-redirect-location"
"""Kept with an object and told; nothing is redirected, since no websites are served."""
STORAGE_CLASSES: Final = frozenset(
    {
        "STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER", "GLACIER_IR",
        "DEEP_ARCHIVE", "OUTPOSTS", "SNOW", "EXPRESS_ONEZONE",
    }
)  # fmt: skip
"""Kept and told; all of them are stored alike, and none has to be restored before it is read."""
_META: Final = "x-amz-meta-"
_COPY: Final = "x-amz-copy-source"

_SUBRESOURCES: Final = frozenset(
    {
        "abac", "accelerate", "acl", "analytics", "attributes", "cors", "delete", "encryption", "intelligent-tiering",
        "inventory", "legal-hold", "lifecycle", "location", "logging", "metadataConfiguration",
        "metadataInventoryTable", "metadataJournalTable", "metadataTable", "metrics", "notification", "object-lock",
        "ownershipControls", "policy", "policyStatus", "publicAccessBlock", "renameObject", "replication",
        "requestPayment", "restore", "retention", "select", "session", "tagging", "torrent", "uploadId", "uploads",
        "versioning", "versions", "website",
    }
)  # fmt: skip
"""Query names that make a request something else. One of these without a row in _ROWS is NotImplemented: never do to
the object what was meant for, say, its ACL."""

_RESERVED_ENDS: Final = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
_BUCKET: Final = re.compile(r"(?!xn--|sthree-|\d+\.\d+\.\d+\.\d+$)[a-z0-9](?:[a-z0-9-]|\.(?!\.))*[a-z0-9]")


def check_bucket_name(name: str) -> None:
    """Source: "General purpose bucket naming rules"."""
    if not 3 <= len(name) <= 63 or not _BUCKET.fullmatch(name) or name.endswith(_RESERVED_ENDS):
        raise S3Error(Code.INVALID_BUCKET_NAME)


def check_key(key: str) -> None:
    """Of an object, wherever a request names one. Empty is not looked at here."""
    if len(key.encode()) > KEY_BYTES_MAX:
        raise S3Error(Code.KEY_TOO_LONG)
    if "\0" in key:
        raise S3Error(Code.INVALID_URI)


def split_path(head: RequestHead, domains: tuple[str, ...] = ()) -> tuple[str, str]:
    """Bucket and key, path style, or virtual-host style below one of `domains`. Raises S3Error."""
    if not head.path.startswith("/"):
        raise S3Error(Code.INVALID_URI)
    host = head.headers.get("host", "").lower()
    host = host if host.endswith("]") else host.rpartition(":")[0] or host
    for domain in domains:
        if host.endswith(f".{domain}"):
            return host[: -len(domain) - 1], head.path[1:]
    bucket, _, key = head.path[1:].partition("/")
    return bucket, key


def parse(head: RequestHead, domains: tuple[str, ...] = ()) -> op.Operation:
    """The operation a request asks for. Raises S3Error."""
    return parse_at(head, *split_path(head, domains))


def parse_at(head: RequestHead, bucket: str, key: str) -> op.Operation:
    """As `parse`, for what `split_path` found."""
    check_key(key)
    params = dict(head.params())
    asked = sorted(_SUBRESOURCES & params.keys()) if params else []
    if len(asked) > 1 or (asked and not bucket):
        raise S3Error(Code.INVALID_REQUEST, f"Conflicting query parameters: {', '.join(asked)}")
    level = "key" if key else "bucket" if bucket else "service"
    rows = _ROWS.get((level, asked[0] if asked else ""))
    if rows is None:
        raise S3Error(Code.NOT_IMPLEMENTED)
    reader = rows.get(head.method)
    if reader is None:
        raise S3Error(Code.NOT_IMPLEMENTED if asked else Code.METHOD_NOT_ALLOWED)
    return reader(Apart(head, bucket, key, params))


def is_form(head: RequestHead, bucket: str, key: str) -> bool:
    """Whether it is a POST to a bucket as such: a browser's form."""
    return (
        head.method == "POST" and bool(bucket) and not key and not _SUBRESOURCES & {name for name, _ in head.params()}
    )


# -- attributes
def attributes_of(headers: Mapping[str, str]) -> Attributes:
    """What a put, copy or upload says about the object. Raises S3Error."""
    content = {name: headers[name] for name in CONTENT_HEADERS if name in headers}
    if REDIRECT in headers:
        content[REDIRECT] = _redirect(headers[REDIRECT])
    if "content-encoding" in content:  # aws-chunked is about the way here, not about the object
        codings = [each.strip() for each in content["content-encoding"].split(",")]
        kept = ",".join(each for each in codings if each and each != "aws-chunked")
        content["content-encoding"] = kept
        if not kept:
            del content["content-encoding"]
    metadata = {name[len(_META) :]: value for name, value in headers.items() if name.startswith(_META)}
    if metadata and sum(len(name) + len(value.encode()) for name, value in metadata.items()) > METADATA_BYTES_MAX:
        raise S3Error(Code.METADATA_TOO_LARGE)
    tags = tuple(parse_query(headers.get("x-amz-tagging", "")))
    if tags:
        check_tags(tags)
    storage = headers.get("x-amz-storage-class", "STANDARD")
    if storage not in STORAGE_CLASSES:
        raise S3Error(Code.INVALID_STORAGE_CLASS)
    if "x-amz-write-offset-bytes" in headers:
        raise S3Error(Code.NOT_IMPLEMENTED, "Objects cannot be appended to.")
    return Attributes(content, metadata, tags, storage, lock_of(headers))


def _redirect(target: str) -> str:
    if not target.startswith(("/", "http://", "https://")):
        raise S3Error(
            Code.INVALID_REDIRECT,
            "The website redirect location must have a prefix of 'http://' or 'https://' or '/'.",
        )
    if len(target.encode()) > METADATA_BYTES_MAX:
        raise S3Error(Code.INVALID_REDIRECT, "The length of website redirect location cannot exceed 2,048 bytes.")
    return target


def check_tags(tags: tuple[tuple[str, str], ...], most: int = TAGS_MAX) -> None:
    """Source: "Categorizing your objects using tags"."""
    if len(tags) > most:
        what = "Object" if most == TAGS_MAX else "Bucket"
        raise S3Error(Code.INVALID_TAG, f"{what} tags cannot be greater than {most}")
    if len({name for name, _ in tags}) != len(tags):
        raise S3Error(Code.INVALID_TAG, "Cannot provide multiple Tags with the same key")
    for name, value in tags:
        if not 1 <= len(name) <= 128:
            raise S3Error(Code.INVALID_TAG, "The TagKey you have provided is invalid")
        if len(value) > 256:
            raise S3Error(Code.INVALID_TAG, "The TagValue you have provided is invalid")


def _etag_mode(headers: Mapping[str, str]) -> EtagMode:
    return EtagMode.OPAQUE if headers.get("x-trove-etag") == "blake3" else EtagMode.MD5


def put_request(bucket: str, key: str, headers: Mapping[str, str]) -> PutRequest:
    """What a put with these headers asks for. Raises S3Error."""
    return PutRequest(bucket, key, attributes_of(headers), write_condition(headers), _etag_mode(headers))


def _put_request(request: Apart) -> PutRequest:
    return put_request(request.bucket, request.key, request.headers)


# -- readers, one for each row
def _list_buckets(request: Apart) -> op.ListBuckets:
    params = request.params
    token, limit = params.get("continuation-token"), None
    if "max-buckets" in params:
        limit = request.number("max-buckets", BUCKETS_MAX, BUCKETS_MAX + 1)
        if not 1 <= limit <= BUCKETS_MAX:
            raise S3Error(Code.INVALID_ARGUMENT, f"max-buckets must be between 1 and {BUCKETS_MAX}")
    after = "" if token is None else read_token(token)
    return op.ListBuckets(params.get("prefix", ""), after, limit, params.get("bucket-region"))


def _list_objects(request: Apart) -> op.ListObjects:
    params = request.params
    limit = request.number("max-keys", PAGE_MAX, PAGE_MAX)
    v2 = params.get("list-type") == "2"
    token, start_after = params.get("continuation-token"), params.get("start-after")
    if v2 and token == "":
        raise S3Error(Code.INVALID_ARGUMENT, "The continuation token provided is incorrect")
    after = (read_token(token) if token is not None else start_after or "") if v2 else params.get("marker", "")
    query = ListQuery(request.bucket, params.get("prefix", ""), params.get("delimiter", ""), after, limit)
    owner = not v2 or params.get("fetch-owner") == "true"
    return op.ListObjects(query, v2, request.encode(), start_after, token, owner)


def make_token(after: str) -> str:
    """A continuation token, opaque to clients: it needs no escaping anywhere."""
    return "1" + after.encode().hex()


def read_token(token: str) -> str:
    """Raises S3Error for what `make_token` did not make."""
    try:
        if token[:1] == "1":
            return bytes.fromhex(token[1:]).decode()
    except (ValueError, UnicodeDecodeError):
        pass
    raise S3Error(Code.INVALID_ARGUMENT, "The continuation token provided is incorrect")


def _list_uploads(request: Apart) -> op.ListUploads:
    params = request.params
    query = UploadsQuery(
        request.bucket,
        params.get("prefix", ""),
        params.get("delimiter", ""),
        params.get("key-marker", ""),
        params.get("upload-id-marker", "") if params.get("key-marker") else "",
        request.number("max-uploads", PAGE_MAX, PAGE_MAX),
    )
    return op.ListUploads(query, request.encode())


def _get_object(request: Apart) -> op.GetObject:
    params, headers = request.params, request.headers
    overrides = {
        name.removeprefix("response-"): value for name, value in params.items() if name.startswith("response-")
    }
    if overrides and not overrides.keys() <= set(CONTENT_HEADERS):
        raise S3Error(Code.INVALID_ARGUMENT, "Unknown response header override")
    part = request.part_number() if "partNumber" in params else None
    wanted = parse_range(headers.get("range"))
    if part is not None and wanted is not None:
        raise S3Error(Code.INVALID_REQUEST, "Cannot specify both Range header and partNumber query parameter")
    return op.GetObject(
        request.bucket,
        request.key,
        request.head.method == "HEAD",
        wanted,
        part,
        read_condition(headers),
        overrides,
        headers.get("x-amz-checksum-mode", "").upper() == "ENABLED",
        request.version_id,
        _hash_spans(request),
    )


def _hash_spans(request: Apart) -> tuple[tuple[int, int], ...]:
    wanted = request.headers.get(inplace.HEADER)
    if wanted is None or request.head.method != "HEAD":
        return ()
    try:
        return tuple(inplace.asked(wanted))
    except CorruptData as error:
        raise S3Error(Code.INVALID_ARGUMENT, str(error)) from error


def _copy_source(headers: Mapping[str, str]) -> op.CopySource:
    path, _, query = headers[_COPY].partition("?")
    try:
        bucket, _, key = unquote(path, errors="strict").removeprefix("/").partition("/")
    except UnicodeDecodeError:
        raise S3Error(Code.INVALID_ARGUMENT, "Invalid copy source encoding.") from None
    if not bucket or not key:
        raise S3Error(
            Code.INVALID_ARGUMENT, "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
        )
    version = dict(parse_query(query)).get("versionId")
    return op.CopySource(bucket, key, version, read_condition(headers, f"{_COPY}-"))


def _directive(headers: Mapping[str, str], name: str) -> bool:
    value = headers.get(name, "COPY").upper()
    if value not in ("COPY", "REPLACE"):
        raise S3Error(Code.INVALID_ARGUMENT, f"Unknown value for {name}.")
    return value == "REPLACE"


def _put_object(request: Apart) -> op.PutObject | op.CopyObject:
    if _COPY not in request.headers:
        return op.PutObject(_put_request(request))
    return op.CopyObject(
        _put_request(request),
        _copy_source(request.headers),
        _directive(request.headers, "x-amz-metadata-directive"),
        _directive(request.headers, "x-amz-tagging-directive"),
        _algorithm(request.headers),
    )


def _put_part(request: Apart) -> op.PutPart | op.CopyPart:
    number = request.part_number()
    if _COPY not in request.headers:
        return op.PutPart(request.upload(), number)
    text = request.headers.get(f"{_COPY}-range")
    wanted = parse_range(text)
    if text is not None and (wanted is None or wanted.first is None or wanted.last is None):
        raise S3Error(Code.INVALID_ARGUMENT, f"The {_COPY}-range value must be of the form bytes=first-last.")
    return op.CopyPart(request.upload(), number, _copy_source(request.headers), wanted)


def _algorithm(headers: Mapping[str, str]) -> str | None:
    text = headers.get("x-amz-checksum-algorithm")
    if text is not None and text.upper() not in ALGORITHMS:
        raise S3Error(Code.INVALID_REQUEST, "Checksum algorithm provided is unsupported.")
    return None if text is None else text.upper()


def _start_upload(request: Apart) -> op.StartUpload:
    algorithm = _algorithm(request.headers)
    kind = request.headers.get("x-amz-checksum-type", "").upper()
    if kind not in ("", "COMPOSITE", "FULL_OBJECT") or (kind and algorithm is None):
        raise S3Error(Code.INVALID_REQUEST, "Value for x-amz-checksum-type header is invalid.")
    if (kind == "COMPOSITE" and algorithm == "CRC64NVME") or (
        kind == "FULL_OBJECT" and algorithm in ("SHA1", "SHA256")
    ):
        raise S3Error(
            Code.INVALID_REQUEST, f"The {kind} checksum type cannot be used with the {algorithm} checksum algorithm."
        )
    composite = kind == "COMPOSITE" or (not kind and algorithm != "CRC64NVME")
    attributes, mode = attributes_of(request.headers), _etag_mode(request.headers)
    return op.StartUpload(CreateUpload(request.bucket, request.key, attributes, algorithm, composite, mode))


def _list_parts(request: Apart) -> op.ListParts:
    after = request.number("part-number-marker", 0, PART_NUMBER_MAX)
    return op.ListParts(request.upload(), after, request.number("max-parts", PAGE_MAX, PAGE_MAX), request.encode())


def _delete_object(request: Apart) -> op.DeleteObject:
    names = ("if-match", "x-amz-if-match-last-modified-time", "x-amz-if-match-size")
    condition = delete_condition(*(request.headers.get(name) for name in names))
    bypass = bypasses(request.headers)
    return op.DeleteObject(request.bucket, DeleteRequest(request.key, request.version_id, condition, bypass))


_Reader = Callable[[Apart], op.Operation]


def _config_rows(config: op.Config) -> dict[str, _Reader]:
    return {
        "GET": lambda r: op.GetConfig(r.bucket, config),
        "PUT": lambda r: op.PutConfig(r.bucket, config),
        "DELETE": lambda r: op.DeleteConfig(r.bucket, config),
    }


_ROWS: Final[dict[tuple[str, str], Mapping[str, _Reader]]] = {
    **ROWS,
    ("service", ""): {"GET": _list_buckets},
    ("bucket", ""): {
        "GET": _list_objects,
        "HEAD": lambda r: op.HeadBucket(r.bucket),
        "PUT": lambda r: op.CreateBucket(
            r.bucket, r.headers.get("x-amz-bucket-object-lock-enabled", "").lower() == "true"
        ),
        "DELETE": lambda r: op.DeleteBucket(r.bucket),
    },
    ("bucket", "location"): {"GET": lambda r: op.GetLocation(r.bucket)},
    ("bucket", "uploads"): {"GET": _list_uploads},
    ("bucket", "delete"): {"POST": lambda r: op.DeleteObjects(r.bucket, bypasses(r.headers))},
    ("key", ""): {"GET": _get_object, "HEAD": _get_object, "PUT": _put_object, "DELETE": _delete_object},
    ("key", "tagging"): {
        "GET": lambda r: op.GetTags(r.bucket, r.key, r.version_id),
        "PUT": lambda r: op.PutTags(r.bucket, r.key, r.version_id),
        "DELETE": lambda r: op.DeleteTags(r.bucket, r.key, r.version_id),
    },
    ("key", "uploads"): {"POST": _start_upload},
    ("key", "uploadId"): {
        "GET": _list_parts,
        "PUT": _put_part,
        "POST": lambda r: op.CompleteUpload(r.upload(), write_condition(r.headers)),
        "DELETE": lambda r: op.AbortUpload(r.upload()),
    },
    **{("bucket", each.value): _config_rows(each) for each in op.Config if each is not op.Config.POLICY_STATUS},
    ("bucket", "policyStatus"): {"GET": lambda r: op.GetConfig(r.bucket, op.Config.POLICY_STATUS)},
    **{
        (level, "acl"): {
            "GET": lambda r: op.GetAcl(r.bucket, r.key, r.version_id),
            "PUT": lambda r: op.PutAcl(r.bucket, r.key, r.version_id),
        }
        for level in ("bucket", "key")
    },
}
