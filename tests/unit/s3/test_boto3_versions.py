"""boto3, as it comes: versioning, tagging of versions, object lock."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from tests.harness.s3_server import memory_s3

_numbers = itertools.count()
FAR = datetime(2096, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def server():
    with memory_s3() as running:
        yield running
        assert running.backend.open_readers == 0


@pytest.fixture(scope="module")
def s3(server):
    return server.boto3()


@pytest.fixture
def plain(s3) -> str:
    """A bucket that never had versioning."""
    name = f"plain-{next(_numbers)}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def bucket(s3, plain) -> str:
    s3.put_bucket_versioning(Bucket=plain, VersioningConfiguration={"Status": "Enabled"})
    return plain


@pytest.fixture
def locked(s3) -> str:
    name = f"locked-{next(_numbers)}"
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


def refused(call, **arguments) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    response = caught.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def headers_of(call, **arguments) -> dict[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["ResponseMetadata"]["HTTPHeaders"]


# -- versioning
def test_versioning_of_a_bucket(s3, plain) -> None:
    assert "Status" not in s3.get_bucket_versioning(Bucket=plain)
    assert "VersionId" not in s3.put_object(Bucket=plain, Key="k", Body=b"")
    for status in ("Enabled", "Suspended"):
        s3.put_bucket_versioning(Bucket=plain, VersioningConfiguration={"Status": status})
        assert s3.get_bucket_versioning(Bucket=plain)["Status"] == status
    assert s3.get_object(Bucket=plain, Key="k")["VersionId"] == "null"
    for wanted, code in (
        ({}, ("IllegalVersioningConfigurationException", 400)),
        ({"Status": "On"}, ("MalformedXML", 400)),
        ({"Status": "Enabled", "MFADelete": "Enabled"}, ("NotImplemented", 501)),
    ):
        assert refused(s3.put_bucket_versioning, Bucket=plain, VersioningConfiguration=wanted) == code
    assert refused(s3.get_bucket_versioning, Bucket="no-such-bucket")[0] == "NoSuchBucket"


def test_versions_of_an_object(s3, bucket) -> None:
    ids = [s3.put_object(Bucket=bucket, Key="k", Body=b"%d" % number)["VersionId"] for number in range(3)]
    for number, version in enumerate(ids):
        got = s3.get_object(Bucket=bucket, Key="k", VersionId=version)
        assert (got["Body"].read(), got["VersionId"]) == (b"%d" % number, version)
        assert s3.head_object(Bucket=bucket, Key="k", VersionId=version)["VersionId"] == version
        assert s3.get_object(Bucket=bucket, Key="k", VersionId=version, Range="bytes=0-0")["ContentLength"] == 1
    marker = s3.delete_object(Bucket=bucket, Key="k")
    assert marker["DeleteMarker"] is True
    absent = headers_of(s3.get_object, Bucket=bucket, Key="k")
    assert (absent["x-amz-delete-marker"], absent["x-amz-version-id"]) == ("true", marker["VersionId"])
    assert refused(s3.head_object, Bucket=bucket, Key="k") == ("404", 404)
    asked = {"Bucket": bucket, "Key": "k", "VersionId": marker["VersionId"]}
    assert refused(s3.get_object, **asked) == ("MethodNotAllowed", 405)
    assert headers_of(s3.head_object, **asked)["allow"] == "DELETE"
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=bucket).get("Contents", [])] == []
    undone = s3.delete_object(**asked)
    assert (undone["DeleteMarker"], undone["VersionId"]) == (True, marker["VersionId"])
    assert s3.get_object(Bucket=bucket, Key="k")["VersionId"] == ids[2]
    gone = s3.delete_object(Bucket=bucket, Key="k", VersionId=ids[2])
    assert gone["VersionId"] == ids[2]
    assert "DeleteMarker" not in gone
    assert s3.get_object(Bucket=bucket, Key="k")["VersionId"] == ids[1]
    assert refused(s3.get_object, Bucket=bucket, Key="k", VersionId=ids[2]) == ("NoSuchVersion", 404)
    assert refused(s3.get_object, Bucket=bucket, Key="k", VersionId="x") == ("InvalidArgument", 400)
    assert refused(s3.delete_object, Bucket=bucket, Key="k", VersionId="x") == ("InvalidArgument", 400)


def test_listing(s3, plain) -> None:
    s3.put_object(Bucket=plain, Key="a", Body=b"null")
    s3.put_bucket_versioning(Bucket=plain, VersioningConfiguration={"Status": "Enabled"})
    for key in ("a", "d/1", "d/2", "é b"):
        s3.put_object(Bucket=plain, Key=key, Body=key.encode())
    s3.delete_object(Bucket=plain, Key="d/2")
    whole = s3.list_object_versions(Bucket=plain)
    assert whole["IsTruncated"] is False
    assert [(each["Key"], each["IsLatest"]) for each in whole["Versions"]] == [
        ("a", True), ("a", False), ("d/1", True), ("d/2", False), ("é b", True),
    ]  # fmt: skip
    assert whole["Versions"][1]["VersionId"] == "null"
    assert [(each["Key"], each["IsLatest"]) for each in whole["DeleteMarkers"]] == [("d/2", True)]
    assert {"ETag", "Size", "StorageClass", "LastModified", "Owner"} <= whole["Versions"][0].keys()
    assert whole["Versions"][4]["Size"] == len("é b".encode())
    paged = s3.get_paginator("list_object_versions").paginate(Bucket=plain, PaginationConfig={"PageSize": 1})
    pages = list(paged)
    assert len(pages) == 6
    assert [each for page in pages for each in page.get("Versions", [])] == whole["Versions"]
    assert [each for page in pages for each in page.get("DeleteMarkers", [])] == whole["DeleteMarkers"]
    grouped = s3.list_object_versions(Bucket=plain, Delimiter="/", MaxKeys=3)
    assert [each["Prefix"] for each in grouped["CommonPrefixes"]] == ["d/"]
    assert (grouped["IsTruncated"], grouped["NextKeyMarker"]) == (True, "d/")
    rest = s3.list_object_versions(Bucket=plain, Delimiter="/", KeyMarker="d/")
    assert [each["Key"] for each in rest["Versions"]] == ["é b"]
    assert [each["Key"] for each in s3.list_object_versions(Bucket=plain, Prefix="d/1")["Versions"]] == ["d/1"]
    assert "Versions" not in s3.list_object_versions(Bucket=plain, MaxKeys=0)
    assert refused(s3.list_object_versions, Bucket=plain, VersionIdMarker="null") == ("InvalidArgument", 400)
    assert refused(s3.list_object_versions, Bucket=plain, KeyMarker="a", VersionIdMarker="x")[0] == "InvalidArgument"


def test_deleting_many(s3, bucket) -> None:
    ids = [s3.put_object(Bucket=bucket, Key="k", Body=b"")["VersionId"] for _ in range(2)]
    wanted = [{"Key": "k", "VersionId": ids[0]}, {"Key": "new"}, {"Key": "k", "VersionId": "x"}]
    done = s3.delete_objects(Bucket=bucket, Delete={"Objects": wanted})
    removed, made = done["Deleted"]
    assert removed == {"Key": "k", "VersionId": ids[0]}
    assert made["DeleteMarker"] is True
    assert "VersionId" not in made
    assert [(each["VersionId"], each["Code"]) for each in done["Errors"]] == [("x", "InvalidArgument")]
    again = s3.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": "new", "VersionId": made["DeleteMarkerVersionId"]}]}
    )
    version = made["DeleteMarkerVersionId"]
    assert again["Deleted"] == [
        {"Key": "new", "VersionId": version, "DeleteMarker": True, "DeleteMarkerVersionId": version}
    ]
    assert refused(s3.delete_bucket, Bucket=bucket) == ("BucketNotEmpty", 409)
    s3.delete_object(Bucket=bucket, Key="k", VersionId=ids[1])
    s3.delete_bucket(Bucket=bucket)


def test_suspended(s3, bucket) -> None:
    kept = s3.put_object(Bucket=bucket, Key="k", Body=b"kept")["VersionId"]
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"1")["VersionId"] == "null"
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"2")["VersionId"] == "null"
    marker = s3.delete_object(Bucket=bucket, Key="k")
    assert (marker["VersionId"], marker["DeleteMarker"]) == ("null", True)
    listed = s3.list_object_versions(Bucket=bucket)
    assert [each["VersionId"] for each in listed["Versions"]] == [kept]
    assert [each["VersionId"] for each in listed["DeleteMarkers"]] == ["null"]


def test_copies(s3, bucket, plain) -> None:
    old = s3.put_object(Bucket=bucket, Key="k", Body=b"old")["VersionId"]
    new = s3.put_object(Bucket=bucket, Key="k", Body=b"new")["VersionId"]
    done = s3.copy_object(Bucket=bucket, Key="k", CopySource={"Bucket": bucket, "Key": "k", "VersionId": old})
    assert done["CopySourceVersionId"] == old
    assert done["VersionId"] not in (old, new)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"old"
    ref = {"Bucket": bucket, "Key": "parts"}
    upload = s3.create_multipart_upload(**ref)["UploadId"]
    source = {"Bucket": bucket, "Key": "k", "VersionId": new}
    part = s3.upload_part_copy(**ref, UploadId=upload, PartNumber=1, CopySource=source)
    assert part["CopySourceVersionId"] == new
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["CopyPartResult"]["ETag"]}]}
    whole = s3.complete_multipart_upload(**ref, UploadId=upload, MultipartUpload=parts)
    assert s3.get_object(**ref, VersionId=whole["VersionId"])["Body"].read() == b"new"
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    for version, code in (({}, ("NoSuchKey", 404)), ({"VersionId": marker}, ("InvalidRequest", 400))):
        source = {"Bucket": bucket, "Key": "k", **version}
        assert refused(s3.copy_object, Bucket=bucket, Key="to", CopySource=source) == code


def test_tags_of_versions(s3, bucket) -> None:
    one, two = [s3.put_object(Bucket=bucket, Key="k", Body=b"", Tagging=f"t={n}")["VersionId"] for n in (1, 2)]
    tag_set = {"TagSet": [{"Key": "t", "Value": "é"}]}
    put = s3.put_object_tagging(Bucket=bucket, Key="k", VersionId=one, Tagging=tag_set)
    assert put["VersionId"] == one
    got = s3.get_object_tagging(Bucket=bucket, Key="k", VersionId=one)
    assert (got["TagSet"], got["VersionId"]) == (tag_set["TagSet"], one)
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "t", "Value": "2"}]
    assert s3.delete_object_tagging(Bucket=bucket, Key="k")["VersionId"] == two
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []
    assert s3.get_object_tagging(Bucket=bucket, Key="k", VersionId=one)["TagSet"] == tag_set["TagSet"]
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    assert refused(s3.get_object_tagging, Bucket=bucket, Key="k", VersionId=marker) == ("MethodNotAllowed", 405)
    assert refused(s3.get_object_tagging, Bucket=bucket, Key="k") == ("NoSuchKey", 404)


# -- object lock
def test_lock_settings(s3, bucket, locked) -> None:
    assert refused(s3.get_object_lock_configuration, Bucket=bucket) == ("ObjectLockConfigurationNotFoundError", 404)
    assert s3.get_bucket_versioning(Bucket=locked)["Status"] == "Enabled"
    assert s3.get_object_lock_configuration(Bucket=locked)["ObjectLockConfiguration"] == {
        "ObjectLockEnabled": "Enabled"
    }
    suspend = {"Status": "Suspended"}
    assert refused(s3.put_bucket_versioning, Bucket=locked, VersioningConfiguration=suspend) == (
        "InvalidBucketState", 409,
    )  # fmt: skip

    def settings(**default) -> dict[str, object]:
        return {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": default}}

    for wanted in (settings(Mode="GOVERNANCE", Days=2), settings(Mode="COMPLIANCE", Years=1)):
        for name in (bucket, locked):
            s3.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=wanted)
            assert s3.get_object_lock_configuration(Bucket=name)["ObjectLockConfiguration"] == wanted
    for wanted, code in (
        (settings(Mode="GOVERNANCE", Days=0), "InvalidRetentionPeriod"),
        (settings(Mode="GOVERNANCE", Days=1, Years=1), "MalformedXML"),
        (settings(Mode="GOVERNANCE"), "MalformedXML"),
        (settings(Mode="governance", Days=1), "MalformedXML"),
        ({"ObjectLockEnabled": "Disabled"}, "MalformedXML"),
    ):
        assert refused(s3.put_object_lock_configuration, Bucket=locked, ObjectLockConfiguration=wanted)[0] == code


def test_lock_settings_need_versioning(s3, plain) -> None:
    wanted = {"ObjectLockEnabled": "Enabled"}
    assert refused(s3.put_object_lock_configuration, Bucket=plain, ObjectLockConfiguration=wanted) == (
        "InvalidBucketState", 409,
    )  # fmt: skip
    s3.put_object(Bucket=plain, Key="k", Body=b"")
    missing = ("InvalidRequest", 400)
    retention = {"Mode": "GOVERNANCE", "RetainUntilDate": FAR}
    assert refused(s3.put_object_retention, Bucket=plain, Key="k", Retention=retention) == missing
    assert refused(s3.get_object_retention, Bucket=plain, Key="k") == missing
    assert refused(s3.put_object_legal_hold, Bucket=plain, Key="k", LegalHold={"Status": "ON"}) == missing
    assert refused(s3.put_object, Bucket=plain, Key="k", ObjectLockLegalHoldStatus="ON") == missing


def test_retention(s3, locked) -> None:
    object_lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": FAR}
    version = s3.put_object(Bucket=locked, Key="k", Body=b"x", **object_lock)["VersionId"]
    head = s3.head_object(Bucket=locked, Key="k")
    assert (head["ObjectLockMode"], head["ObjectLockRetainUntilDate"]) == ("GOVERNANCE", FAR)
    named = {"Bucket": locked, "Key": "k", "VersionId": version}
    assert s3.get_object_retention(**named)["Retention"] == {"Mode": "GOVERNANCE", "RetainUntilDate": FAR}
    assert refused(s3.delete_object, **named) == ("AccessDenied", 403)
    errors = s3.delete_objects(Bucket=locked, Delete={"Objects": [{"Key": "k", "VersionId": version}]})["Errors"]
    assert [(each["Code"], each["VersionId"]) for each in errors] == [("AccessDenied", version)]
    later, sooner = FAR + timedelta(days=1), FAR - timedelta(days=1)
    s3.put_object_retention(**named, Retention={"Mode": "GOVERNANCE", "RetainUntilDate": later})
    shorter = {"Mode": "GOVERNANCE", "RetainUntilDate": sooner}
    assert refused(s3.put_object_retention, **named, Retention=shorter) == ("AccessDenied", 403)
    s3.put_object_retention(**named, Retention=shorter, BypassGovernanceRetention=True)
    for wanted, code in (
        ({"Mode": "GOVERNANCE", "RetainUntilDate": datetime(2001, 1, 1, tzinfo=UTC)}, "InvalidArgument"),
        ({"Mode": "abc", "RetainUntilDate": FAR}, "MalformedXML"),
    ):
        assert refused(s3.put_object_retention, **named, Retention=wanted)[0] == code
    s3.delete_object(Bucket=locked, Key="k")
    s3.delete_object(**named, BypassGovernanceRetention=True)
    assert refused(s3.get_object, **named) == ("NoSuchVersion", 404)


def test_compliance_has_no_way_around(s3, locked) -> None:
    object_lock = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": FAR}
    version = s3.put_object(Bucket=locked, Key="k", Body=b"x", **object_lock)["VersionId"]
    named = {"Bucket": locked, "Key": "k", "VersionId": version}
    assert refused(s3.delete_object, **named, BypassGovernanceRetention=True)[0] == "AccessDenied"
    looser = {"Mode": "GOVERNANCE", "RetainUntilDate": FAR}
    assert refused(s3.put_object_retention, **named, Retention=looser, BypassGovernanceRetention=True) == (
        "AccessDenied", 403,
    )  # fmt: skip
    assert s3.get_object(**named)["Body"].read() == b"x"


def test_legal_hold(s3, locked) -> None:
    version = s3.put_object(Bucket=locked, Key="k", Body=b"x")["VersionId"]
    named = {"Bucket": locked, "Key": "k", "VersionId": version}
    assert refused(s3.get_object_legal_hold, **named) == ("NoSuchObjectLockConfiguration", 404)
    assert refused(s3.get_object_retention, **named) == ("NoSuchObjectLockConfiguration", 404)
    s3.put_object_legal_hold(**named, LegalHold={"Status": "ON"})
    assert s3.get_object_legal_hold(**named)["LegalHold"] == {"Status": "ON"}
    assert s3.head_object(**named)["ObjectLockLegalHoldStatus"] == "ON"
    assert refused(s3.delete_object, **named, BypassGovernanceRetention=True) == ("AccessDenied", 403)
    assert refused(s3.put_object_legal_hold, **named, LegalHold={"Status": "abc"}) == ("MalformedXML", 400)
    s3.put_object_legal_hold(**named, LegalHold={"Status": "OFF"})
    s3.delete_object(**named)


def test_locks_of_uploads_and_copies(s3, locked) -> None:
    object_lock = {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": FAR, "ObjectLockLegalHoldStatus": "ON"}
    ref = {"Bucket": locked, "Key": "k"}
    upload = s3.create_multipart_upload(**ref, **object_lock)["UploadId"]
    part = s3.upload_part(**ref, UploadId=upload, PartNumber=1, Body=b"x")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(**ref, UploadId=upload, MultipartUpload=parts)
    head = s3.head_object(**ref)
    assert (head["ObjectLockMode"], head["ObjectLockLegalHoldStatus"]) == ("GOVERNANCE", "ON")
    s3.copy_object(Bucket=locked, Key="copy", CopySource=ref)
    assert "ObjectLockMode" not in s3.head_object(Bucket=locked, Key="copy")
    s3.copy_object(Bucket=locked, Key="held", CopySource=ref, ObjectLockLegalHoldStatus="ON")
    assert s3.head_object(Bucket=locked, Key="held")["ObjectLockLegalHoldStatus"] == "ON"


@pytest.mark.parametrize(
    "wanted",
    [
        {"ObjectLockMode": "GOVERNANCE"},
        {"ObjectLockRetainUntilDate": FAR},
        {"ObjectLockMode": "abc", "ObjectLockRetainUntilDate": FAR},
        {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": datetime(2001, 1, 1, tzinfo=UTC)},
        {"ObjectLockLegalHoldStatus": "abc"},
    ],
)
def test_locks_to_refuse(s3, locked, wanted) -> None:
    assert refused(s3.put_object, Bucket=locked, Key="k", Body=b"", **wanted) == ("InvalidArgument", 400)


# -- lifecycle
def test_lifecycle(s3, plain) -> None:
    assert refused(s3.get_bucket_lifecycle_configuration, Bucket=plain) == ("NoSuchLifecycleConfiguration", 404)
    tags = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "é"}]
    rules = [
        {"ID": "one", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 3}},
        {
            "ID": "two",
            "Status": "Disabled",
            "Filter": {"And": {"Prefix": "x", "Tags": tags, "ObjectSizeGreaterThan": 5}},
            "Expiration": {"Date": datetime(2030, 1, 1, tzinfo=UTC)},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 4, "NewerNoncurrentVersions": 2},
        },
        {
            "ID": "three",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "Expiration": {"ExpiredObjectDeleteMarker": True},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        },
        {"ID": "four", "Status": "Enabled", "Prefix": "old style", "Expiration": {"Days": 1}},
    ]
    s3.put_bucket_lifecycle_configuration(Bucket=plain, LifecycleConfiguration={"Rules": rules})
    assert s3.get_bucket_lifecycle_configuration(Bucket=plain)["Rules"] == rules
    wrong = [{"ID": "x", "Status": "Enabled", "Filter": {}, "Expiration": {"Days": 0}}]
    assert refused(s3.put_bucket_lifecycle_configuration, Bucket=plain, LifecycleConfiguration={"Rules": wrong}) == (
        "InvalidArgument",
        400,
    )
    assert s3.get_bucket_lifecycle_configuration(Bucket=plain)["Rules"] == rules
    s3.delete_bucket_lifecycle(Bucket=plain)
    assert refused(s3.get_bucket_lifecycle_configuration, Bucket=plain)[0] == "NoSuchLifecycleConfiguration"
    assert refused(s3.delete_bucket_lifecycle, Bucket="no-such-bucket")[0] == "NoSuchBucket"


# -- the rest
def test_tags_of_a_bucket(s3, plain) -> None:
    assert refused(s3.get_bucket_tagging, Bucket=plain) == ("NoSuchTagSet", 404)
    tag_set = [{"Key": f"k{number}", "Value": "é"} for number in range(50)]
    s3.put_bucket_tagging(Bucket=plain, Tagging={"TagSet": tag_set})
    assert s3.get_bucket_tagging(Bucket=plain)["TagSet"] == tag_set
    more = {"TagSet": [*tag_set, {"Key": "one", "Value": "more"}]}
    assert refused(s3.put_bucket_tagging, Bucket=plain, Tagging=more) == ("InvalidTag", 400)
    s3.delete_bucket_tagging(Bucket=plain)
    assert refused(s3.get_bucket_tagging, Bucket=plain)[0] == "NoSuchTagSet"


def test_pages_of_buckets(s3) -> None:
    names = [f"paged-{number}" for number in range(5)]
    for name in names:
        s3.create_bucket(Bucket=name)
    pages = list(s3.get_paginator("list_buckets").paginate(Prefix="paged-", PaginationConfig={"PageSize": 2}))
    assert [[each["Name"] for each in page["Buckets"]] for page in pages] == [names[:2], names[2:4], names[4:]]
    assert {page["Prefix"] for page in pages} == {"paged-"}
    assert pages[0]["Buckets"][0]["BucketRegion"] == "us-east-1"
    assert s3.list_buckets(BucketRegion="eu-west-1")["Buckets"] == []
    assert refused(s3.list_buckets, ContinuationToken="nonsense") == ("InvalidArgument", 400)


def test_attributes(s3, bucket) -> None:
    every = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"12345", ChecksumAlgorithm="SHA256")
    got = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=every)
    assert (got["ETag"], got["ObjectSize"], got["StorageClass"]) == (put["ETag"].strip('"'), 5, "STANDARD")
    assert got["Checksum"] == {"ChecksumSHA256": put["ChecksumSHA256"], "ChecksumType": "FULL_OBJECT"}
    assert got["VersionId"] == put["VersionId"]
    assert "ObjectParts" not in got
    assert "LastModified" in got
    some = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ObjectSize"])
    assert "ETag" not in some
    ref = {"Bucket": bucket, "Key": "parts"}
    upload = s3.create_multipart_upload(**ref)["UploadId"]
    sizes = (5 * 1024 * 1024, 7)
    parts = []
    for number, size in enumerate(sizes, 1):
        part = s3.upload_part(**ref, UploadId=upload, PartNumber=number, Body=bytes(size))
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    s3.complete_multipart_upload(**ref, UploadId=upload, MultipartUpload={"Parts": parts})
    page = s3.get_object_attributes(**ref, ObjectAttributes=every, MaxParts=1)["ObjectParts"]
    assert (page["TotalPartsCount"], page["IsTruncated"], page["NextPartNumberMarker"]) == (2, True, 1)
    assert page["Parts"] == [{"PartNumber": 1, "Size": sizes[0]}]
    page = s3.get_object_attributes(**ref, ObjectAttributes=every, PartNumberMarker=1)["ObjectParts"]
    assert (page["IsTruncated"], page["Parts"]) == (False, [{"PartNumber": 2, "Size": 7}])
    assert refused(s3.get_object_attributes, Bucket=bucket, Key="k", ObjectAttributes=["Odd"]) == (
        "InvalidArgument", 400,
    )  # fmt: skip
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    assert refused(s3.get_object_attributes, Bucket=bucket, Key="k", ObjectAttributes=every)[0] == "NoSuchKey"
    asked = {"Bucket": bucket, "Key": "k", "VersionId": marker, "ObjectAttributes": every}
    assert refused(s3.get_object_attributes, **asked) == ("MethodNotAllowed", 405)


@pytest.mark.parametrize(
    ("read", "more", "told"),
    [
        ("get_bucket_accelerate_configuration", {}, {}),
        ("get_bucket_logging", {}, {}),
        ("get_bucket_notification_configuration", {}, {}),
        ("get_bucket_request_payment", {}, {"Payer": "BucketOwner"}),
        ("get_bucket_replication", {}, "ReplicationConfigurationNotFoundError"),
        ("get_bucket_website", {}, "NoSuchWebsiteConfiguration"),
        ("get_bucket_inventory_configuration", {"Id": "x"}, "NoSuchConfiguration"),
        ("get_bucket_metrics_configuration", {"Id": "x"}, "NoSuchConfiguration"),
        ("get_bucket_analytics_configuration", {"Id": "x"}, "NoSuchConfiguration"),
        ("get_bucket_intelligent_tiering_configuration", {"Id": "x"}, "NoSuchConfiguration"),
        ("list_bucket_inventory_configurations", {}, {"IsTruncated": False}),
        ("list_bucket_metrics_configurations", {}, {"IsTruncated": False}),
        ("list_bucket_analytics_configurations", {}, {"IsTruncated": False}),
        ("list_bucket_intelligent_tiering_configurations", {}, {"IsTruncated": False}),
    ],
)
def test_what_is_not_set(s3, plain, read, more, told) -> None:
    call = getattr(s3, read)
    if isinstance(told, str):
        assert refused(call, Bucket=plain, **more) == (told, 404)
    else:
        answer = call(Bucket=plain, **more)
        assert {name: value for name, value in answer.items() if name != "ResponseMetadata"} == told
    assert refused(call, Bucket="no-such-bucket", **more) == ("NoSuchBucket", 404)


def test_what_cannot_be_set(s3, plain) -> None:
    for call, wanted in (
        (s3.put_bucket_accelerate_configuration, {"AccelerateConfiguration": {"Status": "Enabled"}}),
        (s3.put_bucket_logging, {"BucketLoggingStatus": {}}),
        (s3.put_bucket_notification_configuration, {"NotificationConfiguration": {}}),
        (s3.put_bucket_request_payment, {"RequestPaymentConfiguration": {"Payer": "Requester"}}),
        (s3.put_bucket_website, {"WebsiteConfiguration": {"IndexDocument": {"Suffix": "i"}}}),
        (s3.put_bucket_replication, {"ReplicationConfiguration": {"Role": "r", "Rules": []}}),
    ):
        assert refused(call, Bucket=plain, **wanted) == ("NotImplemented", 501)
    s3.delete_bucket_website(Bucket=plain)
    s3.delete_bucket_replication(Bucket=plain)
