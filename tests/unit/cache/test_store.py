"""SegmentCache over a real directory: content, seals, fetching, damage, rebuild."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
import trio
import trio.testing

from qss.cache.options import CacheOptions, RetentionOptions
from qss.cache.read_cache import READAHEAD_STRIPES
from qss.cache.store import SegmentCache
from qss.errors import FsError, NoSpace, ObjectMissing, TooFewShards
from qss.formats.record import RECORD_PAYLOAD_BYTES_MAX
from qss.formats.tables import ExtentRow, InodeRow, SegmentState, Table, pair_key, u64_key
from qss.host import Host
from qss.ids import Ino, LocationId, SegmentId, StripeNo
from qss.limits import KIB, MIB, STRIPE_BYTES
from qss.segments import Receipt
from tests.harness.crash_disk import CrashDisk, FixedClock

OPTIONS = CacheOptions(segment_bytes=8 * MIB, index_map_bytes=64 * MIB, fetch_deadline_s=2.0)
PLACES = tuple(LocationId(f"trove-{n}") for n in range(6))


class KeptVault:
    """A vault that keeps whole segments, can be shut, and counts what is fetched."""

    def __init__(self) -> None:
        self.segments: dict[SegmentId, bytes] = {}
        self.fetched: list[tuple[SegmentId, StripeNo]] = []
        self.open = True

    async def fetch(self, segment: SegmentId, stripe: StripeNo, into: Path) -> None:
        await trio.lowlevel.checkpoint()
        self.fetched.append((segment, stripe))
        if not self.open:
            raise TooFewShards("all nodes are down")
        into.write_bytes(self.segments[segment][stripe * STRIPE_BYTES : (stripe + 1) * STRIPE_BYTES])


async def opened(root: Path, vault: KeptVault | None = None, options: CacheOptions = OPTIONS) -> SegmentCache:
    return await SegmentCache.open(root, Host(), options, vault)


def write(cache: SegmentCache, ino: int, offset: int, payload: bytes) -> list[tuple[int, ExtentRow]]:
    change = cache.begin()
    extents = cache.append(Ino(ino), offset, payload)
    for at, extent in extents:
        change.put(Table.EXTENTS, pair_key(ino, at), extent.pack())
    cache.commit(change)
    return extents


def pattern(length: int, seed: int = 1) -> bytes:
    return (
        bytes((seed * 31 + n * 7) % 251 for n in range(1009)) * (length // 1009 + 1)
        if length > 5000
        else bytes((seed + n) % 256 for n in range(length))
    )


async def offload(cache: SegmentCache, vault: KeptVault) -> None:
    for sealed in await cache.unsafe_segments():
        vault.segments[sealed.id] = (await cache.path_of(sealed.id)).read_bytes()
        assert len(vault.segments[sealed.id]) == sealed.length
        await cache.mark_offloaded(Receipt(sealed.id, b"s" * 16, 4, 2, PLACES, sealed.length * 3 // 2))


async def read_all(cache: SegmentCache, extents: list[tuple[int, ExtentRow]]) -> bytes:
    return b"".join([bytes(await cache.read(extent, 0, extent.length)) for _, extent in extents])


@pytest.mark.parametrize("size", [1, 100, 64 * KIB, 64 * KIB + 1, MIB, RECORD_PAYLOAD_BYTES_MAX + 1, 5 * MIB, 20 * MIB])
async def test_content_comes_back_whole_and_in_any_part(tmp_path: Path, size: int) -> None:
    cache = await opened(tmp_path)
    payload = pattern(size)[:size]
    write(cache, 9, 0, b"before")
    extents = write(cache, 2, 0, payload)
    assert sum(extent.length for _, extent in extents) == size
    assert await read_all(cache, extents) == payload
    for at, extent in extents:
        for start, stop in ((0, 1), (extent.length // 2, extent.length), (extent.length // 3, extent.length // 3 + 1)):
            if start < stop:
                assert cache.read_now(extent, start, stop) == payload[at + start : at + stop]
        first, last = extent.record_position, extent.record_position + extent.record_length
        assert first // STRIPE_BYTES == (last - 1) // STRIPE_BYTES
    await cache.close()


async def test_what_was_committed_is_there_after_close_and_a_clean_restart_seals_nothing_new(tmp_path: Path) -> None:
    cache = await opened(tmp_path)
    extents = write(cache, 2, 0, b"hello")
    await cache.close()
    files = sorted(path.name for path in tmp_path.rglob("*.log"))
    for _ in range(3):
        cache = await opened(tmp_path)
        assert cache.get(Table.EXTENTS, pair_key(2, 0)) == extents[0][1].pack()
        assert await read_all(cache, extents) == b"hello"
        await cache.close()
    assert sorted(path.name for path in tmp_path.rglob("*.log")) == files


async def test_small_appends_cost_less_than_three_times_their_bytes(tmp_path: Path) -> None:
    cache = await opened(tmp_path)
    for n in range(2000):
        change = cache.begin()
        for at, extent in cache.append(Ino(2), n * 100, bytes([n % 256]) * 100):
            change.put(Table.EXTENTS, pair_key(2, at), extent.pack())
        now = 1_700_000_000_000_000_000 + n * 12_345_678
        row = InodeRow(0o100644, 1, 0, 0, 0, 0, n * 100 + 100, n * 100 + 100, 0, 0, 1, now, now)
        change.put(Table.INODES, u64_key(2), row.pack())
        cache.commit(change)
    await cache.close()
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.log")) < 3 * 2000 * 100


async def test_a_cut_on_a_clean_cache_makes_nothing(tmp_path: Path) -> None:
    vault = KeptVault()
    cache = await opened(tmp_path, vault)
    assert await cache.cut() == 0
    write(cache, 2, 0, b"hello")
    journal = await cache.cut()
    assert [sealed.id for sealed in await cache.unsafe_segments()] == [journal - 1, journal] == [1, 2]
    await offload(cache, vault)  # its receipts go to the journal and do not make it dirty
    assert await cache.cut() == journal
    point = await cache.restore_point()
    assert point is not None
    assert point.journals == (journal,)
    await cache.mark_published(point)
    await cache.wait_published(journal)
    assert await cache.cut() == journal
    assert await cache.unsafe_segments() == []
    facts = cache.facts()
    assert (facts.at_risk_bytes, facts.published_journal) == (0, journal)
    await cache.close()


async def test_evicted_content_is_fetched_a_stripe_at_a_time(tmp_path: Path) -> None:
    vault = KeptVault()
    cache = await opened(tmp_path, vault)
    payload = pattern(7 * MIB)[: 7 * MIB]
    extents = write(cache, 2, 0, payload)
    await cache.cut()
    assert (await cache.evict(all_=True)).segments == 0, "nothing is safe yet"
    await offload(cache, vault)
    assert (await cache.evict(all_=True)).segments == 1
    assert cache.facts().data_local_bytes == 0
    assert cache.read_now(extents[0][1], 0, 10) is None
    assert await cache.read(extents[0][1], 0, 10) == payload[:10]
    assert vault.fetched == [(extents[0][1].segment, 0)]
    assert await read_all(cache, extents) == payload
    await cache.close()
    cache = await opened(tmp_path, vault)
    assert cache.read_now(extents[0][1], 0, 10) == payload[:10], "stripes survive a restart"
    assert (await cache.evict(all_=True)).stripes == 2
    with pytest.raises(ObjectMissing):
        await cache.path_of(extents[0][1].segment)
    await cache.close()


async def test_many_readers_share_one_fetch(tmp_path: Path) -> None:
    vault = KeptVault()
    cache = await opened(tmp_path, vault)
    extents = write(cache, 2, 0, b"hello")
    await cache.cut()
    await offload(cache, vault)
    await cache.evict(all_=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        async with trio.open_nursery() as readers:
            for _ in range(20):
                readers.start_soon(cache.read, extents[0][1], 0, 5)
        nursery.cancel_scope.cancel()
    assert len(vault.fetched) == 1
    await cache.close()


class Turns(trio.abc.Instrument):
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


async def test_of_many_who_waited_for_one_stripe_one_is_served_in_each_turn_of_the_loop(tmp_path: Path) -> None:
    vault = KeptVault()
    cache = await opened(tmp_path, vault)
    payload = pattern(MIB)[:MIB]
    extents = write(cache, 2, 0, payload)
    await cache.cut()
    await offload(cache, vault)
    await cache.evict(all_=True)
    turns = Turns()
    served: list[int] = []

    async def read() -> None:
        assert await read_all(cache, extents) == payload
        served.append(turns.count)

    trio.lowlevel.add_instrument(turns)
    async with trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(read)
    trio.lowlevel.remove_instrument(turns)
    assert len(vault.fetched) == 1
    assert len(set(served)) == 12
    await cache.close()


async def test_a_sequential_reader_is_fetched_ahead_of(tmp_path: Path) -> None:
    vault = KeptVault()
    cache = await opened(tmp_path, vault, CacheOptions(segment_bytes=32 * MIB, index_map_bytes=64 * MIB))
    payload = pattern(20 * MIB)[: 20 * MIB]
    extents = write(cache, 2, 0, payload)
    await cache.cut()
    await offload(cache, vault)
    await cache.evict(all_=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        await trio.testing.wait_all_tasks_blocked()
        by_stripe = {extent.record_position // STRIPE_BYTES: extent for _, extent in extents}
        await cache.read(by_stripe[0], 0, 10)
        assert [stripe for _, stripe in vault.fetched] == [0]
        await cache.read(by_stripe[1], 0, 10)
        with trio.fail_after(10):
            while cache.facts().fetches_in_flight:
                await trio.testing.wait_all_tasks_blocked()
        assert sorted(stripe for _, stripe in vault.fetched) == [0, 1, 2, 3, 4]
        nursery.cancel_scope.cancel()
    await cache.close()


async def test_reading_on_keeps_the_next_stripes_coming_across_segments(tmp_path: Path) -> None:
    vault = KeptVault()
    cache = await opened(tmp_path, vault)  # two stripes a segment
    extents = write(cache, 2, 0, pattern(36 * MIB)[: 36 * MIB])
    await cache.cut()
    await offload(cache, vault)
    await cache.evict(all_=True)
    places = list(dict.fromkeys((e.segment, e.record_position // STRIPE_BYTES) for _, e in extents))
    first_of = {(e.segment, e.record_position // STRIPE_BYTES): e for _, e in reversed(extents)}
    assert len({segment for segment, _ in places}) >= 4

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        await trio.testing.wait_all_tasks_blocked()
        for at, place in enumerate(places):
            if at >= 2:
                assert cache.read_now(first_of[place], 0, 10) is not None, "it is here before it is asked for"
            else:
                await cache.read(first_of[place], 0, 10)
            with trio.fail_after(10):
                while cache.facts().fetches_in_flight:
                    await trio.testing.wait_all_tasks_blocked()
            ahead = 1 if at == 0 else at + 1 + READAHEAD_STRIPES
            assert sorted(vault.fetched) == places[:ahead]
        nursery.cancel_scope.cancel()
    await cache.close()


async def test_a_read_gives_up_at_its_deadline_and_works_again_later(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    vault = KeptVault()
    cache = await opened(tmp_path, vault)
    extents = write(cache, 2, 0, b"hello")
    await cache.cut()
    await offload(cache, vault)
    await cache.evict(all_=True)
    vault.open = False
    start = trio.current_time()
    with pytest.raises(FsError) as failure:
        await cache.read(extents[0][1], 0, 5)
    assert failure.value.errno == errno.EIO
    assert trio.current_time() - start <= OPTIONS.fetch_deadline_s + 0.5
    vault.open = True
    assert await cache.read(extents[0][1], 0, 5) == b"hello"
    await cache.close()


def flip(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1]))


async def test_a_damaged_block_is_an_error_until_it_is_safe_elsewhere(tmp_path: Path) -> None:
    vault = KeptVault()
    cache = await opened(tmp_path, vault)
    payload = pattern(MIB)[:MIB]
    ((_, extent),) = write(cache, 2, 0, payload)
    await cache.cut()
    segment = extent.segment
    path = await cache.path_of(segment)
    whole = path.read_bytes()
    flip(path, extent.record_position + 300_000)
    assert cache.read_now(extent, 290_000, 310_000) is None
    with pytest.raises(FsError) as failure:
        await cache.read(extent, 290_000, 310_000)
    assert failure.value.errno == errno.EIO
    assert cache.read_now(extent, 0, 100) == payload[:100], "other blocks are good"
    await offload(cache, vault)
    vault.segments[segment] = whole
    assert await cache.read(extent, 290_000, 310_000) == payload[290_000:310_000]
    assert cache.facts().damaged_reads == 2
    flip(tmp_path / "stripes" / f"{segment:016x}-0.stripe", extent.record_position + 300_000)
    assert await cache.read(extent, 290_000, 310_000) == payload[290_000:310_000], "a damaged stripe is fetched again"
    assert cache.facts().damaged_reads == 3
    await cache.close()


async def test_a_full_disk_refuses_content_and_leaves_both_logs_whole(tmp_path: Path) -> None:
    disk = CrashDisk()
    options = CacheOptions(index_map_bytes=64 * MIB, free_bytes_hard=0, free_bytes_soft=1)
    cache = await SegmentCache.open(tmp_path, Host(disk, FixedClock()), options, None)
    ((_, kept),) = write(cache, 2, 0, b"kept")
    disk.free = 9000
    with pytest.raises(NoSpace):
        cache.append(Ino(2), 0, bytes(8990))
    disk.free = 10
    change = cache.begin()
    change.put(Table.INODES, u64_key(2), bytes(range(92)))
    with pytest.raises(NoSpace):
        cache.commit(change)
    assert cache.get(Table.INODES, u64_key(2)) is None
    disk.free = 1 << 30
    cache.commit(change)
    ((_, again),) = write(cache, 2, 10, b"again")
    await cache.close()
    shutil.rmtree(tmp_path / "index")
    cache = await SegmentCache.open(tmp_path, Host(disk, FixedClock("boot-2")), options, None)
    assert cache.get(Table.INODES, u64_key(2)) == bytes(range(92))
    assert (cache.read_now(kept, 0, 4), cache.read_now(again, 0, 5)) == (b"kept", b"again")
    await cache.close()


async def test_a_change_larger_than_a_journal_frame_is_still_one(tmp_path: Path) -> None:
    cache = await opened(tmp_path)
    change = cache.begin()
    for n in range(100):
        change.put(Table.XATTRS, u64_key(n + 1) + b"user.x", bytes([n]) * 60_000)
    cache.commit(change)
    await cache.close()
    shutil.rmtree(tmp_path / "index")
    cache = await opened(tmp_path)
    assert [value[0] for _, value in cache.scan(Table.XATTRS, b"")] == list(range(100))
    await cache.close()


async def test_retention_set_by_hand_survives_a_restart(tmp_path: Path) -> None:
    cache = await opened(tmp_path)
    cache.eviction.set_retention(RetentionOptions(size_bytes_max=123, age_s_max=4.5))
    await cache.close()
    cache = await opened(tmp_path)
    assert cache.eviction.retention == RetentionOptions(size_bytes_max=123, age_s_max=4.5)
    await cache.close()


async def test_a_new_machine_rebuilds_from_journals_alone(tmp_path: Path) -> None:
    vault = KeptVault()
    old = await opened(tmp_path / "old", vault)
    written: list[tuple[int, ExtentRow]] = []
    for n in range(3):
        written += write(old, 2, n * 1000, pattern(1000, n))
        await old.cut()
        await offload(old, vault)
    point = await old.restore_point()
    assert point is not None
    sealed = {s: await old.sealed_segment(s) for s in vault.segments}
    write(old, 2, 9000, b"after the last sync")
    await old.close()

    new_root = tmp_path / "new"
    (new_root / "journal").mkdir(parents=True)
    paths = [new_root / "journal" / f"{segment:016x}.log" for segment in point.journals]
    for segment, path in zip(point.journals, paths, strict=True):
        path.write_bytes(vault.segments[segment])
    report = await SegmentCache.rebuild(new_root, Host(), OPTIONS, paths, point.next_segment)
    assert report.next_segment > point.next_segment
    assert set(report.unplaced) <= set(vault.segments)
    new = await opened(new_root, vault)
    for segment in report.unplaced:
        await new.adopt(sealed[segment], Receipt(segment, b"s" * 16, 4, 2, PLACES, 1))
    assert await new.unsafe_segments() == []
    assert new.get(Table.EXTENTS, pair_key(2, 9000)) is None
    assert await read_all(new, written) == b"".join(pattern(1000, n) for n in range(3))
    assert await new.restore_point() is not None
    extents = write(new, 2, 3000, b"and on")
    assert extents[0][1].segment >= report.next_segment
    journal = await new.cut()
    await offload(new, vault)
    again = await new.restore_point()
    assert again is not None
    assert again.journals[-1] == journal
    await new.close()
    for lose_index in (False, True):
        if lose_index:
            shutil.rmtree(new_root / "index")
        new = await opened(new_root, vault)
        assert await read_all(new, extents) == b"and on"
        assert await read_all(new, written[:1]) == pattern(1000, 0)
        await new.close()


async def test_the_clock_cuts_what_is_dirty_and_wakes_the_watcher(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    cache = await opened(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cache.run)
        write(cache, 2, 0, b"hello")
        await cache.wait_sealed()
        assert len(await cache.unsafe_segments()) == 2
        await trio.sleep(10 * OPTIONS.seal_after_s)
        assert len(await cache.unsafe_segments()) == 2, "an idle cache seals nothing"
        nursery.cancel_scope.cancel()
    await cache.close()


async def test_offloaded_stays_offloaded_when_a_worse_receipt_comes_late(tmp_path: Path) -> None:
    vault = KeptVault()
    cache = await opened(tmp_path, vault)
    write(cache, 2, 0, b"hello")
    await cache.cut()
    await offload(cache, vault)
    await cache.mark_offloaded(Receipt(SegmentId(1), b"s" * 16, 4, 2, (*PLACES[:5], None), 1))
    assert await cache.unsafe_segments() == []
    assert cache.facts().segments_offloaded == 2
    assert SegmentState.OFFLOADED > SegmentState.SEALED
    await cache.close()
