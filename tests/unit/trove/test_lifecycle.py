"""A node carries out lifecycle rules, by a clock that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from qss.host import Host, SystemClock
from qss.s3.backend import (
    Attributes,
    CreateUpload,
    DeleteRequest,
    PutRequest,
    UploadsQuery,
    Versioning,
    VersionsQuery,
)
from qss.s3.expiry import LIFECYCLE
from qss.s3.lifecycle import Filter, Rule
from qss.s3.lifecycle_documents import rules_document
from qss.s3.lock import DAY_NS, Mode, ObjectLock, Retention
from qss.trove import lifecycle
from qss.trove.lifecycle import Tally
from qss.trove.node import Node, NodeOptions
from tests.harness.trove_node import Bytes

BUCKET = "bucket"
START_NS = 20_000 * DAY_NS + DAY_NS // 2  # a noon


class Moved(SystemClock):
    def __init__(self) -> None:
        self.at_ns = START_NS

    def now_ns(self) -> int:
        return self.at_ns

    def pass_days(self, days: int) -> None:
        self.at_ns += days * DAY_NS


class World:
    def __init__(self, root: Path) -> None:
        self.clock = Moved()
        self.node = Node(NodeOptions(data=(root / "n",), host=Host(clock=self.clock)))
        self.store = self.node.store

    async def put(self, key: str, data: bytes = b"x", tags: tuple[tuple[str, str], ...] = ()) -> str | None:
        return (await self.store.put(PutRequest(BUCKET, key, Attributes(tags=tags)), Bytes(data))).version_id

    async def rules(self, *rules: Rule) -> None:
        await self.store.put_document(BUCKET, LIFECYCLE, rules_document(rules))

    async def after(self, days: int) -> Tally:
        """What one pass so many days later does."""
        before = self.node.lifecycle.tally
        self.clock.pass_days(days)
        await self.node.lifecycle.once()
        now = self.node.lifecycle.tally
        done = (getattr(now, name) - getattr(before, name) for name in ("passes", "expired", "versions", "uploads"))
        return Tally(*done, held=now.held - before.held)

    async def listed(self) -> list[str]:
        entries = (await self.store.list_versions(VersionsQuery(BUCKET))).entries
        return [f"{each.object.key}{' marker' * each.marker}" for each in entries]


Case = Callable[[World], Awaitable[None]]


def run(tmp_path: Path, case: Case, versioning: Versioning | None = None) -> None:
    async def main() -> None:
        world = World(tmp_path)
        await world.store.create_bucket(BUCKET, "us-east-1")
        await world.store.create_bucket("without-rules", "us-east-1")
        if versioning is not None:
            await world.store.set_versioning(BUCKET, versioning)
        try:
            await case(world)
        finally:
            await world.node.aclose()

    asyncio.run(main())


def test_expiration_without_versioning(tmp_path: Path) -> None:
    async def case(world: World) -> None:
        small, tagged = Filter("logs/", smaller_than=5), Filter(tags=(("keep", "no"),))
        await world.rules(Rule("a", True, small, days=2), Rule("b", True, tagged, days=1), Rule("c", False, days=1))
        await world.put("logs/1")
        await world.put("logs/large", b"12345")
        await world.put("other")
        await world.put("tagged", tags=(("keep", "no"), ("more", "1")))
        await world.put("tagged too", tags=(("keep", "yes"),))
        await world.put("tagged later")
        await world.store.put_tags(BUCKET, "tagged later", (("keep", "no"),))
        assert await world.after(1) == Tally(1)
        assert await world.after(1) == Tally(1, expired=2)
        await world.put("logs/1")  # counts from now
        assert await world.listed() == ["logs/1", "logs/large", "other", "tagged too"]
        assert await world.after(1) == Tally(1)
        await world.store.put_document(BUCKET, LIFECYCLE, None)
        assert await world.after(9) == Tally(1)
        assert await world.listed() == ["logs/1", "logs/large", "other", "tagged too"]

    run(tmp_path, case)


def test_expiration_with_versioning(tmp_path: Path) -> None:
    async def case(world: World) -> None:
        await world.rules(Rule("a", True, days=1, noncurrent_days=3), Rule("b", True, lone_markers=True))
        await world.put("k")
        assert await world.after(2) == Tally(1, expired=1)
        assert await world.listed() == ["k marker", "k"]
        assert await world.after(2) == Tally(1)
        assert await world.after(2) == Tally(1, versions=1)
        assert await world.listed() == ["k marker"]
        assert await world.after(0) == Tally(1, versions=1)
        assert await world.listed() == []
        await world.store.delete_bucket(BUCKET)
        assert await world.after(1) == Tally(1)

    run(tmp_path, case, Versioning.ENABLED)


def test_a_date(tmp_path: Path) -> None:
    async def case(world: World) -> None:
        await world.rules(Rule("a", True, date_ns=20_002 * DAY_NS))
        await world.put("k")
        assert await world.after(1) == Tally(1)
        assert await world.after(1) == Tally(1, expired=1)
        assert await world.listed() == []

    run(tmp_path, case)


def test_some_noncurrent_versions_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "DELETIONS_AT_ONCE_MAX", 2)

    async def case(world: World) -> None:
        await world.rules(Rule("a", True, noncurrent_days=1, newer_kept=2))
        for number in range(8):
            await world.put("k", b"%d" % number)
            await world.put("l", b"%d" % number)
        assert await world.after(3) == Tally(1, versions=10)
        assert await world.listed() == ["k"] * 3 + ["l"] * 3
        reader = await world.store.open(BUCKET, "k")
        assert bytes(await reader.read(0, 1)) == b"7"
        await reader.aclose()

    run(tmp_path, case, Versioning.ENABLED)


def test_many_versions_over_many_pages(tmp_path: Path) -> None:
    async def case(world: World) -> None:
        await world.put("a")
        await world.store.set_versioning(BUCKET, Versioning.ENABLED)
        await asyncio.gather(*(world.put("a") for _ in range(600)), *(world.put("b") for _ in range(600)))
        await world.rules(Rule("a", True, noncurrent_days=1))
        assert await world.after(3) == Tally(1, versions=1199)
        assert await world.listed() == ["a", "b"]

    run(tmp_path, case)


def test_suspended_versioning(tmp_path: Path) -> None:
    async def case(world: World) -> None:
        await world.put("k")
        await world.store.set_versioning(BUCKET, Versioning.SUSPENDED)
        await world.rules(Rule("a", True, days=1), Rule("b", True, lone_markers=True))
        assert await world.after(2) == Tally(1, expired=1)
        assert await world.listed() == ["k marker"]
        assert await world.after(0) == Tally(1, versions=1)
        assert await world.listed() == []

    run(tmp_path, case)


def test_uploads(tmp_path: Path) -> None:
    async def case(world: World) -> None:
        await world.rules(Rule("a", True, Filter("old/"), abort_days=2))
        for key in ("old/1", "new/1"):
            await world.store.create_upload(CreateUpload(BUCKET, key))
        assert await world.after(1) == Tally(1)
        assert await world.after(2) == Tally(1, uploads=1)
        left = (await world.store.list_uploads(UploadsQuery(BUCKET))).uploads
        assert [each.key for each in left] == ["new/1"]

    run(tmp_path, case)


def test_what_is_held_stays_until_it_is_not(tmp_path: Path) -> None:
    async def case(world: World) -> None:
        await world.store.set_lock(BUCKET, None)
        lock = ObjectLock(Retention(Mode.GOVERNANCE, START_NS + 5 * DAY_NS))
        await world.store.put(PutRequest(BUCKET, "k", Attributes(lock=lock)), Bytes(b"x"))
        await world.put("k")
        await world.rules(Rule("a", True, noncurrent_days=1))
        assert await world.after(3) == Tally(1, held=1)
        assert await world.listed() == ["k", "k"]
        assert await world.after(3) == Tally(1, versions=1)
        assert await world.listed() == ["k"]

    run(tmp_path, case, Versioning.ENABLED)


@pytest.mark.parametrize("versioning", [None, Versioning.ENABLED, Versioning.SUSPENDED])
def test_a_put_before_the_deletion_is_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, versioning: Versioning | None
) -> None:
    async def case(world: World) -> None:
        await world.rules(Rule("a", True, days=1))
        await world.put("k", b"old")
        delete = world.store.delete

        async def too_late(bucket: str, requests: list[DeleteRequest]) -> object:
            await world.put("k", b"new")
            return await delete(bucket, requests)

        monkeypatch.setattr(world.store, "delete", too_late)
        assert await world.after(3) == Tally(1)
        reader = await world.store.open(BUCKET, "k")
        assert bytes(await reader.read(0, 3)) == b"new"
        await reader.aclose()

    run(tmp_path, case, versioning)


def test_a_document_that_does_not_read_stops_only_its_bucket(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def case(world: World) -> None:
        await world.store.put_document(BUCKET, LIFECYCLE, b"<nonsense")
        await world.store.put_document("without-rules", LIFECYCLE, rules_document([Rule("a", True, days=1)]))
        await world.store.put(PutRequest("without-rules", "k"), Bytes(b"x"))
        assert await world.after(3) == Tally(1, expired=1)
        assert BUCKET in caplog.text

    run(tmp_path, case)


def test_it_runs_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def case(world: World) -> None:
        await world.rules(Rule("a", True, days=1))
        await world.put("k")
        world.clock.pass_days(3)
        quick = lifecycle.Lifecycle(world.store, world.clock, 10_000_000)
        done = asyncio.Event()
        delete = world.store.delete

        async def seen(bucket: str, requests: list[DeleteRequest]) -> object:
            outcomes = await delete(bucket, requests)
            done.set()
            return outcomes

        monkeypatch.setattr(world.store, "delete", seen)
        task = asyncio.create_task(quick.run())
        await done.wait()
        task.cancel()
        assert await world.listed() == []
        assert world.node.status()["lifecycle"]["passes"] == 0

    run(tmp_path, case)
