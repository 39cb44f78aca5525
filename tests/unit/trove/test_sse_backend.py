"""A node whose buckets encrypt by default keeps the contract of every backend: nobody notices but who looks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from qss.s3.backend import EtagMode, ObjectBackend, PutRequest
from qss.trove.store import TroveStore
from tests.contracts.s3_backend import BUCKET, S3BackendContract, body_of
from tests.harness.trove_node import node


class _Encrypting(TroveStore):
    async def create_bucket(self, name: str, region: str, *, lock: bool = False) -> None:
        await super().create_bucket(name, region, lock=lock)
        await self.set_encryption(name, encrypted=True)


class TestEncryptingStore(S3BackendContract):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self._data = tmp_path / "node"

    def test_opaque_etags_change_with_the_content(self) -> None:
        """They change with each put: what is hashed is what is stored."""

        async def case(backend: ObjectBackend) -> None:
            request = PutRequest(BUCKET, "k", etag_mode=EtagMode.OPAQUE)
            etags = [(await backend.put(request, body_of(b"one", mode=EtagMode.OPAQUE))).etag for _ in range(3)]
            assert len(set(etags)) == 3
            assert (await backend.head(BUCKET, "k")).etag == etags[-1]

        self.run(case)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[ObjectBackend]:
        one = node(self._data)
        one.store.__class__ = _Encrypting
        try:
            yield one.store
        finally:
            await one.aclose()
