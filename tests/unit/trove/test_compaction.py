"""What compaction moves is there afterwards, whoever else compacts, whatever breaks off, whichever drive is away."""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

import pytest

import qss.trove.node
from qss.s3.backend import DeleteRequest, ListQuery, PutRequest
from qss.s3.errors import Code, S3Error
from qss.trove.commit import SyncMode
from qss.trove.compaction import compact_one
from qss.trove.node import Node
from qss.trove.tables import Tables
from qss.trove.volumes import SMALL_BODY_BYTES_MAX
from tests.harness.trove_node import Bytes, PowerCutDisk, content, drop_dead, node

BODY, LONG = b"body" * 20_000, b"long" * (SMALL_BODY_BYTES_MAX // 4 + 1)


async def _filled(opened: Node) -> None:
    await opened.store.create_bucket("bkt", "r")
    for key in "abc":
        await opened.store.put(PutRequest("bkt", key), Bytes(BODY + key.encode()))
    await opened.store.delete("bkt", [DeleteRequest("c")])


async def _check(opened: Node) -> None:
    for key in "ab":
        assert await content(opened.store, "bkt", key) == BODY + key.encode()
    page = await opened.store.list_objects(ListQuery("bkt"))
    assert [each.key for each in page.objects] == ["a", "b"]
    assert not opened.status()["damaged"]
    assert {each["errors"] for each in opened.status()["drives"]} == {0}


def test_two_at_once_do_not_take_the_same_volume(tmp_path: Path) -> None:
    """The one in the background, and one that was asked for."""

    async def work() -> None:
        opened = node(tmp_path)
        await _filled(opened)
        freed = await asyncio.gather(*(compact_one(opened.engine, -1.0, 0) for _ in range(2)))
        assert sorted(freed)[0] == 0
        assert sorted(freed)[1] > 0
        await _check(opened)
        await opened.aclose()

    asyncio.run(work())


def test_without_syncs_what_was_on_the_disk_is_not_exchanged_for_what_is_not(tmp_path: Path) -> None:
    async def work() -> None:
        disk = PowerCutDisk()
        opened = node(tmp_path, disk, SyncMode.OS)
        await _filled(opened)
        opened.engine.volumes.sync(list(opened.engine.volumes.volumes.values()))  # the system does so after a while
        assert await compact_one(opened.engine, -1.0, 0) > 0
        drop_dead(opened)
        disk.cut_power(random.Random(1))
        shutil.rmtree(tmp_path / "index")
        opened = node(tmp_path, disk, SyncMode.OS)
        await _check(opened)
        await opened.aclose()

    asyncio.run(work())


def test_a_volume_that_was_deleted_is_forgotten_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node died behind the deletion of the file; the volume held a deletion."""

    async def work() -> None:
        opened = node(tmp_path)
        await _filled(opened)
        (before,) = opened.engine.volumes.volumes

        def dies(tables: Tables, number: int) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(Tables, "forget_volume", dies)
            with pytest.raises(KeyboardInterrupt):
                await compact_one(opened.engine, -1.0, 0)
        drop_dead(opened)
        opened = node(tmp_path)
        assert opened.report.volumes_missing == [before]
        assert before not in opened.engine.index.totals.volumes
        await _check(opened)
        await opened.aclose()

    asyncio.run(work())


def test_a_volume_with_nothing_but_dead_space_goes(tmp_path: Path) -> None:
    async def work() -> None:
        opened = node(tmp_path)
        await _filled(opened)
        with pytest.raises(ConnectionResetError):
            await opened.store.put(PutRequest("bkt", "x"), Bytes(LONG, fails_at=200_000))
        for _ in range(3):
            await compact_one(opened.engine, 0.0, 0)
        assert len(opened.engine.volumes.volumes) == 1
        await _check(opened)
        await opened.aclose()

    asyncio.run(work())


def test_a_deletion_is_kept_while_a_volume_cannot_be_read(tmp_path: Path) -> None:
    """It may hold what was deleted, and be mended later."""

    async def work() -> None:
        opened = node(tmp_path)
        await opened.store.create_bucket("bkt", "r")
        await opened.store.put(PutRequest("bkt", "gone"), Bytes(LONG))
        row = opened.store.row("bkt", "gone")
        assert row is not None
        path = opened.engine.volumes.volumes[row.place.volume].path
        await opened.store.delete("bkt", [DeleteRequest("gone")])
        await opened.store.set_encryption("bkt", True)  # so that nothing older than the deletion counts in its volume
        await opened.aclose()
        whole = path.read_bytes()
        for content_, unreadable in ((b"?" + whole[1:], 1), (whole, 0)):
            path.write_bytes(content_)
            shutil.rmtree(tmp_path / "index")
            opened = node(tmp_path)
            assert len(opened.engine.volumes.unreadable) == unreadable
            await compact_one(opened.engine, -1.0, 0)
            with pytest.raises(S3Error) as caught:
                await opened.store.open("bkt", "gone")
            assert caught.value.code is Code.NO_SUCH_KEY
            await opened.aclose()

    asyncio.run(work())


def test_nothing_else_waits_for_compaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its pace a volume takes minutes."""

    async def work() -> None:
        begun, synced = asyncio.Event(), asyncio.Event()

        async def for_ever(*_: object, **__: object) -> int:
            begun.set()
            await asyncio.Event().wait()
            return 0

        monkeypatch.setattr(qss.trove.node, "compact_one", for_ever)
        monkeypatch.setattr(qss.trove.node, "COMPACT_EVERY_S", 0.0)
        monkeypatch.setattr(qss.trove.node, "CHECKPOINT_S", 0.0)
        opened = node(tmp_path)
        checkpoint = opened.engine.checkpoint

        async def told() -> None:
            await checkpoint()
            if begun.is_set():
                synced.set()

        opened.engine.checkpoint = told  # type: ignore[method-assign]
        upkeep = asyncio.create_task(opened.maintain())
        await begun.wait()
        await _filled(opened)
        async with asyncio.timeout(30):
            await synced.wait()
        upkeep.cancel()
        await asyncio.wait([upkeep])
        await opened.aclose()

    asyncio.run(work())
