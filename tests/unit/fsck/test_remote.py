"""Locations damaged on purpose: every kind of finding of `--remote`, on memory stores behind a real vault."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qss.formats.tables import SegmentRow, SegmentState, Table, u64_key
from qss.fsck.findings import Finding, Kind, Report, Where
from qss.fsck.remote import Remote, check_remote
from qss.fsck.remote_repair import plan, repair_remote
from qss.fsck.segments import Shelves
from qss.host import Host
from qss.ids import LocationId, SegmentId
from qss.segments import SegmentKind
from tests.harness.memory_store import body_of
from tests.harness.vault import PlainShelf, World


class Place:
    """Two data segments and a journal, stored, and a root that names the journal."""

    async def fill(self, tmp_path) -> None:
        self.world = World.of(k=4, m=2)
        self.machine = self.world.machine(tmp_path / "state")
        self.shelf = PlainShelf(tmp_path / "segments")
        self.rows: dict[SegmentId, SegmentRow] = {}
        for number, kind in ((1, SegmentKind.DATA), (2, SegmentKind.DATA), (3, SegmentKind.JOURNAL)):
            sealed = self.shelf.add(number, os.urandom(50_000 + number), kind)
            receipt = await self.machine.vault.store(sealed, await self.shelf.path_of(sealed.id))
            await self.shelf.mark_offloaded(receipt)
            self.rows[sealed.id] = SegmentRow(
                kind, SegmentState.OFFLOADED, receipt.k, receipt.m, 6, sealed.length, sealed.sealed_ns,
                SegmentId(0), receipt.stored_bytes, receipt.seal,
            )  # fmt: skip
        await self.machine.roots.publish(await self.shelf.restore_point())

    async def look(self) -> Report:
        async def rows_now():
            return self.rows

        machine = self.machine
        remote = Remote(machine.nodes, machine.keys, machine.vault.manifests, machine.book)
        return await check_remote(remote, rows_now, Report())

    def shard(self, segment: int, location: str) -> tuple[dict[str, bytes], str]:
        name = LocationId(location)
        return self.world.objects(name), self.machine.keys.shard_name(SegmentId(segment), 0, name)

    def delete(self, segment: int, *locations: str) -> None:
        for location in locations:
            objects, name = self.shard(segment, location)
            del objects[name]


@pytest.fixture
async def place(tmp_path):
    place = Place()
    await place.fill(tmp_path)
    return place


async def test_what_is_all_there_has_no_finding(place) -> None:
    report = await place.look()
    assert report.findings == []
    assert report.looked_at["locations"] == 3
    assert report.looked_at["objects"] >= 18


@pytest.mark.parametrize("gone", [1, 2, 3, 6])
async def test_shards_that_are_gone(place, gone) -> None:
    place.delete(1, *[f"trove-{n}" for n in range(1, gone + 1)])
    report = await place.look()
    (finding,) = report.findings
    assert finding.kind is (Kind.SHARDS_MISSING if gone <= 2 else Kind.SHARDS_BELOW_K)
    assert finding.subject == "segment 0000000000000001"
    assert report.lost == (gone > 2)


async def test_a_shard_that_does_not_verify_and_one_of_another_length(place) -> None:
    objects, name = place.shard(2, "trove-4")
    objects[name] = objects[name][:50] + b"?" + objects[name][51:]
    objects, name = place.shard(2, "trove-5")
    objects[name] += b"more"
    report = await place.look()
    assert report.counts == {Kind.SHARD_DAMAGED: 2, Kind.SHARDS_MISSING: 1}
    assert "4 of 6" in next(f.sentence for f in report.findings if f.kind is Kind.SHARDS_MISSING)


async def test_a_shard_of_another_seal(place) -> None:
    place.rows[SegmentId(1)] = place.rows[SegmentId(1)]._replace(seal=b"another seal 123")
    report = await place.look()
    assert {finding.kind for finding in report.findings} == {Kind.SHARD_SEAL, Kind.SHARDS_BELOW_K}


async def test_objects_that_belong_to_nothing(place) -> None:
    store = place.world.stores[LocationId("trove-2")]
    await store.put("0123456789abcdef0123456789abcdef", body_of(b"whose?"))
    del place.rows[SegmentId(2)]  # deleted here; its shards were left behind
    report = await place.look()
    assert report.counts == {Kind.OBJECT_STRAY: 7}


async def test_a_location_that_does_not_answer(place) -> None:
    place.world.stores[LocationId("trove-3")].down = True
    report = await place.look()
    assert report.counts == {Kind.LOCATION_SILENT: 1}, "what only it may hold is not missed once more"
    place.delete(1, "trove-1")
    report = await place.look()
    assert report.counts == {Kind.LOCATION_SILENT: 1, Kind.SHARDS_MISSING: 1}
    assert "4 of 6" in report.findings[-1].sentence
    assert "trove-3 did not answer" in report.findings[-1].sentence
    place.delete(1, "trove-2")
    assert not (await place.look()).lost, "the fourth may be at the one that is silent"
    place.delete(1, "trove-4")
    assert (await place.look()).lost


async def test_no_root_and_a_root_that_names_what_is_not_safe(place, tmp_path: Path) -> None:
    place.rows[SegmentId(3)] = place.rows[SegmentId(3)]._replace(state=SegmentState.SEALED, placed=3)
    assert Kind.ROOT_UNPUBLISHED in (await place.look()).counts
    for name in place.world.stores:
        for number in (None, 1):
            place.world.objects(name).pop(place.machine.keys.root_name(number), None)
    report = await place.look()
    assert [f.subject for f in report.findings if f.kind is Kind.ROOT_UNPUBLISHED] == ["the root"]
    roots = place.world.machine(tmp_path / "new").roots
    await roots.publish(roots.nothing_yet())
    report = await place.look()
    assert [f.subject for f in report.findings if f.kind is Kind.ROOT_UNPUBLISHED] == ["the root"]


async def test_a_root_may_name_what_was_stored_with_a_margin(place) -> None:
    """Five of six shards were enough then: missing ones are queued for repair, and that is said by other findings."""
    place.rows[SegmentId(3)] = place.rows[SegmentId(3)]._replace(state=SegmentState.SEALED, placed=5)
    assert Kind.ROOT_UNPUBLISHED not in (await place.look()).counts


async def look_while(place, change) -> Report:
    """`change(number)` happens just before the rows are asked for the number-th time."""
    calls = 0

    async def rows_now():
        nonlocal calls
        calls += 1
        change(calls)
        return dict(place.rows)

    machine = place.machine
    remote = Remote(machine.nodes, machine.keys, machine.vault.manifests, machine.book)
    return await check_remote(remote, rows_now, Report())


EVERYWHERE = [f"trove-{n}" for n in range(1, 7)]


@pytest.mark.parametrize("look", [1, 2])
@pytest.mark.parametrize("finished", [False, True])
async def test_what_is_deleted_meanwhile_is_no_damage(place, look, finished) -> None:
    """A segment is condemned, and its shards go, between the rows and the look at it that follows them: the first, or
    the second at a segment that missed a shard before."""
    row = place.rows[SegmentId(1)]

    def change(number: int) -> None:
        if number == look:
            place.delete(1, *EVERYWHERE[1:] if look == 2 else EVERYWHERE)
        elif number == 1:
            place.delete(1, "trove-1")
        elif number == look + 1 and finished:
            del place.rows[SegmentId(1)]
        elif number == look + 1:
            place.rows[SegmentId(1)] = row._replace(state=SegmentState.CONDEMNED, needs_upto=SegmentId(3))

    assert (await look_while(place, change)).findings == []


async def test_a_row_that_changes_is_looked_at_until_it_stays(place) -> None:
    """A shard that is missing is said even of a segment that is stored anew at every look."""
    place.delete(1, "trove-1")

    def change(number: int) -> None:
        row = place.rows[SegmentId(1)]
        place.rows[SegmentId(1)] = row._replace(stored_bytes=row.stored_bytes + 1)

    report = await look_while(place, change)
    assert report.counts == {Kind.SHARDS_MISSING: 1}


async def test_a_root_that_is_published_meanwhile_names_what_is_safe_by_then(place) -> None:
    safe = place.rows[SegmentId(3)]
    place.rows[SegmentId(3)] = safe._replace(state=SegmentState.SEALED, k=0, placed=0)  # when the rows were taken first

    def change(number: int) -> None:
        if number == 2:
            place.rows[SegmentId(3)] = safe

    assert (await look_while(place, change)).findings == []


async def test_shards_are_put_again_and_journals_brought_back(place, tmp_path) -> None:
    place.delete(1, "trove-1", "trove-2")
    objects, name = place.shard(2, "trove-4")
    objects[name] = objects[name][:50] + b"?" + objects[name][51:]
    report = await place.look()
    gone = SegmentId(3)
    report.add(Finding(Kind.JOURNAL_MISSING, "segment 3", "Gone.", Where(Table.SEGMENTS, u64_key(gone))))
    shelves = Shelves(tmp_path / "cache", Host().disk)
    shelves.path_of(gone, SegmentKind.JOURNAL).parent.mkdir(parents=True)
    planned = plan(report, place.rows)
    assert await repair_remote(place.machine.vault, shelves, report, place.rows) == planned
    assert len(planned) == 3
    assert (await place.look()).findings == []
    brought = shelves.path_of(gone, SegmentKind.JOURNAL).read_bytes()
    assert brought == (await place.shelf.path_of(gone)).read_bytes()


async def test_what_cannot_be_put_again_is_left(place, tmp_path) -> None:
    place.delete(1, "trove-1", "trove-2", "trove-3")
    place.delete(2, "trove-6")
    place.world.stores[LocationId("trove-6")].down = True
    report = await place.look()
    shelves = Shelves(tmp_path / "cache", Host().disk)
    assert await repair_remote(place.machine.vault, shelves, report, place.rows) == []
