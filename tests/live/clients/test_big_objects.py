"""Objects larger than a node may keep in memory: 600 MB each here, 5 GB with QSS_BIG_BYTES (scripts/test --long)."""

from __future__ import annotations

import hashlib
import http.client
import os
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

from qss.trove.testing import TroveServer
from tests.harness.boto import client_of
from tests.harness.certificates import Authority

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


def test_in_parts_over_tls(tmp_path: Path) -> None:
    """As boto3 does it: each part in chunks, with its checksum behind."""
    authority = Authority(tmp_path / "ca")
    tls = authority.issue("node")
    with TroveServer(sync="os", tls=(tls.certificate, tls.key)) as trove:
        client = client_of(trove, ca=authority.certificate)
        client.create_bucket(Bucket="bkt")
        whole = Pattern(BIG_BYTES)
        client.upload_fileobj(whole, "bkt", "big")
        assert "-" in client.head_object(Bucket="bkt", Key="big")["ETag"]
        assert _hash_of(client, "big") == whole.hash.hexdigest()
        assert _peak_mib(trove) <= PEAK_MIB_MAX


def test_in_one_stream() -> None:
    with TroveServer(sync="os") as trove:
        client = client_of(trove)
        client.create_bucket(Bucket="bkt")
        url = urlsplit(client.generate_presigned_url("put_object", Params={"Bucket": "bkt", "Key": "big"}))
        whole = Pattern(BIG_BYTES)
        connection = http.client.HTTPConnection(url.netloc)
        headers = {"Content-Length": str(BIG_BYTES)}
        connection.request("PUT", f"{url.path}?{url.query}", body=whole, headers=headers)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        connection.close()
        assert _hash_of(client, "big") == whole.hash.hexdigest()
        assert _peak_mib(trove) <= PEAK_MIB_MAX
