"""The condition keys of one request. Pure.

Source: "AWS global condition context keys" and "Condition keys for Amazon S3". Keys are lower-case; what a request does
not have is absent, never empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from qss.errors import CorruptData
from qss.s3 import operations as op
from qss.s3.access.actions import Need
from qss.s3.access.policy import ACCOUNT, Principal
from qss.s3.dates import SECOND_NS, iso_date_ns, second_text
from qss.s3.lock import DAY_NS
from qss.s3.message import RequestHead, parse_query
from qss.s3.sigv4 import Verified, signed_at_s
from qss.values import quick

ENCRYPTION_KEYS: Final = (
    "x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-customer-algorithm",
)  # fmt: skip
_FROM_HEADERS: Final = (
    "x-amz-acl", "x-amz-content-sha256", "x-amz-copy-source", "x-amz-grant-full-control", "x-amz-grant-read",
    "x-amz-grant-read-acp", "x-amz-grant-write", "x-amz-grant-write-acp", "x-amz-metadata-directive",
    "x-amz-object-ownership", "x-amz-storage-class", "x-amz-website-redirect-location", "if-match", "if-none-match",
    *ENCRYPTION_KEYS,
)  # fmt: skip
_LOCK: Final = {
    "s3:object-lock-mode": "x-amz-object-lock-mode",
    "s3:object-lock-legal-hold": "x-amz-object-lock-legal-hold",
    "s3:object-lock-retain-until-date": "x-amz-object-lock-retain-until-date",
}
_CREATES: Final = (op.PutObject, op.CopyObject, op.CompleteUpload)
_CREATES_LATER: Final = (op.StartUpload, op.PutPart, op.CopyPart)

Tags = tuple[tuple[str, str], ...]


@quick
@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request, as far as signatures tell, and by which way it came."""

    head: RequestHead
    verified: Verified | None = None
    by_form: bool = False  # a POST of a browser: `head` was made from its fields
    acts_for: str | None = None  # access key whose user another front (files, console) has found to be asking

    @property
    def access_key(self) -> str | None:
        return self.acts_for if self.verified is None else self.verified.access_key


def request_context(
    caller: Caller, principal: Principal | None, operation: op.Operation, now_ns: int
) -> dict[str, tuple[str, ...]]:
    """What holds for the request as a whole."""
    head = caller.head
    found = {
        "aws:currenttime": f"{second_text(now_ns // SECOND_NS)}Z",
        "aws:epochtime": str(now_ns // SECOND_NS),
        "aws:securetransport": str(head.secure).lower(),
        "aws:principaltype": "Anonymous" if principal is None else "Account" if principal.is_root else "User",
        "aws:resourceaccount": ACCOUNT,
        "s3:resourceaccount": ACCOUNT,
        "aws:principalisawsservice": "false",
        "aws:viaawsservice": "false",
    }
    if head.client:
        found["aws:sourceip"] = head.client
    for key, name in (("aws:useragent", "user-agent"), ("aws:referer", "referer"), *_LOCK.items()):
        if name in head.headers:
            found[key] = head.headers[name]
    for name in _FROM_HEADERS:
        if name in head.headers:
            found[f"s3:{name}"] = head.headers[name]
    if isinstance(operation, op.CopyObject | op.CopyPart):
        found["s3:x-amz-copy-source"] = _source(operation.source)
    _add_principal(found, principal)
    _add_signature(found, caller, now_ns)
    _add_operation(found, head, operation, now_ns)
    context: dict[str, tuple[str, ...]] = {key: (value,) for key, value in found.items()}
    tags = parse_query(head.headers.get("x-amz-tagging", "")) if _sets_tags(operation) else ()
    for name, value in tags:  # names that differ in case only are one key, with both values: a Deny sees either
        key = f"s3:requestobjecttag/{name.lower()}"
        context[key] = (*context.get(key, ()), value)
    if tags:
        context["s3:requestobjecttagkeys"] = tuple(name for name, _ in tags)
    return context


def _source(source: op.CopySource) -> str:
    """As AWS's examples write it, whatever way the header was written: an escape or a slash is no way around a Deny."""
    version = "" if source.version_id is None else f"?versionId={source.version_id}"
    return f"{source.bucket}/{source.key}{version}"


def _sets_tags(operation: op.Operation) -> bool:
    """Whether x-amz-tagging is what will be set. With other operations the header would only be said to the gate."""
    if isinstance(operation, op.CopyObject):
        return operation.replace_tags
    return isinstance(operation, op.PutObject | op.StartUpload | op.PutTags)


def _add_principal(found: dict[str, str], principal: Principal | None) -> None:
    if principal is None:
        found["aws:userid"] = "anonymous"
        return
    found |= {"aws:principalarn": principal.arn, "aws:principalaccount": ACCOUNT}
    found["aws:userid"] = ACCOUNT if principal.is_root else principal.user_id
    if not principal.is_root:
        found["aws:username"] = principal.name


def _add_signature(found: dict[str, str], caller: Caller, now_ns: int) -> None:
    if caller.verified is None:
        return
    found["s3:signatureversion"] = "AWS4-HMAC-SHA256"
    by_header = "authorization" in caller.head.headers
    found["s3:authtype"] = "POST" if caller.by_form else "REST-HEADER" if by_header else "REST-QUERY-STRING"
    age_ms = now_ns // 1_000_000 - int(signed_at_s(caller.verified.chunks.timestamp) * 1000)
    found["s3:signatureage"] = str(max(age_ms, 0))


def _add_operation(found: dict[str, str], head: RequestHead, operation: op.Operation, now_ns: int) -> None:
    params = dict(head.params())
    if isinstance(operation, op.ListObjects) or "versions" in params or "uploads" in params:
        for name in ("prefix", "delimiter", "max-keys"):
            if name in params:
                found[f"s3:{name}"] = params[name]
    if isinstance(operation, _CREATES):
        found["s3:objectcreationoperation"] = "true"
    elif isinstance(operation, _CREATES_LATER):
        found["s3:objectcreationoperation"] = "false"
    until = found.get("s3:object-lock-retain-until-date")
    if until is not None:
        try:
            left_ns = iso_date_ns(until) - now_ns
        except CorruptData:
            return  # refused as an argument later
        found["s3:object-lock-remaining-retention-days"] = str(max(left_ns // DAY_NS, 0))


def need_context(base: Mapping[str, tuple[str, ...]], need: Need, existing: Tags = ()) -> Mapping[str, tuple[str, ...]]:
    """`base` and what is special to one resource."""
    context = dict(base)
    if need.version_id is not None:
        context["s3:versionid"] = (need.version_id,)
    for name, value in existing:
        key = f"s3:existingobjecttag/{name.lower()}"
        context[key] = (*context.get(key, ()), value)
    return context
