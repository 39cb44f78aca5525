"""Objects larger than a node may keep in memory: 600 MB each here, 5 GB with QSS_BIG_BYTES (scripts/test --long)."""

from __future__ import annotations

import hashlib
import http.client
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config

from qss.trove.testing import TroveServer

pytestmark = pytest.mark.live

BIG_BYTES = int(os.environ.get("QSS_BIG_BYTES", "600000000"))
PEAK_MIB_MAX = 200
READ_BYTES = 2**20


class Pattern:
    """A file that is nowhere: `size` bytes that repeat after a prime number of them; hashed as they are read."""

    _PERIOD = hashlib.shake_256(b"pattern").digest(1_000_003)
    _AT_HAND = _PERIOD * 20

    def __init__(self, size: int) -> None:
        self._size = size
        self._at = 0
        self.hash = hashlib.blake2b()

    def read(self, count: int) -> bytes:
        assert count <= len(self._AT_HAND) - len(self._PERIOD), "who wants that much at once?"
        count = min(count, self._size - self._at)
        start = self._at % len(self._PERIOD)
        found = self._AT_HAND[start : start + count]
        self._at += len(found)
        self.hash.update(found)
        return found

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        found = self.read(READ_BYTES)
        if not found:
            raise StopIteration
        return found


@pytest.fixture(scope="module")
def trove() -> Iterator[TroveServer]:
    with TroveServer(sync="os") as server:
        yield server


def _s3(server: TroveServer) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
        config=Config(signature_version="s3v4"),
    )


def _peak_mib(server: TroveServer) -> float:
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def _hash_of(client: Any, key: str) -> str:
    found = hashlib.blake2b()
    size = 0
    body = client.get_object(Bucket="bkt", Key=key)["Body"]
    while chunk := body.read(READ_BYTES):
        found.update(chunk)
        size += len(chunk)
    assert size == BIG_BYTES
    return found.hexdigest()


def test_in_parts_and_in_one_stream(trove: TroveServer) -> None:
    """One node for both: its peak is that of the larger."""
    client = _s3(trove)
    client.create_bucket(Bucket="bkt")

    whole = Pattern(BIG_BYTES)
    client.upload_fileobj(whole, "bkt", "in parts")
    assert "-" in client.head_object(Bucket="bkt", Key="in parts")["ETag"]
    wanted = whole.hash.hexdigest()
    assert _hash_of(client, "in parts") == wanted
    client.delete_object(Bucket="bkt", Key="in parts")

    url = urlsplit(client.generate_presigned_url("put_object", Params={"Bucket": "bkt", "Key": "in one"}))
    connection = http.client.HTTPConnection(url.netloc)
    headers = {"Content-Length": str(BIG_BYTES)}
    connection.request("PUT", f"{url.path}?{url.query}", body=Pattern(BIG_BYTES), headers=headers)
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"")
    connection.close()
    assert _hash_of(client, "in one") == wanted

    assert _peak_mib(trove) <= PEAK_MIB_MAX
