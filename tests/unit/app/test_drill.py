"""A drill finds what is not there, what does not verify and what differs, and touches nothing."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.app.drill import LOCK, PREFIX, Drill, Wanted, exit_code, run_drill, scratch_in
from qss.app.drill_content import sampled
from qss.app.exits import Exit
from qss.app.identity import Identity, write_identity
from qss.app.running import lock_file
from qss.cache.options import CacheOptions
from qss.cache.segment_log import log_path
from qss.cache.store import SegmentCache
from qss.errors import Refused, TooFewShards
from qss.formats.tables import ExtentRow, Table, pair_key
from qss.fs.attrs import User
from qss.fs.filesystem import FileSystem
from qss.host import SystemClock
from qss.ids import ROOT_INO, LocationId, SegmentId
from qss.limits import KIB, MIB
from qss.segments import SegmentKind
from tests.harness.vault import World

OPTIONS = CacheOptions(segment_bytes=8 * MIB, index_map_bytes=64 * MIB, fetch_deadline_s=2.0)


class Home:
    """A machine with a file system: its cache, its locations, and a drill of it."""

    def __init__(self, root: Path) -> None:
        self.root, self.world = root, World.of(2, 1)
        self.machine = self.world.machine(root / "state")
        self.settings = SimpleNamespace(
            state=root / "state", cache_dir=root / "state" / "cache", mount_socket=root / "mount.sock", cache=OPTIONS,
            offload=self.world.options,
        )  # fmt: skip
        write_identity(self.settings.state, Identity(self.machine.keys.fs_id.hex(), 1))
        self.inos: dict[bytes, int] = {}

    async def open(self) -> None:
        self.cache = await SegmentCache.open(self.settings.cache_dir, self.machine.host, OPTIONS, None)
        self.fs = FileSystem(self.cache, SystemClock())

    async def close(self) -> None:
        self.fs.detach()
        await self.cache.close()

    async def write(self, name: bytes, data: bytes) -> None:
        self.inos[name] = self.fs.create(ROOT_INO, name, 0o644, User()).ino
        handle = await self.fs.open(self.inos[name], os.O_RDWR)
        await self.fs.write(handle, 0, data)
        self.fs.release(handle)

    async def offload(self) -> None:
        """Everything to the locations, and a root."""
        await self.cache.cut()
        for sealed in await self.cache.unsafe_segments():
            await self.cache.mark_offloaded(await self.machine.vault.store(sealed, await self.cache.path_of(sealed.id)))
        point = await self.cache.restore_point()
        assert point is not None
        await self.machine.roots.publish(point)
        await self.cache.mark_published(point)

    def segment(self, name: bytes) -> SegmentId:
        packed = self.cache.get(Table.EXTENTS, pair_key(self.inos[name], 0))
        assert packed is not None
        return ExtentRow.unpack(packed).segment

    async def drill(self, **wanted) -> dict:
        """From a machine that asks anew, and what it has done elsewhere."""
        asking = self.world.machine(self.root / "asking")
        before, calls = self.picture(), [store.calls.copy() for store in self.world.stores.values()]
        with scratch_in(self.root) as folder:
            stages: list[str] = []
            drill = Drill(
                self.settings, asking.nodes, asking.keys, asking.host, folder, lambda stage, _: stages.append(stage)
            )
            document = await run_drill(drill, Wanted(**wanted))
        assert not folder.exists()
        assert self.picture() == before, "a drill touches nothing here"
        for store, then in zip(self.world.stores.values(), calls, strict=True):
            assert {verb for verb in store.calls if store.calls[verb] != then[verb]} <= {
                "get",
                "get_into",
                "head",
                "list",
            }
        return document

    def picture(self) -> dict[str, tuple[int, int]]:
        state = self.settings.state
        files = (path for path in state.rglob("*") if path.is_file() and path.name != "lock.mdb")
        return {str(path.relative_to(state)): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}

    def take(self, segment: SegmentId, *names: str) -> None:
        for name in names:
            del self.world.objects(LocationId(name))[self.machine.keys.shard_name(segment, 0, LocationId(name))]


@pytest.fixture
async def home(tmp_path: Path):
    home = Home(tmp_path)
    await home.machine.roots.catch_up()
    await home.open()
    for name in (b"one", b"two", b"three"):
        await home.write(name, name * 30 * KIB)
        await home.cache.cut()
    await home.offload()
    yield home
    await home.close()


async def test_all_is_well(home: Home) -> None:
    document = await home.drill(stripes=None)
    assert document["restorable"]
    assert exit_code(document) == Exit.OK
    assert (document["generation"], document["answered"], document["majority"]) == (1, 3, True)
    assert (document["files"], document["segments"]) == (4, 3)
    content = document["content"]
    assert (content["stripes"], content["live_records"]) == (3, 3)
    assert content["bytes"] == content["compared_bytes"] > 11 * 30 * KIB
    assert document["live"]["why_not"]
    await home.cache.evict(all_=True)
    content = (await home.drill(stripes=2, seed=7))["content"]
    assert (content["stripes"], content["compared_bytes"]) == (2, 0)
    assert not (await home.drill(stripes=0))["content"]["stripes"]


async def test_what_is_lost_is_named_with_its_bytes(home: Home) -> None:
    segment = home.segment(b"two")
    home.take(segment, "trove-1")
    assert (await home.drill(stripes=None))["restorable"]
    home.take(segment, "trove-3")
    document = await home.drill(stripes=0)  # even without fetching anything
    assert exit_code(document) == Exit.DATA
    assert [each[0] for each in document["lost_segments"]] == [segment]
    assert [(each["paths"], each["ranges"]) for each in document["damaged_files"]] == [(["/two"], [[0, 90 * KIB]])]


async def test_what_does_not_verify_is_found_by_fetching(home: Home) -> None:
    segment = home.segment(b"three")
    for name in ("trove-1", "trove-2"):
        objects, key = home.world.objects(LocationId(name)), home.machine.keys.shard_name(segment, 0, LocationId(name))
        damaged = bytearray(objects[key])
        damaged[200] ^= 1  # in the first block
        objects[key] = bytes(damaged)
    assert (await home.drill(stripes=0))["restorable"], "a listing does not show it"
    document = await home.drill(stripes=None)
    assert exit_code(document) == Exit.DATA
    assert [each[:2] for each in document["content"]["failed"]] == [[segment, 0]]
    assert [each["paths"] for each in document["damaged_files"]] == [["/three"]]
    assert document["content"]["stripes"] == 2


async def test_a_damaged_copy_here_is_no_loss(home: Home) -> None:
    segment = home.segment(b"one")
    path = log_path(home.settings.cache_dir, SegmentKind.DATA, segment)
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"x")
    document = await home.drill(stripes=None)
    assert document["restorable"]
    assert document["content"]["differs_here"] == [(segment, 0)]
    assert exit_code(document) == Exit.FOUND


async def test_the_live_index_is_compared_as_it_is_now(home: Home) -> None:
    await home.write(b"later", b"in no root yet")
    home.fs.unlink(ROOT_INO, b"one")
    await home.close()  # LMDB is opened once in a process
    home.settings.mount_socket.touch()
    document = await home.drill(stripes=0)
    assert document["live"]["why_not"] == ""
    assert document["live"]["rows"] > 10
    assert document["live"]["different"] == 0
    assert document["files"] == 4, "the root's, not those of now"
    await home.open()
    home.cache._ledger.index._txn.put(  # a row no journal knows
        pair_key(ROOT_INO, 99), b"?", db=home.cache._ledger.index._dbs[Table.XATTRS]
    )
    await home.cache.checkpoint()
    await home.close()
    document = await home.drill(stripes=0)
    assert document["live"]["different"] == 1
    assert "table XATTRS" in document["live"]["named"][0]
    assert exit_code(document) == Exit.DATA
    await home.open()


async def test_nothing_stored_yet(tmp_path: Path) -> None:
    home = Home(tmp_path)
    await home.machine.roots.publish(home.machine.roots.nothing_yet())
    with pytest.raises(Refused, match="nothing of this file system has been stored yet"):
        await home.drill()


async def test_no_root_at_all(home: Home) -> None:
    for store in list(home.world.stores.values())[:2]:
        store.down = True
    with pytest.raises(TooFewShards):
        await home.drill()
    assert not list(home.root.glob(f"{PREFIX}*"))


@given(st.integers(0, 300), st.integers(0, 50), st.integers())
def test_samples(total: int, count: int, seed: int) -> None:
    every = [(SegmentId(number // 3), number % 3) for number in range(total)]
    some = sampled(every, count, seed)
    assert len(set(some)) == len(some) == min(count, total)
    assert set(some) <= set(every)
    assert some == sampled(reversed(every), count, seed) == sorted(some)


def test_scratch_directories_do_not_stay(tmp_path: Path) -> None:
    left = tmp_path / f"{PREFIX}killed"
    left.mkdir()
    (left / "file").touch()
    held = tmp_path / f"{PREFIX}held"
    held.mkdir()
    with lock_file(held / LOCK, "in use"), scratch_in(tmp_path) as folder:
        assert sorted(tmp_path.iterdir()) == sorted([held, folder])
        assert folder.stat().st_mode & 0o777 == 0o700
        with pytest.raises(KeyboardInterrupt), scratch_in(tmp_path) as second:
            raise KeyboardInterrupt
        assert not second.exists()
        assert folder.exists()
    assert not folder.exists()
    with pytest.raises(Refused, match="--scratch"), scratch_in(tmp_path / "nowhere"):
        pass
