"""What must not be done as something else: deletes with a condition, redirects, buckets of another kind."""

from __future__ import annotations

import hashlib
import json

import pytest

from qss.s3.dates import http_date
from tests.harness.s3_direct import NOW_NS, Direct

NOW, LATER = http_date(NOW_NS), http_date(NOW_NS + 1_000_000_000)
SIZE, MODIFIED = "x-amz-if-match-size", "x-amz-if-match-last-modified-time"


@pytest.fixture
def direct() -> Direct:
    found = Direct()
    found.bucket("bkt")
    found.ask("root", "PUT", "/bkt/k", body=b"12345")
    return found


CASES = [
    ({SIZE: "5"}, 204, ""),
    ({SIZE: "4"}, 412, "PreconditionFailed"),
    ({SIZE: "many"}, 400, "InvalidArgument"),
    ({MODIFIED: NOW}, 204, ""),
    ({MODIFIED: LATER}, 412, "PreconditionFailed"),
    ({MODIFIED: "lately"}, 400, "InvalidArgument"),
    ({SIZE: "5", MODIFIED: LATER}, 412, "PreconditionFailed"),
    ({SIZE: "5", MODIFIED: NOW, "if-match": "*"}, 204, ""),
    ({SIZE: "5", "if-match": '"other"'}, 412, "PreconditionFailed"),
    ({"if-match": '"827ccb0eea8a706c4c34a16891f84e7b"'}, 204, ""),
]


@pytest.mark.parametrize(("headers", "status", "code"), CASES)
def test_one(direct: Direct, headers: dict[str, str], status: int, code: str) -> None:
    answer = direct.ask("root", "DELETE", "/bkt/k", headers=headers)
    assert (answer.status, answer.code) == (status, code)
    assert direct.ask("root", "HEAD", "/bkt/k").status == (404 if status == 204 else 200)


@pytest.mark.parametrize(("headers", "status", "code"), CASES)
def test_many(direct: Direct, headers: dict[str, str], status: int, code: str) -> None:
    names = {SIZE: "Size", MODIFIED: "LastModifiedTime", "if-match": "ETag"}
    said = "".join(f"<{names[name]}>{value}</{names[name]}>" for name, value in headers.items())
    direct.ask("root", "PUT", "/bkt/other", body=b"x")
    document = f"<Delete><Object><Key>k</Key>{said}</Object><Object><Key>other</Key></Object></Delete>"
    answer = direct.ask("root", "POST", "/bkt", {"delete": ""}, document.encode())
    if status == 400:
        assert (answer.status, answer.code) == (status, code)
        return
    assert answer.status == 200
    assert [error.get("Code") for error in answer.xml.all("Error")] == ([code] if code else [])
    assert direct.ask("root", "HEAD", "/bkt/k").status == (404 if status == 204 else 200)
    assert direct.ask("root", "HEAD", "/bkt/other").status == 404


@pytest.mark.parametrize("headers", [{SIZE: "5"}, {MODIFIED: NOW}, {"if-match": "*"}])
def test_what_is_not_there_meets_no_condition(direct: Direct, headers: dict[str, str]) -> None:
    assert direct.ask("root", "DELETE", "/bkt/none", headers=headers).code == "NoSuchKey"


def test_a_redirect_is_kept_and_not_copied(direct: Direct) -> None:
    name = "x-amz-website-redirect-location"
    assert direct.ask("root", "PUT", "/bkt/k", body=b"x", headers={name: "elsewhere"}).code == "InvalidRedirectLocation"
    assert direct.ask("root", "PUT", "/bkt/k", body=b"x", headers={name: "/else/where"}).status == 200
    assert direct.ask("root", "GET", "/bkt/k").headers[name] == "/else/where"
    for more, expected in (({}, None), ({name: "http://other/"}, "http://other/")):
        direct.ask("root", "PUT", "/bkt/to", headers={"x-amz-copy-source": "/bkt/k", **more})
        assert direct.ask("root", "HEAD", "/bkt/to").headers.get(name) == expected


@pytest.mark.parametrize(
    ("name", "value"), [("x-amz-storage-class", "GLACIER"), ("x-amz-website-redirect-location", "/else/where")]
)
def test_a_copy_onto_itself_may_change_what_is_no_metadata(direct: Direct, name: str, value: str) -> None:
    onto_itself = {"x-amz-copy-source": "/bkt/k"}
    assert direct.ask("root", "PUT", "/bkt/k", headers=onto_itself).code == "InvalidRequest"
    assert direct.ask("root", "PUT", "/bkt/k", headers={**onto_itself, name: value}).status == 200
    got = direct.ask("root", "GET", "/bkt/k")
    assert (got.body, got.headers[name]) == (b"12345", value)


@pytest.mark.parametrize(
    ("name", "inside", "code"),
    [
        ("zone", "<Location><Name>z</Name><Type>AvailabilityZone</Type></Location>", "NotImplemented"),
        ("zone", "<Bucket><Type>Directory</Type></Bucket>", "NotImplemented"),
        ("zone", "<Tags><Tag><Key>a</Key><Value>b</Value></Tag></Tags>", "NotImplemented"),
        ("zone--x-s3", "", "InvalidBucketName"),
        ("zone--table-s3", "", "InvalidBucketName"),
    ],
)
def test_buckets_of_another_kind_are_not_made(direct: Direct, name: str, inside: str, code: str) -> None:
    body = f"<CreateBucketConfiguration>{inside}</CreateBucketConfiguration>".encode()
    assert direct.ask("root", "PUT", f"/{name}", body=body).code == code
    assert direct.ask("root", "HEAD", f"/{name}").status == 404


@pytest.mark.parametrize(
    ("if_range", "part"),
    [
        ('"827ccb0eea8a706c4c34a16891f84e7b"', True),
        (NOW, True),
        ('"other"', False),
        ('W/"827ccb0eea8a706c4c34a16891f84e7b"', False),
        ("827ccb0eea8a706c4c34a16891f84e7b", False),
        (LATER, False),
        ("*", False),
    ],
)
def test_a_part_of_something_else_is_not_joined_to_what_a_client_has(direct: Direct, if_range: str, part: bool) -> None:
    for method in ("GET", "HEAD"):
        answer = direct.ask("root", method, "/bkt/k", headers={"range": "bytes=2-3", "if-range": if_range})
        assert answer.status == (206 if part else 200)
        assert answer.headers.get("content-range") == ("bytes 2-3/5" if part else None)
        assert method == "HEAD" or answer.body == (b"34" if part else b"12345")


def test_what_is_not_modified_says_what_it_is(direct: Direct) -> None:
    direct.ask("root", "PUT", "/bkt/k", body=b"12345", headers={"cache-control": "max-age=60", "content-type": "a/b"})
    whole = direct.ask("root", "GET", "/bkt/k")
    for method in ("GET", "HEAD"):
        same = direct.ask("root", method, "/bkt/k", headers={"if-none-match": whole.headers["etag"]})
        assert (same.status, same.body) == (304, b"")
        told = same.headers.keys() - {"x-amz-request-id"}
        assert told == {"etag", "last-modified", "cache-control"}
        assert {name: same.headers[name] for name in told} == {name: whole.headers[name] for name in told}


WRITES = json.dumps(
    {"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::open/*"}]}
)
IN_CHUNKS = {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "content-encoding": "aws-chunked"}
TRAILER = {"x-amz-decoded-content-length": "5", "x-amz-trailer": "x-amz-checksum-crc32"}


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({**IN_CHUNKS, **TRAILER}, b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n", ""),
        ({**IN_CHUNKS, **TRAILER}, b"5\r\nhollo\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n", "BadDigest"),
        ({**IN_CHUNKS, "x-amz-decoded-content-length": "5"}, b"5\r\nhello\r\n0\r\n\r\n", ""),
        (IN_CHUNKS, b"5\r\nhello\r\n0\r\n\r\n", "MissingContentLength"),
        ({"x-amz-content-sha256": hashlib.sha256(b"hello").hexdigest()}, b"hello", ""),
        ({"x-amz-content-sha256": hashlib.sha256(b"hollo").hexdigest()}, b"hello", "XAmzContentSHA256Mismatch"),
        ({"x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}, b"hello", "InvalidArgument"),
        ({"x-amz-content-sha256": "hello"}, b"hello", "InvalidArgument"),
    ],
)
def test_bodies_that_nobody_signs(direct: Direct, headers: dict[str, str], body: bytes, code: str) -> None:
    direct.bucket("open", WRITES)
    assert direct.ask(None, "PUT", "/open/k", body=body, headers=headers).code == code
    got = direct.ask("root", "GET", "/open/k")
    assert got.status == (404 if code else 200)
    if not code:
        assert (got.body, got.headers.get("content-encoding")) == (b"hello", None)
