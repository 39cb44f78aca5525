"""What a server's answer means for the client: status and S3 code → qss error. One table, pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qss.errors import (
    AccessDenied,
    Busy,
    CorruptData,
    ObjectMissing,
    PreconditionFailed,
    QssError,
    Refused,
    Retryable,
)
from qss.s3.scalars import number_of
from qss.s3.xml import parse

_DENIED = frozenset(
    {
        "AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId", "AuthorizationHeaderMalformed",
        "RequestTimeTooSkewed", "ExpiredToken", "InvalidToken", "AccountProblem", "AllAccessDisabled",
    }
)  # fmt: skip
_FULL = frozenset({"QuotaExceeded", "XMinioAdminBucketQuotaExceeded"})  # beside status 507; it is 403 or 400
_BUSY = frozenset(
    {
        "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "RequestLimitExceeded", "Throttling",
        "ConditionalRequestConflict", "OperationAborted", "XMinioServerNotInitialized",
    }
)  # fmt: skip
_SEND_AGAIN = frozenset({"BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"})  # spoiled on the way


@dataclass(frozen=True, slots=True)
class Peer:
    """Who answered, for sentences: never holds the secret."""

    location: str  # endpoint and bucket
    access_key: str


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # lower-case names
    body: bytes = b""  # of an error; may be cut


def error_of(answer: Answer, key: str, peer: Peer) -> QssError:
    """The error a status of 300 or more stands for. `key`: the object asked for, or "" for the bucket."""
    code, message = _read(answer.body)
    said = f"{code or answer.status}{': ' + message if message else ''}"
    status, what = answer.status, f"{peer.location}/{key}" if key else peer.location
    if code == "ObjectDamaged":
        return CorruptData(f"{what}: the location says that its bytes do not verify")
    if code == "NoSuchBucket":
        return Refused(f"there is no bucket at {peer.location}: create it or correct the location")
    if status == 507 or code in _FULL:
        return Refused(f"{peer.location} is full ({said}): delete something there, or give it more room")
    if code in _DENIED or status in (401, 403):
        return AccessDenied(f"{peer.location} refuses the key id {peer.access_key!r}: {said}")
    if status == 412:
        return PreconditionFailed(f"{what}: somebody else has written first")
    if code in _BUSY or status in (429, 500, 502, 503, 504):
        return Busy(f"{what} asks to come back later: {said}", retry_after_s=_retry_after_s(answer.headers))
    if code in _SEND_AGAIN:
        return Retryable(f"{what}: the request arrived spoiled ({said})")
    if status == 404:
        return ObjectMissing(f"{what} is not there")
    if status == 416:
        return CorruptData(f"{what} is shorter than the range asked for")
    if status in (301, 302, 307, 308):
        region = answer.headers.get("x-amz-bucket-region", "another region")
        return Refused(f"{peer.location} redirects to {region}: correct endpoint and region of the location")
    return Refused(f"{what} refuses the request: {said}")


def _read(body: bytes) -> tuple[str, str]:
    """Code and message of an error document; empty for anything else."""
    try:
        root = parse(body)
    except CorruptData:
        return "", ""
    return root.get("Code")[:100], root.get("Message")[:300]


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    return number_of(headers.get("retry-after", ""), 6)
