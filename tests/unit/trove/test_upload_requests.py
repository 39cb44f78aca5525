"""Uploads in parts through the service of a node: checksums of parts, and a completion whose answer was lost."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.harness.s3_direct import Answer, Direct, on_a_node

PART = 5 * 1024 * 1024
BODIES = (bytes(range(256)) * (PART // 256), b"the second part")


def sha256(body: bytes) -> str:
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


@pytest.fixture
def direct(tmp_path: Path) -> Iterator[Direct]:
    yield from on_a_node(tmp_path)


def start(direct: Direct, headers: Mapping[str, str] | None = None) -> dict[str, str]:
    started = direct.ask("root", "POST", "/bkt/k", {"uploads": ""}, headers=headers)
    return {"uploadId": started.xml.get("UploadId")}


def send(direct: Direct, query: dict[str, str]) -> bytes:
    """All parts; returns the document that completes the upload."""
    parts = ""
    for number, body in enumerate(BODIES, 1):
        headers = {"x-amz-checksum-sha256": sha256(body)}
        sent = direct.ask("root", "PUT", "/bkt/k", {**query, "partNumber": str(number)}, body, headers)
        assert sent.status == 200, sent.body
        parts += f"<Part><PartNumber>{number}</PartNumber><ETag>{sent.headers['etag']}</ETag>"
        parts += f"<ChecksumSHA256>{sha256(body)}</ChecksumSHA256></Part>"
    return f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()


def complete(direct: Direct, query: dict[str, str], document: bytes) -> Answer:
    return direct.ask("root", "POST", "/bkt/k", query, document)


def test_parts_tell_their_checksums(direct: Direct) -> None:
    query = start(direct, {"x-amz-checksum-algorithm": "SHA256"})
    document = send(direct, query)
    listed = direct.ask("root", "GET", "/bkt/k", query).xml
    assert (listed.get("ChecksumAlgorithm"), listed.get("ChecksumType")) == ("SHA256", "COMPOSITE")
    assert [part.get("ChecksumSHA256") for part in listed.all("Part")] == [sha256(body) for body in BODIES]
    uploads = direct.ask("root", "GET", "/bkt", {"uploads": ""}).xml
    assert [each.get("ChecksumAlgorithm") for each in uploads.all("Upload")] == ["SHA256"]
    assert complete(direct, query, document).status == 200
    wanted = {"x-amz-object-attributes": "ObjectParts,Checksum", "x-amz-part-number-marker": "1"}
    for headers, shown in ((dict(list(wanted.items())[:1]), BODIES), (wanted, BODIES[1:])):
        found = direct.ask("root", "GET", "/bkt/k", {"attributes": ""}, headers=headers).xml
        parts = list(found.find("ObjectParts").all("Part"))
        assert [part.get("ChecksumSHA256") for part in parts] == [sha256(body) for body in shown]
        assert [part.get("Size") for part in parts] == [str(len(body)) for body in shown]


def test_a_completion_may_be_sent_again(direct: Direct) -> None:
    query = start(direct, {"content-type": "text/x"})
    document = send(direct, query)
    first = complete(direct, query, document)
    again = complete(direct, query, document)
    assert (first.status, again.status, again.body) == (200, 200, first.body)
    assert direct.ask("root", "GET", "/bkt/k").body == b"".join(BODIES)
    other = document.replace(b"<PartNumber>2", b"<PartNumber>3")
    assert complete(direct, query, other).code == "NoSuchUpload"
    assert direct.ask("root", "POST", "/bkt/l", query, document).code == "NoSuchUpload"
    direct.ask("root", "PUT", "/bkt/k", body=b"something else")
    assert complete(direct, query, document).code == "NoSuchUpload", "what it made is not there any more"
    assert direct.ask("root", "GET", "/bkt/k").body == b"something else"


def test_a_completion_sent_again_names_the_version(direct: Direct) -> None:
    on = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    direct.ask("root", "PUT", "/bkt", {"versioning": ""}, on)
    query = start(direct)
    document = send(direct, query)
    answers = [complete(direct, query, document) for _ in range(2)]
    assert len({answer.headers["x-amz-version-id"] for answer in answers}) == 1
    assert len(list(direct.ask("root", "GET", "/bkt", {"versions": ""}).xml.all("Version"))) == 1


def test_an_aborted_upload_is_not_completed(direct: Direct) -> None:
    query = start(direct)
    document = send(direct, query)
    assert direct.ask("root", "DELETE", "/bkt/k", query).status == 204
    assert complete(direct, query, document).code == "NoSuchUpload"


@pytest.mark.parametrize(
    ("headers", "code"),
    [({"x-amz-storage-class": "CHEAP"}, "InvalidStorageClass"), ({"x-amz-write-offset-bytes": "0"}, "NotImplemented")],
)
def test_writes_that_would_mean_something_else(direct: Direct, headers: dict[str, str], code: str) -> None:
    assert direct.ask("root", "PUT", "/bkt/k", body=b"x", headers=headers).code == code
    assert direct.ask("root", "PUT", "/bkt/k", {"renameObject": ""}).code == "NotImplemented"
    assert direct.ask("root", "GET", "/bkt", {"session": ""}).code == "NotImplemented"
    assert direct.ask("root", "GET", "/bkt/k").code == "NoSuchKey"
    fine = {"x-amz-storage-class": "STANDARD_IA"}
    assert direct.ask("root", "PUT", "/bkt/k", body=b"x", headers=fine).status == 200
    assert direct.ask("root", "HEAD", "/bkt/k").headers["x-amz-storage-class"] == "STANDARD_IA"
