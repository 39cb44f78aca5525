"""Requests are counted by what they were, and written down without a secret."""

from __future__ import annotations

import json
import math
import os
import random
from pathlib import Path
from typing import ClassVar

import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import Refused
from qss.s3.exchange import Exchange
from qss.trove.access_log import AccessLog, redacted_path, redacted_query
from qss.trove.meters import BOUNDS_S, Histogram, Meters, quantile_ms
from tests.harness.trove_fronts import ADMIN_TOKEN, SetClock, World, with_fronts

SECRET = "secret-key"


async def some_requests(world: World) -> dict[str, str]:
    """Of all kinds; returns the secrets that were sent."""
    await world.admin("POST", "/buckets", {"name": "bkt"})
    made = (await world.admin("POST", "/tokens", {"name": "t", "may": ["read", "write"]})).json()
    async with world.client("files", authorization=f"Bearer {made['token']}") as client:
        await client.put("/files/bkt/a%20b", content=b"x" * 1000)
        assert (await client.get("/files/bkt/a%20b")).status_code == 200
        assert (await client.get("/files/bkt/none")).status_code == 404
        assert (await client.get("/files/bkt")).status_code == 200
    share = (await world.admin("POST", "/shares", {"bucket": "bkt", "key": "a b"})).json()
    async with world.client("files") as client:
        assert (await client.get(share["path"])).status_code == 200
    request = AWSRequest("GET", "http://s3.test/bkt/a%20b", headers={"host": "s3.test"})
    S3SigV4QueryAuth(Credentials("AKROOT", SECRET, "the-session-token"), "s3", "us-east-1").add_auth(request)
    async with world.client("s3") as client:
        await client.get(request.url)
        assert (await client.get("/bkt/none")).status_code == 403
    signature = request.url.partition("X-Amz-Signature=")[2]
    assert len(signature) == 64
    return {
        "admin": ADMIN_TOKEN,
        "token": made["token"].rpartition("_")[2],
        "share": share["token"],
        "signature": signature,
        "session": "the-session-token",
    }


def test_what_was_asked_is_counted_and_written_and_nothing_secret_is(tmp_path: Path) -> None:
    log = tmp_path / "access.log"

    async def work(world: World) -> None:
        secrets = await some_requests(world)
        world.meters.sample()
        text = (await world.admin("GET", "/metrics")).text
        for line in (
            'trove_requests_total{front="files",operation="PutObject",status="200"} 1.0',
            'trove_requests_total{front="files",operation="GetObject",status="200"} 2.0',
            'trove_requests_total{front="files",operation="GetObject",status="404"} 1.0',
            'trove_requests_total{front="files",operation="ListObjects",status="200"} 1.0',
            'trove_requests_total{front="s3",operation="GetObject",status="403"} 1.0',
            'trove_requests_total{front="admin",operation="POST /buckets",status="201"} 1.0',
            'trove_request_seconds_count{front="files",operation="GetObject"} 3.0',
            'trove_request_seconds_bucket{front="files",le="+Inf",operation="GetObject"} 3.0',
            'trove_body_bytes_total{direction="in",front="files"} 1000.0',
        ):
            assert line in text, line
        sample = (await world.admin("GET", "/history")).json()["samples"][0]
        assert (sample["requests"], sample["errors"]) == (10, 0)
        assert sample["bytes_in"] > 1000
        assert sample["p50_ms"] > 0
        world.watching.reopen()
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert len(lines) == 12
        got = [each for each in lines if each["front"] == "files" and each["operation"] == "GetObject"]
        assert [(each["method"], each["status"], each["bytes_out"]) for each in got][:1] == [("GET", 200, 1000)]
        assert (got[0]["path"], got[0]["client"], got[2]["path"]) == ("/files/bkt/a%20b", "127.0.0.1", "/s/…")
        put = next(each for each in lines if each["operation"] == "PutObject")
        assert (put["bytes_in"], put["user"] != "") == (1000, True)
        presigned = next(each for each in lines if each["front"] == "s3")
        assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in presigned["query"]
        assert (presigned["user"], len(presigned["request_id"])) == ("AKROOT", 16)
        raw = log.read_text()
        for name, secret in secrets.items():
            assert secret not in raw, name

    with_fronts(tmp_path / "n", work, log)


def test_queries_keep_their_names_and_lose_what_lets_in() -> None:
    assert redacted_query("prefix=a&X-Amz-Signature=ab&x-amz-credential=c") == (
        "prefix=a&X-Amz-Signature=…&x-amz-credential=…"
    )
    assert redacted_query("X%2DAmz%2DSignature=ab&uploads&partNumber=1") == "X%2DAmz%2DSignature=…&uploads&partNumber=1"
    assert redacted_query("") == ""
    assert redacted_query("X-Amz-%53ignature=ab&%74oken=c") == "X-Amz-%53ignature=…&%74oken=…"
    for path in ("/s/abc/name", "/%73/abc", "/s%2Fabc", "http://host:1/s/abc", "/s/abc%ff"):
        assert redacted_path(path) == "/s/…", path
    assert redacted_path("/files/bkt/s/abc") == "/files/bkt/s/abc"
    assert len(redacted_path("/" + "x" * 9000)) == 2048


class Asked:
    """As much of a scope as the log looks at."""

    method, raw_path, query_string, client = "GET", "/a\n{}", "", "::1"

    headers: ClassVar = {"user-agent": 'agent "quoted"\n'}


def test_the_log_is_rotated_by_the_system_and_a_full_disk_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(path, SetClock())
    log.note("s3", Asked(), Exchange("GetObject", status=200))
    path.rename(tmp_path / "old")
    log.reopen()
    log.note("s3", Asked(), Exchange("GetObject", status=404))
    log.flush()
    assert path.stat().st_mode & 0o777 == 0o600
    old, new = (json.loads(each.read_text()) for each in (tmp_path / "old", path))
    assert (old["status"], new["status"], new["path"], new["agent"]) == (200, 404, "/a\n{}", 'agent "quoted"\n')
    with monkeypatch.context() as patch:

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        patch.setattr(os, "write", full)
        for _ in range(600):
            log.note("s3", Asked(), Exchange())
        log.flush()
    assert log.lost == 600
    log.note("s3", Asked(), Exchange())
    log.close()
    assert len(path.read_text().splitlines()) == 2
    with pytest.raises(Refused, match="access log"):
        AccessLog(tmp_path / "none" / "log", SetClock())


@given(st.lists(st.floats(0, 20), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_is_in_the_class_of_the_true_one(seconds: list[float], share: float) -> None:
    histogram = Histogram()
    for each in seconds:
        histogram.add(each)
    found = quantile_ms(histogram.counts, share)
    true = sorted(seconds)[math.ceil(share * len(seconds)) - 1]
    top = next((bound for bound in BOUNDS_S if true <= bound), BOUNDS_S[-1])
    low = max((bound for bound in (0.0, *BOUNDS_S) if bound < top), default=0.0)
    assert found is not None
    assert low * 1000 - 1e-6 <= found <= top * 1000 + 1e-6


def test_there_is_no_quantile_of_nothing_and_samples_are_bounded() -> None:
    meters = Meters(SetClock())
    for _ in range(1000):
        meters.sample()
    samples = meters.history()["samples"]
    assert len(samples) == 900
    assert samples[0]["p50_ms"] is None
    rng = random.Random(1)
    for _ in range(100):
        meters.count("s3", Exchange("GetObject", status=rng.choice((200, 503)), seconds=0.002, bytes_out=5))
    meters.sample()
    last = meters.history()["samples"][-1]
    assert last["requests"] == 100
    assert 0 < last["errors"] < 100
    assert last["bytes_out"] == 500
    assert 1 < last["p99_ms"] <= 2.5
