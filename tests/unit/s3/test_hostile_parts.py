"""Bytes made to cost much or to be understood in two ways, straight on the pure parts. Each row says the attack."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from urllib.parse import urlencode

import pytest

from qss.errors import CorruptData
from qss.s3 import strict_json
from qss.s3.border import HEAD_BYTES_MAX, refusal
from qss.s3.errors import S3Error
from qss.s3.message import RequestHead
from qss.s3.patience import RATE_BYTES_MIN, USUAL, Patience, Waiting, shared
from qss.s3.post_policy import read_post_policy
from qss.s3.xml import ELEMENTS_MAX, TAG_BYTES_MAX, parse
from qss.trove.routes import Route, body_of, read_body
from tests.harness.s3_direct import Direct

HOST = ("host", "a:9000")


# -- heads
HEADS = [
    ("two lengths by coding", [HOST, ("transfer-encoding", "chunked"), ("content-length", "5")], 400),
    ("two codings", [HOST, ("transfer-encoding", "chunked"), ("transfer-encoding", "identity")], 400),
    ("coding we do not undo", [HOST, ("transfer-encoding", "gzip, chunked")], 400),
    ("chunked twice", [HOST, ("transfer-encoding", "chunked, chunked")], 400),
    ("coding with a parameter", [HOST, ("transfer-encoding", "chunked;a=b")], 400),
    ("two lengths", [HOST, ("content-length", "5"), ("content-length", "6")], 400),
    ("the same length twice", [HOST, ("content-length", "5"), ("content-length", "5")], 400),
    ("two hosts", [HOST, ("host", "b")], 400),
    ("no host", [], 400),
    ("empty host", [("host", "")], 400),
    ("host with a path", [("host", "a/b")], 400),
    ("host with a user", [("host", "a@b")], 400),
    ("host with a comma", [("host", "a, b")], 400),
    ("host that is no ASCII", [("host", "ä")], 400),
    ("two authorizations", [HOST, ("authorization", "a"), ("authorization", "b")], 400),
    ("two dates", [HOST, ("x-amz-date", "a"), ("x-amz-date", "b")], 400),
    ("two hashes of the body", [HOST, ("x-amz-content-sha256", "a"), ("x-amz-content-sha256", "b")], 400),
    ("two sources of a copy", [HOST, ("x-amz-copy-source", "a/b"), ("x-amz-copy-source", "c/d")], 400),
    ("two decoded lengths", [HOST, *[("x-amz-decoded-content-length", "1")] * 2], 400),
    ("two types", [HOST, ("content-type", "a/b"), ("content-type", "c/d")], 400),
    ("a huge head", [HOST, ("x-a", "a" * HEAD_BYTES_MAX)], 431),
    ("many small headers", [HOST, *[(f"x-{n}", "a" * 700) for n in range(100)]], 431),
]


@pytest.mark.parametrize(("headers", "status"), [row[1:] for row in HEADS], ids=[row[0] for row in HEADS])
def test_heads_that_could_be_read_in_two_ways_are_refused(headers, status) -> None:
    found = refusal("1.1", 10, headers)
    assert found is not None
    assert found.status == status


def test_plain_heads_pass() -> None:
    assert refusal("1.1", 10, [HOST, ("content-length", "5"), ("x-a", "b"), ("x-a", "c")]) is None
    assert refusal("1.1", 10, [("host", "[::1]:9000"), ("transfer-encoding", "Chunked")]) is None
    assert refusal("1.1", 10, [("host", "bucket.s3.example.com")]) is None
    assert refusal("1.0", 10, []) is None
    assert refusal("1.1", HEAD_BYTES_MAX, [HOST]) is not None, "the target counts"


# -- patience
def test_a_client_has_its_wait_and_a_second_for_each_kibibyte() -> None:
    waiting = Waiting(replace(USUAL, wait_s=10.0))
    assert waiting.allowance_s == 10
    waiting.passed(0, 4.0)
    assert waiting.allowance_s == 6
    waiting.passed(2 * RATE_BYTES_MIN, 1.0)
    assert waiting.allowance_s == 7
    waiting.passed(1, 1000.0)
    assert waiting.allowance_s == 0, "it never becomes a negative time, which would be for ever"


def test_a_drip_ends_though_each_piece_comes_in_time() -> None:
    waiting, seconds = Waiting(replace(USUAL, wait_s=10.0)), 0
    while waiting.allowance_s > 1:
        waiting.passed(1, 1.0)
        seconds += 1
        assert seconds < 12


def test_connections_of_all_fronts_fit_into_the_files_a_process_may_open() -> None:
    few, many = replace(USUAL, connections_max=256), replace(USUAL, connections_max=10_240)
    told = shared({"s3": many, "files": many, "admin": few}, 20_000)
    assert told["admin"].connections_max == 256
    assert told["s3"].connections_max == told["files"].connections_max == (20_000 - 1024 - 256) // 2
    assert shared({"s3": many, "admin": few}, 20_000)["s3"].connections_max == 10_240
    assert shared({"s3": many}, 1024)["s3"].connections_max == 64
    assert shared({"s3": Patience()}, 10**6)["s3"] == Patience()


# -- XML
DEEP = b"<a>" * 100 + b"</a>" * 100
BOMBS = [
    ("entities that grow", b'<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>'),
    ("an external entity", b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'),
    ("a parameter entity", b'<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1/"> %x;]><a/>'),
    ("an external DTD", b'<!DOCTYPE a SYSTEM "http://127.0.0.1/a.dtd"><a/>'),
    ("a DOCTYPE alone", b"<!DOCTYPE a><a/>"),
    ("an entity nobody declared", b"<a>&x;</a>"),
    ("nesting", DEEP),
    ("a million elements", b"<a>" + b"<b/>" * 1_000_000 + b"</a>"),
    ("elements just over", b"<a>" + b"<b/>" * ELEMENTS_MAX + b"</a>"),
    ("many attributes", b"<a " + b" ".join(b"b%d=''" % n for n in range(200_000)) + b"/>"),
    ("one huge attribute", b"<a b='" + b"x" * (2 * TAG_BYTES_MAX) + b"'/>"),
    ("a huge name", b"<" + b"a" * (2 * TAG_BYTES_MAX) + b"/>"),
    ("an attribute twice", b"<a b='' b=''/>"),
    ("UTF-16 with a DOCTYPE", '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a><a/>'.encode("utf-16")),
    ("UTF-7", b'<?xml version="1.0" encoding="UTF-7"?>+ADw-a+AD4APA-/a+AD4-'),
    ("a codec that is no text", b'<?xml version="1.0" encoding="zlib"?><a/>'),
    ("an encoding nobody knows", b'<?xml version="1.0" encoding="x-evil"?><a/>'),
    ("bytes that are no UTF-8", b"<a>\xff\xfe</a>"),
    ("overlong UTF-8", b"<a>\xc0\xaf</a>"),
    ("half a character", b"<a>\xed\xa0\x80</a>"),
    ("NUL", b"<a>\0</a>"),
    ("NUL by number", b"<a>&#0;</a>"),
    ("cut off", b"<a><b>"),
    ("two roots", b"<a/><b/>"),
    ("nothing", b""),
    ("only spaces", b" " * 1000),
]


@pytest.mark.parametrize("data", [row[1] for row in BOMBS], ids=[row[0] for row in BOMBS])
def test_xml_made_to_harm_is_refused(data) -> None:
    with pytest.raises(CorruptData):
        parse(data)


def test_text_between_many_elements_is_put_together_once() -> None:
    """It was quadratic: 4 MiB of it kept a server busy for half a minute."""
    root = parse(b"<a>" + b"x<b/>" * (ELEMENTS_MAX - 1) + b"y</a>")
    assert root.text == "x" * (ELEMENTS_MAX - 1) + "y"
    assert len(root.children) == ELEMENTS_MAX - 1


# -- JSON
JSONS = [
    ("deep lists", b"[" * 100_000),
    ("deep objects", b'{"a":' * 100_000),
    ("a number too long to read", b"9" * 10_000),
    ("a name twice", b'{"a": 1, "a": 2}'),
    ("NaN", b"NaN"),
    ("Infinity", b"[-Infinity]"),
    ("half a character", b'"\\ud800"'),
    ("half a character as a name", b'{"\\udfff": 1}'),
    ("half a character in bytes", b'"\xed\xa0\x80"'),
    ("bytes that are no UTF-8", b'"\xff"'),
    ("nothing", b""),
    ("two values", b"{}{}"),
    ("a comment", b"{} // x"),
]


@pytest.mark.parametrize("data", [row[1] for row in JSONS], ids=[row[0] for row in JSONS])
def test_json_made_to_harm_is_refused(data) -> None:
    with pytest.raises(CorruptData):
        strict_json.load(data)


def test_json_as_usual_is_read() -> None:
    assert strict_json.load('{"a": ["\\u00e4€\\ud83d\\ude00", 1.5, null]}'.encode()) == {"a": ["ä€😀", 1.5, None]}


async def _nothing(_):
    raise AssertionError


@pytest.mark.parametrize("body", [b'{"name": "\\ud800"}', b'{"name": "a", "name": "b"}', b"[]", b'{"other": 1}'])
def test_the_admin_api_reads_no_json_that_it_could_not_answer(body) -> None:
    with pytest.raises(S3Error):
        read_body(Route("POST", "/x", "", _nothing, takes=body_of({"name": {"type": "string"}})), body)


# -- policies of forms
def encoded(value: object) -> str:
    return base64.b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).decode()


SOON = "2099-01-01T00:00:00Z"


def lengths(*values: object) -> str:
    return encoded({"expiration": SOON, "conditions": [["content-length-range", *values]]})


POLICIES = [
    ("no base64", "%%%%"),
    ("an endless length", lengths(0, float("inf"))),
    ("a length of 1e400", encoded(b'{"expiration": "2099-01-01", "conditions": [["content-length-range", 0, 1e400]]}')),
    ("a length that is no number", lengths(0, float("nan"))),
    ("a length as a list", lengths(0, [])),
    ("a third length", lengths(0, 1, 2)),
    ("an expiration twice", encoded(b'{"expiration": "2000-01-01", "expiration": "2099-01-01", "conditions": []}')),
    ("no expiration", encoded({"conditions": []})),
    ("an expiration that is a number", encoded({"expiration": 4_000_000_000, "conditions": []})),
    ("an expiration before time", encoded({"expiration": "0001-01-01T00:00:00+23:00", "conditions": [1]})),
    ("conditions as an object", encoded({"expiration": SOON, "conditions": {"bucket": "b"}})),
    ("a condition nobody knows", encoded({"expiration": SOON, "conditions": [["ends-with", "$key", "x"]]})),
    ("a condition without its field", encoded({"expiration": SOON, "conditions": [["eq", "key", "x"]]})),
    ("a condition on a number", encoded({"expiration": SOON, "conditions": [{"key": 1}]})),
    ("a field nobody knows", encoded({"expiration": SOON, "conditions": [], "more": 1})),
    ("half a character", encoded(b'{"expiration": "2099-01-01T00:00:00Z", "conditions": [{"key": "\\ud800"}]}')),
    ("too long", encoded(b" " * 40_000)),
    ("deep", encoded(b"[" * 15_000)),
]  # fmt: skip


@pytest.mark.parametrize("text", [row[1] for row in POLICIES], ids=[row[0] for row in POLICIES])
def test_policies_of_forms_made_to_harm_are_refused(text) -> None:
    with pytest.raises(S3Error) as caught:
        read_post_policy(text)
    assert caught.value.code.wire == "InvalidPolicyDocument"


# -- the service
@pytest.fixture
def direct() -> Direct:
    made = Direct()
    made.bucket("bk")
    return made


def test_an_answer_that_quotes_half_a_character_is_an_answer(direct) -> None:
    answer = direct.ask("root", "PUT", "/bk", {"policy": ""}, b'{"\\ud800": 1, "Statement": []}')
    assert (answer.status, answer.code) == (400, "MalformedPolicy")


def test_a_storage_class_is_one_that_can_be_told_again(direct) -> None:
    answer = direct.ask("root", "PUT", "/bk/k", body=b"x", headers={"x-amz-storage-class": "€"})
    assert (answer.status, answer.code) == (400, "InvalidStorageClass")
    assert direct.ask("root", "GET", "/bk/k").status == 404


def test_hashing_in_place_does_not_read_an_object_many_times(direct) -> None:
    size = 4 << 20
    direct.ask("root", "PUT", "/bk/k", body=bytes(size))
    spans = ",".join([f"0-{size - 1}"] * 64)
    assert direct.ask("root", "HEAD", "/bk/k", headers={"x-trove-hashes": spans}).status == 400
    assert direct.ask("root", "HEAD", "/bk/k", headers={"x-trove-hashes": f"0-{size - 1},0-0"}).status == 200


def test_a_body_that_was_taken_off_on_the_way_is_missed(direct) -> None:
    """Its hash is signed; without Content-Length it used to pass as an empty document."""
    sent = {}
    real, direct.send = direct.send, lambda head, body=b"": sent.update(head=head)
    direct.ask("root", "PUT", "/new", body=b"<CreateBucketConfiguration/>")
    direct.send = real
    headers = {name: value for name, value in sent["head"].headers.items() if name != "content-length"}
    assert direct.send(replace(sent["head"], headers=headers)).code == "MissingContentLength"
    assert direct.ask("root", "HEAD", "/new").status == 404


@pytest.mark.parametrize("names", [";".join(f"x{n}" for n in range(200)), "a" * 5000])
def test_what_strangers_say_about_their_signature_is_bounded(direct, names) -> None:
    """It is kept, taken apart, before anybody knows whether the signature holds."""
    said = f"AWS4-HMAC-SHA256 Credential=nobody/20231114/us-east-1/s3/aws4_request, SignedHeaders={names}, Signature=0"
    headers = {"host": "a", "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "x-amz-date": "20231114T221320Z"}
    head = RequestHead("GET", "/bk/k", "", headers | {"authorization": said})
    assert direct.send(head).code == "AuthorizationHeaderMalformed"
    query = {"Algorithm": "AWS4-HMAC-SHA256", "Credential": f"{names}/20231114/us-east-1/s3/aws4_request"}
    query |= {"Date": "20231114T221320Z", "Expires": "60", "SignedHeaders": names, "Signature": "0"}
    text = urlencode({f"X-Amz-{name}": value for name, value in query.items()})
    assert direct.send(RequestHead("GET", "/bk/k", text, {"host": "a"})).status == 400


# -- around a policy
def deny(condition: dict, action: str = "s3:PutObject*") -> str:
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Action": "s3:*", "Resource": "*"},
                {"Effect": "Deny", "Action": action, "Resource": "*", "Condition": condition},
            ],
        }
    )


SECRET_CLASS = {"StringEquals": {"s3:RequestObjectTag/class": "secret"}}
TAGS = b"<Tagging><TagSet><Tag><Key>%s</Key><Value>secret</Value></Tag></TagSet></Tagging>"


@pytest.mark.parametrize("name", [b"class", b"Class"])
def test_tags_in_a_body_are_seen_by_policies(direct, name) -> None:
    direct.users.documents["eve"] = [deny(SECRET_CLASS)]
    direct.ask("root", "PUT", "/bk/k", body=b"x")
    assert direct.ask("eve", "PUT", "/bk/k", {"tagging": ""}, TAGS % name).code == "AccessDenied"
    lie = {"x-amz-tagging": "class=public"}
    assert direct.ask("eve", "PUT", "/bk/k", {"tagging": ""}, TAGS % name, headers=lie).code == "AccessDenied"
    assert direct.ask("eve", "PUT", "/bk/k", {"tagging": ""}, TAGS % b"other").status == 200
    assert b"class" not in direct.ask("root", "GET", "/bk/k", {"tagging": ""}).body.lower()


def test_a_tag_in_two_spellings_does_not_hide_the_one_that_is_denied(direct) -> None:
    direct.users.documents["eve"] = [deny(SECRET_CLASS)]
    headers = {"x-amz-tagging": "class=secret&Class=public"}
    assert direct.ask("eve", "PUT", "/bk/k", body=b"x", headers=headers).code == "AccessDenied"


def test_tags_that_a_copy_takes_along_are_seen_by_policies(direct) -> None:
    direct.users.documents["eve"] = [deny(SECRET_CLASS)]
    direct.ask("root", "PUT", "/bk/source", body=b"x", headers={"x-amz-tagging": "class=secret"})
    for more in ({}, {"x-amz-tagging": "class=public"}):
        headers = {"x-amz-copy-source": "bk/source", **more}
        assert direct.ask("eve", "PUT", "/bk/copy", headers=headers).code == "AccessDenied"
    assert direct.ask("root", "HEAD", "/bk/copy").status == 404


@pytest.mark.parametrize("pattern", ["bk/secret/*", "/bk/secret/*"])
@pytest.mark.parametrize(
    "source", ["bk/secret/k", "/bk/secret/k", "bk/%73ecret/k", "/bk%2Fsecret%2Fk", "bk/secret/k?versionId=null"]
)
def test_no_way_to_write_a_source_gets_around_a_deny(direct, pattern, source) -> None:
    direct.users.documents["eve"] = [deny({"StringLike": {"s3:x-amz-copy-source": pattern}})]
    direct.ask("root", "PUT", "/bk/secret/k", body=b"x")
    direct.ask("root", "PUT", "/bk/free/k", body=b"x")
    assert direct.ask("eve", "PUT", "/bk/copy", headers={"x-amz-copy-source": source}).code == "AccessDenied"
    assert direct.ask("eve", "PUT", "/bk/copy", headers={"x-amz-copy-source": "/bk/free/k"}).status == 200


def test_strangers_do_not_choose_the_headers_of_public_objects(direct) -> None:
    everyone = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::open/*"}
    direct.bucket("open", json.dumps({"Version": "2012-10-17", "Statement": [everyone]}))
    direct.ask("root", "PUT", "/open/k", body=b"<script>")
    assert direct.ask(None, "GET", "/open/k").status == 200
    assert direct.ask(None, "GET", "/open/k", {"response-content-type": "text/html"}).code == "InvalidRequest"
    assert direct.ask("root", "GET", "/open/k", {"response-content-type": "text/html"}).status == 200


def test_the_name_of_a_field_that_becomes_a_header_is_a_header_name(direct) -> None:
    """Anonymous forms name what they like; such an object could not be read any more."""
    everyone = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::drop/*"}
    direct.bucket("drop", json.dumps({"Version": "2012-10-17", "Statement": [everyone]}))
    for name in ("x-amz-meta-a\nb", "x-amz-meta-a b", "x-amz-meta-ä", "x-amz-meta-a:b"):
        part = '--b\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
        body = part.format("key", "k") + part.format(name, "v") + part.format("file", "x") + "--b--\r\n"
        headers = {"content-type": "multipart/form-data; boundary=b"}
        assert direct.ask(None, "POST", "/drop", body=body.encode(), headers=headers).code == "InvalidArgument"
    assert direct.ask("root", "HEAD", "/drop/k").status == 404
