"""Snapshots of a cache: what they keep, that it can be brought back from the locations, and that it goes with them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qss.cache.pins import missing
from qss.cache.schedule import Schedule
from qss.cache.snapshots import COMMENT_BYTES_MAX
from qss.cache.store import SegmentCache
from qss.errors import NoSpace, Refused
from qss.formats.tables import Table
from qss.host import Host, SystemEntropy
from qss.ids import SegmentId
from qss.limits import KIB
from tests.harness.crash_disk import CrashDisk, FixedClock
from tests.harness.locations import Contents, Locations, joined
from tests.harness.rows import delete, write
from tests.unit.cache.test_space import CONDEMNED, OPTIONS, Life, data_rows, live_by_extents, local_data, opened

A, B, C = (letter * 200 * KIB for letter in (b"a", b"b", b"c"))


def contents(cache: SegmentCache, locations: Locations) -> Contents:
    return joined(cache, locations._payload)


async def restored(cache: SegmentCache, locations: Locations, name: str, root: Path) -> Contents:
    """What a new machine finds in a snapshot."""
    try:
        return await locations.restored(cache.snapshots.point(name), root, Host(), OPTIONS)
    finally:
        shutil.rmtree(root)


async def test_a_snapshot_keeps_what_is_deleted_and_gives_it_back_when_it_goes(tmp_path: Path) -> None:
    locations = Locations()
    cache = await opened(tmp_path / "a", locations)
    write(cache, 10, A)
    write(cache, 11, B)
    made = await cache.snapshots.create("first", "before it goes")
    assert (made.name, made.number, made.comment, made.alone_bytes) == ("first", 1, "before it goes", 0)
    assert not made.protected
    before = {(10, 0): A, (11, 0): B}
    delete(cache, 10)
    write(cache, 12, C)
    await locations.settle(cache)
    assert cache.facts().segments_condemned == 0
    assert cache.facts().snapshot_bytes > len(A)
    (first,) = cache.snapshots.listed()
    assert first.protected
    assert first.alone_bytes > len(A)
    assert await restored(cache, locations, "first", tmp_path / "r") == before
    await cache.close()
    cache = await opened(tmp_path / "a", locations)  # and after a restart
    assert [first] == cache.snapshots.listed()
    await locations.settle(cache)
    assert await restored(cache, locations, "first", tmp_path / "r") == before
    kept_here = local_data(tmp_path / "a")
    await cache.snapshots.delete("first")
    await locations.settle(cache)
    assert local_data(tmp_path / "a") < kept_here - len(A)
    rows = data_rows(cache)
    assert live_by_extents(cache).keys() == {s for s in rows if rows[s].state is not CONDEMNED}
    assert live_by_extents(cache).keys() == locations.segments.keys() & rows.keys()
    assert cache.count(Table.DEATHS) == 0
    assert (cache.facts().snapshots, cache.facts().snapshot_bytes) == (0, 0)
    await cache.close()


async def test_what_was_dead_before_belongs_to_no_snapshot(tmp_path: Path) -> None:
    locations = Locations()
    cache = await opened(tmp_path, locations)
    write(cache, 10, A)
    write(cache, 11, B)
    await cache.snapshots.create("early")
    await locations.settle(cache)
    delete(cache, 10)  # only "early" needs it
    await cache.snapshots.create("late")
    delete(cache, 11)
    await locations.settle(cache)
    early, late = cache.snapshots.listed()
    assert early.alone_bytes > len(A)
    assert late.alone_bytes == 0, "11 is in both"
    await cache.snapshots.delete("early")
    await locations.settle(cache)
    (late,) = cache.snapshots.listed()
    assert len(B) < late.alone_bytes < len(A) + len(B)
    assert len([s for s, row in data_rows(cache).items() if row.state is not CONDEMNED]) == 1
    await cache.close()


async def test_without_anything_new_a_snapshot_needs_no_new_cut(tmp_path: Path) -> None:
    locations = Locations()
    cache = await opened(tmp_path, locations)
    with pytest.raises(Refused, match="nothing was ever written"):
        await cache.snapshots.create("empty")
    write(cache, 10, A)
    await cache.cut()
    newest = cache.facts().newest_journal
    await cache.snapshots.create("idle")
    assert cache.snapshots.row("idle").journal_last == newest
    await locations.settle(cache)
    assert await restored(cache, locations, "idle", tmp_path / "r") == {(10, 0): A}
    await cache.close()


async def test_refusals(tmp_path: Path) -> None:
    cache = await opened(tmp_path, Locations())
    write(cache, 10, A)
    await cache.snapshots.create("one")
    for name, words in [("one", "already"), ("a/b", "letters"), ("", "letters"), ("x" * 256, "255")]:
        with pytest.raises(Refused, match=words):
            await cache.snapshots.create(name)
    with pytest.raises(Refused, match="comment"):
        await cache.snapshots.create("two", "ä" * (COMMENT_BYTES_MAX // 2 + 1))
    for attempt in (cache.snapshots.row, cache.snapshots.point, cache.snapshots.facts):
        with pytest.raises(Refused, match="no snapshot two"):
            attempt("two")
    with pytest.raises(Refused, match="no snapshot two"):
        await cache.snapshots.delete("two")
    assert [each.name for each in cache.snapshots.listed()] == ["one"]
    await cache.close()


async def test_numbers_are_never_used_again(tmp_path: Path) -> None:
    cache = await opened(tmp_path, Locations())
    write(cache, 10, A)
    for expected in (1, 2, 3):
        assert (await cache.snapshots.create("same")).number == expected
        await cache.snapshots.delete("same")
        await cache.close()
        cache = await opened(tmp_path, Locations())
    await cache.close()


async def test_compaction_leaves_alone_what_a_snapshot_needs(tmp_path: Path) -> None:
    locations = Locations()
    cache = await opened(tmp_path, locations)
    for ino in range(10, 30):
        write(cache, ino, bytes([ino]) * 20 * KIB)
    await cache.snapshots.create("all")
    for ino in range(11, 30):
        delete(cache, ino)
    await locations.settle(cache)
    assert not await cache.compact_one()
    facts = cache.facts()
    assert facts.reclaimable_bytes < 100 * KIB
    assert facts.snapshot_bytes > 19 * 20 * KIB - 64 * KIB
    await cache.snapshots.delete("all")
    while await cache.compact_one():
        pass
    assert cache.facts().moved_bytes == 20 * KIB
    await cache.close()


async def test_a_file_that_dies_while_its_segment_is_being_sealed_is_kept(tmp_path: Path) -> None:
    """The segment is closed by the cut of the snapshot and has no row yet when the next cut finds nothing alive."""
    locations = Locations()
    cache = await opened(tmp_path / "a", locations)
    write(cache, 10, A)
    cache._cuts.try_to_end()
    cache.snapshots._note_cut("held", "", False)
    delete(cache, 10)
    cache._cuts.try_to_end()  # before `settle` has come to the first
    await locations.settle(cache)
    assert await restored(cache, locations, "held", tmp_path / "r") == {(10, 0): A}
    await cache.snapshots.delete("held")
    await locations.settle(cache)
    assert not [s for s, row in data_rows(cache).items() if row.state is not CONDEMNED]
    await cache.close()


async def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    disk = CrashDisk()
    cache = await SegmentCache.open(tmp_path, Host(disk, FixedClock("boot"), SystemEntropy()), OPTIONS, None)
    write(cache, 10, A)
    await cache.cut()
    disk.free = 0
    with pytest.raises(NoSpace):
        await cache.snapshots.create("none")
    assert cache.snapshots.listed() == []
    disk.free = 1 << 40
    assert (await cache.snapshots.create("some")).number == 1
    await cache.close()


async def test_a_schedule_stays_with_the_file_system(tmp_path: Path) -> None:
    cache = await opened(tmp_path, Locations())
    assert cache.snapshots.schedule is None
    cache.snapshots.set_schedule(Schedule.parse("daily=7"))
    await cache.close()
    cache = await opened(tmp_path, Locations())
    assert cache.snapshots.schedule == Schedule.parse("daily=7")
    await cache.close()


# -- everything at once


class LifeWithSnapshots(Life):
    def __init__(self, root: Path, seed: int) -> None:
        super().__init__(root, seed)
        self.kept: dict[str, Contents] = {}
        self.made = self.compared = 0

    async def step(self) -> None:
        choice = self.rng.random()
        if choice < 0.08:
            self.made += 1
            name = f"s{self.made}"
            before = self.contents()
            if before or self.cache.facts().newest_journal:
                await self.cache.snapshots.create(name)
                self.kept[name] = before
        elif choice < 0.13 and self.kept:
            name = self.rng.choice(sorted(self.kept))
            del self.kept[name]
            await self.cache.snapshots.delete(name)
        elif choice < 0.2:
            await self.compare()
        else:
            await super().step()

    async def compare(self) -> None:
        """Every protected snapshot can be brought back whole, and nothing it needs is on its way out."""
        snapshots = self.cache.snapshots
        assert [each.name for each in snapshots.listed()] == list(self.kept)
        assert missing(snapshots.rows.values(), self.cache._shelf.rows, snapshots.deaths) == []
        for each in snapshots.listed():
            if each.protected:
                self.compared += 1
                found = await restored(self.cache, self.locations, each.name, self.root / f"c{self.compared}")
                assert found == self.kept[each.name]


@pytest.mark.parametrize("seed", range(4))
async def test_at_any_moment_every_protected_snapshot_can_be_restored_whole(tmp_path: Path, seed: int) -> None:
    life = LifeWithSnapshots(tmp_path, seed)
    await life.open()
    for _ in range(130):
        await life.step()
    await life.locations.settle(life.cache)
    await life.compare()
    assert life.compared >= len(life.kept) > 0
    for name in sorted(life.kept):
        await life.cache.snapshots.delete(name)
    await life.locations.settle(life.cache)
    cache = life.cache
    live = set(cache._ledger.index.live_all())
    rows = data_rows(cache)
    assert {s for s, each in rows.items() if each.state is not CONDEMNED} == live, "all they held has gone"
    assert life.locations.segments.keys() & rows.keys() == live
    assert not set(cache.snapshots.deaths) - {SegmentId(max(rows))}
    await cache.close()
