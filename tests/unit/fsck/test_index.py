"""A state deliberately damaged for each kind of finding of the index: found, repaired where that is promised, and
then nothing is left."""

from __future__ import annotations

import random
import stat
from dataclasses import replace

import pytest

from qss.cache.options import CacheOptions
from qss.cache.snapshots import NEWEST_KEY
from qss.cache.store import SegmentCache
from qss.formats.tables import (
    EntryRow,
    ExtentRow,
    InodeRow,
    OrderRow,
    SegmentRow,
    SegmentState,
    SnapshotRow,
    Table,
    name_key,
    pack_number,
    pair_key,
    u64_key,
)
from qss.fs.attrs import User
from qss.fs.filesystem import FileSystem
from qss.fs.inodes import NEXT_INO
from qss.fsck.check import check_index, check_online, index_checks
from qss.fsck.findings import Kind, Report, facts_of
from qss.fsck.repair import repair_rows
from qss.host import Host
from qss.ids import ROOT_INO, SegmentId
from qss.segments import SegmentKind
from tests.harness.soundness import assert_sound, findings_of

OPTIONS = CacheOptions(index_map_bytes=1 << 28, free_bytes_hard=0, free_bytes_soft=1)
CONTENT = b"precious " * 1000


class State:
    """A small file system of each kind of thing, and ways to damage it row by row."""

    async def open(self, root) -> None:
        self.cache = await SegmentCache.open(root, Host(), OPTIONS, None)
        self.fs = fs = FileSystem(self.cache, Host().clock)
        self.folder = fs.mkdir(ROOT_INO, b"folder", 0o755, User()).ino
        self.inner = fs.mkdir(self.folder, b"inner", 0o755, User()).ino
        self.deep = fs.mkdir(self.inner, b"deep", 0o755, User()).ino
        self.file = fs.create(self.folder, b"file", 0o644, User()).ino
        fs.link(self.file, ROOT_INO, b"second name")
        self.link = fs.symlink(self.folder, b"link", b"target", User()).ino
        self.fifo = fs.mknod(self.inner, b"fifo", stat.S_IFIFO | 0o600, 0, User()).ino
        fs.setxattr(self.file, b"user.x", b"value")
        handle = await fs.open(self.file, 2)
        await fs.write(handle, 0, CONTENT)
        await fs.write(handle, 20_000, CONTENT)
        fs.release(handle)
        self.held = fs.create(self.folder, b"held open", 0o644, User()).ino
        handle = await fs.open(self.held, 2)
        await fs.write(handle, 0, b"unlinked")
        fs.unlink(self.folder, b"held open")

    # -- rows

    def put(self, table, key, value) -> None:
        change = self.cache.begin()
        if value is None:
            change.delete(table, key)
        else:
            change.put(table, key, value)
        self.cache.commit(change)

    def inode(self, ino) -> InodeRow:
        return InodeRow.unpack(self.cache.get(Table.INODES, u64_key(ino)))

    def set_inode(self, ino, **fields) -> None:
        self.put(Table.INODES, u64_key(ino), replace(self.inode(ino), **fields).pack())

    def entry(self, parent, name) -> EntryRow:
        return EntryRow.unpack(self.cache.get(Table.ENTRIES, name_key(parent, name)))

    def set_entry(self, parent, name, **fields) -> None:
        self.put(Table.ENTRIES, name_key(parent, name), self.entry(parent, name)._replace(**fields).pack())

    def add_name(self, parent, name, ino, kind) -> None:
        cookie = self.inode(parent).next_cookie
        self.put(Table.ENTRIES, name_key(parent, name), EntryRow(ino, cookie, kind).pack())
        self.put(Table.ORDER, pair_key(parent, cookie), OrderRow(ino, kind, name).pack())
        self.set_inode(parent, next_cookie=cookie + 1)

    def drop_name(self, parent, name) -> None:
        entry = self.entry(parent, name)
        self.put(Table.ENTRIES, name_key(parent, name), None)
        self.put(Table.ORDER, pair_key(parent, entry.cookie), None)

    def extent(self, ino, offset) -> ExtentRow:
        return ExtentRow.unpack(self.cache.get(Table.EXTENTS, pair_key(ino, offset)))

    def set_extent(self, ino, offset, row: ExtentRow) -> None:
        self.put(Table.EXTENTS, pair_key(ino, offset), row.pack())


def order_key(state: State, parent, name) -> bytes:
    return pair_key(parent, state.entry(parent, name).cookie)


def make_circle(state: State) -> None:
    """inner is taken off folder and hung below its own child."""
    state.drop_name(state.folder, b"inner")
    state.add_name(state.deep, b"back", state.inner, 4)
    state.set_inode(state.inner, parent=state.deep)
    state.set_inode(state.deep, nlink=3)
    state.set_inode(state.folder, nlink=2)


def swap_live(state: State) -> None:
    index = state.cache._ledger.index
    index._live[SegmentId(1)] = index._live.get(SegmentId(1), 0) + 5


def give_up(state: State) -> None:
    """A segment is condemned although a snapshot that came before needs it."""
    numbers = [SegmentId(each) for each in (99, 1, 5, 6)]
    state.put(Table.SNAPSHOTS, b"kept", SnapshotRow(1, 0, *numbers, False).pack())
    state.put(Table.META, NEWEST_KEY, pack_number(1))
    condemned = SegmentRow(SegmentKind.DATA, SegmentState.CONDEMNED, 4, 2, 6, 100, 1, SegmentId(80), 0, bytes(16))
    state.put(Table.SEGMENTS, u64_key(70), condemned.pack())


DAMAGE = {
    Kind.LIVE_WRONG: swap_live,
    Kind.INODE_INVALID: lambda s: s.put(Table.INODES, u64_key(s.fifo), b"short"),
    Kind.MODE_INVALID: lambda s: s.set_inode(s.fifo, mode=0o644),
    Kind.SIZE_INVALID: lambda s: s.set_inode(s.file, size=2**63),
    Kind.NEXT_INO: lambda s: s.put(Table.META, NEXT_INO, (3).to_bytes(8, "big")),
    Kind.ENTRY_INVALID: lambda s: s.put(Table.ENTRIES, name_key(s.folder, b"file"), b"x"),
    Kind.ENTRY_NAME: lambda s: s.add_name(s.folder, b"a/b", s.fifo, 1),
    Kind.ENTRY_PARENT: lambda s: s.put(Table.ENTRIES, name_key(777, b"x"), EntryRow(s.file, 3, 8).pack()),
    Kind.ENTRY_WITHOUT_INODE: lambda s: s.add_name(s.folder, b"ghost", 999, 8),
    Kind.ORDER_WITHOUT_ENTRY: lambda s: s.put(Table.ENTRIES, name_key(s.folder, b"link"), None),
    Kind.ENTRY_TYPE: lambda s: s.set_entry(s.folder, b"link", type=8),
    Kind.COOKIE_NEXT: lambda s: s.set_inode(s.folder, next_cookie=4),
    Kind.ENTRY_ORDER: lambda s: s.put(Table.ORDER, order_key(s, s.folder, b"file"), None),
    Kind.DIR_NAMED_TWICE: lambda s: s.add_name(ROOT_INO, b"again", s.inner, 4),
    Kind.DIR_PARENT: lambda s: s.set_inode(s.inner, parent=ROOT_INO),
    Kind.DIR_UNREACHABLE: make_circle,
    Kind.INODE_UNNAMED: lambda s: s.drop_name(s.folder, b"link"),
    Kind.LINK_COUNT: lambda s: s.set_inode(s.file, nlink=7),
    Kind.ORPHAN_LINKED: lambda s: s.put(Table.ORPHANS, u64_key(s.file), b""),
    Kind.ORPHAN_STRAY: lambda s: s.put(Table.ORPHANS, u64_key(999), b""),
    Kind.INODE_LEAKED: lambda s: s.put(Table.ORPHANS, u64_key(s.held), None),
    Kind.SYMLINK_MISSING: lambda s: s.put(Table.SYMLINKS, u64_key(s.link), None),
    Kind.SYMLINK_SIZE: lambda s: s.set_inode(s.link, size=77),
    Kind.SYMLINK_STRAY: lambda s: s.put(Table.SYMLINKS, u64_key(s.file), b"nowhere"),
    Kind.XATTR_STRAY: lambda s: s.put(Table.XATTRS, name_key(999, b"user.x"), b"x"),
    Kind.EXTENT_STRAY: lambda s: s.set_extent(s.fifo, 0, s.extent(s.file, 0)),
    Kind.EXTENT_OVERLAP: lambda s: s.set_extent(s.file, 100, s.extent(s.file, 20_000)._replace(length=50)),
    Kind.EXTENT_BEYOND_END: lambda s: s.set_inode(s.file, size=20_001),
    Kind.EXTENT_SEGMENT: lambda s: s.set_extent(s.file, 0, s.extent(s.file, 0)._replace(segment=SegmentId(99))),
    Kind.ALLOCATED: lambda s: s.set_inode(s.file, allocated=1),
    Kind.DEATH_WRONG: lambda s: s.put(Table.DEATHS, u64_key(s.extent(s.file, 0).segment), pack_number(1)),
    Kind.SNAPSHOT_INVALID: lambda s: s.put(Table.SNAPSHOTS, b"x", b"short"),
    Kind.SNAPSHOT_LOST: give_up,
    Kind.SEGMENT_INVALID: lambda s: s.put(Table.SEGMENTS, u64_key(70), b"x"),
}
OTHERWISE_TESTED = {
    Kind.ROOT_MISSING, Kind.EXTENT_INVALID, Kind.INDEX_DIFFERS, Kind.EXTENT_RECORD, Kind.SEGMENT_MISSING,
    Kind.SEGMENT_FILE, Kind.JOURNAL_MISSING, Kind.JOURNAL_CHAIN, Kind.JOURNAL_DAMAGED, Kind.DATA_DAMAGED,
    Kind.STRIPE_DAMAGED, Kind.LOCATION_SILENT, Kind.SHARDS_BELOW_K, Kind.SHARDS_MISSING, Kind.SHARD_DAMAGED,
    Kind.SHARD_SEAL, Kind.ROOT_UNPUBLISHED, Kind.OBJECT_STRAY, Kind.CHECKPOINT_MISSING, Kind.CHECKPOINT_DAMAGED,
}  # fmt: skip


def test_every_kind_has_its_damaged_state() -> None:
    assert DAMAGE.keys() | OTHERWISE_TESTED == set(Kind)


@pytest.fixture
async def state(tmp_path):
    state = State()
    await state.open(tmp_path / "cache")
    yield state
    await state.cache.close()


def repair_all(cache: SegmentCache) -> list[str]:
    done = []
    for _ in range(10):
        made = repair_rows(cache.begin, cache.commit, findings_of(cache), Host().clock.now_ns())
        done += made
        if not made:
            return done
    raise AssertionError(f"the repairs come to no end: {done}")


async def test_a_sound_state_has_no_finding(state) -> None:
    assert_sound(state.cache)
    assert repair_all(state.cache) == []
    state.fs.detach()
    assert_sound(state.cache)


@pytest.mark.parametrize("kind", DAMAGE, ids=str)
async def test_damage_is_found_and_repaired(state, kind) -> None:
    DAMAGE[kind](state)
    found = findings_of(state.cache)
    assert kind in {finding.kind for finding in found}, found
    online = await check_online(state.cache, _ignore)
    assert [finding.kind for finding in online.findings] == [finding.kind for finding in found]
    if kind is Kind.LIVE_WRONG:
        return  # the index is built anew: test_offline
    done = repair_all(state.cache)
    left = findings_of(state.cache)
    if facts_of(kind).repairable:
        assert done
        assert left == []
    else:
        assert kind in {finding.kind for finding in left}


async def _ignore(_stage: str, _count: int) -> None:
    pass


async def test_what_lost_its_name_is_in_lost_and_found(state) -> None:
    state.drop_name(state.folder, b"file")
    state.drop_name(ROOT_INO, b"second name")
    make_circle(state)
    repair_all(state.cache)
    assert_sound(state.cache)
    fs = FileSystem(state.cache, Host().clock)
    lost = fs.lookup(ROOT_INO, b"lost+found")
    names = {entry.name for entry in fs.readdir(lost)}
    assert names >= {b"#%d" % state.file}
    handle = await fs.open(fs.lookup(lost, b"#%d" % state.file), 0)
    assert bytes(await fs.read(handle, 0, len(CONTENT))) == CONTENT
    tops = [entry.ino for entry in fs.readdir(lost) if entry.type == 4 and entry.name.startswith(b"#")]
    assert len(tops) == 1, "one directory of the circle; the other hangs below it"


async def test_a_lost_entry_comes_back_from_the_listing(state) -> None:
    for name in (b"link", b"inner"):
        state.put(Table.ENTRIES, name_key(state.folder, name), None)
    repair_all(state.cache)
    assert_sound(state.cache)
    assert state.entry(state.folder, b"inner").ino == state.inner
    assert state.entry(state.folder, b"link").ino == state.link


async def test_the_root_comes_back(state) -> None:
    state.put(Table.INODES, u64_key(ROOT_INO), None)
    assert Kind.ROOT_MISSING in {finding.kind for finding in findings_of(state.cache)}
    repair_all(state.cache)
    assert_sound(state.cache)


async def test_an_extent_that_cannot_be_read(state) -> None:
    row = state.extent(state.file, 0)
    state.set_extent(state.file, 0, row._replace(length=row.length + 1))
    assert Kind.EXTENT_INVALID in {finding.kind for finding in findings_of(state.cache)}


async def write_some(fs, ino, offset) -> None:
    handle = await fs.open(ino, 2)
    await fs.write(handle, offset, b"x" * 500)
    fs.release(handle)


async def disturb(state, rng, turn) -> None:
    """Rename from before the mark to behind it and back, link, delete, write, overwrite, make directories, sync."""
    fs = state.fs
    folders = (state.folder, state.inner)
    for _ in range(10):
        source, target = rng.sample(folders, 2)
        names = [entry for entry in fs.readdir(source) if entry.name[:1] == b"n"]
        for entry in rng.sample(names, min(2, len(names))):
            fs.rename(source, entry.name, target, b"n%d" % rng.getrandbits(60))
            await write_some(fs, entry.ino, rng.randrange(2000))
        fs.unlink(source, rng.choice([entry for entry in fs.readdir(source) if entry.name[:1] == b"n"]).name)
        fs.create(source, b"n%d" % rng.getrandbits(60), 0o644, User())
        fs.link(state.file, ROOT_INO, b"l%d" % rng.getrandbits(60))
        fs.mkdir(state.deep if turn % 2 else ROOT_INO, b"d%d" % rng.getrandbits(60), 0o755, User())
    if turn % 3 == 0:
        await state.cache.cut()
        await state.cache.checkpoint()


async def test_sums_are_exact_while_others_change_everything(state) -> None:
    """Whatever changes between any two pages of the check is never taken for damage."""
    rng = random.Random(5)
    for number in range(500):
        ino = state.fs.create(rng.choice((state.folder, state.inner)), b"n%d" % number, 0o644, User()).ino
        await write_some(state.fs, ino, 0)
    report, turn = Report(), 0
    for stage, check in index_checks(state.cache, state.cache.reach_of, state.cache.observed_by):
        for step in check:
            if isinstance(step, int):
                report.looked_at[stage] += step
                turn += 1
                await disturb(state, rng, turn)
            else:
                report.add(step)
    assert turn > 20
    assert report.findings == []
    assert_sound(state.cache)
    assert state.cache._ledger.observers == []


@pytest.mark.parametrize(
    ("name", "number", "words"), [(b"more", 9, "newest there ever was"), (b"same", 1, "of another")]
)
async def test_numbers_of_snapshots_are_their_own(state, name, number, words) -> None:
    await state.cache.snapshots.create("one")
    assert_sound(state.cache)
    state.put(Table.SNAPSHOTS, name, state.cache.snapshots.row("one")._replace(number=number).pack())
    (finding,) = findings_of(state.cache)
    assert finding.kind is Kind.SNAPSHOT_INVALID
    assert words in finding.sentence


async def test_marks_of_death_are_of_data_and_can_be_read(state) -> None:
    await state.cache.cut()
    journal = state.cache.facts().newest_journal
    state.put(Table.DEATHS, u64_key(journal), pack_number(1))
    state.put(Table.DEATHS, u64_key(777), b"x")
    assert [each.kind for each in findings_of(state.cache)] == [Kind.DEATH_WRONG] * 2
    repair_all(state.cache)
    assert_sound(state.cache)


async def test_windows_of_numbers_give_the_same_answer(state) -> None:
    state.set_inode(state.file, nlink=7)
    whole = await check_online(state.cache, _ignore)
    narrow = await check_online(state.cache, _ignore, 2)
    assert narrow.findings == whole.findings != []
    assert check_index(state.cache, state.cache.reach_of, Report()).counts == whole.counts
