"""Parsing and rendering, pure: conditions, XML, requests, documents, listings, the error table."""

from __future__ import annotations

import contextlib
import dataclasses
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss import errors as qss_errors
from qss.errors import CorruptData
from qss.s3 import operations as op
from qss.s3 import render
from qss.s3.backend import Attributes, ListPage, ListQuery, StoredObject, WriteCondition
from qss.s3.conditions import ByteRange, ReadCondition, parse_range
from qss.s3.documents import complete_body, delete_body, location_body, tags_body
from qss.s3.errors import Code, S3Error, to_s3
from qss.s3.listing import page
from qss.s3.message import RequestHead, parse_query
from qss.s3.parse import attributes_of, check_bucket_name, make_token, parse, read_token
from qss.s3.parse_subresources import UNSET_NAMES
from qss.s3.server import _HANDLERS
from qss.s3.sigv4 import canonical_query
from qss.s3.unset import UNSET
from qss.s3.xml import DEPTH_MAX, document, element, leaf
from qss.s3.xml import parse as parse_xml

xml_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\ufffe\uffff", min_codepoint=32))
names = st.text(st.sampled_from("ab/é\U0001f600"), min_size=1, max_size=6)


def found(key: str, **fields: object) -> StoredObject:
    return StoredObject(key, 1, "e" * 32, 1_700_000_000_000_000_000, **fields)  # type: ignore[arg-type]


def code_of(caught: pytest.ExceptionInfo[S3Error]) -> Code:
    return caught.value.code


# -- ranges and conditions
@given(first=st.none() | st.integers(0, 10**12), count=st.none() | st.integers(0, 10**12))
def test_range_round_trip(first: int | None, count: int | None) -> None:
    if first is None and count is None:
        return
    last = count if first is None else None if count is None else first + count
    text = "-".join("" if each is None else str(each) for each in (first, last))
    assert parse_range(f"bytes={text}") == ByteRange(first, last)


@given(text=st.text(max_size=20), size=st.integers(0, 1000))
def test_a_range_is_within_the_object_or_an_error(text: str, size: int) -> None:
    for header in (text, f"bytes={text}"):
        wanted = parse_range(header)
        if wanted is None:
            continue
        try:
            start, stop = wanted.resolve(size)
        except S3Error as error:
            assert error.code is Code.INVALID_RANGE  # noqa: PT017
        else:
            assert 0 <= start < stop <= size


@pytest.mark.parametrize(
    "text", ["", "bytes", "bytes=", "bytes=-", "bytes=5-3", "bytes=1-2,5-6", "items=1-2", "bytes=+1-2"]
)
def test_ranges_to_ignore(text: str) -> None:
    assert parse_range(text) is None


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        (ReadCondition(), None),
        (ReadCondition(if_match=("e" * 32,)), None),
        (ReadCondition(if_match=("*",)), None),
        (ReadCondition(if_match=("x",)), Code.PRECONDITION_FAILED),
        (ReadCondition(if_none_match=("x",)), None),
        (ReadCondition(if_none_match=("x", "e" * 32)), Code.NOT_MODIFIED),
        (ReadCondition(if_modified_since_ns=1_700_000_000 * 10**9), Code.NOT_MODIFIED),
        (ReadCondition(if_modified_since_ns=1_699_999_999 * 10**9), None),
        (ReadCondition(if_unmodified_since_ns=1_700_000_000 * 10**9), None),
        (ReadCondition(if_unmodified_since_ns=1_699_999_999 * 10**9), Code.PRECONDITION_FAILED),
        (ReadCondition(if_match=("e" * 32,), if_unmodified_since_ns=1), None),  # RFC 9110, 13.2.2
        (ReadCondition(if_none_match=("x",), if_modified_since_ns=2 * 10**18), None),
    ],
)
def test_read_conditions(condition: ReadCondition, code: Code | None) -> None:
    if code is None:
        condition.check(found("k"))
        return
    with pytest.raises(S3Error) as caught:
        condition.check(found("k"))
    assert code_of(caught) is code
    with pytest.raises(S3Error) as caught:
        condition.check_copy(found("k"))
    assert code_of(caught) is Code.PRECONDITION_FAILED


# -- XML
@given(texts=st.lists(xml_text, max_size=4))
def test_xml_round_trip(texts: list[str]) -> None:
    root = parse_xml(document("Root", [element("List", *(leaf("Item", text) for text in texts))]))
    listed = root.find("List")
    assert listed is not None
    assert [node.text for node in listed.all("Item")] == texts


@given(data=st.binary(max_size=100) | st.text(max_size=100).map(str.encode))
def test_xml_raises_nothing_else(data: bytes) -> None:
    for untrusted in (data, b"<a>" + data + b"</a>", b'<?xml version="1.0" encoding="' + data + b'"?><a/>'):
        with contextlib.suppress(CorruptData):
            parse_xml(untrusted)


@pytest.mark.parametrize(
    "data",
    [
        b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b"<a>&undefined;</a>",
        b"<a>" * (DEPTH_MAX + 1) + b"</a>" * (DEPTH_MAX + 1),
        b"",
        b" " * (5 * 1024 * 1024),
    ],
)
def test_xml_to_refuse(data: bytes) -> None:
    with pytest.raises(CorruptData):
        parse_xml(data)


# -- requests
@given(pairs=st.lists(st.tuples(st.text(min_size=1, max_size=5), st.text(max_size=5)), max_size=4))
def test_query_round_trip(pairs: list[tuple[str, str]]) -> None:
    try:
        encoded = canonical_query(pairs)
    except UnicodeEncodeError:
        return  # lone surrogates cannot be sent
    assert sorted(parse_query(encoded)) == sorted(pairs)


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("GET", "/", "", op.ListBuckets()),
        ("PUT", "/bucket", "", op.CreateBucket("bucket")),
        ("HEAD", "/bucket/", "", op.HeadBucket("bucket")),
        ("GET", "/bucket", "location", op.GetLocation("bucket")),
        ("POST", "/bucket", "delete", op.DeleteObjects("bucket")),
        ("GET", "/bucket/a//b/../c", "", op.GetObject("bucket", "a//b/../c", head=False)),
        ("GET", "/bucket//", "", op.GetObject("bucket", "/", head=False)),
        ("DELETE", "/bucket/k", "tagging", op.DeleteTags("bucket", "k")),
        ("GET", "/bucket", "list-type=2&start-after=a%2Bb",
         op.ListObjects(ListQuery("bucket", after="a+b"), v2=True, encode=False, start_after="a+b")),
        ("GET", "/bucket", "marker=m&max-keys=9999&encoding-type=url",
         op.ListObjects(ListQuery("bucket", after="m"), v2=False, encode=True, fetch_owner=True)),
    ],
)  # fmt: skip
def test_requests(method: str, path: str, query: str, expected: op.Operation) -> None:
    assert parse(RequestHead(method, path, query)) == expected


def test_virtual_hosts() -> None:
    head = RequestHead("GET", "/a/b", "", {"host": "buck.et.s3.example:9000"})
    assert parse(head, ("s3.example",)) == op.GetObject("buck.et", "a/b", head=False)
    assert parse(RequestHead("GET", "/", "", {"host": "s3.example"}), ("s3.example",)) == op.ListBuckets()


@pytest.mark.parametrize(
    ("method", "path", "query", "code"),
    [
        ("GET", "/bucket/k", "torrent", Code.NOT_IMPLEMENTED),
        ("DELETE", "/bucket/k", "retention", Code.NOT_IMPLEMENTED),
        ("GET", "/", "max-buckets=0", Code.INVALID_ARGUMENT),
        ("GET", "/", "max-buckets=10001", Code.INVALID_ARGUMENT),
        ("GET", "/bucket/k", "attributes", Code.INVALID_ARGUMENT),
        ("PUT", "/bucket", "website", Code.NOT_IMPLEMENTED),
        ("GET", "/bucket", "versions&version-id-marker=x", Code.INVALID_ARGUMENT),
        ("GET", "/bucket", "versions&key-marker=k&version-id-marker=", Code.INVALID_ARGUMENT),
        ("PUT", "/bucket/k", "acl&tagging", Code.INVALID_REQUEST),
        ("POST", "/bucket/k", "", Code.METHOD_NOT_ALLOWED),
        ("PATCH", "/", "", Code.METHOD_NOT_ALLOWED),
        ("GET", "/bucket/" + "k" * 1025, "", Code.KEY_TOO_LONG),
        ("GET", "/bucket/\0", "", Code.INVALID_URI),
        ("GET", "", "", Code.INVALID_URI),
        ("GET", "/bucket/k", "x=%ff", Code.INVALID_URI),
        ("GET", "/bucket", "max-keys=-1", Code.INVALID_ARGUMENT),
        ("GET", "/bucket", "list-type=2&continuation-token=%00", Code.INVALID_ARGUMENT),
        ("GET", "/bucket", "encoding-type=x", Code.INVALID_ARGUMENT),
        ("PUT", "/bucket/k", "uploadId=u&partNumber=0", Code.INVALID_ARGUMENT),
        ("PUT", "/bucket/k", "uploadId=u&partNumber=10001", Code.INVALID_ARGUMENT),
        ("GET", "/bucket/k", "response-set-cookie=x", Code.INVALID_ARGUMENT),
    ],
)
def test_requests_to_refuse(method: str, path: str, query: str, code: Code) -> None:
    with pytest.raises(S3Error) as caught:
        parse(RequestHead(method, path, query))
    assert code_of(caught) is code


@given(
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD"]),
    path=st.text(max_size=20),
    query=st.text(max_size=30),
)
def test_parse_raises_nothing_else(method: str, path: str, query: str) -> None:
    for head in (RequestHead(method, path, query), RequestHead(method, f"/{path}", query)):
        with contextlib.suppress(S3Error, UnicodeEncodeError):
            assert isinstance(parse(head), typing.get_args(op.Operation))


def test_attributes() -> None:
    headers = {
        "content-type": "a/b", "content-encoding": "aws-chunked, gzip", "x-amz-meta-a": "1", "x-amz-tagging": "t=1&u=",
        "other": "x",
    }  # fmt: skip
    expected = Attributes({"content-type": "a/b", "content-encoding": "gzip"}, {"a": "1"}, (("t", "1"), ("u", "")))
    assert attributes_of(headers) == expected
    assert attributes_of({"content-encoding": "aws-chunked"}) == Attributes()


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-amz-meta-a": "x" * 2048}, Code.METADATA_TOO_LARGE),
        ({"x-amz-tagging": "&".join(f"t{number}=1" for number in range(11))}, Code.INVALID_TAG),
        ({"x-amz-tagging": "a=1&a=2"}, Code.INVALID_TAG),
        ({"x-amz-tagging": "a=" + "x" * 257}, Code.INVALID_TAG),
        ({"x-amz-tagging": "x" * 129}, Code.INVALID_TAG),
    ],
)
def test_attributes_to_refuse(headers: dict[str, str], code: Code) -> None:
    with pytest.raises(S3Error) as caught:
        attributes_of(headers)
    assert code_of(caught) is code


@pytest.mark.parametrize("name", ["abc", "a-b.c", "0" * 63, "1.2.3"])
def test_bucket_names(name: str) -> None:
    check_bucket_name(name)


@pytest.mark.parametrize(
    "name",
    ["ab", "a" * 64, "Abc", "-abc", "abc-", "a..b", "192.168.0.1", "xn--abc", "abc-s3alias", "a_b", "äbc", "abc\n"],
)
def test_bucket_names_to_refuse(name: str) -> None:
    with pytest.raises(S3Error):
        check_bucket_name(name)


# -- documents
def test_documents() -> None:
    requests, quiet = delete_body(
        b"<Delete><Object><Key>a&lt;</Key></Object><Object><Key>b</Key><ETag>&quot;e&quot;</ETag></Object>"
        b"<Quiet>true</Quiet></Delete>"
    )
    assert [(each.key, each.condition) for each in requests] == [
        ("a<", WriteCondition()), ("b", WriteCondition(if_match="e")),
    ]  # fmt: skip
    assert quiet
    part = "<Part><PartNumber>2</PartNumber><ETag>e</ETag><ChecksumCRC32>x</ChecksumCRC32></Part>"
    wanted = complete_body(f"<CompleteMultipartUpload>{part}</CompleteMultipartUpload>".encode())[0]
    assert (wanted.number, wanted.etag, wanted.checksum and wanted.checksum.value) == (2, "e", "x")
    assert location_body(b"", "r") == "r"
    config = "<CreateBucketConfiguration><LocationConstraint>x</LocationConstraint></CreateBucketConfiguration>"
    assert location_body(config.encode(), "r") == "x"


@given(
    tags=st.lists(
        st.tuples(xml_text.filter(lambda text: 0 < len(text) < 100), xml_text), max_size=5, unique_by=lambda t: t[0]
    )
)
def test_tags_round_trip(tags: list[tuple[str, str]]) -> None:
    body = render.tagging(tuple(tags)).body
    assert tags_body(bytes(body)) == tuple(tags)


@pytest.mark.parametrize(
    "data",
    [b"", b"<Other/>", b"<Delete/>", b"<Delete><Object/></Delete>",
     b"<Delete>" + b"<Object><Key>a</Key></Object>" * 1001 + b"</Delete>"],
)  # fmt: skip
def test_delete_documents_to_refuse(data: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        delete_body(data)
    assert code_of(caught) is Code.MALFORMED_XML


# -- listings
@given(keys=st.lists(names, unique=True, max_size=12), limit=st.integers(1, 5), prefix=st.sampled_from(["", "a", "a/"]),
       delimiter=st.sampled_from(["", "/", "é", "ab"]), after=st.sampled_from(["", "a", "a/", "b"]))  # fmt: skip
def test_pages_join_to_what_a_simple_model_says(
    keys: list[str], limit: int, prefix: str, delimiter: str, after: str
) -> None:
    ordered = sorted((key.encode(), found(key)) for key in keys)
    expected = []
    for key in sorted(keys, key=str.encode):
        if key.startswith(prefix):
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            entry = key if cut < 0 else key[: cut + len(delimiter)]
            if entry.encode() > after.encode() and entry not in expected:
                expected.append(entry)
    listed: list[str] = []
    at: str | None = after
    while at is not None:
        query = ListQuery("b", prefix, delimiter, at, limit)
        shown = page(lambda lower: (each for key, each in ordered if key >= lower), query)
        entries = [each.key for each in shown.objects] + list(shown.prefixes)
        assert len(entries) == limit or shown.next_after is None
        listed += sorted(entries, key=str.encode)
        at = shown.next_after
    assert listed == expected


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_token_round_trip(text: str) -> None:
    assert read_token(make_token(text)) == text


def test_listing_document_is_url_encoded_on_demand() -> None:
    asked = op.ListObjects(ListQuery("b", "p +", "/"), v2=True, encode=True)
    shown = ListPage((found("p +/\x01é"),), ("p +x/",), "p +x/")
    root = parse_xml(bytes(render.listing(asked, shown).body))
    assert root.get("Prefix") == "p%20%2B"
    assert [node.get("Key") for node in root.all("Contents")] == ["p%20%2B/%01%C3%A9"]
    assert [node.get("Prefix") for node in root.all("CommonPrefixes")] == ["p%20%2Bx/"]
    assert read_token(root.get("NextContinuationToken")) == "p +x/"
    assert (root.get("IsTruncated"), root.get("KeyCount")) == ("true", "2")


# -- tables are total
def test_every_qss_error_has_an_s3_answer_and_tells_no_inside() -> None:
    kinds = [
        each for each in vars(qss_errors).values() if isinstance(each, type) and issubclass(each, qss_errors.QssError)
    ]
    for kind in kinds:
        error = kind(5) if kind is qss_errors.FsError else kind("/secret/path")
        answer = to_s3(error)
        assert answer.code.status >= 400
        assert "/secret/path" not in str(answer)
    assert to_s3(qss_errors.CorruptData("x")).code is Code.OBJECT_DAMAGED
    assert to_s3(qss_errors.NoSpace("x")).code is Code.STORAGE_FULL
    assert to_s3(qss_errors.Busy("x", retry_after_s=7)).retry_after_s == 7
    assert to_s3(ValueError("/secret/path")).code is Code.INTERNAL_ERROR


def test_what_can_be_asked_for_and_is_not_there_has_an_answer() -> None:
    assert set(UNSET) == set(UNSET_NAMES)


def test_every_operation_has_a_handler() -> None:
    assert set(_HANDLERS) == set(typing.get_args(op.Operation))
    assert all(dataclasses.is_dataclass(each) for each in _HANDLERS)
