"""The scrub finds what nobody reads, goes on where it was, keeps to its rate; quarantine is listed and let go of."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest
from blake3 import blake3

from qss.errors import Damaged
from qss.host import Host
from qss.limits import MIB
from qss.s3.backend import ALWAYS, CreateUpload, DeleteRequest, PutRequest, UploadRef, WantedPart
from qss.trove.admin import Admin
from qss.trove.admin_upkeep import UpkeepRoutes
from qss.trove.compaction import compact_one
from qss.trove.node import Node, NodeOptions
from qss.trove.pace import Pace
from qss.trove.scan import BATCH_RECORDS
from qss.trove.scrub import Mark
from tests.harness.trove_node import Bytes, content, node


async def _fill(opened: Node, count: int = 5, size: int = 100_000) -> dict[str, bytes]:
    await opened.store.create_bucket("bkt", "us-east-1")
    rng = random.Random(count)
    bodies = {f"k{number:04d}": rng.randbytes(size) for number in range(count)}
    for key, body in bodies.items():
        await opened.store.put(PutRequest("bkt", key), Bytes(body))
    return bodies


def _flip(opened: Node, key: str, at: int) -> None:
    """One bit of an object's record, at an offset in it."""
    row = opened.store.row("bkt", key)
    assert row is not None
    with opened.engine.volumes.volumes[row.place.volume].path.open("r+b") as file:
        file.seek(row.place.position + at)
        byte = file.read(1)[0]
        file.seek(row.place.position + at)
        file.write(bytes([byte ^ 1]))


async def _ask(opened: Node, method: str, path: str, body: object = None, query: str = "") -> dict[str, object]:
    admin = Admin(opened, "token", UpkeepRoutes(opened).routes)
    content = b"" if body is None else json.dumps(body).encode()
    status, _, answer = await admin.answer(method, path, "Bearer token", content, query)
    assert status == 200, answer
    found: dict[str, object] = json.loads(answer)
    return found


def test_damage_nobody_reads_is_found_listed_and_let_go_of(tmp_path: Path) -> None:
    async def work() -> None:
        opened = node(tmp_path)
        bodies = await _fill(opened)
        await opened.scrubber.round()
        assert (opened.scrubber.mark.found, opened.scrubber.mark.round) == (0, 1)
        assert opened.scrubber.mark.bytes >= sum(map(len, bodies.values()))
        _flip(opened, "k0001", 50_000)  # body
        _flip(opened, "k0003", 100_200)  # its table and footer
        await opened.scrubber.round()
        assert opened.scrubber.mark.found == 2
        listed = await _ask(opened, "GET", "/damaged")
        assert [each["key"] for each in listed["damaged"]] == ["bkt/k0001", "bkt/k0003"]
        assert {each["by"] for each in listed["damaged"]} == {"scrub"}
        assert (listed["records"], listed["next"]) == (2, None)
        for key in ("k0001", "k0003"):
            with pytest.raises(Damaged):
                await content(opened.store, "bkt", key)
        assert await compact_one(opened.engine, -1.0, 0) == 0
        _flip(opened, "k0001", 50_000)  # it was the cable
        await opened.store.put(PutRequest("bkt", "k0003"), Bytes(bodies["k0003"]))  # and this one is replaced
        await opened.scrubber.round()
        assert (await _ask(opened, "GET", "/damaged"))["records"] == 0
        for key, body in bodies.items():
            assert await content(opened.store, "bkt", key) == body
        assert await compact_one(opened.engine, -1.0, 0) > 0
        await opened.aclose()

    asyncio.run(work())


def test_an_illegible_record_is_named_by_the_index(tmp_path: Path) -> None:
    async def work() -> None:
        opened = node(tmp_path)
        await _fill(opened)
        upload = await opened.store.create_upload(CreateUpload("bkt", "big"))
        ref = UploadRef("bkt", "big", upload.upload_id)
        part = await opened.store.put_part(ref, 1, Bytes(b"p" * 1000))
        await opened.store.complete_upload(ref, [WantedPart(1, part.etag)], ALWAYS)
        _flip(opened, "k0002", 20)  # header
        await opened.scrubber.round()
        (found,) = (await _ask(opened, "GET", "/damaged"))["damaged"]
        assert (found["key"], found["what"]) == ("bkt/k0002", "no record is legible here")
        assert await compact_one(opened.engine, -1.0, 0) == 0  # and nothing is thrown away with it
        _flip(opened, "k0002", 20)
        await opened.scrubber.round()
        assert (await _ask(opened, "GET", "/damaged"))["records"] == 0
        await opened.aclose()

    asyncio.run(work())


def test_compaction_never_throws_away_what_it_cannot_read(tmp_path: Path) -> None:
    """Not noted by anybody before: compaction is the first to meet it."""

    async def work() -> None:
        opened = node(tmp_path)
        bodies = await _fill(opened)
        await opened.store.delete("bkt", [DeleteRequest("k0000")])
        for key, at in (("k0001", 20), ("k0002", 100_200), ("k0003", 99)):
            _flip(opened, key, at)
        assert await compact_one(opened.engine, -1.0, 0) == 0
        for key, at in (("k0001", 20), ("k0002", 100_200), ("k0003", 99)):
            _flip(opened, key, at)
        await opened.scrubber.round()
        for key in ("k0001", "k0002", "k0003", "k0004"):
            assert await content(opened.store, "bkt", key) == bodies[key]
        await opened.aclose()

    asyncio.run(work())


class _Telling(Pace):
    """Says when the first bytes have been verified."""

    def __init__(self, spent: asyncio.Event) -> None:
        super().__init__(None)
        self._event = spent

    async def spent(self, count: int) -> None:
        self._event.set()
        await super().spent(count)


def test_a_round_goes_on_where_it_was_and_can_be_stopped(tmp_path: Path) -> None:
    count = 3 * BATCH_RECORDS

    async def first() -> None:
        opened = node(tmp_path)
        await _fill(opened, count, 100)
        begun = asyncio.Event()
        opened.scrubber._pace = _Telling(begun)
        running = asyncio.create_task(opened.scrubber.round())
        await begun.wait()
        await opened.scrubber.stop()
        await running
        assert 0 < opened.scrubber.mark.records < count
        status = await _ask(opened, "GET", "/scrub")
        assert not status["running"]
        assert 0 < status["done_bytes"] < status["total_bytes"]
        await opened.aclose()

    async def second() -> None:
        opened = node(tmp_path)
        mark = opened.scrubber.mark
        before = mark.records
        assert mark.stopped
        assert not opened.scrubber._due()
        keep, through = opened.scrubber._keep, asyncio.Event()

        async def tell(now: Mark) -> None:
            await keep(now)
            if now.round:
                through.set()

        opened.scrubber._keep = tell
        running = asyncio.create_task(opened.scrubber.run())
        await _ask(opened, "POST", "/scrub", {"do": "start"})
        await through.wait()
        assert mark.records >= count
        assert opened.scrubber.bytes_total < (count - before + BATCH_RECORDS) * 101
        assert not opened.scrubber._due()  # not before the period is over
        running.cancel()
        await opened.aclose()

    asyncio.run(first())
    asyncio.run(second())


def test_a_mark_that_does_not_fit_is_a_new_one() -> None:
    assert Mark.of({"round": "x", "volume": 3, "stopped": 1, "nonsense": 5}) == Mark(volume=3)
    assert Mark.of({}) == Mark()


def test_the_rate_holds(tmp_path: Path) -> None:
    """A clock of its own: 20 MiB at 1 MiB/s are 20 s of it."""

    async def work() -> None:
        options = NodeOptions((tmp_path,), scrub_bytes_per_s=1 * MIB, host=Host())
        opened = Node(options)
        await _fill(opened, 20, MIB)
        slept: list[float] = []
        real = asyncio.sleep

        async def sleep(delay: float) -> None:
            slept.append(delay)
            await real(0)

        pace = opened.scrubber._pace
        assert isinstance(pace, Pace)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("qss.trove.pace.asyncio.sleep", sleep)
            await opened.scrubber.round()
        assert max(slept) > 19.0
        await opened.aclose()

    asyncio.run(work())


def test_verifying_gives_hashes_to_compare_with(tmp_path: Path) -> None:
    async def work() -> None:
        opened = node(tmp_path)
        bodies = await _fill(opened, 3, 200_000)
        await opened.store.put(PutRequest("bkt", "empty"), Bytes(b""))
        found = await _ask(opened, "POST", "/verify", {"bucket": "bkt", "key": "k0000"})
        body = bodies["k0000"]
        table = b"".join(blake3(body[at : at + 65536]).digest() for at in range(0, len(body), 65536))
        assert (found["bytes"], found["blake3"], found["root"]) == (
            len(body), blake3(body).hexdigest(), blake3(table).hexdigest(),
        )  # fmt: skip
        row = opened.store.row("bkt", "k0000")
        assert row is not None
        assert opened.store.records.open(row.place, row.body_at, row.size).footer.root.hex() == found["root"]
        page = await _ask(opened, "POST", "/verify", {"bucket": "bkt", "limit": 3})
        assert [each["key"] for each in page["objects"]] == ["empty", "k0000", "k0001"]
        assert page["objects"][0] | {"etag": ""} == {
            "bucket": "bkt", "key": "empty", "sound": True, "etag": "", "bytes": 0,
            "blake3": blake3(b"").hexdigest(), "root": "",
        }  # fmt: skip
        page = await _ask(opened, "POST", "/verify", {"bucket": "bkt", "limit": 3, "after": page["next"]})
        assert ([each["key"] for each in page["objects"]], page["next"]) == (["k0002"], None)
        await opened.aclose()

    asyncio.run(work())


def test_damage_is_logged_once_and_listed_in_pages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        opened = node(tmp_path)
        bodies = await _fill(opened, 30, 1000)
        for key in bodies:
            _flip(opened, key, 200)
        for _ in range(20):
            for key in bodies:
                with pytest.raises(Damaged):
                    await content(opened.store, "bkt", key)
            opened.store.records.flush_damage()
        assert opened.status()["damaged_reads"] == 600
        said = [record for record in caplog.records if record.levelname == "WARNING"]
        assert len(said) == 1
        assert len(said[0].getMessage()) < 500
        monkeypatch.setattr("qss.trove.admin_upkeep.DAMAGE_LISTED_MAX", 12)
        keys: list[str] = []
        query = ""
        for _ in range(3):
            page = await _ask(opened, "GET", "/damaged", query=query)
            keys += [each["key"] for each in page["damaged"]]
            query = f"after={page['next']}"
        assert page["next"] is None
        assert keys == [f"bkt/{key}" for key in bodies]
        await opened.aclose()

    asyncio.run(work())
