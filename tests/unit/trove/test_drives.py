"""Drives of a node that fail, fill up, take no writes or are not there: what is on others goes on; nothing is lost."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from qss.errors import Damaged, NoSpace, Refused, Retryable
from qss.host import Host, PosixDisk, SystemClock
from qss.host.disk import Handle
from qss.s3.backend import DeleteRequest, PutRequest
from qss.s3.errors import Code, to_s3
from qss.trove.drives import NEXT, QUIET_S, RESERVE_BYTES, WRITE_FAILURES_MAX, Drive, DriveHealth, Event, event_of
from qss.trove.node import Node, NodeOptions
from tests.harness.trove_node import Bytes, content

TIB = 1 << 40


class SickDisk(PosixDisk):
    """Directories in which operations fail, and what they say is free."""

    def __init__(self) -> None:
        self.reads: dict[str, int] = {}  # directory → errno
        self.writes: dict[str, int] = {}
        self.free: dict[str, int] = {}
        self._paths: dict[int, Path] = {}

    def _fail(self, where: dict[str, int], path: Path) -> None:
        for name, number in where.items():
            if name in path.parts:
                raise OSError(number, os.strerror(number))

    def create(self, path: Path) -> Handle:
        self._fail(self.writes, path)
        handle = super().create(path)
        self._paths[handle] = path
        return handle

    def open(self, path: Path, *, write: bool = False) -> Handle:
        if write and any(name in path.parts and number == errno.EROFS for name, number in self.writes.items()):
            raise OSError(errno.EROFS, "Read-only file system")
        handle = super().open(path, write=write)
        self._paths[handle] = path
        return handle

    def open_direct(self, path: Path) -> Handle | None:
        return None

    def pwrite(self, handle: Handle, parts: list[bytes | memoryview], position: int) -> int:
        self._fail(self.writes, self._paths[handle])
        return super().pwrite(handle, parts, position)

    def sync_data(self, handle: Handle) -> None:
        self._fail(self.writes, self._paths[handle])
        super().sync_data(handle)

    def truncate(self, handle: Handle, length: int) -> None:
        self._fail(self.writes, self._paths[handle])
        super().truncate(handle, length)

    def pread(self, handle: Handle, count: int, position: int) -> bytes:
        self._fail(self.reads, self._paths[handle])
        return super().pread(handle, count, position)

    def listdir(self, path: Path) -> list[str]:
        self._fail(self.reads, path)
        return super().listdir(path)

    def free_bytes(self, path: Path) -> tuple[int, int]:
        return next((free for name, free in self.free.items() if name in path.parts), TIB), 2 * TIB


class Time(SystemClock):
    offset_ns = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.offset_ns


class Rack:
    """A node with drives `one`, `two`, `three`; the first has the least room, so that bodies go to the others."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.disk = SickDisk()
        self.clock = Time()
        self.paths = tuple(root / name for name in ("one", "two", "three"))

    def start(self, *, allow_missing: bool = False, count: int = 3, forget: bool = False) -> Node:
        host = Host(disk=self.disk, clock=self.clock)
        return Node(NodeOptions(self.paths[:count], host=host, allow_missing=allow_missing, forget_missing=forget))

    async def put(self, node: Node, key: str, on: str) -> bytes:
        """A body of 1.2 MB, in a volume of its own on this drive."""
        self.disk.free = {name: TIB if name == on else TIB // 2 for name in ("one", "two", "three")}
        for volume in list(node.engine.volumes.volumes.values()):
            node.engine.volumes.seal(volume)
        body = key.encode() * (1_200_000 // len(key))
        await node.store.put(PutRequest("bkt", key), Bytes(body))
        self.disk.free = {}
        row = node.store.row("bkt", key)
        assert row is not None
        assert node.engine.volumes.volumes[row.place.volume].drive.path.name == on
        return body

    async def fill(self, node: Node) -> dict[str, bytes]:
        await node.store.create_bucket("bkt", "r")
        return {name: await self.put(node, name, name) for name in ("one", "two", "three")}


def _run(work: Callable[[], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        await work()

    asyncio.run(all_of_it())


def health(node: Node, name: str) -> str:
    return next(each["health"] for each in node.status()["drives"] if Path(each["path"]).name == name)


def test_the_table_of_states_is_total_and_leaves_no_dead_end() -> None:
    reachable = {DriveHealth.OK}
    for _ in DriveHealth:
        reachable |= {after for (before, _), after in NEXT.items() if before in reachable}
    assert reachable == set(DriveHealth)
    for start in DriveHealth:  # each can become well again
        seen = {start}
        for _ in DriveHealth:
            seen |= {after for (before, event), after in NEXT.items() if before in seen and event is Event.WELL}
        assert DriveHealth.OK in seen
    for start, event in itertools.product(DriveHealth, set(Event) - {Event.WELL}):  # and trouble never makes one better
        after = NEXT.get((start, event), start)
        assert list(DriveHealth).index(after) >= list(DriveHealth).index(start)


def test_errors_say_what_they_say() -> None:
    assert event_of(OSError(errno.EIO, ""), writing=False) is Event.READ_ERROR
    assert event_of(OSError(errno.EIO, ""), writing=True) is Event.WRITE_ERROR
    assert event_of(OSError(errno.EROFS, ""), writing=True) is Event.REFUSED
    assert event_of(OSError(errno.ENODEV, ""), writing=True) is Event.GONE
    assert event_of(OSError(errno.ESTALE, ""), writing=False) is Event.GONE


def test_reads_alone_never_fail_a_drive_and_quiet_heals_it() -> None:
    clock = Time()
    drive = Drive(Path("d"), "d", clock)
    for _ in range(1000):
        drive.note(OSError(errno.EIO, "i/o"), writing=False)
    assert (drive.health, drive.errors) == (DriveHealth.SUSPECT, 1000)
    drive.well()
    assert drive.health is DriveHealth.SUSPECT
    clock.offset_ns = int((QUIET_S + 1) * 1e9)
    drive.well()
    assert drive.health is DriveHealth.OK
    for _ in range(WRITE_FAILURES_MAX - 1):
        drive.note(OSError(errno.EIO, "i/o"), writing=True)
    assert drive.health is DriveHealth.SUSPECT
    drive.wrote()
    drive.note(OSError(errno.EIO, "i/o"), writing=True)
    assert drive.health is DriveHealth.SUSPECT
    for _ in range(WRITE_FAILURES_MAX):
        drive.note(OSError(errno.EIO, "i/o"), writing=True)
    assert drive.health is DriveHealth.READ_ONLY


def test_a_drive_that_fails_to_write_gets_no_more_and_is_read(tmp_path: Path) -> None:
    async def work() -> None:
        rack = Rack(tmp_path)
        node = rack.start()
        bodies = await rack.fill(node)
        bodies["last"] = await rack.put(node, "last", "two")  # which others would be added to
        rack.disk.writes = {"two": errno.EIO}
        failed = 0
        for number in range(10):
            try:
                await node.store.put(PutRequest("bkt", f"n{number}"), Bytes(b"n" * 1_100_000))
                bodies[f"n{number}"] = b"n" * 1_100_000
            except Retryable:
                failed += 1
        assert failed == 1
        assert health(node, "two") in ("suspect", "read-only")
        for key, body in bodies.items():
            assert await content(node.store, "bkt", key) == body
        rack.disk.writes = {}
        rack.clock.offset_ns = int((QUIET_S + 1) * 1e9)
        await node.probe_drives()
        assert health(node, "two") == "ok"
        assert not (tmp_path / "two" / "probe.tmp").exists()
        await node.aclose()

    _run(work)


def test_a_sync_that_fails_takes_only_its_own_records_down(tmp_path: Path) -> None:
    async def work() -> None:
        rack = Rack(tmp_path)
        node = rack.start(count=2)
        await node.store.create_bucket("bkt", "r")
        (small,) = node.engine.volumes.volumes.values()
        other = "two" if small.drive.path.name == "one" else "one"
        await rack.put(node, "large", other)
        node.engine.volumes.seal(small)
        sync = node.engine.volumes.sync

        def failing(volumes):
            rack.disk.writes = {other: errno.EIO}
            try:
                sync(volumes)
            finally:
                rack.disk.writes = {}

        rack.disk.free = {other: TIB // 4}
        await node.store.put(PutRequest("bkt", "opens the small volume"), Bytes(b"s"))
        rack.disk.free = {}
        node.engine.volumes.sync = failing  # type: ignore[method-assign]
        results = await asyncio.gather(
            node.store.put(PutRequest("bkt", "small"), Bytes(b"s" * 100)),
            node.store.put(PutRequest("bkt", "again"), Bytes(b"l" * 1_100_000, piece=2_000_000)),
            return_exceptions=True,
        )
        node.engine.volumes.sync = sync  # type: ignore[method-assign]
        assert isinstance(results[1], Retryable)
        assert not isinstance(results[0], BaseException)
        assert await content(node.store, "bkt", "small") == b"s" * 100
        await node.aclose()

    _run(work)


def test_a_failed_drive_answers_unavailable_and_the_others_go_on(tmp_path: Path) -> None:
    async def work() -> None:
        rack = Rack(tmp_path)
        node = rack.start()
        bodies = await rack.fill(node)
        rack.disk.reads = rack.disk.writes = {"two": errno.ENODEV}
        await node.probe_drives()
        assert health(node, "two") == "failed"
        with pytest.raises(Retryable) as caught:
            await node.store.open("bkt", "two")
        assert to_s3(caught.value).code is Code.UNAVAILABLE
        for key in ("one", "three"):
            assert await content(node.store, "bkt", key) == bodies[key]
        await node.store.put(PutRequest("bkt", "new"), Bytes(b"n" * 1_200_000))
        await node.store.put(PutRequest("bkt", "two"), Bytes(b"replaced"))
        assert await content(node.store, "bkt", "two") == b"replaced"
        assert node.status()["damaged"] == []  # a drive that is gone is no damage
        rack.disk.reads = rack.disk.writes = {}
        rack.clock.offset_ns = int((QUIET_S + 1) * 1e9)
        await node.probe_drives()
        assert health(node, "two") == "suspect"
        await node.aclose()

    _run(work)


def test_bad_sectors_are_damage_and_the_rest_of_the_drive_is_served(tmp_path: Path) -> None:
    async def work() -> None:
        rack = Rack(tmp_path)
        node = rack.start()
        await rack.fill(node)
        rack.disk.reads = {"two": errno.EIO}
        with pytest.raises(Damaged):
            await node.store.open("bkt", "two")
        assert health(node, "two") == "suspect"
        node.store.records.flush_damage()
        assert len(node.status()["damaged"]) == 1
        await node.aclose()

    _run(work)


def test_a_read_only_drive_is_a_normal_state(tmp_path: Path) -> None:
    async def work() -> None:
        rack = Rack(tmp_path)
        node = rack.start()
        bodies = await rack.fill(node)
        await node.aclose()
        rack.disk.writes = {"two": errno.EROFS}
        node = rack.start()
        assert health(node, "two") == "read-only"
        rack.disk.free = {"two": 2 * TIB}
        await node.store.put(PutRequest("bkt", "new"), Bytes(b"n" * 1_200_000))
        assert (await node.store.delete("bkt", [DeleteRequest("two")]))[0].error is None
        for key in ("one", "three"):
            assert await content(node.store, "bkt", key) == bodies[key]
        rack.disk.writes = dict.fromkeys(("one", "two", "three"), errno.EROFS)
        for _ in range(WRITE_FAILURES_MAX + 3):
            try:
                await node.store.put(PutRequest("bkt", "none"), Bytes(b"n" * 1_200_000))
            except (Retryable, NoSpace) as error:
                last = error
        assert isinstance(last, NoSpace)
        assert to_s3(last).code is Code.STORAGE_FULL
        assert await content(node.store, "bkt", "one") == bodies["one"]
        rack.disk.writes = {}
        await node.aclose()
        node = rack.start()
        assert [each["health"] for each in node.status()["drives"]] == ["ok"] * 3
        with pytest.raises(Exception, match="does not exist"):
            await content(node.store, "bkt", "two")
        await node.aclose()

    _run(work)


def test_a_full_drive_is_passed_over_and_deletes_work_when_all_are_full(tmp_path: Path) -> None:
    async def work() -> None:
        rack = Rack(tmp_path)
        node = rack.start(count=2)
        await node.store.create_bucket("bkt", "r")
        await rack.put(node, "a", "two")
        for drive in node.engine.volumes.drives:
            drive.allowance = 0
        rack.disk.free = {"two": RESERVE_BYTES}
        await node.store.put(PutRequest("bkt", "b"), Bytes(b"b" * 1_200_000))  # goes to the other one
        row = node.store.row("bkt", "b")
        assert row is not None
        assert node.engine.volumes.volumes[row.place.volume].drive.path.name == "one"
        for drive in node.engine.volumes.drives:
            drive.allowance = 0
        rack.disk.free = {"one": RESERVE_BYTES, "two": RESERVE_BYTES}
        for size in (1, 1_200_000):
            with pytest.raises(NoSpace):
                await node.store.put(PutRequest("bkt", "c"), Bytes(b"c" * size))
        gone = await node.store.delete("bkt", [DeleteRequest("a"), DeleteRequest("b")])
        assert [each.error for each in gone] == [None, None]
        rack.disk.free = {"one": RESERVE_BYTES // 4, "two": TIB}  # no room for the index
        with pytest.raises(NoSpace):
            await node.store.put(PutRequest("bkt", "c"), Bytes(b"c"))
        rack.disk.free = {}
        await node.store.put(PutRequest("bkt", "c"), Bytes(b"c"))
        await node.aclose()

    _run(work)


def test_a_missing_drive_is_noticed_and_can_be_done_without(tmp_path: Path) -> None:
    async def work() -> None:
        rack = Rack(tmp_path)
        node = rack.start()
        bodies = await rack.fill(node)
        await node.store.put(PutRequest("bkt", "gone"), Bytes(b"g" * 1000))
        await node.aclose()
        away = tmp_path / "elsewhere"
        (tmp_path / "two").rename(away)
        (tmp_path / "two").mkdir()  # the bare mount point
        with pytest.raises(Refused, match="--allow-missing"):
            rack.start()
        with pytest.raises(Refused, match="two"):
            rack.start(count=1)  # left out of --data
        node = rack.start(allow_missing=True)
        assert list((tmp_path / "two").iterdir()) == []  # not taken for a new drive
        assert health(node, "two") == "failed"
        with pytest.raises(Retryable):
            await node.store.open("bkt", "two")
        with pytest.raises(Retryable):
            await node.store.head("bkt", "two")
        assert await content(node.store, "bkt", "one") == bodies["one"]
        await node.store.delete("bkt", [DeleteRequest("gone")])
        await rack.put(node, "newer", "one")
        node._prune_graves()
        await node.aclose()
        shutil.rmtree(tmp_path / "one" / "index")
        with pytest.raises(Refused, match="might come back"):
            rack.start(allow_missing=True)
        (tmp_path / "two").rmdir()
        away.rename(tmp_path / "two")
        node = rack.start()
        assert await content(node.store, "bkt", "two") == bodies["two"]
        assert {each["health"] for each in node.status()["drives"]} == {"ok"}
        with pytest.raises(Exception, match="does not exist"):
            await node.store.open("bkt", "gone")
        await node.aclose()

    _run(work)


def test_the_first_drive_must_be_there(tmp_path: Path) -> None:
    async def work() -> None:
        rack = Rack(tmp_path)
        node = rack.start()
        await rack.fill(node)
        await node.aclose()
        (tmp_path / "one").rename(tmp_path / "elsewhere")
        with pytest.raises(Refused, match="first"):
            rack.start(allow_missing=True)
        assert not (tmp_path / "one").exists()

    _run(work)


def test_a_drive_given_up_is_not_taken_back(tmp_path: Path) -> None:
    async def work() -> None:
        rack = Rack(tmp_path)
        node = rack.start()
        bodies = await rack.fill(node)
        await node.aclose()
        away = tmp_path / "elsewhere"
        (tmp_path / "two").rename(away)
        node = rack.start(forget=True)
        assert [Path(each["path"]).name for each in node.status()["drives"]] == ["one", "three"]
        with pytest.raises(Damaged):
            await node.store.open("bkt", "two")
        await node.aclose()
        node = rack.start()  # "two" is absent, so it is a new drive now
        assert await content(node.store, "bkt", "three") == bodies["three"]
        assert [each["health"] for each in node.status()["drives"]] == ["ok"] * 3
        await node.aclose()
        shutil.rmtree(tmp_path / "two")
        away.rename(tmp_path / "two")
        with pytest.raises(Refused, match="given up"):
            rack.start()

    _run(work)


def test_markers_of_before_are_understood_and_a_broken_start_is_no_missing_drive(tmp_path: Path) -> None:
    async def work() -> None:
        rack = Rack(tmp_path)
        node = rack.start()
        bodies = await rack.fill(node)
        await node.aclose()
        for path in rack.paths:
            (path / "trove.json").write_text(f'{{"format": 1, "node": "{node.id.hex()}"}}')
        node = rack.start()
        for key, body in bodies.items():
            assert await content(node.store, "bkt", key) == body
        await node.aclose()
        assert all('"format": 2' in (path / "trove.json").read_text() for path in rack.paths)
        # A crash after the first new drive got its marker, and before the second one did.
        fresh = Rack(tmp_path / "again")
        node = fresh.start(count=1)
        await node.aclose()
        node = fresh.start(count=2)
        await node.aclose()
        node = fresh.start(count=3)
        assert len(node.status()["drives"]) == 3
        await node.aclose()

    _run(work)
