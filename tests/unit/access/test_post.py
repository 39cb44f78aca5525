"""Uploads by a browser's form: the multipart reader, the policy's conditions, answers, and what must not come in."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.s3.errors import Code, S3Error
from qss.s3.exchange import Exchange
from qss.s3.forms import FIELDS_BYTES_MAX, FormReader, boundary_of
from qss.s3.message import RequestHead
from qss.s3.post import FORM_WHOLE_BYTES_MAX
from qss.s3.post_policy import read_post_policy
from tests.harness.s3_direct import NOW_NS, SECRET, Answer, Direct
from tests.harness.s3_server import memory_s3
from tests.harness.trove_node import node

BOUNDARY = "----browser7MA4YWxk"
SOON = "2023-11-14T23:00:00Z"  # NOW_NS is 22:13:20
STAMP = "20231114T221320Z"


def signing_key(secret: str = SECRET, date: str = STAMP[:8]) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (date, "us-east-1", "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def form(fields: dict[str, str], content: bytes | None, *, name: str = "photo.jpg", behind: bytes = b"") -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    if content is not None:
        head = f'Content-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: image/jpeg\r\n\r\n'
        parts.append(f"--{BOUNDARY}\r\n{head}".encode() + content + b"\r\n")
    return b"".join(parts) + behind + f"--{BOUNDARY}--\r\n".encode()


def signed(conditions: list[Any], fields: dict[str, str], *, who: str = "alice", expires: str = SOON) -> dict[str, str]:
    """Fields with policy and signature; conditions for what every form has are added."""
    credential = f"{who}/{STAMP[:8]}/us-east-1/s3/aws4_request"
    own = {"x-amz-algorithm": "AWS4-HMAC-SHA256", "x-amz-credential": credential, "x-amz-date": STAMP}
    document = {
        "expiration": expires,
        "conditions": [{"bucket": "bucket"}, *({k: v} for k, v in own.items()), *conditions],
    }
    policy = base64.b64encode(json.dumps(document).encode()).decode()
    signature = hmac.new(signing_key(), policy.encode(), hashlib.sha256).hexdigest()
    return {**fields, **own, "policy": policy, "x-amz-signature": signature}


def post(
    direct: Direct, body: bytes, path: str = "/bucket", exchange: Exchange | None = None, **headers: str
) -> Answer:
    fields = {
        "host": "trove.test",
        "content-type": f"multipart/form-data; boundary={BOUNDARY}",
        "content-length": str(len(body)),
        **headers,
    }
    return direct.send(RequestHead("POST", path, "", fields, True, "192.0.2.7"), body, exchange)


@pytest.fixture
def direct() -> Direct:
    found = Direct()
    found.bucket("bucket")
    statement = {"Effect": "Allow", "Action": ["s3:PutObject", "s3:PutObjectTagging"], "Resource": "*"}
    found.users.documents["alice"] = [json.dumps({"Version": "2012-10-17", "Statement": [statement]})]
    return found


KEY = ["starts-with", "$key", "up/"]


def stored(direct: Direct, key: str) -> bytes:
    return direct.backend.buckets["bucket"].versions[key][0].data


# -- what works
def test_a_form_with_policy(direct: Direct) -> None:
    fields = {
        "key": "up/${filename}",
        "Content-Type": "image/jpeg",
        "x-amz-meta-who": "me",
        "tagging": "<Tagging><TagSet><Tag><Key>a</Key><Value>b&amp;c</Value></Tag></TagSet></Tagging>",
        "x-ignore-this": "1",
    }
    conditions = [
        KEY,
        ["starts-with", "$Content-Type", "image/"],
        {"x-amz-meta-who": "me"},
        ["starts-with", "$tagging", ""],
        ["content-length-range", 1, 100],
    ]
    answer = post(direct, form(signed(conditions, fields), b"content\r\n--not the end"))
    assert (answer.status, answer.body) == (204, b"")
    (found,) = direct.backend.buckets["bucket"].versions["up/photo.jpg"]
    info, data = found.info, found.data
    assert data == b"content\r\n--not the end"
    assert answer.headers["etag"] == f'"{hashlib.md5(data).hexdigest()}"'
    assert answer.headers["location"] == "https://trove.test/bucket/up/photo.jpg"
    assert info.attributes.headers["content-type"] == "image/jpeg"
    assert info.attributes.metadata == {"who": "me"}
    assert info.attributes.tags == (("a", "b&c"),)


@pytest.mark.parametrize(
    ("fields", "status", "location"),
    [
        ({"success_action_status": "200"}, 200, "https://trove.test/bucket/up/k"),
        ({"success_action_status": "201"}, 201, "https://trove.test/bucket/up/k"),
        ({"success_action_status": "404"}, 204, "https://trove.test/bucket/up/k"),
        ({"success_action_redirect": "https://site.example/done?x=1"}, 303,
         "https://site.example/done?x=1&bucket=bucket&key=up%2Fk&etag=%22"),
        ({"success_action_redirect": "javascript:alert(1)"}, 204, "https://trove.test/bucket/up/k"),
        ({"success_action_redirect": "https://a\r\nset-cookie: x"}, 204, "https://trove.test/bucket/up/k"),
    ],
)  # fmt: skip
def test_answers(direct: Direct, fields: dict[str, str], status: int, location: str) -> None:
    covering = [["starts-with", f"${name}", ""] for name in fields]
    answer = post(direct, form(signed([KEY, *covering], {"key": "up/k", **fields}), b"x"))
    assert answer.status == status
    assert answer.headers["location"].startswith(location)
    if status == 201:
        assert (answer.xml.name, answer.xml.get("Key"), answer.xml.get("Bucket")) == ("PostResponse", "up/k", "bucket")


def test_anonymous_where_the_bucket_says_so(direct: Direct) -> None:
    assert post(direct, form({"key": "k"}, b"x")).code == "AccessDenied"
    statement = {"Effect": "Allow", "Principal": "*", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::bucket/in/*"}
    document = json.dumps({"Statement": [statement]}).encode()
    assert direct.ask("root", "PUT", "/bucket", {"policy": ""}, document).status == 204
    assert post(direct, form({"key": "in/k"}, b"x")).status == 204
    assert post(direct, form({"key": "k"}, b"x")).code == "AccessDenied"
    assert post(direct, form({"key": "in/k", "acl": "public-read"}, b"x")).code == "AccessDenied", "needs PutObjectAcl"


@pytest.mark.parametrize("size", [0, 1, 65_536, FORM_WHOLE_BYTES_MAX, FORM_WHOLE_BYTES_MAX + 70_000])
def test_files_of_every_size(direct: Direct, size: int) -> None:
    content = bytes(number % 251 for number in range(251)) * (size // 251 + 1)
    content = content[:size]
    assert post(direct, form(signed([KEY], {"key": "up/k"}), content)).status == 204
    assert stored(direct, "up/k") == content


def test_fields_behind_the_file_are_not_looked_at(direct: Direct) -> None:
    behind = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="key"\r\n\r\nelsewhere\r\n'.encode()
    assert post(direct, form(signed([KEY], {"key": "up/k"}), b"abc", behind=behind)).status == 204
    assert stored(direct, "up/k") == b"abc"
    big = bytes(FORM_WHOLE_BYTES_MAX)
    assert post(direct, form(signed([KEY], {"key": "up/k"}), big, behind=behind)).code == "IncompleteBody"
    assert stored(direct, "up/k") == b"abc"


# -- what does not
def wrong_signature(fields: dict[str, str]) -> dict[str, str]:
    return {**fields, "x-amz-signature": "0" * 64}


def other_policy(fields: dict[str, str]) -> dict[str, str]:
    return {**fields, "policy": base64.b64encode(json.dumps({"expiration": SOON, "conditions": []}).encode()).decode()}


REFUSED: list[tuple[str, Any, str]] = [
    ("wrong signature", lambda: wrong_signature(signed([KEY], {"key": "up/k"})), "SignatureDoesNotMatch"),
    ("another policy", lambda: other_policy(signed([KEY], {"key": "up/k"})), "SignatureDoesNotMatch"),
    ("unknown key", lambda: signed([KEY], {"key": "up/k"}, who="nobody"), "InvalidAccessKeyId"),
    ("expired", lambda: signed([KEY], {"key": "up/k"}, expires="2023-11-14T22:13:20Z"), "AccessDenied"),
    ("key not covered", lambda: signed([], {"key": "up/k"}), "AccessDenied"),
    ("key elsewhere", lambda: signed([KEY], {"key": "down/k"}), "AccessDenied"),
    ("key elsewhere by its file name", lambda: signed([{"key": "up/k"}], {"key": "${filename}"}), "AccessDenied"),
    ("extra field", lambda: signed([KEY], {"key": "up/k", "x-amz-meta-a": "b"}), "AccessDenied"),
    ("acl not covered", lambda: signed([KEY], {"key": "up/k", "acl": "public-read"}), "AccessDenied"),
    ("field lacking", lambda: signed([KEY, {"x-amz-meta-a": "b"}], {"key": "up/k"}), "AccessDenied"),
    ("one type of several", lambda: signed([KEY, ["starts-with", "$content-type", "image/"]],
     {"key": "up/k", "content-type": "image/png,text/html"}), "AccessDenied"),
    ("too small", lambda: signed([KEY, ["content-length-range", 4, 10]], {"key": "up/k"}), "EntityTooSmall"),
    ("too large", lambda: signed([KEY, ["content-length-range", 0, 2]], {"key": "up/k"}), "EntityTooLarge"),
    ("two ranges", lambda: signed([KEY, ["content-length-range", 0, 9], ["content-length-range", 0, 2]],
     {"key": "up/k"}), "EntityTooLarge"),
    ("no policy", lambda: {"key": "up/k", "x-amz-signature": "0"}, "InvalidArgument"),
    ("no signature", lambda: {k: v for k, v in signed([KEY], {"key": "up/k"}).items() if k != "x-amz-signature"},
     "InvalidArgument"),
    ("SigV2", lambda: {"key": "up/k", "policy": "e30=", "AWSAccessKeyId": "alice", "signature": "x"}, "InvalidRequest"),
    ("no key", lambda: signed([KEY], {}), "InvalidArgument"),
    ("empty key", lambda: signed([["starts-with", "$key", ""]], {"key": ""}), "InvalidArgument"),
    ("long key", lambda: signed([KEY], {"key": "up/" + "k" * 1024}), "KeyTooLongError"),
    ("wrong checksum", lambda: signed([KEY, ["starts-with", "$x-amz-checksum-crc32", ""]],
     {"key": "up/k", "x-amz-checksum-crc32": "AAAAAA=="}), "BadDigest"),
    ("public ACL", lambda: signed([KEY, {"acl": "public-read"}], {"key": "up/k", "acl": "public-read"}),
     "AccessDenied"),
    ("fields without end", lambda: {"key": "k" * (FIELDS_BYTES_MAX + 1)}, "MaxPostPreDataLengthExceededError"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "code"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refused(direct: Direct, fields: Any, code: str) -> None:
    assert post(direct, form(fields(), b"abc")).code == code
    assert direct.backend.buckets["bucket"].versions == {}


def test_who_signs_a_form_needs_the_right_to_put(direct: Direct) -> None:
    direct.users.documents["bob"] = []
    seen = Exchange()
    assert post(direct, form(signed([KEY], {"key": "up/k"}, who="bob"), b"x"), exchange=seen).code == "AccessDenied"
    assert (seen.operation, seen.user) == ("PostObject", "bob"), "the access log says who was denied"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "MalformedPOSTRequest"),
        (b"x" * 100, "MalformedPOSTRequest"),
        (f"--{BOUNDARY}--\r\n".encode(), "IncorrectNumberOfFilesInPostRequest"),
        (form({"key": "k"}, None), "IncorrectNumberOfFilesInPostRequest"),
        (f"--{BOUNDARY}\r\nContent-Disposition: form-data\r\n\r\nx\r\n--{BOUNDARY}--".encode(), "MalformedPOSTRequest"),
        (form({"key": "k"}, b"x")[:-40], "MalformedPOSTRequest"),
        (form({"key": "k"}, b"x").replace(b'"key"', b'"Key"', 1).replace(b'name="file"', b'name="KEY"'),
         "MalformedPOSTRequest"),
        (form({"key": "\0"}, b"x"), "InvalidURI"),
        (form({"key": "k"}, b"x").replace(b"\r\n\r\nk\r\n", b"\r\n\r\n\xff\r\n"), "MalformedPOSTRequest"),
    ],
)  # fmt: skip
def test_malformed_forms(direct: Direct, body: bytes, code: str) -> None:
    assert post(direct, body).code == code


def test_what_is_no_form_at_all(direct: Direct) -> None:
    assert post(direct, b"x", **{"content-type": "text/plain"}).code == "PreconditionFailed"
    assert post(direct, b"x", **{"content-type": "multipart/form-data"}).code == "MalformedPOSTRequest"
    assert post(direct, b"x", **{"content-length": "many"}).code == "MissingContentLength"
    assert post(direct, form(signed([KEY], {"key": "up/k"}), b"x"), "/nowhere").code == "AccessDenied"


@pytest.mark.parametrize(
    "document",
    [
        "no",
        {},
        {"expiration": SOON},
        {"expiration": "soon", "conditions": []},
        {"expiration": SOON, "conditions": {}},
        {"expiration": SOON, "conditions": ["x"]},
        {"expiration": SOON, "conditions": [{"a": 1}]},
        {"expiration": SOON, "conditions": [["like", "$key", "a"]]},
        {"expiration": SOON, "conditions": [["eq", "key", "a"]]},
        {"expiration": SOON, "conditions": [["content-length-range", "a", 1]]},
        {"expiration": SOON, "conditions": [["content-length-range", 1]]},
    ],
)
def test_policies_to_refuse(document: Any) -> None:
    encoded = base64.b64encode(json.dumps(document).encode()).decode()
    with pytest.raises(S3Error) as caught:
        read_post_policy(encoded)
    assert caught.value.code is Code.INVALID_POLICY_DOCUMENT


# -- the reader
async def _pieces(data: bytes, cuts: list[int]) -> AsyncIterator[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in itertools.pairwise(edges):
        yield data[start:stop]


@given(
    fields=st.dictionaries(st.sampled_from(["a", "b", "c"]), st.text(st.sampled_from("xé\r\n-"), max_size=8)),
    content=st.binary(max_size=40) | st.sampled_from([b"\r\n--", b"\r\n--" + BOUNDARY[:-1].encode(), b"\r\n\r\n"]),
    cuts=st.lists(st.integers(0, 10_000), max_size=6),
)
def test_a_form_comes_apart_wherever_it_is_cut(fields: dict[str, str], content: bytes, cuts: list[int]) -> None:
    body = form(fields, content)

    async def read() -> tuple[dict[str, str], bytes, int]:
        reader = FormReader(_pieces(body, cuts), BOUNDARY.encode())
        found, file = await reader.fields()
        data = b"".join([bytes(chunk) async for chunk in reader.content()])
        return dict(found), data, len(body) - file.at - reader.tail_bytes

    assert asyncio.run(read()) == (fields, content, len(content))


@given(content_type=st.text(max_size=30))
def test_boundaries_raise_nothing_else(content_type: str) -> None:
    for text in (content_type, f"multipart/form-data;{content_type}"):
        try:
            assert boundary_of(text)
        except (S3Error, UnicodeEncodeError):
            continue


def test_as_boto3_makes_them_and_httpx_sends_them() -> None:
    import httpx
    from botocore.client import Config

    with memory_s3() as server:
        s3 = server.boto3(config=Config(signature_version="s3v4"))
        s3.create_bucket(Bucket="bucket")
        made = s3.generate_presigned_post(
            "bucket",
            "up/${filename}",
            Fields={"acl": "private", "success_action_status": "201"},
            Conditions=[{"acl": "private"}, {"success_action_status": "201"}, ["content-length-range", 0, 3_000_000]],
        )
        content = b"abc" * 700_000
        answer = httpx.post(made["url"], data=made["fields"], files={"file": ("ä b.bin", content)})
        assert answer.status_code == 201, answer.text
        ((key, (found,)),) = server.backend.buckets["bucket"].versions.items()
        assert found.data == content
        assert key.startswith("up/")
        made["fields"]["key"] = "elsewhere"
        answer = httpx.post(made["url"], data=made["fields"], files={"file": ("x", b"x")})
        assert (answer.status_code, "AccessDenied" in answer.text) == (403, True)


assert NOW_NS == 1_700_000_000_000_000_000


def test_a_form_may_ask_for_encryption(tmp_path: Path) -> None:
    """Of a node. Its fields are those of a PUT's headers, and a policy has to cover them."""
    opened = node(tmp_path)
    direct = Direct(opened.store)
    direct.bucket("bucket")
    key = bytes(32)
    sse = "x-amz-server-side-encryption"
    md5 = base64.b64encode(hashlib.md5(key, usedforsecurity=False).digest()).decode()
    mine = {f"{sse}-customer-algorithm": "AES256", f"{sse}-customer-key": base64.b64encode(key).decode()}
    mine[f"{sse}-customer-key-md5"] = md5
    told_back = {each: mine[each] for each in mine if not each.endswith("-key")}
    for name, fields, told in (("m", {sse: "AES256"}, {sse: "AES256"}), ("c", mine, told_back)):
        covering = [["starts-with", f"${each}", ""] for each in fields]
        sent = form(signed([KEY, *covering], {"key": f"up/{name}", **fields}, who="root"), b"content")
        answer = post(direct, sent)
        assert (answer.status, {k: v for k, v in answer.headers.items() if k.startswith(sse)}) == (204, told)
        read = direct.ask("root", "GET", f"/bucket/up/{name}", headers=mine if name == "c" else {})
        assert read.body == b"content"
        uncovered = form(signed([KEY], {"key": "up/x", **fields}, who="root"), b"content")
        assert post(direct, uncovered).code == "AccessDenied"
    asyncio.run(opened.aclose())
