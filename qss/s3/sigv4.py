"""AWS Signature Version 4: canonicalise, sign, verify; in headers and in presigned queries. Pure: time is an argument.

Source: "Authenticating Requests (AWS Signature Version 4)", Amazon S3 API reference. The canonical URI of S3 is the key
percent-encoded once and never normalised, so encoding the decoded path gives it, whatever escapes the client chose.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from qss.s3.errors import Code, S3Error
from qss.s3.message import RequestHead
from qss.s3.scalars import number_of
from qss.values import quick

ALGORITHM: Final = "AWS4-HMAC-SHA256"
SKEW_S_MAX: Final = 15 * 60
PRESIGN_S_MAX: Final = 7 * 24 * 3600
EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()
CLAIM_CHARS_MAX: Final = 4096
"""Of the Authorization header, or of one of its parts in a query: a hundred names of headers have room."""
SIGNED_NAMES_MAX: Final = 128
_CACHED_KEYS_MAX: Final = 256
_HEX_DIGITS: Final = frozenset("0123456789abcdef")
_FIELDS: Final = frozenset({"Credential", "SignedHeaders", "Signature"})
_KEPT_CHARS_MAX: Final = 1024
"""Longer headers are taken apart each time: what strangers send is kept, and must stay small."""
_LAST: Final = "Signature="
_BY_QUERY: Final = frozenset({"X-Amz-Algorithm", "X-Amz-Signature", "Signature"})
_PLAIN_PATH: Final = re.compile(r"[A-Za-z0-9_.~/-]*")


class Payload(Enum):
    """What x-amz-content-sha256 says about the body."""

    SIGNED = "a hex digest"
    UNSIGNED = "UNSIGNED-PAYLOAD"
    CHUNKS_SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    CHUNKS_SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    CHUNKS_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

    @property
    def chunked(self) -> bool:
        return self.value.startswith("STREAMING")


_UNSIGNED: Final = Payload.UNSIGNED.value


@quick
@dataclass(frozen=True, slots=True)
class Scope:
    """Date, region and service a signing key is good for."""

    date: str  # YYYYMMDD
    region: str
    service: str = "s3"

    @property
    def text(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


class SigningKey:
    """HMAC-SHA256 under one key. It is begun once: `hmac.digest` costs three times as much, and lets go of the GIL
    (docs/adr/0151)."""

    __slots__ = ("_begun",)

    def __init__(self, key: bytes) -> None:
        self._begun = hmac.new(key, digestmod="sha256")

    def sign(self, text: str) -> str:
        """Hex."""
        signing = self._begun.copy()
        signing.update(text.encode())
        return signing.hexdigest()


@quick
@dataclass(frozen=True, slots=True)
class ChunkSigning:
    """What is needed to verify or make the signatures of aws-chunked frames."""

    key: SigningKey
    timestamp: str
    scope: str
    seed: str  # signature of the head

    def chunk(self, previous: str, digest: str) -> str:
        """Signature of a chunk: `digest` is the hex SHA-256 of its data."""
        return self._sign("AWS4-HMAC-SHA256-PAYLOAD", previous, f"{EMPTY_SHA256}\n{digest}")

    def trailer(self, previous: str, trailers: bytes) -> str:
        """Signature of the trailers, in the form "name:value\\n" each."""
        return self._sign("AWS4-HMAC-SHA256-TRAILER", previous, hashlib.sha256(trailers).hexdigest())

    def _sign(self, kind: str, previous: str, rest: str) -> str:
        return self.key.sign(f"{kind}\n{self.timestamp}\n{self.scope}\n{previous}\n{rest}")


@quick
@dataclass(frozen=True, slots=True)
class Verified:
    """A request whose signature holds."""

    access_key: str
    payload: Payload
    sha256: str | None  # of the body, hex; with Payload.SIGNED
    chunks: ChunkSigning


@quick
@dataclass(frozen=True, slots=True)
class Credentials:
    access_key: str
    secret_key: str

    def __repr__(self) -> str:
        return f"Credentials({self.access_key!r})"


class SigningKeys:
    """Derived keys, cached: four HMACs saved on each request."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, ...], SigningKey] = {}

    def get(self, access_key: str, secret_key: str, scope: Scope) -> SigningKey:
        which = (access_key, secret_key, scope.date, scope.region, scope.service)
        key = self._keys.get(which)
        if key is None:
            derived = f"AWS4{secret_key}".encode()
            for part in (scope.date, scope.region, scope.service, "aws4_request"):
                derived = hmac.digest(derived, part.encode(), "sha256")
            if len(self._keys) >= _CACHED_KEYS_MAX:
                self._keys.clear()
            key = self._keys[which] = SigningKey(derived)
        return key


def timestamp_of(now_ns: int) -> str:
    """ISO 8601 basic, as in x-amz-date."""
    return datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).strftime("%Y%m%dT%H%M%SZ")


def uri_encode(text: str, *, keep_slash: bool) -> str:
    """Percent-encode all but RFC 3986's unreserved characters."""
    return quote(text, safe="/" if keep_slash else "")


def canonical_query(params: Sequence[tuple[str, str]]) -> str:
    """Encoded, then sorted by name and value."""
    if not params:
        return ""
    encoded = [(uri_encode(name, keep_slash=False), uri_encode(value, keep_slash=False)) for name, value in params]
    return "&".join(f"{name}={value}" for name, value in sorted(encoded))


def canonical_request(
    method: str,
    path: str,
    params: Sequence[tuple[str, str]],
    headers: Mapping[str, str],
    signed: Sequence[str],
    payload: str,
) -> str:
    """Source: "Task 1: Create a Canonical Request". `signed`: lower-case names, sorted, all in `headers`."""
    lines = "".join([f"{name}:{' '.join(headers[name].split())}\n" for name in signed])
    uri = path if _PLAIN_PATH.fullmatch(path) else uri_encode(path, keep_slash=True)
    return f"{method}\n{uri}\n{canonical_query(params)}\n{lines}\n{';'.join(signed)}\n{payload}"


def string_to_sign(timestamp: str, scope: Scope, canonical: str) -> str:
    return f"{ALGORITHM}\n{timestamp}\n{scope.text}\n{hashlib.sha256(canonical.encode()).hexdigest()}"


def sign(
    head: RequestHead, credentials: Credentials, region: str, now_ns: int, keys: SigningKeys
) -> tuple[dict[str, str], ChunkSigning]:
    """Headers to add to a request whose `host` and x-amz-* headers are set, and the signer of its chunks."""
    timestamp = timestamp_of(now_ns)
    scope = Scope(timestamp[:8], region)
    headers = {**head.headers, "x-amz-date": timestamp}
    signed = sorted(n for n in headers if n in ("host", "content-type", "content-md5") or n.startswith("x-amz-"))
    payload = headers["x-amz-content-sha256"]
    canonical = canonical_request(head.method, head.path, head.params(), headers, signed, payload)
    key = keys.get(credentials.access_key, credentials.secret_key, scope)
    signature = key.sign(string_to_sign(timestamp, scope, canonical))
    authorization = (
        f"{ALGORITHM} Credential={credentials.access_key}/{scope.text}, "
        f"SignedHeaders={';'.join(signed)}, Signature={signature}"
    )
    return (
        {"x-amz-date": timestamp, "authorization": authorization},
        ChunkSigning(key, timestamp, scope.text, signature),
    )


def presign(head: RequestHead, credentials: Credentials, region: str, now_ns: int, expires_s: int) -> str:
    """The query string of a presigned URL; `head.headers` (at least host) must be sent as they are."""
    timestamp = timestamp_of(now_ns)
    scope = Scope(timestamp[:8], region)
    signed = sorted(head.headers)
    params = [
        *head.params(),
        ("X-Amz-Algorithm", ALGORITHM),
        ("X-Amz-Credential", f"{credentials.access_key}/{scope.text}"),
        ("X-Amz-Date", timestamp),
        ("X-Amz-Expires", str(expires_s)),
        ("X-Amz-SignedHeaders", ";".join(signed)),
    ]
    canonical = canonical_request(head.method, head.path, params, head.headers, signed, Payload.UNSIGNED.value)
    key = SigningKeys().get(credentials.access_key, credentials.secret_key, scope)
    signature = key.sign(string_to_sign(timestamp, scope, canonical))
    return f"{canonical_query(params)}&X-Amz-Signature={signature}"


@quick
@dataclass(frozen=True, slots=True)
class _Claim:
    """What a request says about its signature, before it is believed."""

    access_key: str
    scope: Scope
    timestamp: str
    signed: _Signed
    signature: str
    payload: str
    params: Sequence[tuple[str, str]]
    expires_s: int | None  # presigned only


@quick
@dataclass(frozen=True, slots=True)
class _Signed:
    """SignedHeaders, taken apart."""

    listed: tuple[str, ...]
    names: frozenset[str]
    in_order: bool  # and each once


def _signed(text: str) -> _Signed:
    """Raises S3Error: what is too long is refused before it is kept."""
    if len(text) > CLAIM_CHARS_MAX or text.count(";") >= SIGNED_NAMES_MAX:
        raise S3Error(Code.AUTH_HEADER_MALFORMED, "There are too many signed headers.")
    listed = tuple(text.split(";"))
    names = frozenset(listed)
    return _Signed(listed, names, list(listed) == sorted(names))


class Verifier:
    """Checks signatures for one region (any, if None). `secret_of` gives the secret key of an access key, or None."""

    def __init__(self, secret_of: Callable[[str], str | None], region: str | None = "us-east-1") -> None:
        self._secret_of = secret_of
        self._region = region
        self._keys = SigningKeys()

    def verify(self, head: RequestHead, now_ns: int) -> Verified | None:
        """None for an anonymous request. Raises S3Error for everything that does not hold."""
        params = head.params()
        by_query = bool(params) and not _BY_QUERY.isdisjoint(dict(params))
        authorization = head.headers.get("authorization")
        if authorization is not None and by_query:
            raise S3Error(Code.INVALID_ARGUMENT, "Only one auth mechanism allowed.")
        if authorization is None and not by_query:
            return None
        claim = _from_query(head, params) if authorization is None else _from_header(head, params, authorization)
        self._check_scope(claim)
        _check_time(claim, now_ns)
        _check_signed_headers(head, claim)
        key = self._key(claim)
        canonical = canonical_request(
            head.method, head.path, claim.params, head.headers, claim.signed.listed, claim.payload
        )
        signature = key.sign(string_to_sign(claim.timestamp, claim.scope, canonical))
        if not hmac.compare_digest(signature.encode(), claim.signature.encode()):
            raise S3Error(Code.SIGNATURE_MISMATCH)
        payload, digest = payload_of(claim.payload)
        chunks = ChunkSigning(key, claim.timestamp, claim.scope.text, signature)
        return Verified(claim.access_key, payload, digest, chunks)

    def verify_form(self, fields: Mapping[str, str], now_ns: int) -> Verified:
        """The signature of a POST form, which is one of its policy. Raises S3Error.

        Source: "Authenticating requests in browser-based uploads using POST". The policy says itself when it expires.
        """
        if "awsaccesskeyid" in fields and "x-amz-algorithm" not in fields:  # SigV2
            raise _other_mechanism()
        for name in ("x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature"):
            if name not in fields:
                raise S3Error(Code.INVALID_ARGUMENT, f"Bucket POST must contain a field named '{name}'.")
        if fields["x-amz-algorithm"] != ALGORITHM:
            raise _other_mechanism()
        access_key, scope = _credential(fields["x-amz-credential"], Code.AUTH_QUERY_MALFORMED)
        timestamp, signature = fields["x-amz-date"], fields["x-amz-signature"]
        claim = _Claim(access_key, scope, timestamp, _signed(""), signature, Payload.UNSIGNED.value, (), PRESIGN_S_MAX)
        self._check_scope(claim)
        _check_time(claim, now_ns)
        key = self._key(claim)
        expected = key.sign(fields["policy"])
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise S3Error(Code.SIGNATURE_MISMATCH)
        return Verified(access_key, Payload.UNSIGNED, None, ChunkSigning(key, timestamp, scope.text, signature))

    def _key(self, claim: _Claim) -> SigningKey:
        secret = self._secret_of(claim.access_key)
        if secret is None:
            raise S3Error(Code.INVALID_ACCESS_KEY)
        return self._keys.get(claim.access_key, secret, claim.scope)

    def _check_scope(self, claim: _Claim) -> None:
        malformed = Code.AUTH_HEADER_MALFORMED if claim.expires_s is None else Code.AUTH_QUERY_MALFORMED
        if claim.scope.service != "s3":
            raise S3Error(malformed, "The service in the credential scope must be s3.")
        if self._region is not None and claim.scope.region != self._region:
            raise S3Error(
                malformed,
                f"The region in the credential scope is wrong; expecting '{self._region}'.",
                headers=(("x-amz-bucket-region", self._region),),  # botocore and s3cmd sign again for this one
                elements=(("Region", self._region),),
            )
        if claim.scope.date != claim.timestamp[:8]:
            raise S3Error(malformed, "The date in the credential scope is not that of the request.")


def payload_of(text: str) -> tuple[Payload, str | None]:
    """Read x-amz-content-sha256. Raises S3Error."""
    if text == _UNSIGNED:
        return Payload.UNSIGNED, None
    if len(text) == 64 and _HEX_DIGITS.issuperset(text):
        return Payload.SIGNED, text
    for kind in Payload:
        if text == kind.value and kind is not Payload.SIGNED:
            return kind, None
    raise S3Error(
        Code.INVALID_ARGUMENT,
        "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING-… value of SigV4, or a valid sha256 value.",
    )


def _other_mechanism() -> S3Error:
    """Clients know this answer by its text."""
    return S3Error(
        Code.INVALID_REQUEST, f"The authorization mechanism you have provided is not supported. Please use {ALGORITHM}."
    )


def _credential(text: str, malformed: Code) -> tuple[str, Scope]:
    parts = text.rsplit("/", 4)  # access keys may hold a slash
    if len(text) > CLAIM_CHARS_MAX or len(parts) != 5 or parts[4] != "aws4_request" or not parts[0]:
        raise S3Error(malformed, "The credential must be <access key>/<date>/<region>/s3/aws4_request.")
    return parts[0], Scope(parts[1], parts[2], parts[3])


def _from_header(head: RequestHead, params: Sequence[tuple[str, str]], authorization: str) -> _Claim:
    # All but the signature is the same in each request of a client, and the signature mostly stands last.
    said, _, signature = authorization.rpartition(_LAST)
    if "," in signature or not said or len(said) > _KEPT_CHARS_MAX:
        access_key, scope, signed, signature = _authorization(authorization)
    else:
        access_key, scope, signed, _ = _said(said)
        signature = signature.strip()
    timestamp = head.headers.get("x-amz-date") or _from_http_date(head.headers.get("date"))
    payload = head.headers.get("x-amz-content-sha256")
    if payload is None:
        raise S3Error(Code.INVALID_REQUEST, "Missing required header for this request: x-amz-content-sha256")
    return _Claim(access_key, scope, timestamp, signed, signature, payload, params, None)


@lru_cache(_CACHED_KEYS_MAX)
def _said(authorization: str) -> tuple[str, Scope, _Signed, str]:
    """As `_authorization`, of a header without its signature, which stood last."""
    return _authorization(f"{authorization}{_LAST}")


def _authorization(authorization: str) -> tuple[str, Scope, _Signed, str]:
    """Access key, scope, names of the signed headers, signature. Raises S3Error."""
    if len(authorization) > CLAIM_CHARS_MAX:
        raise S3Error(Code.AUTH_HEADER_MALFORMED)
    algorithm, _, rest = authorization.partition(" ")
    if algorithm != ALGORITHM:
        raise _other_mechanism()
    fields = dict([piece.strip().partition("=")[::2] for piece in rest.split(",")])
    if not fields.keys() >= _FIELDS:
        raise S3Error(Code.AUTH_HEADER_MALFORMED)
    access_key, scope = _credential(fields["Credential"], Code.AUTH_HEADER_MALFORMED)
    return access_key, scope, _signed(fields["SignedHeaders"]), fields["Signature"]


def _from_query(head: RequestHead, params: Sequence[tuple[str, str]]) -> _Claim:
    fields = dict(params)
    if "X-Amz-Algorithm" not in fields and "Signature" in fields:  # SigV2
        raise _other_mechanism()
    wanted = {"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders"}
    if not (wanted | {"X-Amz-Signature"}) <= fields.keys() or fields["X-Amz-Algorithm"] != ALGORITHM:
        raise S3Error(
            Code.AUTH_QUERY_MALFORMED,
            "Query-string authentication requires X-Amz-Algorithm=AWS4-HMAC-SHA256, X-Amz-Credential, X-Amz-Signature, "
            "X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires.",
        )
    access_key, scope = _credential(fields["X-Amz-Credential"], Code.AUTH_QUERY_MALFORMED)
    expires_s = number_of(fields["X-Amz-Expires"])
    if expires_s is None or not 1 <= expires_s <= PRESIGN_S_MAX:
        raise S3Error(Code.AUTH_QUERY_MALFORMED, f"X-Amz-Expires must be between 1 and {PRESIGN_S_MAX} seconds.")
    payload = head.headers.get("x-amz-content-sha256", fields.get("X-Amz-Content-Sha256", Payload.UNSIGNED.value))
    return _Claim(
        access_key,
        scope,
        fields["X-Amz-Date"],
        _signed(fields["X-Amz-SignedHeaders"]),
        fields["X-Amz-Signature"],
        payload,
        [pair for pair in params if pair[0] != "X-Amz-Signature"],
        expires_s,
    )


def _from_http_date(date: str | None) -> str:
    try:
        return datetime.strptime(date or "", "%a, %d %b %Y %H:%M:%S GMT").strftime("%Y%m%dT%H%M%SZ")
    except ValueError:
        raise S3Error(Code.ACCESS_DENIED, "AWS authentication requires a valid Date or x-amz-date header") from None


@lru_cache(256)
def signed_at_s(timestamp: str) -> float:
    """x-amz-date as seconds since 1970. Cached: strptime is slow, and requests of one second share theirs."""
    try:
        return datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise S3Error(Code.ACCESS_DENIED, "AWS authentication requires a valid Date or x-amz-date header") from None


def _check_time(claim: _Claim, now_ns: int) -> None:
    signed_s = signed_at_s(claim.timestamp)
    age_s = now_ns / 1e9 - signed_s
    if claim.expires_s is None:
        if abs(age_s) > SKEW_S_MAX:
            raise S3Error(Code.REQUEST_TIME_SKEWED)
    elif age_s > claim.expires_s:
        raise S3Error(Code.EXPIRED)
    elif age_s < -SKEW_S_MAX:
        raise S3Error(Code.ACCESS_DENIED, "Request is not valid yet")


def _check_signed_headers(head: RequestHead, claim: _Claim) -> None:
    names = claim.signed.names
    unsigned = [name for name in head.headers if name not in names and name.startswith("x-amz-")]
    if "host" not in names or unsigned:
        raise S3Error(Code.ACCESS_DENIED, "There were headers present in the request which were not signed")
    if not claim.signed.in_order or not names <= head.headers.keys():
        raise S3Error(Code.SIGNATURE_MISMATCH)
