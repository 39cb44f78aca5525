"""Dead segments: marked, unlinked, deleted at the locations once no root needs them; at any moment both newest roots
can be restored whole."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.cache.options import CacheOptions
from qss.cache.shelf import restore_point
from qss.cache.space import dead, deletable, finished
from qss.cache.store import SegmentCache
from qss.formats.tables import ExtentRow, SegmentRow, SegmentState, Table, u64_key
from qss.host import Host, SystemEntropy
from qss.ids import SegmentId, segment_text
from qss.limits import KIB, MIB
from qss.segments import SegmentKind
from tests.harness.crash_disk import CrashDisk, FixedClock
from tests.harness.locations import Contents, Locations, joined
from tests.harness.rows import delete, write

OPTIONS = CacheOptions(
    segment_bytes=256 * KIB, journal_bytes=64 * KIB, index_map_bytes=64 * MIB, free_bytes_hard=0, free_bytes_soft=1,
    fetch_deadline_s=0.5, compact_bytes_per_s=1 << 30, compact_waste_bytes_min=0,
)  # fmt: skip
DATA, JOURNAL = SegmentKind.DATA, SegmentKind.JOURNAL
SEALED, OFFLOADED, CONDEMNED = SegmentState.SEALED, SegmentState.OFFLOADED, SegmentState.CONDEMNED


async def opened(root: Path, locations: Locations) -> SegmentCache:
    return await SegmentCache.open(root, Host(), OPTIONS, locations)


def all_rows(cache: SegmentCache) -> dict[int, SegmentRow]:
    rows = {key: SegmentRow.unpack(value) for key, value in cache.scan(Table.SEGMENTS, b"")}
    return {int.from_bytes(key, "big"): row for key, row in rows.items()}


def data_rows(cache: SegmentCache) -> dict[int, SegmentRow]:
    return {segment: row for segment, row in all_rows(cache).items() if row.kind is DATA}


def live_by_extents(cache: SegmentCache) -> dict[int, int]:
    live: dict[int, int] = {}
    for _, value in cache.scan(Table.EXTENTS, b""):
        extent = ExtentRow.unpack(value)
        live[extent.segment] = live.get(extent.segment, 0) + extent.length
    return live


def local_data(root: Path) -> int:
    return sum(path.stat().st_size for path in (root / "data").iterdir())


def row(kind: SegmentKind, state: SegmentState, needs: int = 0, placed: int = 6) -> SegmentRow:
    return SegmentRow(
        kind, state, 4 if placed else 0, 2 if placed else 0, placed, 100, 1, SegmentId(needs), 0, bytes(16)
    )


# -- the rules


def test_what_is_dead_and_settled_is_condemned() -> None:
    rows = {
        1: row(DATA, OFFLOADED), 2: row(DATA, OFFLOADED), 3: row(DATA, SEALED, placed=0),
        4: row(DATA, SEALED, placed=5), 5: row(JOURNAL, OFFLOADED), 6: row(DATA, CONDEMNED),
    }  # fmt: skip
    assert dead(rows, {2: 1}, never_stored=True) == [1, 3]
    assert dead(rows, {2: 1}, never_stored=False) == [1]


def test_shards_go_when_the_two_newest_roots_know() -> None:
    rows = {1: row(DATA, CONDEMNED, 8), 2: row(DATA, CONDEMNED, 9), 3: row(DATA, CONDEMNED, 0), 4: row(DATA, OFFLOADED)}
    assert deletable(rows, SegmentId(7)) == []
    assert deletable(rows, SegmentId(8)) == [1]
    assert deletable(rows, SegmentId(20)) == [1, 2]
    assert finished(rows) == [3]
    del rows[4]
    assert finished(rows) == []  # the log goes on behind the newest


def test_a_dead_segment_that_was_never_stored_holds_back_the_roots_that_still_need_it() -> None:
    rows = {
        1: row(DATA, OFFLOADED), 2: row(JOURNAL, OFFLOADED, 1), 3: row(DATA, CONDEMNED, 6, placed=0),
        4: row(JOURNAL, OFFLOADED, 3), 6: row(JOURNAL, SEALED, 3, placed=0),
    }  # fmt: skip
    point = restore_point(rows, {1: 1}, SegmentId(7), 0)
    assert point is not None
    assert point.journals == (2,)
    rows[6] = row(JOURNAL, OFFLOADED, 3)
    point = restore_point(rows, {1: 1}, SegmentId(7), 0)
    assert point is not None
    assert point.journals == (2, 4, 6)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([DATA, JOURNAL]), st.sampled_from([SEALED, OFFLOADED, CONDEMNED]), st.booleans(),
            st.integers(0, 14),
        ),
        max_size=12,
    )
)  # fmt: skip
def test_a_restore_point_never_needs_what_was_never_stored(
    spec: list[tuple[SegmentKind, SegmentState, bool, int]],
) -> None:
    rows: dict[SegmentId, SegmentRow] = {}
    newest = 0
    for number, (kind, state, stored, mark) in enumerate(spec, 1):
        if kind is JOURNAL:
            rows[SegmentId(number)] = row(kind, min(state, OFFLOADED), newest, 6 if state is OFFLOADED else 0)
            continue
        newest = number
        rows[SegmentId(number)] = row(kind, state, mark * (state is CONDEMNED), 6 * (stored or state is OFFLOADED))
    point = restore_point(rows, {}, SegmentId(len(spec) + 1), 0)
    if point is None:
        return
    last = point.journals[-1]
    for segment, each in rows.items():
        if each.kind is JOURNAL:
            assert (segment in point.journals) == (segment <= last)
        elif segment <= rows[last].needs_upto and each.placed == 0:
            assert each.state is CONDEMNED
            assert each.needs_upto <= last


# -- the cache


async def test_deleting_gives_space_back_here_and_there(tmp_path: Path) -> None:
    locations = Locations()
    cache = await opened(tmp_path, locations)
    for ino in range(10, 14):
        write(cache, ino, bytes([ino]) * 250 * KIB)
    await locations.settle(cache)
    assert len([s for s in locations.segments if s in data_rows(cache)]) == 4
    delete(cache, 11)
    await cache.cut()
    assert await cache.reclaim() > 250 * KIB
    assert local_data(tmp_path) < 3 * 256 * KIB
    dead_id = min(s for s, each in data_rows(cache).items() if each.state is CONDEMNED)
    await locations.carry(cache)
    await locations.publish(cache)
    assert await locations.dispose(cache) == []  # the root before still needs it
    await locations.settle(cache)
    assert locations.deleted == [dead_id]
    assert dead_id not in data_rows(cache)
    assert await cache.condemned() == []
    facts = cache.facts()
    assert (facts.segments_condemned, facts.condemned_bytes) == (0, 0)
    await cache.close()


async def test_what_dies_before_it_was_stored_is_never_stored(tmp_path: Path) -> None:
    locations = Locations()
    cache = await opened(tmp_path, locations)
    write(cache, 10, b"k" * 250 * KIB)
    write(cache, 11, b"x" * 250 * KIB)
    write(cache, 12, b"y" * 100 * KIB)
    delete(cache, 12)  # dead at its cut
    await cache.cut()
    delete(cache, 11)  # dead after its cut
    await locations.settle(cache)
    assert len([s for s in locations.stored if s in data_rows(cache)]) == 1
    assert locations.roots
    contents = await locations.restored(locations.roots[-1], tmp_path / "new", Host(), OPTIONS)
    assert contents == {(10, 0): b"k" * 250 * KIB}
    await cache.close()


async def test_a_sync_is_not_held_up_by_what_died_before_it(tmp_path: Path) -> None:
    locations = Locations()
    cache = await opened(tmp_path, locations)
    write(cache, 11, b"x" * 700 * KIB)
    delete(cache, 11)
    journal = await cache.cut()
    await locations.carry(cache)
    await locations.publish(cache)
    await cache.wait_published(journal)
    assert not any(s in data_rows(cache) for s in locations.stored)
    await cache.close()


async def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    locations = Locations()
    cache = await opened(tmp_path, locations)
    write(cache, 10, b"x" * 200 * KIB)
    await locations.settle(cache)
    delete(cache, 10)
    for _ in range(5):
        await cache.cut()
        await cache.close()
        cache = await opened(tmp_path, locations)
        await locations.carry(cache)
        await locations.publish(cache)
        await locations.dispose(cache)
    await cache.reclaim()
    assert local_data(tmp_path) == 0
    assert not [each for each in data_rows(cache).values() if each.needs_upto]
    write(cache, 11, b"after")
    await cache.close()
    cache = await opened(tmp_path, locations)
    assert joined(cache, lambda extent: cache.read_now(extent, 0, extent.length)) == {(11, 0): b"after"}
    await cache.close()


async def test_a_location_slow_to_answer_is_asked_again_and_a_deletion_noted_twice_is_one(tmp_path: Path) -> None:
    locations = Locations()
    cache = await opened(tmp_path, locations)
    write(cache, 10, b"x" * 200 * KIB)
    write(cache, 11, b"x" * 200 * KIB)
    await cache.cut()
    await locations.carry(cache)
    delete(cache, 10)
    for _ in range(3):
        await cache.cut()
        await locations.carry(cache)
        await locations.publish(cache)
    (segment,) = await cache.condemned()
    assert await cache.condemned() == [segment]
    await cache.mark_deleted(segment)
    await cache.mark_deleted(segment)
    await cache.mark_deleted(SegmentId(999))
    assert await cache.condemned() == []
    assert cache.get(Table.SEGMENTS, u64_key(segment)) is None
    await cache.close()


async def test_numbers_go_on_behind_data_newer_than_the_journal_of_its_cut(tmp_path: Path) -> None:
    """A journal that stays open while data segments roll has a lower number than they have."""
    locations = Locations()
    cache = await opened(tmp_path / "a", locations)
    write(cache, 9, b"first")  # opens the journal
    write(cache, 10, b"x" * 1_000_000)
    await cache.cut()
    await locations.carry(cache)
    point = await cache.restore_point()
    assert point is not None
    assert point.journals[-1] < max(live_by_extents(cache)) < point.next_segment
    await cache.close()
    for claimed in (point.next_segment, SegmentId(point.journals[-1] + 1)):  # as older roots say it
        new = tmp_path / str(claimed)
        (new / "journal").mkdir(parents=True)
        paths = [new / "journal" / f"{segment_text(journal)}.log" for journal in point.journals]
        for path, journal in zip(paths, point.journals, strict=True):
            path.write_bytes(locations.segments[journal])
        report = await SegmentCache.rebuild(new, Host(), OPTIONS, paths, claimed)
        made = set((new / "journal").iterdir()) - set(paths)
        taken = {int(path.stem, 16) for path in made}
        assert taken
        assert not taken & set(report.unplaced), "a new segment under the number of an old one"


# -- everything at once


class Life:
    """One cache and its locations, doing whatever comes."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.rng = random.Random(seed)
        self.locations = Locations()
        self.cache: SegmentCache
        self.restores = 0
        self.moved = 0
        self.checkpoints = 0

    async def open(self) -> None:
        self.cache = await opened(self.root / "a", self.locations)

    def contents(self) -> Contents:
        return joined(self.cache, self._payload)

    def _payload(self, extent: ExtentRow) -> bytes:
        data = self.cache.read_now(extent, 0, extent.length)
        return bytes(data) if data is not None else self.locations._payload(extent)

    async def check_roots(self) -> None:
        """Both newest roots can be restored, from what the locations have now."""
        for point in self.locations.roots[-1:-3:-1]:
            self.restores += 1
            new = self.root / f"r{self.restores}"
            await self.locations.restored(point, new, Host(), OPTIONS)
            shutil.rmtree(new)

    def write_some(self) -> None:
        rng = self.rng
        for _ in range(3):
            ino = rng.randrange(10, 30)
            delete(self.cache, ino)
            write(self.cache, ino, rng.randbytes(rng.choice([500, 10_000, 60_000, 150_000])))

    async def compact(self) -> None:
        before, cache = self.contents(), self.cache
        while await cache.compact_one() and self.rng.random() < 0.8:
            pass
        assert self.contents() == before
        assert live_by_extents(cache) == cache._ledger.index.live_all()
        self.moved = max(self.moved, cache.facts().moved_bytes)

    async def step(self) -> None:  # noqa: PLR0912 - a branch for each thing that may happen
        rng, cache, locations = self.rng, self.cache, self.locations
        match rng.choice("wwwwddcckkppxrsemmmjj"):
            case "w":
                self.write_some()
            case "d":
                delete(cache, rng.randrange(10, 30))
            case "c":
                await cache.cut()
            case "k":
                await locations.carry(cache, rng.randrange(1, 5))
            case "p":
                if await locations.publish(cache):
                    await self.check_roots()
            case "x":
                if await locations.dispose(cache):
                    await self.check_roots()
            case "r":
                await cache.reclaim()
            case "e":
                await cache.evict(all_=True)
            case "m":
                await self.compact()
            case "j":
                await cache.checkpoint_journal()
                self.checkpoints += 1
            case "s":
                before = self.contents()
                await cache.close()
                if rng.random() < 0.3:
                    shutil.rmtree(self.root / "a" / "index")
                await self.open()
                assert self.contents() == before


@pytest.mark.parametrize("seed", range(6))
async def test_at_any_moment_both_newest_roots_can_be_restored_whole(tmp_path: Path, seed: int) -> None:
    life = Life(tmp_path, seed)
    await life.open()
    for _ in range(120):
        before = life.contents() if life.rng.random() < 0.2 else None
        if before is not None:
            await life.cache.reclaim()
            assert life.contents() == before
        await life.step()
    before = life.contents()
    await life.locations.settle(life.cache)
    cache, locations = life.cache, life.locations
    assert await locations.restored(locations.roots[-1], tmp_path / "last", Host(), OPTIONS) == before
    live = set(cache._ledger.index.live_all())
    rows = data_rows(cache)
    assert {s for s, each in rows.items() if each.state is not CONDEMNED} == live
    assert locations.segments.keys() & rows.keys() == live
    assert locations.deleted
    assert life.checkpoints
    first = min(s for s, each in all_rows(cache).items() if each.kind is JOURNAL)
    assert first == locations.roots[-1].journals[0] > 1, "journals before the published checkpoint are trimmed"
    assert {int(path.stem, 16) for path in (tmp_path / "a" / "journal").iterdir()} >= {first}
    assert min(int(path.stem, 16) for path in (tmp_path / "a" / "journal").iterdir()) == first
    assert not any(s < first for s in locations.segments if s not in rows)
    assert life.moved
    await cache.close()


async def test_a_full_disk_is_no_reason_to_stop(tmp_path: Path) -> None:
    disk = CrashDisk()
    locations = Locations()
    cache = await SegmentCache.open(tmp_path, Host(disk, FixedClock("boot"), SystemEntropy()), OPTIONS, locations)
    write(cache, 10, b"x" * 200 * KIB)
    await cache.cut()
    delete(cache, 10)
    disk.free = 0
    assert await cache.unsafe_segments() != []
    assert await cache.reclaim() == 0
    disk.free = 1 << 40
    assert await cache.reclaim() > 200 * KIB
    await cache.close()
