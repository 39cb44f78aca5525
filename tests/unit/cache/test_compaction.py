"""Compaction: what is worth moving, and that moving changes nothing but places."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from qss.cache.compaction import (
    BATCH_BYTES,
    LATE_S,
    REFUSED_S,
    Candidate,
    choose,
    pause_s,
    payload_bytes,
    pressing,
    records,
)
from qss.cache.options import CacheOptions
from qss.cache.store import SegmentCache
from qss.errors import CorruptData
from qss.formats.record import SEGMENT_HEADER_BYTES, encode_head, scan_stripe
from qss.formats.tables import ExtentRow, SegmentState, Table, pair_key
from qss.fs.attrs import User
from qss.fs.filesystem import FileSystem
from qss.host import Host
from qss.ids import ROOT_INO, SegmentId
from qss.limits import KIB, MIB, STRIPE_BYTES
from tests.harness.locations import Locations, joined
from tests.harness.rows import delete, write

OPTIONS = CacheOptions(
    segment_bytes=8 * MIB, index_map_bytes=64 * MIB, free_bytes_hard=0, free_bytes_soft=1, fetch_deadline_s=0.5,
    compact_bytes_per_s=1 << 40, compact_waste_bytes_min=0,
)  # fmt: skip

candidates = st.builds(
    lambda number, length, share, local: Candidate(SegmentId(number), length, int(length * share), local),
    st.integers(1, 1000), st.integers(1, 1 << 26), st.floats(0, 1.2), st.booleans(),
)  # fmt: skip


# -- the plan


@given(
    st.lists(candidates, max_size=20, unique_by=lambda each: each.segment),
    st.floats(0.05, 0.9),
    st.integers(0, 1 << 26),
)
def test_the_plan_frees_what_it_should_and_touches_no_more(all_: list[Candidate], waste: float, least: int) -> None:
    victims = choose(all_, waste, least)
    assert len(set(victims)) == len(victims)
    assert all(each in all_ and each.dead > waste * each.length for each in victims)
    worth = [each.dead / each.cost for each in victims]
    assert worth == sorted(worth, reverse=True)
    left = [each for each in all_ if each not in victims]
    dead_left, total_left = sum(each.dead for each in left), sum(each.length - each.dead for each in victims)
    total_left += sum(each.length for each in left)
    enough = dead_left <= max(waste * total_left, least)
    assert enough or not any(each.dead > waste * each.length for each in left)
    for last in victims[-1:]:  # without the last it was not enough
        assert dead_left + last.dead > max(waste * (total_left + last.dead), least)


def test_what_is_here_comes_before_what_must_be_fetched() -> None:
    here, there = Candidate(SegmentId(2), 100, 50, True), Candidate(SegmentId(1), 100, 50, False)
    assert choose([there, here], 0.1, 0) == [here, there]


def test_others_go_first_unless_dead_bytes_pile_up() -> None:
    assert not pressing([Candidate(SegmentId(1), 100, 60, True)], 0)
    assert pressing([Candidate(SegmentId(1), 100, 40, True)], 0)
    assert not pressing([Candidate(SegmentId(1), 100, 40, True)], 100)
    assert pause_s(1000, 100, 0.0) == 10.0
    assert pause_s(0, 100, 0.001) == 0.0
    assert pause_s(0, 100, LATE_S + 0.05) == pytest.approx(0.5)
    assert pause_s(0, 100, 60.0) == 1.0


@given(st.lists(st.integers(1, 200_000), max_size=30), st.integers(0, 1 << 20))
def test_heads_are_found_as_by_a_full_scan_and_damage_is_seen(sizes: list[int], at: int) -> None:
    stripe = _stripe(sizes)
    full = [(position, head.offset, head.length) for position, _, head in scan_stripe(stripe, SEGMENT_HEADER_BYTES)]
    found = [(each.position, each.offset, each.length) for each in records(stripe, 0, SEGMENT_HEADER_BYTES)]
    assert found == full
    assert payload_bytes(stripe, SEGMENT_HEADER_BYTES) == sum(length for _, _, length in full)
    if full:
        position = full[at % len(full)][0] + at % 40
        bad = bytearray(stripe)
        bad[position] ^= 1
        with pytest.raises(CorruptData):
            list(records(bad, 0, SEGMENT_HEADER_BYTES))


def _stripe(sizes: list[int]) -> bytes:
    out = bytearray(SEGMENT_HEADER_BYTES)
    for number, size in enumerate(sizes):
        payload = bytes([number % 251]) * size
        whole = encode_head(7, number * 1_000_000, number, payload) + payload
        if len(out) + len(whole) > STRIPE_BYTES:
            break
        out += whole
    return bytes(out)


# -- on a cache


async def opened(root: Path, locations: Locations, options: CacheOptions = OPTIONS) -> SegmentCache:
    return await SegmentCache.open(root, Host(), options, locations)


def read(cache: SegmentCache, extent: ExtentRow) -> bytes:
    data = cache.read_now(extent, 0, extent.length)
    assert data is not None
    return bytes(data)


def contents(cache: SegmentCache):
    return joined(cache, lambda extent: read(cache, extent))


async def mostly_dead(root: Path, locations: Locations) -> SegmentCache:
    """100 files of 100 kB, stored; every tenth is left."""
    cache = await opened(root, locations)
    for ino in range(100, 200):
        write(cache, ino, random.Random(ino).randbytes(100 * KIB))
    await cache.cut()
    await locations.carry(cache)
    await locations.publish(cache)
    for ino in range(100, 200):
        if ino % 10:
            delete(cache, ino)
    return cache


async def compact_all(cache: SegmentCache) -> None:
    for _ in range(1000):
        if not await cache.compact_one():
            return
    raise AssertionError("it goes on for ever")


async def test_the_rest_moves_and_the_space_comes_back(tmp_path: Path) -> None:
    locations = Locations()
    cache = await mostly_dead(tmp_path, locations)
    before, moved = contents(cache), []
    cache.tell_moved(moved.extend)
    await compact_all(cache)
    assert contents(cache) == before
    assert set(moved) == {ino for ino, _ in before}
    assert cache.facts().moved_bytes == 10 * 100 * KIB
    await locations.settle(cache)
    assert contents(cache) == before
    live = cache.facts().live_bytes
    kept = sum(len(data) for segment, data in locations.segments.items() if segment in cache._shelf.rows)
    kept -= sum(row.length for row in cache._shelf.rows.values() if row.kind == 2)
    assert kept < 1.3 * live
    assert sum(path.stat().st_size for path in (tmp_path / "data").iterdir()) < 1.3 * live
    assert await locations.restored(locations.roots[-1], tmp_path / "new", Host(), OPTIONS) == before
    await cache.close()


async def test_what_is_not_here_is_fetched(tmp_path: Path) -> None:
    locations = Locations()
    cache = await mostly_dead(tmp_path, locations)
    before = contents(cache)
    await cache.evict(all_=True)
    await compact_all(cache)
    await locations.settle(cache)
    assert contents(cache) == before
    await cache.close()


async def test_files_change_under_compaction(tmp_path: Path) -> None:
    """Between any two batches files are written over, cut short, deleted."""
    locations = Locations()
    cache = await opened(tmp_path, locations)
    rng = random.Random(5)
    for ino in range(10, 40):
        write(cache, ino, rng.randbytes(2 * BATCH_BYTES // 5))
    await cache.cut()
    await locations.carry(cache)
    for ino in range(10, 40, 2):
        delete(cache, ino)
    expected = contents(cache)

    def meddle(_inos) -> None:
        ino = rng.randrange(10, 40)
        if (ino, 0) in expected and rng.random() < 0.5:
            delete(cache, ino)
            del expected[ino, 0]
        else:
            data = rng.randbytes(2 * BATCH_BYTES // 5)
            write(cache, ino, data)
            change = cache.begin()
            for key, _ in change.scan(Table.EXTENTS, pair_key(ino, len(data)), pair_key(ino + 1, 0)):
                change.delete(Table.EXTENTS, key)
            cache.commit(change)
            expected[ino, 0] = data

    cache.tell_moved(meddle)
    await compact_all(cache)
    assert cache.facts().moved_bytes
    assert contents(cache) == expected
    await cache.close()


async def test_damage_that_can_heal_heals_and_other_damage_stays_where_it_is(tmp_path: Path) -> None:
    locations = Locations()
    cache = await mostly_dead(tmp_path, locations)
    before = contents(cache)
    paths = sorted((tmp_path / "data").iterdir())
    for ino in (110, 150):
        extent = ExtentRow.unpack(cache.get(Table.EXTENTS, pair_key(ino, 0)) or b"")
        path = next(path for path in paths if int(path.stem, 16) == extent.segment)
        whole = bytearray(path.read_bytes())
        whole[extent.record_position + (10 if ino == 110 else 5000)] ^= 1  # a head, a payload
        path.write_bytes(whole)
    await compact_all(cache)
    assert contents(cache) == before
    assert cache.facts().moved_bytes == 10 * 100 * KIB
    await cache.close()


async def test_damage_that_heals_nowhere_is_left_alone(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    locations = Locations()
    cache = await mostly_dead(tmp_path, locations)
    extent = ExtentRow.unpack(cache.get(Table.EXTENTS, pair_key(150, 0)) or b"")
    bad = bytearray(locations.segments[extent.segment])
    bad[extent.record_position + 5000] ^= 1
    locations.segments[extent.segment] = bytes(bad)
    await cache.evict(all_=True)
    await compact_all(cache)
    assert cache.get(Table.EXTENTS, pair_key(150, 0)) == extent.pack()  # still at its place
    assert await cache.compact_one() is False
    await trio.sleep(REFUSED_S + 1)
    assert await cache.compact_one() is True  # it may have been repaired
    await cache.close()


async def test_a_segment_of_tiny_records_is_not_moved_for_its_heads(tmp_path: Path) -> None:
    locations = Locations()
    cache = await opened(tmp_path, locations)
    for number in range(3000):
        write(cache, 10 + number, b"x" * 40)
    await cache.cut()
    await locations.carry(cache)
    await compact_all(cache)
    assert cache.facts().moved_bytes == 0
    for number in range(0, 3000, 2):
        delete(cache, 10 + number)
    await compact_all(cache)
    assert cache.facts().moved_bytes == 1500 * 40
    await cache.close()


async def test_what_is_on_its_way_to_a_root_is_not_emptied(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    locations = Locations()
    cache = await opened(tmp_path, locations)
    write(cache, 10, b"x" * 100 * KIB)
    write(cache, 11, b"x" * 900 * KIB)
    await cache.cut()
    delete(cache, 11)
    assert await cache.compact_one() is False
    await trio.sleep(40)  # nothing is being offloaded: then at least the disk here
    assert await cache.compact_one() is True
    await cache.close()


async def test_the_background_loop_does_it_by_itself_and_stops_for_waiting_writers(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    locations = Locations()
    cache = await mostly_dead(tmp_path, locations)
    async with trio.open_nursery() as nursery:
        cache._admission.waiting = 1
        nursery.start_soon(cache._compactor.run)
        await trio.sleep(30)
        assert cache.facts().moved_bytes == 0
        cache._admission.waiting = 0
        while cache.facts().moved_bytes < 10 * 100 * KIB:  # noqa: ASYNC110
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    await cache.close()


async def test_a_file_keeps_its_attributes_and_its_readers(tmp_path: Path) -> None:
    locations = Locations()
    host = Host()
    cache = await opened(tmp_path, locations)
    fs = FileSystem(cache, host.clock)
    cache.tell_moved(fs.invalidate)
    inos = []
    for number in range(50):
        ino = fs.create(ROOT_INO, b"%d" % number, 0o644, User()).ino
        handle = await fs.open(ino, 2)
        await fs.write(handle, 0, bytes([number]) * 100_000)
        fs.release(handle)
        inos.append(ino)
    await cache.cut()
    await locations.carry(cache)
    for number in range(50):
        if number % 10:
            fs.unlink(ROOT_INO, b"%d" % number)
    kept = [await fs.open(ino, 0) for ino in inos[::10]]
    assert all(fs.read_now(handle, 0, 100_000) for handle in kept)
    before = [fs.getattr(ino) for ino in inos[::10]]
    await compact_all(cache)
    await cache.reclaim()
    assert cache.facts().moved_bytes == 5 * 100_000
    assert [fs.getattr(ino) for ino in inos[::10]] == before
    assert all(row.state is not SegmentState.OFFLOADED for row in cache._shelf.rows.values() if row.kind == 1)
    for number, handle in zip(range(0, 50, 10), kept, strict=True):
        data = fs.read_now(handle, 0, 100_000)
        assert data is not None  # the old place is forgotten
        assert bytes(data) == bytes([number]) * 100_000
    await cache.close()
