"""A cache that nobody has open, damaged in its files: what is found, what a repair brings back, what it leaves."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from qss.cache.index import Index
from qss.cache.marker import MARKER
from qss.cache.options import CacheOptions
from qss.cache.recovery import INDEX_DIR
from qss.cache.store import SegmentCache
from qss.formats.journal import Op
from qss.formats.tables import ExtentRow, Table, pair_key, u64_key
from qss.fs.attrs import User
from qss.fs.filesystem import FileSystem
from qss.fsck.check import segment_rows
from qss.fsck.findings import Kind, Report, Severity
from qss.fsck.offline import look, plan_repair, repair
from qss.host import Host
from qss.ids import ROOT_INO, LocationId, SegmentId
from qss.limits import KIB
from qss.segments import Receipt, SegmentKind
from tests.harness.soundness import assert_sound, offline_findings

OPTIONS = CacheOptions(
    segment_bytes=256 * KIB, journal_bytes=8 * KIB, index_map_bytes=1 << 28, free_bytes_hard=0, free_bytes_soft=1
)
PLACES = tuple(LocationId(f"trove-{n}") for n in range(6))


class Cache:
    """A closed cache with a few segments of both kinds; some data segments are offloaded."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root = root
        self.scratch = scratch

    async def fill(self) -> None:
        cache = await SegmentCache.open(self.root, Host(), OPTIONS, None)
        fs = FileSystem(cache, Host().clock)
        for number in range(30):
            self.file = fs.create(ROOT_INO, b"file %d" % number, 0o644, User()).ino
            handle = await fs.open(self.file, 2)
            await fs.write(handle, 0, os.urandom(30_000))
            fs.release(handle)
            if number % 5 == 0:
                await cache.cut()
        await cache.cut()
        rows = segment_rows(cache)
        self.data = [segment for segment, row in sorted(rows.items()) if row.kind is SegmentKind.DATA]
        self.journals = [segment for segment, row in sorted(rows.items()) if row.kind is SegmentKind.JOURNAL]
        assert len(self.data) > 3
        assert len(self.journals) > 3
        self.safe = self.data[1]
        await cache.mark_offloaded(Receipt(self.safe, b"s" * 16, 4, 2, PLACES, 1))
        fs.detach()
        await cache.close()

    def path(self, segment: SegmentId, folder: str = "data") -> Path:
        return self.root / folder / f"{segment:016x}.log"

    def look(self, *, data: bool = True) -> Report:
        return look(self.root, Host(), OPTIONS, self.scratch, data=data, on_stage=lambda *_: None).report

    def kinds(self) -> set[Kind]:
        return {finding.kind for finding in self.look().findings}


@pytest.fixture
async def cache(tmp_path):
    cache = Cache(tmp_path / "cache", tmp_path / "scratch")
    await cache.fill()
    return cache


def tree(root: Path) -> dict[str, bytes]:
    """All files but LMDB's reader table, which says nothing when nobody has it open."""
    paths = [path for path in root.rglob("*") if path.is_file() and path.name != "lock.mdb"]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def write_index(cache: Cache, ops: list[Op]) -> None:
    """Rows that no journal knows, committed and noted as synced: a bug, or a bad disk."""
    index = Index(cache.root / INDEX_DIR, OPTIONS.index_map_bytes)
    index.apply(ops)
    txnid = index.checkpoint(index.applied or b"")
    index.sync()
    index.close()
    marker = json.loads((cache.root / MARKER).read_bytes())
    (cache.root / MARKER).write_text(json.dumps({"boot_id": marker["boot_id"], "txnid": txnid}))


def index_differs(cache: Cache) -> None:
    write_index(cache, [Op(Table.XATTRS, u64_key(cache.file) + b"user.x", None, b"never journaled")])


def live_wrong(cache: Cache) -> None:
    index = Index(cache.root / INDEX_DIR, OPTIONS.index_map_bytes)
    index._live[cache.safe] += 7
    index._live_changed.add(cache.safe)
    index.checkpoint(index.applied or b"")
    index.close()


def index_unreadable(cache: Cache) -> None:
    path = cache.root / INDEX_DIR / "data.mdb"
    path.write_bytes(b"x" * path.stat().st_size)


def stripe(cache: Cache) -> None:
    (cache.root / "stripes" / f"{cache.safe:016x}-0.stripe").write_bytes(b"x" * 1000)


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 10)


DAMAGE = {
    "rows that no journal has": (index_differs, Kind.INDEX_DIFFERS, True),
    "LMDB's file is garbage": (index_unreadable, Kind.INDEX_DIFFERS, True),
    "live bytes": (live_wrong, Kind.LIVE_WRONG, True),
    "the only copy is gone": (lambda c: c.path(c.data[0]).unlink(), Kind.SEGMENT_MISSING, False),
    "a copy of a safe segment is short": (lambda c: cut_short(c.path(c.safe)), Kind.SEGMENT_FILE, True),
    "the only copy is short": (lambda c: cut_short(c.path(c.data[0])), Kind.SEGMENT_FILE, False),
    "a copy of a safe segment has a flipped bit": (lambda c: flip(c.path(c.safe), 9_999), Kind.DATA_DAMAGED, True),
    "the only copy has a flipped bit": (lambda c: flip(c.path(c.data[0]), 9_999), Kind.DATA_DAMAGED, False),
    "a fetched stripe": (stripe, Kind.STRIPE_DAMAGED, True),
    "a journal is gone": (lambda c: c.path(c.journals[1], "journal").unlink(), Kind.JOURNAL_MISSING, False),
    "a journal has a flipped bit": (lambda c: flip(c.path(c.journals[1], "journal"), 300), Kind.JOURNAL_DAMAGED, False),
}


async def test_a_sound_cache_has_no_finding_and_is_not_touched(cache) -> None:
    before = tree(cache.root)
    assert cache.look().findings == []
    assert tree(cache.root) == before
    assert not cache.scratch.exists()


@pytest.mark.parametrize("what", DAMAGE)
async def test_damage_of_files_is_found_and_repaired(cache, what) -> None:
    damage, kind, repairable = DAMAGE[what]
    damage(cache)
    before = tree(cache.root)
    report = cache.look()
    assert kind in report.counts, report.findings
    assert all(finding.repairable for finding in report.findings) == repairable, report.findings
    assert report.lost != repairable
    planned = plan_repair(cache.root, Host(), OPTIONS, report, cache.scratch)
    assert bool(planned) == repairable
    assert tree(cache.root) == before, "looking and planning change nothing"
    if repairable:
        done = await repair(cache.root, Host(), OPTIONS, report)
        assert done == planned
        assert cache.look().findings == []
    cache_now = await SegmentCache.open(cache.root, Host(), OPTIONS, None)
    assert_sound(cache_now)
    await cache_now.close()


async def checkpointed(cache: Cache) -> SegmentId:
    """Make a checkpoint, trim the journals before it, go on a little; the last part of the checkpoint."""
    opened = await SegmentCache.open(cache.root, Host(), OPTIONS, None)
    parts = await opened.checkpoint_journal()
    change = opened.begin()
    change.put(Table.META, b"test", b"behind it")
    opened.commit(change)
    await opened.cut()
    for sealed in await opened.unsafe_segments():
        await opened.mark_offloaded(Receipt(sealed.id, b"s" * 16, 4, 2, PLACES, 1))
    point = await opened.restore_point()
    assert point is not None
    assert point.checkpoint == parts
    await opened.mark_published(point)
    await opened.reclaim()
    assert not cache.path(cache.journals[0], "journal").exists()
    await opened.close()
    return parts[-1]


async def test_a_cache_whose_journals_are_trimmed_is_sound(cache) -> None:
    await checkpointed(cache)
    assert cache.look().findings == []
    (cache.root / INDEX_DIR / "data.mdb").unlink()
    assert cache.look().findings == []
    opened = await SegmentCache.open(cache.root, Host(), OPTIONS, None)
    assert_sound(opened)
    await opened.close()
    assert cache.look().findings == []


CHECKPOINT_DAMAGE = {
    "gone": (lambda path: path.unlink(), Kind.CHECKPOINT_MISSING),
    "a flipped bit": (lambda path: flip(path, 300), Kind.CHECKPOINT_DAMAGED),
    "cut short": (cut_short, Kind.CHECKPOINT_DAMAGED),
    "headless": (lambda path: flip(path, 5), Kind.CHECKPOINT_DAMAGED),
}


@pytest.mark.parametrize("what", CHECKPOINT_DAMAGE)
async def test_damage_of_a_checkpoint_is_found_and_the_index_kept(cache, what) -> None:
    damage, kind = CHECKPOINT_DAMAGE[what]
    path = cache.path(await checkpointed(cache), "checkpoint")
    whole = path.read_bytes()
    damage(path)
    live_wrong(cache)
    report = cache.look()
    assert kind in report.counts
    assert report.lost
    assert plan_repair(cache.root, Host(), OPTIONS, report, cache.scratch) == []
    path.write_bytes(whole)
    assert cache.kinds() == {Kind.LIVE_WRONG}


async def test_a_journal_that_does_not_go_on_where_the_one_before_ends(cache) -> None:
    """One in the middle was replaced by another of the same number."""
    path = cache.path(cache.journals[2], "journal")
    content = bytearray(path.read_bytes())
    from qss.formats.record import SEGMENT_HEADER_BYTES, SegmentHeader

    header = SegmentHeader.unpack(content)
    content[:SEGMENT_HEADER_BYTES] = header._replace(previous_length=header.previous_length + 1).pack()
    path.write_bytes(content)
    assert Kind.JOURNAL_CHAIN in cache.kinds()


async def test_an_index_is_not_thrown_away_when_the_journals_are_damaged(cache) -> None:
    flip(cache.path(cache.journals[1], "journal"), 300)
    live_wrong(cache)
    before = tree(cache.root / INDEX_DIR)
    report = cache.look()
    assert report.lost
    assert plan_repair(cache.root, Host(), OPTIONS, report, cache.scratch) == []
    await repair(cache.root, Host(), OPTIONS, report)
    assert len(tree(cache.root / INDEX_DIR)) == len(before)


async def test_an_extent_that_names_no_record(cache) -> None:
    opened = await SegmentCache.open(cache.root, Host(), OPTIONS, None)
    key = pair_key(cache.file, 0)
    row = ExtentRow.unpack(opened.get(Table.EXTENTS, key) or b"")
    change = opened.begin()
    change.put(Table.EXTENTS, key, row._replace(record_position=row.record_position - 8).pack())
    opened.commit(change)
    await opened.close()
    found = cache.look().findings
    assert {finding.kind for finding in found} == {Kind.EXTENT_RECORD}
    assert {finding.severity for finding in found} == {Severity.LOSS}


async def test_repairs_of_rows_are_journaled(cache) -> None:
    """They are there after the index is built anew from the journals."""
    opened = await SegmentCache.open(cache.root, Host(), OPTIONS, None)
    change = opened.begin()
    change.put(Table.XATTRS, u64_key(999) + b"user.x", b"of nobody")
    opened.commit(change)
    await opened.close()
    report = cache.look()
    assert [finding.kind for finding in report.findings] == [Kind.XATTR_STRAY]
    assert await repair(cache.root, Host(), OPTIONS, report) == ["Deleted an extended attribute of inode 999."]
    index_unreadable(cache)
    opened = await SegmentCache.open(cache.root, Host(), OPTIONS, None)
    assert_sound(opened)
    await opened.close()
    assert offline_findings(cache.root, cache.scratch, OPTIONS) == []


async def test_a_cache_that_was_killed_is_sound(cache) -> None:
    """What a mount would replay or cut off is no damage."""
    opened = await SegmentCache.open(cache.root, Host(), OPTIONS, None)
    fs = FileSystem(opened, Host().clock)
    for number in range(40):
        fs.create(ROOT_INO, b"late %d" % number, 0o644, User())
    killed = cache.root.with_name("killed")
    import shutil

    shutil.copytree(cache.root, killed)
    await opened.close()
    with (killed / "journal" / sorted(os.listdir(killed / "journal"))[-1]).open("ab") as journal:
        journal.write(b"QSJ1 torn")
    assert offline_findings(killed, cache.scratch, OPTIONS) == []
    (killed / MARKER).write_text(json.dumps({"boot_id": "another", "txnid": 1}))
    assert offline_findings(killed, cache.scratch, OPTIONS) == []


async def test_a_segment_that_only_a_snapshot_needs_has_lost_its_row(cache) -> None:
    opened = await SegmentCache.open(cache.root, Host(), OPTIONS, None)
    await opened.snapshots.create("kept")
    fs = FileSystem(opened, Host().clock)
    for number in range(30):
        fs.unlink(ROOT_INO, b"file %d" % number)
    await opened.reclaim()
    fs.detach()
    await opened.close()
    assert cache.look().clean
    opened = await SegmentCache.open(cache.root, Host(), OPTIONS, None)
    change = opened.begin()
    change.delete(Table.SEGMENTS, u64_key(cache.data[0]))
    opened.commit(change)
    await opened.close()
    found = [each for each in cache.look().findings if each.kind is Kind.SNAPSHOT_LOST]
    assert [each.subject for each in found] == ["snapshot kept"]
    assert f"{cache.data[0]:016x}" in found[0].sentence
