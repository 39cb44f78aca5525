"""The node keeps the contract of every backend of the S3 server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from qss.s3.backend import ObjectBackend
from tests.contracts.s3_backend import S3BackendContract
from tests.contracts.s3_versions import S3VersionsContract
from tests.harness.trove_node import node


class TestTroveStore(S3VersionsContract, S3BackendContract):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self._data = tmp_path / "node"

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[ObjectBackend]:
        one = node(self._data)
        try:
            yield one.store
        finally:
            await one.aclose()
