"""POST of a browser's form to a bucket: fields → a signed claim, a policy, a put. The put itself is the server's.

A form becomes the head that a PUT of the same object would have: so attributes, checksums and encryption are read by
the code that reads those of a PUT, and the gate sees an ordinary PutObject.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from qss.s3.backend import Chunk, StoredObject
from qss.s3.documents import tags_body
from qss.s3.errors import Code, S3Error
from qss.s3.forms import FileHead, FormReader, boundary_of
from qss.s3.message import RequestHead, Response
from qss.s3.parse import check_key
from qss.s3.post_policy import PostPolicy, read_post_policy
from qss.s3.render import XML_TYPE
from qss.s3.scalars import number_of
from qss.s3.sigv4 import Verified, Verifier
from qss.s3.xml import document, leaf

FORM_WHOLE_BYTES_MAX: Final = 1024 * 1024
"""Forms up to here are read before their file's length has to be known. In longer ones the file must be the last part:
then its length follows from that of the body."""
_HEADERS: Final = (
    "cache-control", "content-type", "content-disposition", "content-encoding", "content-language", "expires",
    "content-md5",
)  # fmt: skip
_FROM_OUTSIDE: Final = ("host", "user-agent", "referer", "origin")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+", re.ASCII)  # RFC 9110: what names of headers are made of
_STATUS: Final = {"200": 200, "201": 201, "204": 204}


@dataclass(frozen=True, slots=True)
class Form:
    """A form whose signature and policy hold. `head` is that of a PUT of the object, `file` its body."""

    bucket: str
    key: str
    head: RequestHead
    verified: Verified | None
    file: AsyncIterator[Chunk]
    fields: Mapping[str, str]


async def read_form(head: RequestHead, bucket: str, raw: AsyncIterator[Chunk], verifier: Verifier, now_ns: int) -> Form:
    """Read up to the file (or, of a short form, all) and check everything about it. Raises S3Error."""
    total = number_of(head.headers.get("content-length", ""))
    if total is None:
        raise S3Error(Code.MISSING_CONTENT_LENGTH)
    reader = FormReader(aiter(raw), boundary_of(head.headers.get("content-type", "")))
    given, file = await reader.fields()
    fields = _with_key(given, bucket, file)
    verified, policy = _check_policy(fields, verifier, now_ns)
    put = _put_head(head, bucket, fields)
    content: AsyncIterator[Chunk] = reader.content()
    if total <= FORM_WHOLE_BYTES_MAX:
        data = b"".join([bytes(chunk) async for chunk in content])
        length, content = len(data), _once(data)
    else:
        length = total - file.at - reader.tail_bytes
        if length < 0:
            raise S3Error(Code.MALFORMED_POST)
    if policy is not None:
        policy.check_length(length)
    put = replace(put, headers={**put.headers, "content-length": str(length)})
    return Form(bucket, fields["key"], put, verified, content, fields)


async def _once(data: bytes) -> AsyncIterator[Chunk]:
    yield data


def _with_key(given: Mapping[str, str], bucket: str, file: FileHead) -> dict[str, str]:
    fields = {**given, "bucket": bucket}
    if "key" not in fields:
        raise S3Error(
            Code.INVALID_ARGUMENT,
            "Bucket POST must contain a field named 'key'. If it is specified, please check the order of the fields.",
        )
    fields["key"] = fields["key"].replace("${filename}", file.name)
    if not fields["key"]:
        raise S3Error(Code.INVALID_ARGUMENT, "User key must have a length greater than 0.")
    check_key(fields["key"])
    return fields


def _check_policy(
    fields: Mapping[str, str], verifier: Verifier, now_ns: int
) -> tuple[Verified | None, PostPolicy | None]:
    """None, None for a form without a policy: anonymous. Nothing of a policy is believed before its signature holds."""
    if "policy" not in fields:
        if "x-amz-signature" in fields or "signature" in fields:
            raise S3Error(Code.INVALID_ARGUMENT, "Bucket POST must contain a field named 'policy'.")
        return None, None
    verified = verifier.verify_form(fields, now_ns)
    policy = read_post_policy(fields["policy"])
    policy.check(fields, now_ns)
    return verified, policy


def _put_head(head: RequestHead, bucket: str, fields: Mapping[str, str]) -> RequestHead:
    headers = {name: head.headers[name] for name in _FROM_OUTSIDE if name in head.headers}
    headers |= {
        name: value
        for name, value in fields.items()
        if name in _HEADERS or (name.startswith("x-amz-") and name not in ("x-amz-signature", "x-amz-copy-source"))
    }
    if not all(_TOKEN.fullmatch(name) for name in headers):  # it would come back as a header with each read
        raise S3Error(Code.INVALID_ARGUMENT, "The name of a field that becomes a header is no name of one.")
    if "acl" in fields:
        headers["x-amz-acl"] = fields["acl"]
    if "tagging" in fields:
        headers["x-amz-tagging"] = urlencode(tags_body(fields["tagging"].encode()))
    return replace(head, method="PUT", path=f"/{bucket}/{fields['key']}", query="", headers=headers)


def answer(form: Form, found: StoredObject) -> Response:
    """What the page asked to be told: a redirect, a document, or nothing."""
    etag = f'"{found.etag}"'
    scheme = "https" if form.head.secure else "http"
    place = f"{scheme}://{form.head.headers.get('host', '')}/{form.bucket}/{quote(form.key)}"
    headers = (("etag", etag), ("location", place))
    target = form.fields.get("success_action_redirect", form.fields.get("redirect", ""))
    address = _redirect(target, {"bucket": form.bucket, "key": form.key, "etag": etag})
    if address is not None:
        return Response(303, (("etag", etag), ("location", address)))
    status = _STATUS.get(form.fields.get("success_action_status", ""), 204)
    if status != 201:
        return Response(status, headers)
    content = [leaf("Location", place), leaf("Bucket", form.bucket), leaf("Key", form.key), leaf("ETag", etag)]
    return Response(201, (XML_TYPE, *headers), document("PostResponse", content, namespace=False))


def _redirect(target: str, told: Mapping[str, str]) -> str | None:
    """The address to go to; None for what is no http address, which AWS ignores."""
    if not (target.isascii() and target.isprintable()):
        return None
    try:
        parts = urlsplit(target)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return None
    query = "&".join(each for each in (parts.query, urlencode(told)) if each)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, parts.fragment))
