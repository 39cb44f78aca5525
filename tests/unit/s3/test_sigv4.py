"""Signatures against AWS's published examples, and everything a verifier must refuse."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.s3.errors import Code, S3Error
from qss.s3.message import RequestHead
from qss.s3.sigv4 import (
    EMPTY_SHA256,
    ChunkSigning,
    Credentials,
    Payload,
    Scope,
    SigningKeys,
    Verifier,
    _said,
    presign,
    sign,
)

# "Authenticating Requests (AWS Signature Version 4)", Amazon S3 API reference
EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
NOW_NS = int(datetime(2013, 5, 24, tzinfo=UTC).timestamp()) * 10**9
HOST = {"host": "examplebucket.s3.amazonaws.com"}
S = 10**9


def signature(method: str, path: str, query: str, headers: dict[str, str]) -> str:
    head = RequestHead(method, path, query, {**HOST, **headers})
    extra, _ = sign(head, EXAMPLE, "us-east-1", NOW_NS, SigningKeys())
    return extra["authorization"].rpartition("Signature=")[2]


def verifier(region: str | None = "us-east-1") -> Verifier:
    return Verifier({EXAMPLE.access_key: EXAMPLE.secret_key}.get, region)


def signed(method: str = "GET", path: str = "/k", query: str = "", now_ns: int = NOW_NS, **headers: str) -> RequestHead:
    given_headers = {**HOST, "x-amz-content-sha256": EMPTY_SHA256, **headers}
    extra, _ = sign(RequestHead(method, path, query, given_headers), EXAMPLE, "us-east-1", now_ns, SigningKeys())
    return RequestHead(method, path, query, {**given_headers, **extra})


def changed(head: RequestHead, **changes: object) -> RequestHead:
    fields = {"method": head.method, "path": head.path, "query": head.query, "headers": head.headers, **changes}
    return RequestHead(**fields)  # type: ignore[arg-type]


def refused(head: RequestHead, now_ns: int = NOW_NS, region: str | None = "us-east-1") -> Code:
    with pytest.raises(S3Error) as caught:
        verifier(region).verify(head, now_ns)
    return caught.value.code


# -- published
def test_published_list_with_query() -> None:
    expected = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    assert signature("GET", "/", "max-keys=2&prefix=J", {"x-amz-content-sha256": EMPTY_SHA256}) == expected


def test_published_lifecycle() -> None:
    expected = "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
    assert signature("GET", "/", "lifecycle", {"x-amz-content-sha256": EMPTY_SHA256}) == expected


def test_published_presigned() -> None:
    query = presign(RequestHead("GET", "/test.txt", "", HOST), EXAMPLE, "us-east-1", NOW_NS, 86_400)
    assert query.endswith("X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404")
    found = verifier().verify(RequestHead("GET", "/test.txt", query, HOST), NOW_NS + 3600 * S)
    assert found is not None
    assert (found.access_key, found.payload) == (EXAMPLE.access_key, Payload.UNSIGNED)


def test_published_chunk_signatures() -> None:
    key = SigningKeys().get(EXAMPLE.access_key, EXAMPLE.secret_key, Scope("20130524", "us-east-1"))
    seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
    chunks = ChunkSigning(key, "20130524T000000Z", "20130524/us-east-1/s3/aws4_request", seed)
    import hashlib

    first = chunks.chunk(seed, hashlib.sha256(b"a" * 65_536).hexdigest())
    second = chunks.chunk(first, hashlib.sha256(b"a" * 1024).hexdigest())
    last = chunks.chunk(second, EMPTY_SHA256)
    assert first == "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"
    assert second == "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"
    assert last == "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"


# -- round trip
@given(
    path=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    query=st.lists(st.tuples(st.sampled_from("abc"), st.text(max_size=5))),
    metadata=st.text("ab \t", max_size=20),
)
def test_what_is_signed_verifies(path: str, query: list[tuple[str, str]], metadata: str) -> None:
    from urllib.parse import quote

    raw = "&".join(f"{name}={quote(value, safe='')}" for name, value in query)
    head = signed("PUT", f"/{path}", raw, **{"x-amz-meta-m": metadata})
    found = verifier().verify(head, NOW_NS)
    assert found is not None
    assert (found.payload, found.sha256) == (Payload.SIGNED, EMPTY_SHA256)


@given(at=st.integers(0, 63), digit=st.sampled_from("0123456789abcdef"))
def test_any_other_signature_is_refused(at: int, digit: str) -> None:
    head = signed()
    authorization = head.headers["authorization"]
    start = len(authorization) - 64
    if authorization[start + at] == digit:
        return
    forged = authorization[: start + at] + digit + authorization[start + at + 1 :]
    assert refused(changed(head, headers={**head.headers, "authorization": forged})) is Code.SIGNATURE_MISMATCH


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "PUT"},
        {"path": "/K"},
        {"path": "//k"},
        {"query": "acl"},
        {"headers": {**signed().headers, "host": "other"}},
        {"headers": {**signed().headers, "x-amz-content-sha256": "0" * 64}},
    ],
)
def test_what_is_signed_cannot_be_changed(changes: dict[str, object]) -> None:
    assert refused(changed(signed(), **changes)) is Code.SIGNATURE_MISMATCH


# -- refusals
def test_anonymous_is_none() -> None:
    assert verifier().verify(RequestHead("GET", "/", "", HOST), NOW_NS) is None


@pytest.mark.parametrize(("offset_s", "fine"), [(0, True), (899, True), (-899, True), (901, False), (-901, False)])
def test_clock_skew(offset_s: int, fine: bool) -> None:
    if fine:
        assert verifier().verify(signed(), NOW_NS + offset_s * S) is not None
    else:
        assert refused(signed(), NOW_NS + offset_s * S) is Code.REQUEST_TIME_SKEWED


@pytest.mark.parametrize(("after_s", "code"), [(60, None), (61, Code.EXPIRED), (-901, Code.ACCESS_DENIED)])
def test_presigned_expiry(after_s: int, code: Code | None) -> None:
    query = presign(RequestHead("GET", "/k", "", HOST), EXAMPLE, "us-east-1", NOW_NS, 60)
    head = RequestHead("GET", "/k", query, HOST)
    if code is None:
        assert verifier().verify(head, NOW_NS + after_s * S) is not None
    else:
        assert refused(head, NOW_NS + after_s * S) is code


def test_addresses_signed_by_sigv2_are_told_so() -> None:
    """s3cmd knows the text, and signs by SigV4 then."""
    head = RequestHead("GET", "/k", "AWSAccessKeyId=AKIA&Expires=1795279346&Signature=ShaGrm%3D", HOST)
    with pytest.raises(S3Error, match=r"you have provided is not supported\. Please use AWS4-HMAC-SHA256") as caught:
        verifier().verify(head, NOW_NS)
    assert caught.value.code is Code.INVALID_REQUEST


@pytest.mark.parametrize("expires", ["0", "604801", "-1", "x", "1e3", "٣"])
def test_presigned_bounds(expires: str) -> None:
    query = presign(RequestHead("GET", "/k", "", HOST), EXAMPLE, "us-east-1", NOW_NS, 60)
    head = RequestHead("GET", "/k", query.replace("X-Amz-Expires=60", f"X-Amz-Expires={expires}"), HOST)
    assert refused(head) is Code.AUTH_QUERY_MALFORMED


def test_an_unsigned_amz_header_is_refused() -> None:
    head = signed()
    assert refused(changed(head, headers={**head.headers, "x-amz-acl": "public"})) is Code.ACCESS_DENIED


def test_unknown_key() -> None:
    head = signed()
    authorization = head.headers["authorization"].replace(EXAMPLE.access_key, "AKIAOTHER")
    assert refused(changed(head, headers={**head.headers, "authorization": authorization})) is Code.INVALID_ACCESS_KEY


def test_region_and_service() -> None:
    assert refused(signed(), region="eu-west-1") is Code.AUTH_HEADER_MALFORMED
    assert verifier(None).verify(signed(), NOW_NS) is not None
    head = signed()
    authorization = head.headers["authorization"].replace("/s3/", "/sts/")
    assert (
        refused(changed(head, headers={**head.headers, "authorization": authorization})) is Code.AUTH_HEADER_MALFORMED
    )


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("AWS AKIA:sig", Code.INVALID_REQUEST),
        ("", Code.INVALID_REQUEST),
        ("AWS4-HMAC-SHA256 ", Code.AUTH_HEADER_MALFORMED),
        ("AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host, Signature=b", Code.AUTH_HEADER_MALFORMED),
        ("AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host, Signature=b", Code.AUTH_HEADER_MALFORMED),
    ],
)
def test_malformed(authorization: str, code: Code) -> None:
    assert refused(changed(signed(), headers={**signed().headers, "authorization": authorization})) is code


@given(authorization=st.text(max_size=80), date=st.text(max_size=20))
def test_nonsense_raises_nothing_else(authorization: str, date: str) -> None:
    for text in (authorization, f"AWS4-HMAC-SHA256 {authorization}"):
        head = changed(signed(), headers={**signed().headers, "authorization": text, "x-amz-date": date})
        with pytest.raises(S3Error):
            verifier().verify(head, NOW_NS)


def test_the_secret_does_not_show() -> None:
    assert EXAMPLE.secret_key not in repr(EXAMPLE)


# -- where the signature stands in its header
@pytest.mark.parametrize("order", ["CHS", "SHC", "HSC"])
def test_the_parts_of_the_header_come_in_any_order(order: str) -> None:
    head = signed()
    parts = dict(zip("CHS", head.headers["authorization"].partition(" ")[2].split(", "), strict=True))
    checks = verifier()
    for separator in (", ", ",", " , "):
        said = f"AWS4-HMAC-SHA256 {separator.join(parts[each] for each in order)}"
        again = changed(head, headers={**head.headers, "authorization": said})
        assert checks.verify(again, NOW_NS) == checks.verify(head, NOW_NS)


def test_a_name_that_only_ends_like_the_signature_is_none() -> None:
    head = signed()
    said = head.headers["authorization"].replace("Signature=", "XSignature=")
    assert refused(changed(head, headers={**head.headers, "authorization": said})) is Code.AUTH_HEADER_MALFORMED


def test_one_verifier_keeps_its_callers_apart() -> None:
    """What is remembered of one header must not answer for another: key, scope and names are each part of it."""
    one = verifier()
    head = signed()
    assert one.verify(head, NOW_NS) is not None
    text = head.headers["authorization"]
    for old, new, code in (
        (EXAMPLE.access_key, "AKIDOTHER", Code.INVALID_ACCESS_KEY),
        ("us-east-1", "eu-west-1", Code.AUTH_HEADER_MALFORMED),
        ("SignedHeaders=host;", "SignedHeaders=", Code.ACCESS_DENIED),
        (text[-1], "0" if text[-1] != "0" else "1", None),
    ):
        other = text[:-1] + new if code is None else text.replace(old, new)
        with pytest.raises(S3Error) as caught:
            one.verify(changed(head, headers={**head.headers, "authorization": other}), NOW_NS)
        assert caught.value.code is (code or Code.SIGNATURE_MISMATCH)
    assert one.verify(head, NOW_NS) is not None


def test_long_headers_of_strangers_are_not_kept() -> None:
    head = signed()
    text = head.headers["authorization"]
    many = ";".join(f"x-amz-meta-{number:060}" for number in range(40))
    before = _said.cache_info().currsize
    for access_key in ("AKIDONE", "AKIDTWO"):
        said = text.replace("SignedHeaders=", f"SignedHeaders={many};").replace(EXAMPLE.access_key, access_key)
        assert refused(changed(head, headers={**head.headers, "authorization": said})) is Code.SIGNATURE_MISMATCH
    assert _said.cache_info().currsize == before
