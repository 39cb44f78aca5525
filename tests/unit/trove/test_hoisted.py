"""Presigned URLs with headers in their query: they count as the headers they stand for, and only there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlencode

import pytest

from qss.s3.message import RequestHead
from qss.s3.sigv4 import Credentials, presign
from tests.harness.s3_direct import NOW_NS, SECRET, Answer, Direct, on_a_node

SSE = "x-amz-server-side-encryption"


@pytest.fixture
def direct(tmp_path: Path) -> Iterator[Direct]:
    yield from on_a_node(tmp_path)


def by_url(
    direct: Direct, method: str, path: str, query: Mapping[str, str], body: bytes = b"", more: str = ""
) -> Answer:
    """A request with a presigned URL and no header but what everybody sends. `more`: put behind what was signed."""
    headers = {"host": "trove.test"}
    head = RequestHead(method, path, urlencode(query), headers, True)
    signed = presign(head, Credentials("root", SECRET), "us-east-1", NOW_NS, 600)
    sent = {**headers, "content-length": str(len(body))}
    return direct.send(RequestHead(method, path, signed + more, sent, True, "192.0.2.7"), body)


def test_a_put(direct: Direct) -> None:
    said = {
        "x-amz-meta-who": "me ü", "X-Amz-Tagging": "a=b", "x-amz-storage-class": "STANDARD_IA", SSE: "AES256",
        "x-amz-checksum-crc32": "AAAAAA==", "x-amz-sdk-checksum-algorithm": "CRC32",
    }  # fmt: skip
    put = by_url(direct, "PUT", "/bkt/k", said, b"body")
    assert (put.status, put.headers[SSE]) == (200, "AES256"), put.body
    got = direct.ask("root", "GET", "/bkt/k")
    assert got.body == b"body", "the checksum of a body that was not there yet says nothing"
    assert (got.headers["x-amz-tagging-count"], got.headers["x-amz-storage-class"]) == ("1", "STANDARD_IA")
    assert got.headers["x-amz-meta-who"].startswith("=?utf-8?")
    assert by_url(direct, "PUT", "/bkt/l", {SSE: "aws:kms"}, b"x").code == "NotImplemented"
    assert by_url(direct, "PUT", "/bkt/l", {"x-amz-acl": "public-read"}, b"x").code == "AccessControlListNotSupported"
    assert direct.ask("root", "GET", "/bkt/l").code == "NoSuchKey"


def test_a_copy_is_a_copy(direct: Direct) -> None:
    direct.ask("root", "PUT", "/bkt/from", body=b"body")
    assert by_url(direct, "PUT", "/bkt/to", {"x-amz-copy-source": "/bkt/from"}).status == 200
    assert direct.ask("root", "GET", "/bkt/to").body == b"body"


def test_a_condition_is_a_condition(direct: Direct) -> None:
    direct.ask("root", "PUT", "/bkt/k", body=b"body")
    assert by_url(direct, "DELETE", "/bkt/k", {"x-amz-if-match-size": "5"}).code == "PreconditionFailed"
    assert by_url(direct, "DELETE", "/bkt/k", {"x-amz-if-match-size": "4"}).status == 204


def test_only_where_they_were_signed(direct: Direct) -> None:
    added = by_url(direct, "PUT", "/bkt/k", {}, b"x", more="&x-amz-meta-who=other")
    assert added.code == "SignatureDoesNotMatch"
    plain = direct.ask("root", "PUT", "/bkt/k", {"x-amz-meta-who": "me"}, b"x")
    assert plain.status == 200
    assert "x-amz-meta-who" not in direct.ask("root", "GET", "/bkt/k").headers, "no presigned URL"


def test_what_is_about_the_body_stays_out(direct: Direct) -> None:
    wrong = {"x-amz-decoded-content-length": "9", "x-amz-trailer": "x-amz-checksum-crc32"}
    assert by_url(direct, "PUT", "/bkt/k", wrong, b"body").status == 200
    assert direct.ask("root", "GET", "/bkt/k").body == b"body"
