"""The memory backend keeps the contract, so what is tested over it means something."""

from __future__ import annotations

from contextlib import asynccontextmanager

from tests.contracts.s3_backend import S3BackendContract
from tests.contracts.s3_versions import S3VersionsContract
from tests.harness.memory_backend import MemoryBackend


class TestMemoryBackend(S3VersionsContract, S3BackendContract):
    @asynccontextmanager
    async def opened(self):
        backend = MemoryBackend()
        yield backend
        assert backend.open_readers == 0
