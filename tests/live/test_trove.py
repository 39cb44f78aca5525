"""`trove serve` as people run it: a real process, boto3 in front, SIGKILL under load."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from qss.trove.testing import TroveServer, running_trove
from tests.harness.boto import boto_client, client_of

pytestmark = pytest.mark.live

trove = pytest.fixture(running_trove)


def s3(server: TroveServer) -> Any:
    return client_of(server, retries={"total_max_attempts": 1}, max_pool_connections=8)


def admin(server: TroveServer, path: str, body: dict[str, str] | None = None) -> Any:
    request = urllib.request.Request(
        server.admin + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"authorization": f"Bearer {server.admin_token}"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def test_the_life_of_an_object(trove: TroveServer) -> None:
    client = s3(trove)
    client.create_bucket(Bucket="bkt")
    client.head_bucket(Bucket="bkt")
    bodies = {f"dir {n}/ü-{n}": os.urandom(n) for n in (0, 1, 4096, 70_000, 1_048_577, 9_000_000)}
    for key, body in bodies.items():
        answer = client.put_object(Bucket="bkt", Key=key, Body=body, Metadata={"who": "me"}, ContentType="text/x")
        assert answer["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    for key, body in bodies.items():
        got = client.get_object(Bucket="bkt", Key=key)
        assert got["Body"].read() == body
        assert (got["Metadata"], got["ContentType"]) == ({"who": "me"}, "text/x")
        assert client.head_object(Bucket="bkt", Key=key)["ContentLength"] == len(body)
    part = client.get_object(Bucket="bkt", Key="dir 9000000/ü-9000000", Range="bytes=65535-8000000")
    assert part["Body"].read() == bodies["dir 9000000/ü-9000000"][65535:8000001]
    listed = client.list_objects_v2(Bucket="bkt", Delimiter="/")
    assert [each["Prefix"] for each in listed["CommonPrefixes"]] == sorted(f"{key.split('/')[0]}/" for key in bodies)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="bkt", PaginationConfig={"PageSize": 2})
    assert [each["Key"] for page in pages for each in page["Contents"]] == sorted(bodies)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket="bkt", Key="dir 0/ü-0", Body=b"", IfNoneMatch="*")
    client.delete_objects(Bucket="bkt", Delete={"Objects": [{"Key": key} for key in bodies]})
    client.delete_bucket(Bucket="bkt")
    assert client.list_buckets()["Buckets"] == []


def test_multipart(trove: TroveServer) -> None:
    client = s3(trove)
    client.create_bucket(Bucket="bkt")
    parts = [os.urandom(6_000_000), os.urandom(5_242_880), os.urandom(10)]
    upload = client.create_multipart_upload(Bucket="bkt", Key="big")["UploadId"]
    done = [
        {
            "PartNumber": number,
            "ETag": client.upload_part(Bucket="bkt", Key="big", UploadId=upload, PartNumber=number, Body=body)["ETag"],
        }
        for number, body in enumerate(parts, 1)
    ]
    client.complete_multipart_upload(Bucket="bkt", Key="big", UploadId=upload, MultipartUpload={"Parts": done})
    assert client.get_object(Bucket="bkt", Key="big")["Body"].read() == b"".join(parts)
    whole = b"".join(parts)
    got = client.get_object(Bucket="bkt", Key="big", Range="bytes=5999999-6000001")["Body"].read()
    assert got == whole[5_999_999:6_000_002]
    trove.kill()
    trove.start()
    assert client.get_object(Bucket="bkt", Key="big")["Body"].read() == whole
    assert client.head_object(Bucket="bkt", Key="big")["ETag"].endswith('-3"')


def test_a_wrong_secret_and_a_wrong_token_are_refused(trove: TroveServer) -> None:
    client = boto_client(trove.endpoint, trove.access_key, "wrong")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        client.list_buckets()
    with urllib.request.urlopen(trove.admin + "/health/ready") as answer:
        assert answer.status == 200
    trove.admin_token = "wrong"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        admin(trove, "/status")


def _write_until_it_dies(server: TroveServer, seed: int, acknowledged: dict[str, str], enough: threading.Event) -> None:
    """Put objects of all sizes, over old ones too; remember a key's hash only when the answer has come."""
    client, rng = s3(server), random.Random(seed)
    for number in range(10_000):
        key = f"w{seed}/{number % 40}"
        body = rng.randbytes(rng.choice((10, 4096, 70_000, 1_500_000)))
        previous = acknowledged.pop(key, None)
        try:
            client.put_object(Bucket="bkt", Key=key, Body=body)
        except (ClientError, BotoCoreError):
            acknowledged[key + "?"] = f"{previous},{hashlib.sha256(body).hexdigest()}"
            return
        acknowledged[key] = hashlib.sha256(body).hexdigest()
        if number == 30:
            enough.set()


def test_sigkill_under_load_loses_nothing_acknowledged(tmp_path: Path) -> None:
    with TroveServer(tmp_path / "n") as server:
        s3(server).create_bucket(Bucket="bkt")
        for round_number in range(3):
            acknowledged: list[dict[str, str]] = [{} for _ in range(4)]
            enough = threading.Event()
            writers = [
                threading.Thread(target=_write_until_it_dies, args=(server, 10 * round_number + n, mine, enough))
                for n, mine in enumerate(acknowledged)
            ]
            for writer in writers:
                writer.start()
            assert enough.wait(180)
            server.kill()
            for writer in writers:
                writer.join()
            server.start()
            client = s3(server)
            keys = {each["Key"] for each in _all_keys(client)}
            for key, wanted in (item for mine in acknowledged for item in mine.items()):
                if key.endswith("?"):  # not answered: the old one or the new one, but whole
                    found = _hash(client, key[:-1]) if key[:-1] in keys else "None"
                    assert found in wanted.split(",")
                else:
                    assert _hash(client, key) == wanted
        assert admin(server, "/status")["damaged"] == []
        assert admin(server, "/verify", {})["damaged"] == []


def _all_keys(client: Any) -> Iterator[dict[str, Any]]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="bkt"):
        yield from page.get("Contents", [])


def _hash(client: Any, key: str) -> str:
    return hashlib.sha256(client.get_object(Bucket="bkt", Key=key)["Body"].read()).hexdigest()


def test_a_damaged_object_is_answered_with_an_error_and_reported(trove: TroveServer) -> None:
    client = s3(trove)
    client.create_bucket(Bucket="bkt")
    body = os.urandom(200_000)
    client.put_object(Bucket="bkt", Key="k", Body=body)
    for volume in (trove.data / "volumes").iterdir():
        data = volume.read_bytes()
        at = data.find(body[:64])
        if at >= 0:
            with volume.open("r+b") as file:
                file.seek(at + 150_000)
                file.write(bytes([data[at + 150_000] ^ 4]))
    with pytest.raises(ClientError, match="ObjectDamaged"):
        client.get_object(Bucket="bkt", Key="k")
    assert admin(trove, "/verify", {"bucket": "bkt", "key": "k"})["sound"] is False
    assert len(admin(trove, "/status")["damaged"]) == 1
    client.put_object(Bucket="bkt", Key="k", Body=body)
    assert client.get_object(Bucket="bkt", Key="k")["Body"].read() == body


def _trove(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qss.cli.trove", *arguments], capture_output=True, text=True, timeout=180, check=False
    )


def test_refusals_are_one_sentence_and_exit_code_3(trove: TroveServer, tmp_path: Path) -> None:
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "file").touch()
    (tmp_path / "trove.toml").write_text("sycn = 'group'\n")
    taken = trove.endpoint.removeprefix("http://")
    for arguments in (
        ("serve", "--data", str(trove.data), "--s3", "127.0.0.1:0"),
        ("serve", "--data", str(tmp_path / "strange"), "--s3", "127.0.0.1:0"),
        ("serve", "--data", str(tmp_path / "strange"), "--s3", "127.0.0.1:0", "--clean-slate"),
        ("serve", "--data", str(tmp_path / "new"), "--s3", taken),
        ("serve", "--data", str(tmp_path / "new"), "--s3", "nonsense"),
        ("serve", "--data", str(tmp_path / "new"), "--config", str(tmp_path / "trove.toml")),
        ("inspect", "--data", str(tmp_path / "absent")),
    ):
        done = _trove(*arguments)
        assert done.returncode == 3, (arguments, done)
        assert done.stderr.startswith("trove: ")
        assert done.stderr.count("\n") == 1
    assert _trove("serve", "--no-such-option").returncode == 2


def test_what_a_stopped_node_can_be_asked(trove: TroveServer) -> None:
    client = s3(trove)
    client.create_bucket(Bucket="bkt")
    for number in range(20):
        client.put_object(Bucket="bkt", Key=f"{number}", Body=os.urandom(10_000))
    for number in range(19):
        client.delete_object(Bucket="bkt", Key=f"{number}")
    trove.stop()
    assert json.loads(_trove("inspect", "--data", str(trove.data)).stdout)["objects"] == 1
    assert json.loads(_trove("compact", "--data", str(trove.data)).stdout)["freed_bytes"] > 150_000
    done = _trove("verify", "--data", str(trove.data))
    assert (done.returncode, json.loads(done.stdout)) == (0, {"sound": 1, "damaged": []})
