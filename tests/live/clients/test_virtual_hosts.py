"""Buckets as subdomains, as boto3 names them when it is told to."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config

from qss.trove.testing import TroveServer

pytestmark = pytest.mark.live


def test_subdomains_are_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def here(host: str, *arguments: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if host.endswith("s3.test") else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", here)
    with TroveServer(extra=("--domain", "other.test", "--domain", "S3.test")) as trove:
        s3 = boto3.client(
            "s3",
            endpoint_url=f"http://s3.test:{urlsplit(trove.endpoint).port}",
            aws_access_key_id=trove.access_key,
            aws_secret_access_key=trove.secret_key,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "virtual"}),
        )
        s3.create_bucket(Bucket="bkt")
        s3.put_object(Bucket="bkt", Key="a b/ü", Body=b"content")
        assert s3.get_object(Bucket="bkt", Key="a b/ü")["Body"].read() == b"content"
        assert [each["Key"] for each in s3.list_objects_v2(Bucket="bkt")["Contents"]] == ["a b/ü"]
        assert s3.meta.endpoint_url.startswith("http://s3.test")
        url = s3.generate_presigned_url("get_object", Params={"Bucket": "bkt", "Key": "a b/ü"})
        assert urlsplit(url).hostname == "bkt.s3.test"
        assert [each["Name"] for each in s3.list_buckets()["Buckets"]] == ["bkt"]
