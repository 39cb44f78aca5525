"""Server-side encryption as the S3 API knows it: what the headers of a request ask for, and what an answer says. Pure.

Source: "Using server-side encryption with Amazon S3 managed keys" and "… with customer-provided keys" of the S3 user
guide. A customer's key lives in one request: never in a log, an error or an answer.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from qss.s3.errors import Code, S3Error
from qss.s3.scalars import base64_of
from qss.s3.xml import Node, document, element, leaf

AES256: Final = "AES256"
MANAGED: Final = "x-amz-server-side-encryption"
_CUSTOMER: Final = f"{MANAGED}-customer-"
_SOURCE: Final = "x-amz-copy-source-server-side-encryption-customer-"
_KMS: Final = ("aws:kms", "aws:kms:dsse")
_KMS_HEADERS: Final = (f"{MANAGED}-aws-kms-key-id", f"{MANAGED}-context", f"{MANAGED}-bucket-key-enabled")
_KEY_HEADERS: Final = ("algorithm", "key", "key-md5")
_ALL: Final = frozenset(
    {MANAGED, *_KMS_HEADERS, *(prefix + name for prefix in (_CUSTOMER, _SOURCE) for name in _KEY_HEADERS)}
)
_KEY_BYTES: Final = 32
_WHAT: Final = "Requests specifying Server Side Encryption with Customer provided keys must"

Headers = tuple[tuple[str, str], ...]


class Sse(Enum):
    """How an object is kept."""

    MANAGED = "SSE-S3"  # under a key of the server's
    CUSTOMER = "SSE-C"  # under one that comes with each request


@dataclass(frozen=True, slots=True)
class CustomerKey:
    """A key that a customer sends with a request, checked against its MD5."""

    key: bytes = field(repr=False)  # 32
    md5: str  # base64 of its digest


@dataclass(frozen=True, slots=True)
class Encryption:
    """How an object is to be stored: under the server's key, or under the customer's."""

    customer: CustomerKey | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What one request says about encryption."""

    store: Encryption | None = None  # None: nothing, so the bucket's default decides
    customer: CustomerKey | None = None  # to read by, or to go on with an upload
    source: CustomerKey | None = None  # to read the source of a copy by

    def answer(self, kind: Sse | None) -> Headers:
        """What the answer says of an object that is kept like this."""
        if kind is Sse.CUSTOMER and self.customer is not None:
            return (f"{_CUSTOMER}algorithm", AES256), (f"{_CUSTOMER}key-md5", self.customer.md5)
        return ((MANAGED, AES256),) if kind is Sse.MANAGED else ()


NOTHING: Final = Asked()


class KeyNeeded(S3Error):
    """A sealed object, and no key with the request."""

    def __init__(self) -> None:
        super().__init__(
            Code.INVALID_REQUEST,
            "The object was stored using a form of Server Side Encryption. "
            "The correct parameters must be provided to retrieve the object.",
        )


class KeyNotApplicable(S3Error):
    """A customer's key for what is not under one."""

    def __init__(self) -> None:
        super().__init__(Code.INVALID_REQUEST, "The encryption parameters are not applicable to this object.")


def is_mentioned(headers: Mapping[str, str]) -> bool:
    """Whether a request says anything about encryption."""
    return not _ALL.isdisjoint(headers)


def asked_to_store(headers: Mapping[str, str], *, secure: bool) -> Asked:
    """Of a put, a copy, or the start of an upload. Raises S3Error."""
    managed = headers.get(MANAGED)
    customer = _key(headers, _CUSTOMER, secure=secure)
    source = _key(headers, _SOURCE, secure=secure)
    if customer is not None:
        if managed is not None:
            raise S3Error(
                Code.INVALID_ARGUMENT,
                "Server Side Encryption with Customer provided key is incompatible "
                "with the encryption method specified",
            )
        return Asked(Encryption(customer), customer, source)
    if managed in _KMS:
        raise S3Error(Code.NOT_IMPLEMENTED, "There is no KMS here; use AES256 or keys of your own.")
    if managed not in (None, AES256):
        raise S3Error(Code.INVALID_ENCRYPTION_ALGORITHM)
    if _KMS_HEADERS[0] in headers or _KMS_HEADERS[1] in headers:
        raise S3Error(
            Code.INVALID_ARGUMENT,
            f"Server Side Encryption with AWS KMS managed key requires HTTP header {MANAGED} : aws:kms",
        )
    return Asked(None if managed is None else Encryption(), None, source)


def asked_to_read(headers: Mapping[str, str], *, secure: bool) -> Asked:
    """Of a read, or of a part: how something is stored has been said before. Raises S3Error."""
    if MANAGED in headers:
        raise S3Error(Code.INVALID_ARGUMENT, f"{MANAGED} header is not supported for this operation.")
    return Asked(None, _key(headers, _CUSTOMER, secure=secure), _key(headers, _SOURCE, secure=secure))


def _key(headers: Mapping[str, str], prefix: str, *, secure: bool) -> CustomerKey | None:
    algorithm, text, md5 = (headers.get(prefix + name) for name in _KEY_HEADERS)
    if algorithm is None and text is None and md5 is None:
        return None
    if not secure:
        raise S3Error(Code.INVALID_REQUEST, f"{_WHAT} be made over a secure connection.")
    if algorithm is None:
        raise S3Error(Code.INVALID_ARGUMENT, f"{_WHAT} provide a valid encryption algorithm.")
    if algorithm != AES256:
        raise S3Error(Code.INVALID_ENCRYPTION_ALGORITHM)
    if text is None:
        raise S3Error(Code.INVALID_ARGUMENT, f"{_WHAT} provide an appropriate secret key.")
    if md5 is None:
        raise S3Error(Code.INVALID_ARGUMENT, f"{_WHAT} provide the client calculated MD5 of the secret key.")
    key = base64_of(text)
    if key is None or len(key) != _KEY_BYTES:
        raise S3Error(Code.INVALID_ARGUMENT, "The secret key was invalid for the specified algorithm.")
    expected = base64.b64encode(hashlib.md5(key, usedforsecurity=False).digest()).decode()
    if not hmac.compare_digest(expected.encode(), md5.encode()):
        raise S3Error(
            Code.INVALID_ARGUMENT, "The calculated MD5 hash of the key did not match the hash that was provided."
        )
    return CustomerKey(key, expected)


# -- a bucket's default
DEFAULT_DOCUMENT: Final = document(
    "ServerSideEncryptionConfiguration",
    [
        element(
            "Rule",
            element("ApplyServerSideEncryptionByDefault", leaf("SSEAlgorithm", AES256)),
            leaf("BucketKeyEnabled", False),
        )
    ],
)
"""What a bucket with default encryption answers."""


def check_default(root: Node) -> None:
    """Of the body of PutBucketEncryption: one rule, AES256. Raises S3Error."""
    rules = list(root.all("Rule"))
    defaults = [each for rule in rules for each in rule.all("ApplyServerSideEncryptionByDefault")]
    if len(rules) != 1 or len(defaults) != 1:
        raise S3Error(Code.MALFORMED_XML)
    algorithm = defaults[0].get("SSEAlgorithm")
    if algorithm in _KMS:
        raise S3Error(Code.NOT_IMPLEMENTED, "There is no KMS here; use AES256.")
    if algorithm != AES256:
        raise S3Error(Code.MALFORMED_XML)
    if defaults[0].get("KMSMasterKeyID"):
        raise S3Error(
            Code.INVALID_ARGUMENT, "a KMSMasterKeyID is not applicable if the default sse algorithm is AES256"
        )
