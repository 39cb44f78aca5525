"""What the power took before it was acknowledged stays nothing, also when the power goes once more."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from qss.errors import CorruptData
from qss.s3.backend import PutRequest
from qss.trove.node import Node
from qss.trove.volumes import SMALL_BODY_BYTES_MAX
from tests.harness.trove_node import Bytes, content, drop_dead, node

OLD, LOST, NEW = b"old" * 30_000, b"lost" * 30_000, b"new" * 30_000


async def _put_without_sync(opened: Node, key: str, body: bytes) -> None:
    """As it is when the power goes before the sync: written, and not acknowledged."""
    sync = opened.engine.volumes.sync
    opened.engine.volumes.sync = lambda volumes: None  # type: ignore[method-assign]
    await opened.store.put(PutRequest("bkt", key), Bytes(body))
    opened.engine.volumes.sync = sync  # type: ignore[method-assign]


@pytest.mark.parametrize("footer", [False, True])
def test_a_torn_record_with_whole_ones_behind_it(tmp_path: Path, footer: bool) -> None:
    """Pages reach the disk in any order: of two records that were never synced, the second one may be whole. The first
    start drops the torn one; behind it goes what is acknowledged, and says that all before was synced. A start that
    reads it all again must not take the torn one for a damaged one that replaces what is there."""

    async def work() -> None:
        opened = node(tmp_path)
        await opened.store.create_bucket("bkt", "r")
        await opened.store.put(PutRequest("bkt", "k"), Bytes(OLD))
        await _put_without_sync(opened, "k", LOST)
        row = opened.store.row("bkt", "k")
        assert row is not None
        await _put_without_sync(opened, "behind", NEW)
        path = opened.engine.volumes.volumes[row.place.volume].path
        drop_dead(opened)
        at = row.place.position + (row.place.length - 64 if footer else row.body_at)
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes(range(1, 33)))
        for _ in range(2):
            shutil.rmtree(tmp_path / "index")  # a power cut: it cannot be trusted
            opened = node(tmp_path)
            assert opened.report.rebuilt
            assert not opened.status()["damaged"]
            assert await content(opened.store, "bkt", "k") == OLD
            assert await content(opened.store, "bkt", "behind") == NEW
            await opened.store.put(PutRequest("bkt", "later"), Bytes(NEW))
            await opened.aclose()

    asyncio.run(work())


class _Slow(Bytes):
    """Something else happens while it arrives."""

    def __init__(self, data: bytes, between: Callable[[], Awaitable[None]]) -> None:
        super().__init__(data)
        self._between = between

    async def chunks(self) -> AsyncIterator[memoryview]:
        yield memoryview(self.data)[:10]
        await self._between()
        yield memoryview(self.data)[10:]


def test_a_damaged_long_body_is_as_new_as_its_footer_says(tmp_path: Path) -> None:
    """What was put while it arrived is older, and must not be served in its place."""

    async def work() -> None:
        opened = node(tmp_path)
        store = opened.store
        await store.create_bucket("bkt", "r")

        async def meanwhile() -> None:
            await store.put(PutRequest("bkt", "k"), Bytes(OLD))

        stored = await store.put(PutRequest("bkt", "k"), _Slow(bytes(SMALL_BODY_BYTES_MAX + 1), meanwhile))
        row = store.row("bkt", "k")
        assert row is not None
        assert row.size == stored.size
        path = opened.engine.volumes.volumes[row.place.volume].path
        await opened.aclose()
        with path.open("r+b") as file:
            file.seek(row.place.position + row.body_at)
            file.write(b"rot")
        shutil.rmtree(tmp_path / "index")
        opened = node(tmp_path)
        assert opened.report.damaged == 1
        with pytest.raises(CorruptData):
            await content(opened.store, "bkt", "k")
        await opened.aclose()

    asyncio.run(work())
