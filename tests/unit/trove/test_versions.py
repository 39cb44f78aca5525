"""What volumes say of versions: each kind of record, through every way a node starts, compacts and loses its index."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from qss.formats.volume import Kind
from qss.s3.backend import (
    Attributes,
    DeleteRequest,
    PutRequest,
    Versioning,
    VersionsQuery,
)
from qss.s3.lock import ObjectLock
from qss.trove.compaction import compact
from qss.trove.node import Node
from qss.trove.scan import Whole, scan
from qss.trove.store import version_row
from qss.trove.verify import verify_all
from tests.harness.trove_node import Bytes, PowerCutDisk, content, drop_dead, node
from tests.harness.trove_versions import fill, told, versions_of

Step = Callable[[Node, Path, PowerCutDisk], Awaitable[Node]]


async def stop(old: Node, root: Path, disk: PowerCutDisk) -> Node:
    await old.aclose()
    return node(root, disk)


async def die(old: Node, root: Path, disk: PowerCutDisk) -> Node:
    drop_dead(old)
    return node(root, disk)


async def lose_index(old: Node, root: Path, disk: PowerCutDisk) -> Node:
    drop_dead(old)
    disk.cut_power(random.Random(1))
    shutil.rmtree(root / "index")
    fresh = node(root, disk)
    assert fresh.report.rebuilt
    return fresh


async def compact_all(old: Node, root: Path, disk: PowerCutDisk) -> Node:
    for volume in list(old.engine.volumes.volumes.values()):
        await compact(old.engine, volume)
    return old


@pytest.mark.parametrize(
    "steps",
    [
        [stop],
        [die],
        [lose_index],
        [compact_all],
        [compact_all, lose_index],
        [lose_index, compact_all, die],
        [compact_all, compact_all, stop, lose_index, compact_all, lose_index],
    ],
    ids=lambda steps: "-".join(step.__name__ for step in steps),
)
def test_nothing_is_forgotten_and_nothing_comes_back(tmp_path: Path, steps: list[Step]) -> None:
    async def main() -> None:
        disk = PowerCutDisk()
        one = node(tmp_path / "n", disk)
        await fill(one.store)
        before = await told(one.store)
        assert len(before) == 19
        live = {number: row.live for number, row in one.engine.index.totals.volumes.items()}
        for step in steps:
            one = await step(one, tmp_path / "n", disk)
            assert await told(one.store) == before
        if steps == [lose_index]:
            # Of the ends of what is gone, the rebuild counts as living what the running node does, no more.
            assert {number: row.live for number, row in one.engine.index.totals.volumes.items()} == live
        status = one.status()
        assert status["damaged"] == []
        await one.aclose()

    asyncio.run(main())


def test_every_kind_of_record_was_written(tmp_path: Path) -> None:
    """So that the test above means what it says."""

    async def main() -> set[Kind]:
        one = node(tmp_path / "n")
        await fill(one.store)
        kinds = {
            found.header.kind
            for volume in one.engine.volumes.volumes.values()
            for found in scan(one.engine.volumes.disk, volume)
            if isinstance(found, Whole)
        }
        await one.aclose()
        return kinds

    assert asyncio.run(main()) >= set(Kind) - {Kind.MARK, Kind.UPLOAD_GONE}


def test_compaction_gives_back_what_versions_held(tmp_path: Path) -> None:
    async def main() -> None:
        one = node(tmp_path / "n")
        store = one.store
        await store.create_bucket("bucket", "us-east-1")
        await store.set_versioning("bucket", Versioning.ENABLED)
        for number in range(20):
            await store.put(PutRequest("bucket", "k"), Bytes(b"%d" % number * 10_000))
        entries = (await store.list_versions(VersionsQuery("bucket"))).entries
        await store.delete("bucket", [DeleteRequest("k", each.object.version_id) for each in entries[:-1]])
        await compact_all(one, tmp_path, PowerCutDisk())
        assert sum(volume.end for volume in one.engine.volumes.volumes.values()) < 40_000
        reader = await store.open("bucket", "k")
        assert bytes(await reader.read(0, 10_000)) == b"0" * 10_000
        await reader.aclose()
        await one.aclose()

    asyncio.run(main())


def test_a_hold_survives_while_its_record_does_not_verify(tmp_path: Path) -> None:
    """What protects a version cannot be read, so it is not deleted."""

    async def main() -> None:
        one = node(tmp_path / "n")
        await one.store.create_bucket("held", "us-east-1", lock=True)
        lock = Attributes(lock=ObjectLock(legal_hold=True))
        stored = await one.store.put(PutRequest("held", "k", lock), Bytes(b"kept"))
        volume = next(iter(one.engine.volumes.volumes.values()))
        row = one.store.row("held", "k")
        assert row is not None
        disk = one.engine.volumes.disk
        disk.pwrite(volume.handle, [b"\xff" * 32], row.place.position + row.place.length - 96)
        outcome = (await one.store.delete("held", [DeleteRequest("k", stored.version_id)]))[0]
        assert outcome.error is not None
        assert outcome.error.code.wire == "ObjectDamaged"
        await one.aclose()

    asyncio.run(main())


def test_verifying_reads_every_version(tmp_path: Path) -> None:
    async def main() -> None:
        one = node(tmp_path / "n")
        await fill(one.store)
        entries = [each for bucket in ("open", "held") for each in await versions_of(one.store, bucket)]
        result = await verify_all(one.store, None)
        assert result["damaged"] == []
        assert result["sound"] == len([each for each in entries if not each.marker])
        old = (await one.store.list_versions(VersionsQuery("open", prefix="large"))).entries[1].object
        volume = next(each for each in one.engine.volumes.volumes.values() if each.end > 3_000_000)
        with one.engine.index.read() as tables:
            row = version_row(tables, one.store.buckets.state(tables, "open"), "large", old.version_id or "")
        assert row is not None
        one.engine.volumes.disk.pwrite(volume.handle, [b"\xff"], row.place.position + row.body_at + 70_000)
        (found,) = (await verify_all(one.store, "open"))["damaged"]
        assert (found["key"], found["version"]) == ("large", old.version_id)
        assert bytes(await content(one.store, "open", "large"))[:1] == b"M"
        await one.aclose()

    asyncio.run(main())
