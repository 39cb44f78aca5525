"""boto3, as it comes, against our server over plain HTTP and over TLS (where it sends aws-chunked with trailers)."""

from __future__ import annotations

import itertools
import ssl
import urllib.error
import urllib.request

import pytest
from botocore.client import Config
from botocore.exceptions import ClientError

from qss.s3.serve import Tls
from tests.harness.s3_server import memory_s3, self_signed

_numbers = itertools.count()
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Tls:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module", params=["http", "https"])
def server(request, certificate):
    with memory_s3(certificate if request.param == "https" else None) as running:
        yield running
        assert running.backend.open_readers == 0


@pytest.fixture(scope="module")
def s3(server, certificate):
    return server.boto3(verify=str(certificate.certificate))


@pytest.fixture
def bucket(s3) -> str:
    name = f"bucket-{next(_numbers)}"
    s3.create_bucket(Bucket=name)
    return name


def code_of(caught) -> tuple[str, int]:
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_buckets(s3, bucket) -> None:
    assert bucket in [each["Name"] for each in s3.list_buckets()["Buckets"]]
    assert s3.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPHeaders"]["x-amz-bucket-region"] == "us-east-1"
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    with pytest.raises(ClientError) as caught:
        s3.create_bucket(Bucket=bucket)
    assert code_of(caught) == ("BucketAlreadyOwnedByYou", 409)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    with pytest.raises(ClientError) as caught:
        s3.delete_bucket(Bucket=bucket)
    assert code_of(caught) == ("BucketNotEmpty", 409)
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)
    with pytest.raises(ClientError) as caught:
        s3.head_bucket(Bucket=bucket)
    assert code_of(caught) == ("404", 404)


@pytest.mark.parametrize("size", [0, 1, 70_000, 6 * MIB])
def test_put_get(s3, bucket, size) -> None:
    import hashlib

    data = bytes(number * 13 % 251 for number in range(min(size, 70_000))) * max(1, size // 70_000)
    put = s3.put_object(
        Bucket=bucket, Key="dir/ä b+c", Body=data, ContentType="text/x", Metadata={"one": "1"}, CacheControl="no-cache"
    )
    assert put["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    got = s3.get_object(Bucket=bucket, Key="dir/ä b+c", ChecksumMode="ENABLED")
    assert got["Body"].read() == data
    assert (got["ContentType"], got["CacheControl"], got["Metadata"]) == ("text/x", "no-cache", {"one": "1"})
    assert got["ETag"] == put["ETag"]
    assert "ContentEncoding" not in got
    head = s3.head_object(Bucket=bucket, Key="dir/ä b+c")
    assert head["ContentLength"] == len(data)
    assert head["Metadata"] == {"one": "1"}


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksums(s3, bucket, algorithm) -> None:
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"some content", ChecksumAlgorithm=algorithm)
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got["Body"].read() == b"some content"
    assert got[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="k", Body=b"other", **{f"Checksum{algorithm}": put[f"Checksum{algorithm}"]})
    assert code_of(caught) == ("BadDigest", 400)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"some content"


def test_wrong_md5_is_refused(s3, bucket) -> None:
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==")
    assert code_of(caught) == ("BadDigest", 400)
    with pytest.raises(ClientError) as caught:
        s3.head_object(Bucket=bucket, Key="k")
    assert code_of(caught) == ("404", 404)


def test_ranges(s3, bucket) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    for text, expected in [("bytes=0-3", b"0123"), ("bytes=7-", b"789"), ("bytes=-2", b"89"), ("bytes=5-99", b"56789")]:
        got = s3.get_object(Bucket=bucket, Key="k", Range=text)
        assert got["Body"].read() == expected
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
        start = 10 - len(expected) if text[6] != "0" and text != "bytes=5-99" else int(text[6])
        assert got["ContentRange"] == f"bytes {start}-{start + len(expected) - 1}/10"
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="k", Range="bytes=10-")
    assert code_of(caught) == ("InvalidRange", 416)


def test_conditional_reads(s3, bucket) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    assert s3.get_object(Bucket=bucket, Key="k", IfMatch=etag)["Body"].read() == b"x"
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="k", IfMatch='"other"')
    assert code_of(caught) == ("PreconditionFailed", 412)
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="k", IfNoneMatch=etag)
    assert code_of(caught) == ("304", 304)


def test_conditional_writes(s3, bucket) -> None:
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*")
    assert code_of(caught) == ("PreconditionFailed", 412)
    s3.put_object(Bucket=bucket, Key="k", Body=b"3", IfMatch=etag)
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="k", Body=b"4", IfMatch=etag)
    assert code_of(caught) == ("PreconditionFailed", 412)
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=bucket, Key="absent", Body=b"4", IfMatch=etag)
    assert code_of(caught) == ("NoSuchKey", 404)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"3"


def test_missing(s3, bucket) -> None:
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket=bucket, Key="k")
    assert code_of(caught) == ("NoSuchKey", 404)
    with pytest.raises(ClientError) as caught:
        s3.get_object(Bucket="no-such-bucket", Key="k")
    assert code_of(caught) == ("NoSuchBucket", 404)
    s3.delete_object(Bucket=bucket, Key="k")


def test_listing_pages_and_prefixes(s3, bucket) -> None:
    keys = [f"a/{number:02d} +&<ä" for number in range(12)] + ["b/1", "b/2", "c", "d/x"]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    for operation in ("list_objects", "list_objects_v2"):
        pages = s3.get_paginator(operation).paginate(Bucket=bucket, PaginationConfig={"PageSize": 5})
        assert [each["Key"] for page in pages for each in page.get("Contents", [])] == keys
        pages = [*s3.get_paginator(operation).paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 2})]
        assert [each["Prefix"] for page in pages for each in page.get("CommonPrefixes", [])] == ["a/", "b/", "d/"]
        assert [each["Key"] for page in pages for each in page.get("Contents", [])] == ["c"]
        assert len(pages) == 2
    page = s3.list_objects_v2(Bucket=bucket, Prefix="b/", StartAfter="b/1")
    assert [each["Key"] for each in page["Contents"]] == ["b/2"]
    assert page["KeyCount"] == 1
    assert not page["IsTruncated"]
    assert s3.list_objects_v2(Bucket=bucket, MaxKeys=0)["KeyCount"] == 0


def test_delete_many(s3, bucket) -> None:
    for number in range(3):
        s3.put_object(Bucket=bucket, Key=f"k<{number}>", Body=b"x")
    listed = [{"Key": f"k<{number}>"} for number in range(5)]
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": listed})
    assert [each["Key"] for each in answer["Deleted"]] == [each["Key"] for each in listed]
    assert "Deleted" not in s3.delete_objects(Bucket=bucket, Delete={"Objects": listed, "Quiet": True})
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_multipart_by_the_transfer_manager(s3, bucket, tmp_path) -> None:
    data = bytes(range(256)) * (20 * MIB // 256)
    (tmp_path / "up").write_bytes(data)
    s3.upload_file(str(tmp_path / "up"), bucket, "large")
    head = s3.head_object(Bucket=bucket, Key="large")
    assert head["ETag"].endswith('-3"')
    s3.download_file(bucket, "large", str(tmp_path / "down"))
    assert (tmp_path / "down").read_bytes() == data
    part = s3.get_object(Bucket=bucket, Key="large", PartNumber=3)
    assert part["PartsCount"] == 3
    assert part["Body"].read() == data[16 * MIB :]


def test_multipart_by_hand(s3, bucket) -> None:
    started = s3.create_multipart_upload(Bucket=bucket, Key="k", Metadata={"m": "1"}, ContentType="text/x")
    ref = {"Bucket": bucket, "Key": "k", "UploadId": started["UploadId"]}
    assert [each["Key"] for each in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == ["k"]
    s3.put_object(Bucket=bucket, Key="source", Body=bytes(6 * MIB))
    source = {"Bucket": bucket, "Key": "source"}
    one = s3.upload_part_copy(**ref, PartNumber=1, CopySource=source, CopySourceRange=f"bytes=0-{5 * MIB - 1}")
    two = s3.upload_part(**ref, PartNumber=2, Body=b"tail")
    listed = s3.list_parts(**ref)["Parts"]
    assert [(each["PartNumber"], each["Size"]) for each in listed] == [(1, 5 * MIB), (2, 4)]
    etags = [one["CopyPartResult"]["ETag"], two["ETag"]]
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    for wrong, code in [(parts[::-1], "InvalidPartOrder"), ([{"PartNumber": 3, "ETag": etags[0]}], "InvalidPart")]:
        with pytest.raises(ClientError) as caught:
            s3.complete_multipart_upload(**ref, MultipartUpload={"Parts": wrong})
        assert code_of(caught) == (code, 400)
    done = s3.complete_multipart_upload(**ref, MultipartUpload={"Parts": parts})
    assert done["ETag"].endswith('-2"')
    got = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={5 * MIB - 1}-")
    assert got["Body"].read() == b"\0tail"
    assert (got["Metadata"], got["ContentType"]) == ({"m": "1"}, "text/x")


def test_multipart_small_parts_and_abort(s3, bucket) -> None:
    started = s3.create_multipart_upload(Bucket=bucket, Key="k")
    ref = {"Bucket": bucket, "Key": "k", "UploadId": started["UploadId"]}
    parts = [
        {"PartNumber": number, "ETag": s3.upload_part(**ref, PartNumber=number, Body=b"x")["ETag"]} for number in (1, 2)
    ]
    with pytest.raises(ClientError) as caught:
        s3.complete_multipart_upload(**ref, MultipartUpload={"Parts": parts})
    assert code_of(caught) == ("EntityTooSmall", 400)
    s3.abort_multipart_upload(**ref)
    with pytest.raises(ClientError) as caught:
        s3.upload_part(**ref, PartNumber=1, Body=b"x")
    assert code_of(caught) == ("NoSuchUpload", 404)


def test_copy(s3, bucket) -> None:
    s3.put_object(Bucket=bucket, Key="from ä", Body=b"content", Metadata={"a": "1"}, Tagging="t=1")
    source = {"Bucket": bucket, "Key": "from ä"}
    s3.copy_object(Bucket=bucket, Key="to", CopySource=source)
    got = s3.get_object(Bucket=bucket, Key="to")
    assert (got["Body"].read(), got["Metadata"], got["TagCount"]) == (b"content", {"a": "1"}, 1)
    s3.copy_object(Bucket=bucket, Key="to", CopySource=source, MetadataDirective="REPLACE", Metadata={"b": "2"})
    assert s3.head_object(Bucket=bucket, Key="to")["Metadata"] == {"b": "2"}
    with pytest.raises(ClientError) as caught:
        s3.copy_object(Bucket=bucket, Key="from ä", CopySource=source)
    assert code_of(caught) == ("InvalidRequest", 400)
    with pytest.raises(ClientError) as caught:
        s3.copy_object(Bucket=bucket, Key="to", CopySource=source, CopySourceIfMatch='"other"')
    assert code_of(caught) == ("PreconditionFailed", 412)


def test_tags(s3, bucket) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="one=1&two=%C3%A4")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [
        {"Key": "one", "Value": "1"}, {"Key": "two", "Value": "ä"},
    ]  # fmt: skip
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "three", "Value": "<3>"}]})
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "three", "Value": "<3>"}]
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []


def test_presigned(server, bucket, certificate) -> None:
    secure = server.endpoint.startswith("https")
    trusting = ssl.create_default_context(cafile=str(certificate.certificate)) if secure else None
    s3 = server.boto3(config=Config(signature_version="s3v4"))  # without it boto3 presigns with SigV2
    url = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "a b/ä"}, ExpiresIn=60)
    with urllib.request.urlopen(urllib.request.Request(url, data=b"by url", method="PUT"), context=trusting) as answer:
        assert answer.status == 200
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a b/ä"}, ExpiresIn=60)
    with urllib.request.urlopen(url, context=trusting) as answer:
        assert answer.read() == b"by url"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url.replace("a%20b", "a%20c"), context=trusting)
    assert caught.value.code == 403
    assert b"SignatureDoesNotMatch" in caught.value.read()


def test_strangers_are_kept_out(server, bucket, certificate) -> None:
    from botocore import UNSIGNED

    for version, code in [(UNSIGNED, "AccessDenied"), ("s3", "InvalidRequest")]:
        stranger = server.boto3(config=Config(signature_version=version), verify=str(certificate.certificate))
        with pytest.raises(ClientError) as caught:
            stranger.list_objects_v2(Bucket=bucket)
        assert code_of(caught)[0] == code


def test_a_client_of_another_region_is_told_ours_and_signs_again(server, bucket, certificate) -> None:
    elsewhere = server.boto3(verify=str(certificate.certificate), region="eu-central-1")
    elsewhere.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert elsewhere.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    with pytest.raises(ClientError) as caught:
        elsewhere.list_buckets()
    assert caught.value.response["Error"]["Region"] == "us-east-1"


def test_what_is_not_there_is_never_taken_for_something_else(s3, bucket) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    with pytest.raises(ClientError) as caught:
        s3.put_object_acl(Bucket=bucket, Key="k", ACL="private")
    assert code_of(caught) == ("AccessControlListNotSupported", 400)
    with pytest.raises(ClientError) as caught:
        s3.get_object_torrent(Bucket=bucket, Key="k")
    assert code_of(caught) == ("NotImplemented", 501)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
