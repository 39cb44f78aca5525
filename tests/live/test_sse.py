"""Server-side encryption as boto3 speaks it, over TLS, to a real node: both kinds, multipart, copies, a kill."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from qss.trove.testing import TroveServer
from tests.harness.boto import client_of
from tests.harness.certificates import Authority
from tests.harness.waiting import WAIT_S_MAX

pytestmark = pytest.mark.live

KEY, OTHER = os.urandom(32), os.urandom(32)
MINE: dict[str, Any] = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": KEY}
THEIRS: dict[str, Any] = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": OTHER}
SOURCE: dict[str, Any] = {"CopySourceSSECustomerAlgorithm": "AES256", "CopySourceSSECustomerKey": KEY}
PARTS = TransferConfig(multipart_threshold=8 * 1024 * 1024, multipart_chunksize=8 * 1024 * 1024, max_concurrency=2)


@pytest.fixture(scope="module")
def trove(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TroveServer, Path]]:
    authority = Authority(tmp_path_factory.mktemp("ca"))
    pair = authority.issue("node")
    with TroveServer(tmp_path_factory.mktemp("data"), tls=(pair.certificate, pair.key)) as server:
        yield server, authority.certificate


@pytest.fixture(scope="module")
def s3(trove: tuple[TroveServer, Path]) -> Any:
    server, authority = trove
    client = client_of(server, ca=authority)
    client.create_bucket(Bucket="bkt")
    return client


def refused(call: Any, **arguments: Any) -> tuple[int, str]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def test_customers_keys(s3: Any) -> None:
    body = os.urandom(300_000)
    put = s3.put_object(Bucket="bkt", Key="mine", Body=body, **MINE)
    assert put["SSECustomerAlgorithm"] == "AES256"
    assert put["ETag"] != f'"{hashlib.md5(body).hexdigest()}"'
    got = s3.get_object(Bucket="bkt", Key="mine", **MINE)
    assert (got["Body"].read(), got["SSECustomerKeyMD5"]) == (body, put["SSECustomerKeyMD5"])
    part = s3.get_object(Bucket="bkt", Key="mine", Range="bytes=65510-65530", **MINE)
    assert part["Body"].read() == body[65_510:65_531]
    assert s3.head_object(Bucket="bkt", Key="mine", **MINE)["ContentLength"] == len(body)
    assert refused(s3.get_object, Bucket="bkt", Key="mine") == (400, "InvalidRequest")
    assert refused(s3.get_object, Bucket="bkt", Key="mine", **THEIRS) == (403, "AccessDenied")
    assert refused(s3.head_object, Bucket="bkt", Key="mine") == (400, "400")
    assert refused(s3.head_object, Bucket="bkt", Key="mine", **THEIRS) == (403, "403")
    (listed,) = s3.list_objects_v2(Bucket="bkt", Prefix="mine")["Contents"]
    assert (listed["Size"], listed["ETag"]) == (len(body), put["ETag"])


def test_the_servers_key_and_a_buckets_default(s3: Any) -> None:
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    assert refused(s3.get_bucket_encryption, Bucket="bkt")[0] == 404
    s3.create_bucket(Bucket="default")
    s3.put_bucket_encryption(Bucket="default", ServerSideEncryptionConfiguration={"Rules": [rule]})
    told = s3.get_bucket_encryption(Bucket="default")["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert told["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    for bucket, asked in (("default", {}), ("bkt", {"ServerSideEncryption": "AES256"})):
        put = s3.put_object(Bucket=bucket, Key="managed", Body=b"body", **asked)
        assert (put["ServerSideEncryption"], put["ETag"]) == ("AES256", f'"{hashlib.md5(b"body").hexdigest()}"')
        got = s3.get_object(Bucket=bucket, Key="managed")
        assert (got["Body"].read(), got["ServerSideEncryption"]) == (b"body", "AES256")
    assert refused(s3.put_object, Bucket="bkt", Key="k", ServerSideEncryption="aws:kms") == (501, "NotImplemented")
    s3.delete_bucket_encryption(Bucket="default")
    assert "ServerSideEncryption" not in s3.put_object(Bucket="default", Key="plain", Body=b"body")


@pytest.mark.parametrize(
    ("extra", "read"), [(MINE, MINE), ({"ServerSideEncryption": "AES256"}, {})], ids=["SSE-C", "SSE-S3"]
)
def test_large_ones_in_parts_and_their_copies(s3: Any, extra: dict[str, Any], read: dict[str, Any]) -> None:
    body = os.urandom(20_000_000)
    s3.upload_fileobj(io.BytesIO(body), "bkt", "large", ExtraArgs=extra, Config=PARTS)
    into = io.BytesIO()
    s3.download_fileobj("bkt", "large", into, ExtraArgs=read, Config=PARTS)
    assert into.getvalue() == body
    at = 8 * 1024 * 1024
    ranged = s3.get_object(Bucket="bkt", Key="large", Range=f"bytes={at - 3}-{at + 3}", **read)
    assert ranged["Body"].read() == body[at - 3 : at + 4]
    by = SOURCE if read else {}
    s3.copy_object(Bucket="bkt", Key="copy", CopySource="bkt/large", **by, **THEIRS)
    assert s3.get_object(Bucket="bkt", Key="copy", **THEIRS)["Body"].read() == body
    upload = s3.create_multipart_upload(Bucket="bkt", Key="joined", ServerSideEncryption="AES256")["UploadId"]
    where = {"Bucket": "bkt", "Key": "joined", "UploadId": upload}
    made = []
    for number, span in enumerate((f"0-{at - 1}", f"{at}-{len(body) - 1}"), 1):
        part = s3.upload_part_copy(
            **where, PartNumber=number, CopySource="bkt/large", CopySourceRange=f"bytes={span}", **by
        )
        made.append({"PartNumber": number, "ETag": part["CopyPartResult"]["ETag"]})
    done = s3.complete_multipart_upload(**where, MultipartUpload={"Parts": made})
    assert done["ServerSideEncryption"] == "AES256"
    assert s3.get_object(Bucket="bkt", Key="joined")["Body"].read() == body


def test_presigned_with_a_customers_key(s3: Any, trove: tuple[TroveServer, Path]) -> None:
    asked = {"Bucket": "bkt", "Key": "presigned", **MINE}
    url = s3.generate_presigned_url("put_object", Params=asked)
    seen = s3.put_object(Bucket="bkt", Key="headers", Body=b"", **MINE)["ResponseMetadata"]["HTTPHeaders"]
    name = "x-amz-server-side-encryption-customer-"
    headers = {
        f"{name}algorithm": "AES256",
        f"{name}key": base64.b64encode(KEY).decode(),
        f"{name}key-md5": seen[f"{name}key-md5"],
    }
    trusted = ssl.create_default_context(cafile=trove[1])
    put = httpx.put(url, content=b"body", headers=headers, verify=trusted, timeout=WAIT_S_MAX)
    assert put.status_code == 200, put.text
    assert s3.get_object(Bucket="bkt", Key="presigned", **MINE)["Body"].read() == b"body"


def test_after_a_kill_it_is_all_there(s3: Any, trove: tuple[TroveServer, Path]) -> None:
    s3.put_object(Bucket="bkt", Key="stays", Body=b"body", ServerSideEncryption="AES256")
    s3.put_object(Bucket="bkt", Key="stays-mine", Body=b"body", **MINE)
    trove[0].kill()
    trove[0].restart()
    assert s3.get_object(Bucket="bkt", Key="stays")["Body"].read() == b"body"
    assert s3.get_object(Bucket="bkt", Key="stays-mine", **MINE)["Body"].read() == b"body"
    stored = b"".join(path.read_bytes() for path in (trove[0].data / "volumes").iterdir())
    assert KEY not in stored
    assert (trove[0].data / "sse.key").stat().st_mode & 0o777 == 0o600
