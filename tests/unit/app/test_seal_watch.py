"""When segments are sealed, and how offload hears of it: by the event, and by asking when the event was missed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from qss.app.carriers import RemoteShelf
from qss.app.hooks import UserHooks
from qss.app.mount_methods import MountProcess, methods
from qss.app.seal_watch import SealWatch
from qss.app.supervise import Supervisor
from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.config import HookOptions, parse
from qss.control.client import ControlClient
from qss.control.server import serve
from qss.formats.tables import Table, pair_key
from qss.fs.keeping import Keeping
from qss.host import Host, SystemClock
from qss.ids import Ino
from qss.limits import KIB, MIB
from qss.offload import courier as courier_module
from qss.offload.courier import Courier
from tests.harness.vault import World
from tests.harness.waiting import until

HOUR = 3600.0
NEVER = CacheOptions(
    segment_bytes=4 * MIB, index_map_bytes=64 * MIB, seal_after_s=24 * HOUR, checkpoint_every_s=24 * HOUR
)  # fmt: skip
LOCATIONS = "".join(f'[[location]]\nurl = "http://127.0.0.1:1/bucket-{n}"\naccess_key = "a"\nsecret_key = "s"\n'
                    for n in range(3))  # fmt: skip


def process_of(cache: SegmentCache, folder: Path) -> MountProcess:
    settings = parse(f"[code]\nk = 2\nm = 1\n{LOCATIONS}", folder / "qss.toml", {})
    clock = SystemClock()
    return MountProcess(
        settings=settings, mountpoint=folder, cache=cache, offload=ControlClient(folder / "none.sock"),
        supervisor=Supervisor("none", ["true"], folder / "pid"), hooks=UserHooks(HookOptions(folder), clock),
        keeping=Keeping(cache, clock), clock=clock, started_ns=0,
    )  # fmt: skip


def write(cache: SegmentCache, count: int = 1000, ino: int = 2) -> None:
    change = cache.begin()
    for at, extent in cache.append(Ino(ino), 0, b"x" * count):
        change.put(Table.EXTENTS, pair_key(ino, at), extent.pack())
    cache.commit(change)


@asynccontextmanager
async def running(root: Path, options: CacheOptions = NEVER) -> AsyncIterator[tuple[SegmentCache, MountProcess]]:
    cache = await SegmentCache.open(root / "cache", Host(), options, None)
    process = process_of(cache, root)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        nursery.start_soon(process.relay_seals)
        await trio.testing.wait_all_tasks_blocked()
        yield cache, process
        nursery.cancel_scope.cancel()
    await cache.close()


# -- when


async def test_a_full_segment_is_sealed_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as (cache, process):
        write(cache, 5 * MIB)
        await until(lambda: process.seals)
        assert [sealed.kind.name for sealed in await cache.unsafe_segments()] == ["DATA"]


async def test_a_dirty_log_is_cut_after_its_time(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with running(tmp_path, replace(NEVER, seal_after_s=100.0)) as (cache, process):
        await trio.sleep(500)
        assert process.seals == 0, "nothing was written"
        write(cache)
        await trio.sleep(98)
        assert process.seals == 0
        await until(lambda: process.seals, HOUR)  # of trio's clock, which runs on while a thread syncs
        assert [sealed.kind.name for sealed in await cache.unsafe_segments()] == ["DATA", "JOURNAL"]
        await trio.sleep(500)
        assert len(await cache.unsafe_segments()) == 2, "nothing new"


async def test_so_much_content_is_cut_whatever_the_time(tmp_path: Path) -> None:
    async with running(tmp_path, replace(NEVER, seal_bytes=256 * KIB)) as (cache, process):
        for _ in range(3):
            write(cache, 64 * KIB)
        await trio.testing.wait_all_tasks_blocked()
        assert process.seals == 0
        write(cache, 64 * KIB)
        await until(lambda: process.seals)
        assert [sealed.kind.name for sealed in await cache.unsafe_segments()] == ["DATA", "JOURNAL"]


async def test_sync_and_unmount_cut(tmp_path: Path) -> None:
    async with running(tmp_path) as (cache, _):
        write(cache)
        journal = await cache.cut()
        assert {sealed.id for sealed in await cache.unsafe_segments()} >= {journal}
        write(cache, ino=3)
    cache = await SegmentCache.open(tmp_path / "cache", Host(), NEVER, None)
    assert sorted(sealed.kind.name for sealed in await cache.unsafe_segments()) == ["DATA"] * 2 + ["JOURNAL"] * 2
    assert cache.facts().unsealed_bytes == 0, "closing has sealed what was open"
    await cache.close()


# -- who hears of it


@asynccontextmanager
async def offloading(root: Path, cache: SegmentCache, process: MountProcess) -> AsyncIterator[SealWatch]:
    """The offload side on real sockets: a watcher, a courier, locations in memory."""
    machine = World.of(2, 1).machine(root / "machine")
    mount = ControlClient(root / "mount.sock")
    courier = Courier(RemoteShelf(mount), machine.vault, machine.roots, machine.tenure, lambda: 0.0)
    watch = SealWatch(ControlClient(root / "mount.sock"), SystemClock(), courier.hint)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, root / "mount.sock", methods(process))
        nursery.start_soon(watch.run)
        nursery.start_soon(courier.run)
        await until(lambda: courier.status().nodes)
        yield watch
        nursery.cancel_scope.cancel()


async def test_a_seal_wakes_the_watcher_without_any_polling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier_module, "POLL_S", HOUR)
    async with running(tmp_path) as (cache, process), offloading(tmp_path, cache, process) as watch:
        for round_ in range(1, 4):
            write(cache)
            journal = await cache.cut()
            with trio.fail_after(20):
                await cache.wait_published(journal)
            assert watch.wakes >= round_
        assert 0 < watch.wake_s_last <= watch.wake_s_max


async def test_a_missed_wake_up_costs_one_poll(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier_module, "POLL_S", 0.05)

    async def deaf(self: SealWatch) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(SealWatch, "run", deaf)
    async with running(tmp_path) as (cache, process), offloading(tmp_path, cache, process) as watch:
        write(cache)
        journal = await cache.cut()
        with trio.fail_after(20):
            await cache.wait_published(journal)
        assert watch.wakes == 0
