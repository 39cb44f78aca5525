"""Client → HTTP → server → memory: the store's contract over our own wire."""

from __future__ import annotations

import itertools

import pytest
from blake3 import blake3

from qss.errors import AccessDenied, CorruptData, ObjectMissing, Refused, Unreachable
from qss.host import SystemClock
from qss.s3.client import ClientOptions, S3Client
from tests.contracts.object_store import ObjectStoreContract
from tests.harness.memory_store import body_of
from tests.harness.s3_server import ACCESS_KEY, SECRET_KEY, memory_s3, self_signed

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server():
    with memory_s3() as running:
        yield running
        assert running.backend.open_readers == 0


def client(server, bucket: str = "", secret: str = SECRET_KEY, **options) -> S3Client:
    return S3Client(
        server.endpoint,
        bucket or f"bucket-{next(_numbers)}",
        access_key=ACCESS_KEY,
        secret_key=secret,
        clock=SystemClock(),
        options=ClientOptions(**options),
    )


class TestS3Client(ObjectStoreContract):
    many = 1005  # more than one page

    @pytest.fixture
    async def store(self, server):
        found = client(server)
        await found.ensure_bucket()
        await found.ensure_bucket()  # a second time is no error
        yield found
        await found.aclose()


class TestS3ClientSigningPayloads(ObjectStoreContract):
    @pytest.fixture
    async def store(self, server):
        found = client(server, sign_payload=True, ask_fast_etag=False)
        await found.ensure_bucket()
        yield found
        await found.aclose()


async def test_a_wrong_secret_is_one_sentence_without_it(server) -> None:
    found = client(server, secret="wrong-secret")
    with pytest.raises(AccessDenied) as caught:
        await found.get("k")
    assert server.endpoint in str(caught.value)
    assert ACCESS_KEY in str(caught.value)
    assert "wrong-secret" not in str(caught.value) + repr(found)
    await found.aclose()


async def test_no_bucket_is_refused(server) -> None:
    found = client(server)
    with pytest.raises(Refused, match="no bucket"):
        await found.get("k")
    await found.aclose()


async def test_nobody_there_is_unreachable() -> None:
    found = S3Client("http://127.0.0.1:1", "b", access_key="a", secret_key="s", clock=SystemClock())
    with pytest.raises(Unreachable):
        await found.put("k", body_of(b"x"))
    await found.aclose()


async def test_large_objects_stream(server) -> None:
    found = client(server)
    await found.ensure_bucket()
    data = bytes(range(256)) * (9 * 1024 * 4)  # above READ_WHOLE_BYTES_MAX: the answer is streamed
    await found.put("large", body_of(data, 1 << 20))
    assert await found.get("large") == data
    assert await found.get("large", 1000, 6_000_000) == data[1000:6_000_000]
    await found.aclose()


async def test_tls_with_certificates_the_system_trusts_and_no_others(tmp_path, monkeypatch) -> None:
    tls = self_signed(tmp_path)
    data = bytes(range(251)) * 20_000
    with memory_s3(tls) as server:
        stranger = client(server, "bucket")
        with pytest.raises(Unreachable, match="certificate"):
            await stranger.get("k")
        monkeypatch.setenv("SSL_CERT_FILE", str(tls.certificate))
        friend = client(server, "bucket")
        await friend.ensure_bucket()
        await friend.put("k", body_of(data))
        memory = bytearray(1_000_000)
        await friend.get_into("k", 1000, memoryview(memory))
        assert memory == data[1000:1_001_000]
        assert await friend.get("k") == data
        await friend.aclose()


async def test_hashes_are_made_in_place(server) -> None:
    found = client(server)
    await found.ensure_bucket()
    data = bytes(range(256)) * 1000
    await found.put("k", body_of(data))
    spans = [(number * 100, number * 100 + 150) for number in range(150)]  # more than one request
    assert await found.hashes("k", spans) == [blake3(data[start:stop]).digest() for start, stop in spans]
    with pytest.raises(CorruptData):
        await found.hashes("k", [(0, len(data) + 1)])
    with pytest.raises(ObjectMissing):
        await found.hashes("nothing", [(0, 1)])
    await found.aclose()


async def test_room_is_told_to_those_who_sign_and_only_by_those_who_know_it(server, monkeypatch) -> None:
    found = client(server, "roomy")
    await found.ensure_bucket()
    assert await found.free_bytes() is None, "a server that does not say"
    monkeypatch.setattr(type(server.backend), "free_bytes", lambda _self, bucket: 10**12 + len(bucket), raising=False)
    assert await found.free_bytes() == 10**12 + 5
    await found.aclose()
    stranger = client(server, "roomy", secret="wrong-secret")
    with pytest.raises(Refused):
        await stranger.free_bytes()
    await stranger.aclose()
