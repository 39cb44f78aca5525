"""The client against somebody else's server."""

from __future__ import annotations

import itertools

import pytest

from qss.host import SystemClock
from qss.s3.client import S3Client
from tests.contracts.object_store import ObjectStoreContract
from tests.harness.moto_server import moto_server

_numbers = itertools.count()


@pytest.fixture(scope="module")
def endpoint():
    with moto_server() as url:
        yield url


class TestS3ClientOnMoto(ObjectStoreContract):
    @pytest.fixture
    async def store(self, endpoint):
        client = S3Client(
            endpoint,
            f"bucket-{next(_numbers)}",
            access_key="key",
            secret_key="secret",
            clock=SystemClock(),
            prefix="p/",
        )
        await client.ensure_bucket()
        yield client
        await client.aclose()
