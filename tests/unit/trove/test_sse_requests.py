"""Requests with encryption through the service of a node: headers, codes and texts as AWS gives them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from blake3 import blake3

from qss.s3 import inplace
from qss.s3.server import ServiceOptions
from tests.harness.s3_direct import Answer, Direct
from tests.harness.trove_node import node

SSE = "x-amz-server-side-encryption"
MANAGED = {SSE: "AES256"}
PART = 5 * 1024 * 1024
BODY = b"some bytes " * 20_000


def customer(number: int, prefix: str = SSE) -> dict[str, str]:
    key = bytes([number]) * 32
    return {
        f"{prefix}-customer-algorithm": "AES256",
        f"{prefix}-customer-key": base64.b64encode(key).decode(),
        f"{prefix}-customer-key-md5": base64.b64encode(hashlib.md5(key, usedforsecurity=False).digest()).decode(),
    }


def source(number: int) -> dict[str, str]:
    return customer(number, "x-amz-copy-source-server-side-encryption")


MINE, OTHER = customer(1), customer(2)
TOLD = {name: value for name, value in MINE.items() if not name.endswith("-key")}


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Direct]:
    opened = node(tmp_path_factory.mktemp("node"))
    found = Direct(opened.store)
    for bucket in ("bkt", "default"):
        found.bucket(bucket)
    found.put = lambda path, headers=None, body=BODY: found.ask("root", "PUT", path, body=body, headers=headers)
    asyncio.run(opened.store.set_encryption("default", encrypted=True))
    yield found
    asyncio.run(opened.aclose())


def said(answer: Answer) -> dict[str, str]:
    """What an answer says about encryption."""
    return {name: value for name, value in answer.headers.items() if name.startswith(SSE)}


def get(direct: Direct, path: str, headers: Mapping[str, str] | None = None, **query: str) -> Answer:
    return direct.ask("root", "GET", path, query, headers=headers)


@pytest.mark.parametrize(
    ("path", "put", "read", "told"),
    [
        ("/bkt/managed", MANAGED, {}, MANAGED),
        ("/default/managed", {}, {}, MANAGED),
        ("/bkt/mine", MINE, MINE, TOLD),
        ("/default/mine", MINE, MINE, TOLD),
        ("/bkt/plain", {}, {}, {}),
    ],
)
def test_put_get_head(direct: Direct, path: str, put: dict, read: dict, told: dict) -> None:
    stored = direct.put(path, {**put, "x-amz-sdk-checksum-algorithm": "SHA256"} | _checksum(BODY))
    assert (stored.status, said(stored)) == (200, told)
    md5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
    assert (stored.headers["etag"] == f'"{md5}"') == ("mine" not in path)
    got = get(direct, path, {**read, "x-amz-checksum-mode": "ENABLED"})
    assert (got.status, got.body, said(got)) == (200, BODY, told)
    assert got.headers["x-amz-checksum-sha256"] == _checksum(BODY)["x-amz-checksum-sha256"], "of the plain bytes"
    ranged = get(direct, path, {**read, "range": "bytes=65000-140000"})
    assert (ranged.status, ranged.body) == (206, BODY[65_000:140_001])
    assert ranged.headers["content-range"] == f"bytes 65000-140000/{len(BODY)}"
    spans = {inplace.HEADER: "0-99,70000-70099"}
    head = direct.ask("root", "HEAD", path, headers={**read, **spans})
    assert (head.status, said(head), head.headers["etag"]) == (200, told, stored.headers["etag"])
    assert head.headers[inplace.HEADER] == ",".join(
        blake3(each).hexdigest() for each in (BODY[:100], BODY[70_000:70_100])
    )
    wanted = {"x-amz-object-attributes": "ObjectSize,ETag"}
    assert get(direct, path, {**read, **wanted}, attributes="").xml.get("ObjectSize") == str(len(BODY))


def _checksum(body: bytes) -> dict[str, str]:
    return {"x-amz-checksum-sha256": base64.b64encode(hashlib.sha256(body).digest()).decode()}


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/bkt/k-mine", {}, (400, "InvalidRequest", "The correct parameters must be provided")),
        ("/bkt/k-mine", OTHER, (403, "AccessDenied", "")),
        ("/bkt/k-plain", MINE, (400, "InvalidRequest", "not applicable")),
        ("/bkt/k-managed", MINE, (400, "InvalidRequest", "not applicable")),
        ("/bkt/k-managed", MANAGED, (400, "InvalidArgument", "not supported for this operation")),
        ("/bkt/k-none", MINE, (404, "NoSuchKey", "")),
    ],
)
def test_reads_with_what_does_not_fit(direct: Direct, path: str, headers: dict, expected: tuple) -> None:
    for name, put in (("k-mine", MINE), ("k-plain", {}), ("k-managed", MANAGED)):
        direct.put(f"/bkt/{name}", put, b"x")
    status, code, text = expected
    got = get(direct, path, headers)
    assert (got.status, got.code) == (status, code)
    assert text in got.xml.get("Message")
    assert direct.ask("root", "HEAD", path, headers=headers).status == status
    wanted = {"x-amz-object-attributes": "ETag"}
    assert get(direct, path, {**headers, **wanted}, attributes="").status == status
    copied = {"x-amz-copy-source": path} | {
        name.replace(SSE, f"x-amz-copy-source-{SSE[6:]}"): value for name, value in headers.items() if name != SSE
    }
    if headers is not MANAGED:
        copy = direct.ask("root", "PUT", "/bkt/copy", headers=copied)
        assert (copy.status, copy.code) == (status, code)


def test_what_needs_no_key(direct: Direct) -> None:
    direct.put("/bkt/mine-tags", MINE, b"x")
    tags = b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
    assert direct.ask("root", "PUT", "/bkt/mine-tags", {"tagging": ""}, tags).status == 200
    assert b"<Key>a</Key>" in get(direct, "/bkt/mine-tags", tagging="").body
    assert get(direct, "/bkt/mine-tags", acl="").status == 200
    assert direct.ask("root", "DELETE", "/bkt/mine-tags").status == 204


NO_ALGORITHM = {name: value for name, value in MINE.items() if not name.endswith("algorithm")}
NO_KEY = {name: value for name, value in MINE.items() if not name.endswith("-key")}
NO_MD5 = {name: value for name, value in MINE.items() if not name.endswith("md5")}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({SSE: "aws:kms"}, (501, "NotImplemented", "KMS")),
        ({SSE: "aws:kms:dsse"}, (501, "NotImplemented", "KMS")),
        ({SSE: "aes256"}, (400, "InvalidEncryptionAlgorithmError", "AES256")),
        ({SSE: "AES256", f"{SSE}-aws-kms-key-id": "k"}, (400, "InvalidArgument", "aws:kms")),
        ({**MINE, **MANAGED}, (400, "InvalidArgument", "incompatible")),
        (NO_ALGORITHM, (400, "InvalidArgument", "valid encryption algorithm")),
        (NO_KEY, (400, "InvalidArgument", "appropriate secret key")),
        (NO_MD5, (400, "InvalidArgument", "MD5 of the secret key")),
        ({**MINE, f"{SSE}-customer-algorithm": "AES128"}, (400, "InvalidEncryptionAlgorithmError", "")),
        ({**MINE, f"{SSE}-customer-key": "short"}, (400, "InvalidArgument", "invalid for the specified algorithm")),
        ({**MINE, f"{SSE}-customer-key": "QUFB"}, (400, "InvalidArgument", "invalid for the specified algorithm")),
        ({**MINE, f"{SSE}-customer-key-md5": OTHER[f"{SSE}-customer-key-md5"]}, (400, "InvalidArgument", "MD5 hash")),
        ({**MINE, f"{SSE}-customer-key-md5": "ü"}, (400, "InvalidArgument", "MD5 hash")),
    ],
)
def test_writes_that_ask_for_nonsense(direct: Direct, headers: dict, expected: tuple) -> None:
    status, code, text = expected
    answers = [
        direct.put("/bkt/never", headers, b"x"),
        direct.ask("root", "POST", "/bkt/never", {"uploads": ""}, headers=headers),
        direct.ask("root", "PUT", "/bkt/never", headers={**headers, "x-amz-copy-source": "/bkt/k-plain"}),
    ]
    for answer in answers:
        assert (answer.status, answer.code) == (status, code)
        assert text in answer.xml.get("Message")
        assert MINE[f"{SSE}-customer-key"] not in answer.body.decode(), "a key is never told back"
    assert get(direct, "/bkt/never").code == "NoSuchKey"


def test_customers_keys_need_tls(tmp_path: Path) -> None:
    opened = node(tmp_path)
    strict, lenient = Direct(opened.store), Direct(opened.store, ServiceOptions(keys_over_http=True))
    strict.bucket("bkt")
    for method, headers in (("PUT", MINE), ("GET", MINE), ("PUT", {**source(1), "x-amz-copy-source": "/bkt/k"})):
        refused = strict.ask("root", method, "/bkt/k", headers=headers, secure=False)
        assert (refused.status, refused.code) == (400, "InvalidRequest")
        assert "secure connection" in refused.xml.get("Message")
    assert strict.ask("root", "PUT", "/bkt/k", headers=MANAGED, secure=False).status == 200
    assert lenient.ask("root", "PUT", "/bkt/k", headers=MINE, secure=False).status == 200
    assert lenient.ask("root", "GET", "/bkt/k", headers=MINE, secure=False).status == 200
    asyncio.run(opened.aclose())


KINDS = {"plain": ({}, {}, {}), "managed": (MANAGED, {}, {}), "mine": (MINE, MINE, source(1)),
         "other": (OTHER, OTHER, source(2))}  # fmt: skip


@pytest.mark.parametrize("origin", KINDS)
@pytest.mark.parametrize("target", KINDS)
def test_copies_between_all_kinds(direct: Direct, origin: str, target: str) -> None:
    put, _, by = KINDS[origin]
    direct.put(f"/bkt/from-{origin}", put)
    asked, read, _ = KINDS[target]
    copied = direct.ask("root", "PUT", "/bkt/to", headers={**asked, **by, "x-amz-copy-source": f"/bkt/from-{origin}"})
    assert copied.status == 200, copied.body
    got = get(direct, "/bkt/to", read)
    assert (got.status, got.body) == (200, BODY)
    assert said(copied) == said(got)
    md5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
    assert (got.headers["etag"] == f'"{md5}"') == (target in ("plain", "managed"))


def test_a_copy_onto_itself_may_change_the_encryption(direct: Direct) -> None:
    direct.put("/bkt/self")
    onto = {"x-amz-copy-source": "/bkt/self"}
    assert direct.ask("root", "PUT", "/bkt/self", headers=onto).code == "InvalidRequest"
    for step, read in ((MANAGED, {}), (MINE, MINE), ({**OTHER, **source(1)}, OTHER)):
        assert direct.ask("root", "PUT", "/bkt/self", headers={**onto, **step}).status == 200
        assert get(direct, "/bkt/self", read).body == BODY
    plain = {**onto, **source(2), "x-amz-metadata-directive": "REPLACE"}
    assert direct.ask("root", "PUT", "/bkt/self", headers=plain).status == 200
    assert (get(direct, "/bkt/self").body, said(get(direct, "/bkt/self"))) == (BODY, {})


@pytest.mark.parametrize("kind", ["managed", "mine"])
def test_uploads(direct: Direct, kind: str) -> None:
    asked, own, by = KINDS[kind]
    told = MANAGED if kind == "managed" else TOLD
    path = f"/bkt/parts-{kind}"
    direct.put("/bkt/for-part", OTHER)
    started = direct.ask("root", "POST", path, {"uploads": ""}, headers=asked)
    assert said(started) == told
    query = {"uploadId": started.xml.get("UploadId")}
    first = bytes(range(256)) * (PART // 256)
    one = direct.ask("root", "PUT", path, {**query, "partNumber": "1"}, first, own)
    assert (one.status, said(one)) == (200, told)
    copy = {**own, **source(2), "x-amz-copy-source": "/bkt/for-part", "x-amz-copy-source-range": "bytes=100-199"}
    two = direct.ask("root", "PUT", path, {**query, "partNumber": "2"}, headers=copy)
    assert (two.status, said(two)) == (200, told)
    if kind == "mine":
        for headers, status in (({}, 400), (OTHER, 403)):
            assert direct.ask("root", "PUT", path, {**query, "partNumber": "3"}, b"x", headers).status == status
    else:
        assert direct.ask("root", "PUT", path, {**query, "partNumber": "3"}, b"x", MINE).status == 400
    assert direct.ask("root", "PUT", path, {**query, "partNumber": "3"}, b"x", MANAGED).code == "InvalidArgument"
    listed = direct.ask("root", "GET", path, query).xml
    assert [part.get("Size") for part in listed.all("Part")] == [str(PART), "100"]
    parts = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{part.get('ETag')}</ETag></Part>"
        for number, part in enumerate(listed.all("Part"), 1)
    )
    document = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
    done = direct.ask("root", "POST", path, query, document)
    assert (done.status, said(done)) == (200, MANAGED if kind == "managed" else {})
    whole = first + BODY[100:200]
    got = get(direct, path, own)
    assert (got.body, said(got)) == (whole, told)
    assert get(direct, path, {**own, "range": f"bytes={PART - 5}-{PART + 4}"}).body == whole[PART - 5 : PART + 5]
    assert get(direct, path, own, partNumber="2").body == BODY[100:200]
    assert direct.ask("root", "PUT", "/bkt/whole", headers={**by, "x-amz-copy-source": path}).status == 200
    assert get(direct, "/bkt/whole").body == whole


def test_the_default_of_a_bucket(direct: Direct) -> None:
    ask = direct.ask
    direct.bucket("setting")
    nothing = ask("root", "GET", "/setting", {"encryption": ""})
    assert (nothing.status, nothing.code) == (404, "ServerSideEncryptionConfigurationNotFoundError")
    for algorithm, code in (("AES256", ""), ("aws:kms", "NotImplemented"), ("DES", "MalformedXML")):
        assert ask("root", "PUT", "/setting", {"encryption": ""}, _default(algorithm)).code == code
    for bad in (b"", b"<X/>", _default("AES256").replace(b"Rule", b"Rool"), _default("AES256").replace(b"SSE", b"S")):
        assert ask("root", "PUT", "/setting", {"encryption": ""}, bad).code == "MalformedXML"
    rule = ask("root", "GET", "/setting", {"encryption": ""}).xml.find("Rule")
    assert rule.find("ApplyServerSideEncryptionByDefault").get("SSEAlgorithm") == "AES256"
    assert said(direct.put("/setting/k")) == MANAGED
    assert ask("root", "DELETE", "/setting", {"encryption": ""}).status == 204
    assert ask("root", "DELETE", "/setting", {"encryption": ""}).status == 204
    assert said(direct.put("/setting/l")) == {}
    assert said(get(direct, "/setting/k")) == MANAGED, "what is stored stays as it is"
    assert ask("root", "PUT", "/nowhere", {"encryption": ""}, _default("AES256")).code == "NoSuchBucket"


def _default(algorithm: str) -> bytes:
    how = f"<ApplyServerSideEncryptionByDefault><SSEAlgorithm>{algorithm}</SSEAlgorithm>"
    return (
        f"<ServerSideEncryptionConfiguration><Rule>{how}</ApplyServerSideEncryptionByDefault>"
        "<BucketKeyEnabled>true</BucketKeyEnabled></Rule></ServerSideEncryptionConfiguration>"
    ).encode()


def test_policies_see_what_is_asked(direct: Direct) -> None:
    deny = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:*",'
        ' "Resource": "arn:aws:s3:::%s/*"}, {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject",'
        ' "Resource": "arn:aws:s3:::%s/*", "Condition": {"%s": {"s3:%s": "%s"}}}]}'
    )
    for bucket, test, key, value, fine in (
        ("only-managed", "StringNotEquals", SSE, "AES256", MANAGED),
        ("only-mine", "Null", f"{SSE}-customer-algorithm", "true", MINE),
        ("never-mine", "StringEquals", f"{SSE}-customer-algorithm", "AES256", MANAGED),
    ):
        direct.bucket(bucket, deny % (bucket, bucket, test, key, value))
        for headers in ({}, MANAGED, MINE):
            allowed = headers is fine or (bucket == "never-mine" and headers is not MINE)
            assert direct.put(f"/{bucket}/k", headers, b"x").status == (200 if allowed else 403), (bucket, headers)
            started = direct.ask("root", "POST", f"/{bucket}/k", {"uploads": ""}, headers=headers)
            assert started.status == (200 if allowed else 403)
