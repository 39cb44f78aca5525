"""The schedule's task, answers about snapshots with and without a mount, and what a mounted one leaves on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from qss.app.identity import Identity, read_identity, write_identity
from qss.app.running import lock_file
from qss.app.snapshots import LOCK, MOUNTED, all_mounted, ask, cut_of, find, folder_of, mounted_in, sweep
from qss.app.timetable import Timetable
from qss.cache.options import CacheOptions
from qss.cache.schedule import Schedule
from qss.cache.store import SegmentCache
from qss.config import parse
from qss.errors import CorruptData, QssError, Refused
from qss.formats.tables import SnapshotRow
from qss.host import Host, SystemEntropy
from qss.ids import SegmentId
from qss.limits import KIB
from qss.offload.keyfiles import write_key_file
from qss.offload.keys import MasterKey, fs_id_of
from tests.harness.crash_disk import FixedClock
from tests.harness.rows import write

OPTIONS = CacheOptions(index_map_bytes=1 << 26, free_bytes_hard=0, free_bytes_soft=1)
LOCATIONS = "".join(f'[[location]]\nurl = "http://127.0.0.1:1/bucket-{n}"\n' for n in range(3))
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
HOUR = 3600 * 10**9
NOON = 1_700_049_600 * 10**9


def settings_in(folder: Path, more: str = ""):
    text = f'[code]\nk = 2\nm = 1\n[cache]\nindex_map = "64M"\nhard_free = 0\nsoft_free = 1\n{more}{LOCATIONS}'
    (folder / "qss.toml").write_text(text)
    return parse(text, folder / "qss.toml", ENVIRONMENT)


class At(FixedClock):
    """A clock that stands where it was put."""

    def now_ns(self) -> int:
        return self.ns


# -- the schedule


@pytest.fixture
async def clocked(tmp_path):
    clock = At(ns=NOON)
    host = Host(Host().disk, clock, SystemEntropy())
    cache = await SegmentCache.open(tmp_path / "cache", host, OPTIONS, None)
    write(cache, 10, b"x" * KIB)
    yield cache, clock
    await cache.close()


async def test_the_schedule_makes_one_an_hour_and_keeps_what_it_says(clocked) -> None:
    cache, clock = clocked
    in_use: set[int] = set()
    timetable = Timetable(cache, clock, lambda: Schedule.parse("hourly=3 daily=2"), in_use.__contains__)
    await cache.snapshots.create("by-hand")
    await cache.snapshots.create("auto-2023-11-15T12:00:00Z")  # by hand too, whatever it is called
    for number in range(30):
        clock.ns = NOON + number * HOUR
        for _ in range(3):  # looks more often than it makes
            await timetable.look()
    names = [each.name for each in cache.snapshots.listed()]
    assert names == [
        "by-hand", "auto-2023-11-15T12:00:00Z", "auto-2023-11-15T23:00:00Z", "auto-2023-11-16T15:00:00Z",
        "auto-2023-11-16T16:00:00Z", "auto-2023-11-16T17:00:00Z",
    ]  # fmt: skip
    assert [each.automatic for each in cache.snapshots.listed()] == [False] * 2 + [True] * 4


async def test_after_a_long_time_unmounted_one_is_made(clocked) -> None:
    cache, clock = clocked
    timetable = Timetable(cache, clock, lambda: Schedule.parse("hourly=24"), lambda _number: False)
    await timetable.look()
    clock.ns += 1000 * HOUR
    await timetable.look()
    await timetable.look()
    assert len(cache.snapshots.rows) == 2


async def test_what_is_mounted_is_thinned_when_it_is_not_any_more(clocked) -> None:
    cache, clock = clocked
    in_use = {1}
    timetable = Timetable(cache, clock, lambda: Schedule.parse("hourly=1"), in_use.__contains__)
    for _ in range(3):
        await timetable.look()
        clock.ns += HOUR
    assert [each.number for each in cache.snapshots.listed()] == [1, 3]
    in_use.clear()
    clock.ns -= HOUR
    await timetable.look()
    assert [each.number for each in cache.snapshots.listed()] == [3]


async def test_without_a_schedule_nothing_is_made_and_nothing_goes(clocked) -> None:
    cache, clock = clocked
    on = Timetable(cache, clock, lambda: Schedule.parse("hourly=5"), lambda _number: False)
    await on.look()
    clock.ns += 100 * HOUR
    await Timetable(cache, clock, Schedule, lambda _number: False).look()
    assert len(cache.snapshots.rows) == 1


# -- without a mount


@pytest.fixture
def settings(tmp_path):
    settings = settings_in(tmp_path)
    master = MasterKey(bytes(range(32)))
    write_identity(settings.state, Identity(fs_id_of(master).hex(), 1))
    write_key_file(settings.key_file, master, SystemEntropy())
    return settings


def test_everything_but_mounting_works_without_a_mount(settings) -> None:
    with pytest.raises(Refused, match="nothing was ever written"):
        ask(settings, "snapshot.create", name="early")
    ask(settings, "snapshot.schedule", set="daily=3")
    made = ask(settings, "snapshot.create", name="one", comment="c")
    assert (made["name"], made["number"], made["automatic"], made["mounted_on"]) == ("one", 1, False, "")
    document = ask(settings, "snapshot.list")
    assert [each["name"] for each in document["snapshots"]] == ["one"]
    assert document["schedule"] == "daily=3"
    cut = find(settings, "one")
    assert (cut.name, cut.number) == ("one", 1)
    assert cut.point.journals
    assert cut_of(ask(settings, "snapshot.now")).point.journals >= cut.point.journals
    assert ask(settings, "snapshot.delete", name="one")["number"] == 1
    with pytest.raises(Refused, match="no snapshot one"):
        find(settings, "one")
    with pytest.raises(Refused, match="name a snapshot"):
        find(settings, None)


def test_a_configured_schedule_holds_until_one_is_set(tmp_path, settings) -> None:
    configured = settings_in(tmp_path, '[snapshots]\nschedule = "daily=7 hourly=2"\n')
    assert ask(configured, "snapshot.schedule") == {"schedule": "hourly=2 daily=7", "source": "configuration"}
    assert ask(configured, "snapshot.schedule", set="off") == {"schedule": "off", "source": "file system"}
    with pytest.raises(Refused, match="hourly=24"):
        ask(configured, "snapshot.schedule", set="sometimes")
    with pytest.raises(QssError, match="hourly=24"):
        settings_in(tmp_path, '[snapshots]\nschedule = "sometimes"\n')


def test_a_recovered_snapshot_is_all_there_is(settings) -> None:
    row = SnapshotRow(4, 9, SegmentId(20), SegmentId(2), SegmentId(8), SegmentId(9), False)
    identity = read_identity(settings.state)
    write_identity(settings.state, Identity(identity.fs_id, identity.created_ns, "old", row.pack()))
    journals = settings.cache_dir / "journal"
    journals.mkdir(parents=True)
    for number in (1, 2, 8, 9):
        (journals / f"{number:016x}.log").touch()
    for name in ("old", None):
        cut = find(settings, name)
        assert (cut.number, cut.point.journals, cut.point.next_segment) == (4, (2, 8), 20)
    for method in ("snapshot.list", "snapshot.create"):
        with pytest.raises(Refused, match="snapshot old and nothing else"):
            ask(settings, method, name="x")
    with pytest.raises(Refused, match="nothing else"):
        find(settings, "other")


def test_a_cut_over_the_socket_has_a_point() -> None:
    with pytest.raises(CorruptData):
        cut_of({"name": "x", "number": 1, "point": None})


# -- what is mounted


def test_mounted_is_what_holds_its_lock(settings) -> None:
    folder = folder_of(settings, 3)
    folder.mkdir(parents=True)
    facts = {"name": "n", "mountpoint": "/m", "pid": os.getpid()}
    (folder / MOUNTED).write_text(json.dumps(facts))
    assert mounted_in(folder) is None
    with lock_file(folder / LOCK, "in use"):
        found = mounted_in(folder)
        assert found is not None
        assert (found.name, found.mountpoint) == ("n", "/m")
        assert [each for each, _ in all_mounted(settings)] == [folder]
        sweep(settings)
        assert folder.exists()
        (folder / MOUNTED).write_text("half")
        assert mounted_in(folder) is None, "it is just starting"
    (folder / "view").mkdir()
    sweep(settings)
    assert not folder.exists()
