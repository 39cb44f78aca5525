from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from qss.errors import ConfigInvalid, CorruptData, NoSpace, Refused
from qss.host import Host, PosixDisk, SystemEntropy
from qss.s3.backend import (
    ALWAYS,
    CreateUpload,
    DeleteRequest,
    ListQuery,
    PutRequest,
    UploadRef,
    WantedPart,
    WriteCondition,
)
from qss.s3.errors import Code, S3Error
from qss.trove.admin import Admin
from qss.trove.credentials import Given, load_credentials
from qss.trove.drives import RESERVE_BYTES
from qss.trove.facts import parts_of
from qss.trove.node import CREDENTIALS, Node, NodeOptions, clean_slate
from qss.trove.slots import Volume
from tests.harness.trove_node import Bytes, content, node, with_node


def test_two_nodes_never_share_a_directory(tmp_path: Path) -> None:
    first = node(tmp_path / "n")
    with pytest.raises(Refused, match="in use"):
        node(tmp_path / "n")
    asyncio.run(first.aclose())
    asyncio.run(node(tmp_path / "n").aclose())


def test_a_strange_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(Refused):
        node(tmp_path)
    with pytest.raises(Refused):
        clean_slate(tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "mine"


def test_clean_slate_removes_what_a_node_made(tmp_path: Path) -> None:
    async def fill() -> None:
        made = node(tmp_path)
        await made.store.create_bucket("bkt", "r")
        await made.aclose()

    async def buckets() -> int:
        made = node(tmp_path)
        found = len(await made.store.list_buckets())
        await made.aclose()
        return found

    asyncio.run(fill())
    assert asyncio.run(buckets()) == 1
    clean_slate(tmp_path)
    assert asyncio.run(buckets()) == 0


def test_credentials_are_made_once_and_kept_from_others(tmp_path: Path) -> None:
    first = load_credentials(tmp_path, Given(), {}, SystemEntropy())
    again = load_credentials(tmp_path, Given(), {}, SystemEntropy())
    assert first.fresh
    assert not again.fresh
    assert (first.access_key, first.secret_key) == (again.access_key, again.secret_key)
    assert first.secret_key not in repr(first)
    path = tmp_path / CREDENTIALS
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(Refused, match="chmod"):
        load_credentials(tmp_path, Given(), {}, SystemEntropy())


def test_given_credentials_are_not_written_down(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a-long-secret\n")
    given = load_credentials(tmp_path, Given("myself", None), {"TROVE_SECRET_KEY": "another-secret"}, SystemEntropy())
    assert (given.access_key, given.secret_key) == ("myself", "another-secret")
    given = load_credentials(tmp_path, Given("myself", secret), {}, SystemEntropy())
    assert given.secret_key == "a-long-secret"
    assert "secret_key" not in json.loads((tmp_path / CREDENTIALS).read_bytes())
    with pytest.raises(ConfigInvalid, match="both"):
        load_credentials(tmp_path, Given("myself"), {}, SystemEntropy())


def test_only_one_of_many_creators_wins(tmp_path: Path) -> None:
    async def work(opened: Node) -> None:
        await opened.store.create_bucket("bkt", "r")
        absent = WriteCondition(if_none_match="*")
        for size in (10, 1_200_000):
            puts = [
                opened.store.put(PutRequest("bkt", f"k{size}", condition=absent), Bytes(os.urandom(size)))
                for _ in range(8)
            ]
            results = await asyncio.gather(*puts, return_exceptions=True)
            winners = [each for each in results if not isinstance(each, BaseException)]
            losers = [each for each in results if isinstance(each, S3Error)]
            assert len(winners) == 1
            assert [each.code for each in losers] == [Code.PRECONDITION_FAILED] * 7
            assert (await opened.store.head("bkt", f"k{size}")).etag == winners[0].etag

    with_node(tmp_path, work)


def test_a_large_body_that_stalls_holds_nobody_up(tmp_path: Path) -> None:
    async def work(opened: Node) -> None:
        store = opened.store
        await store.create_bucket("bkt", "r")
        go_on = asyncio.Event()

        class Stalling(Bytes):
            async def chunks(self):
                yield self.data[:100]
                await go_on.wait()
                yield self.data[100:]

        slow = asyncio.create_task(store.put(PutRequest("bkt", "slow"), Stalling(b"s" * 2_000_000)))
        await asyncio.sleep(0)
        await store.put(PutRequest("bkt", "quick"), Bytes(b"q" * 2_000_000))
        assert await content(store, "bkt", "quick") == b"q" * 2_000_000
        with pytest.raises(S3Error):
            await store.head("bkt", "slow")
        go_on.set()
        await slow
        assert await content(store, "bkt", "slow") == b"s" * 2_000_000

    with_node(tmp_path, work)


def test_a_reader_keeps_its_version(tmp_path: Path) -> None:
    async def work(opened: Node) -> None:
        store = opened.store
        await store.create_bucket("bkt", "r")
        await store.put(PutRequest("bkt", "k"), Bytes(b"old" * 100_000))
        reader = await store.open("bkt", "k")
        await store.put(PutRequest("bkt", "k"), Bytes(b"new"))
        await store.put(PutRequest("bkt", "other"), Bytes(b"o"))
        from qss.trove.compaction import compact_one

        assert await compact_one(opened.engine, 0.1, 0) > 0
        assert await reader.read(0, 300_000) == b"old" * 100_000
        await reader.aclose()
        assert await content(store, "bkt", "k") == b"new"
        assert len(list((tmp_path / "volumes").iterdir())) == 1

    with_node(tmp_path, work)


def test_buckets_come_and_go(tmp_path: Path) -> None:
    async def work(opened: Node) -> None:
        store = opened.store
        await store.create_bucket("bkt", "r")
        with pytest.raises(S3Error):
            await store.create_bucket("bkt", "r")
        await store.put(PutRequest("bkt", "k"), Bytes(b"x"))
        with pytest.raises(S3Error):
            await store.delete_bucket("bkt")
        await store.delete("bkt", [DeleteRequest("k"), DeleteRequest("never there")])
        upload = await store.create_upload(CreateUpload("bkt", "u"))
        await store.delete_bucket("bkt")
        assert await store.list_buckets() == []
        for refused in (
            store.put(PutRequest("bkt", "k"), Bytes(b"x")),
            store.list_objects(ListQuery("bkt")),
            store.get_upload(UploadRef("bkt", "u", upload.upload_id)),
        ):
            with pytest.raises(S3Error) as error:
                await refused
            assert error.value.code is Code.NO_SUCH_BUCKET
        await store.create_bucket("bkt", "r")
        assert (await store.list_objects(ListQuery("bkt"))).objects == ()

    with_node(tmp_path, work)


def test_stale_uploads_expire(tmp_path: Path) -> None:
    async def work(opened: Node) -> None:
        await opened.store.create_bucket("bkt", "r")
        upload = await opened.store.create_upload(CreateUpload("bkt", "u"))
        ref = UploadRef("bkt", "u", upload.upload_id)
        await opened.store.put_part(ref, 1, Bytes(b"x" * 100))
        assert await opened.store.expire_uploads(upload.started_ns) == 0
        assert await opened.store.expire_uploads(upload.started_ns + 1) == 1
        with pytest.raises(S3Error):
            await opened.store.list_parts(ref)

    with_node(tmp_path, work)


def test_the_admin_api_wants_its_token_and_verifies(tmp_path: Path) -> None:
    async def work(opened: Node) -> None:
        admin = Admin(opened, "token")
        await opened.store.create_bucket("bkt", "r")
        await opened.store.put(PutRequest("bkt", "k"), Bytes(b"x" * 100_000))
        assert (await admin.answer("GET", "/health/live", "", b""))[0] == 200
        assert (await admin.answer("GET", "/health/ready", "", b""))[0] == 503
        admin.health.ready = True
        assert (await admin.answer("GET", "/health/ready", "", b""))[0] == 200
        for path in ("/status", "/metrics", "/verify", "/nothing"):
            for authorization in ("", "Bearer ", "Bearer wrong", "Basic token"):
                assert (await admin.answer("GET", path, authorization, b""))[0] == 401
        good = "Bearer token"
        status, _, body = await admin.answer("GET", "/status", good, b"")
        assert (status, json.loads(body)["objects"]) == (200, 1)
        status, _, body = await admin.answer("POST", "/verify", good, b'{"bucket": "bkt", "key": "k"}')
        assert (status, json.loads(body)["sound"], json.loads(body)["bytes"]) == (200, True, 100_000)
        assert json.loads((await admin.answer("POST", "/verify", good, b""))[2]) == {"sound": 1, "damaged": []}
        assert (await admin.answer("POST", "/verify", good, b'{"bucket": "no", "key": "k"}'))[0] == 404
        assert (await admin.answer("POST", "/verify", good, b"[" * 100_000))[0] == 400
        assert (await admin.answer("DELETE", "/status", good, b""))[0] == 405
        assert b"trove_objects 1.0" in (await admin.answer("GET", "/metrics", good, b""))[2]

    with_node(tmp_path, work)


class _FullDisk(PosixDisk):
    free = 1 << 40

    def free_bytes(self, path: Path) -> tuple[int, int]:
        return self.free, 1 << 40


def test_a_full_disk_refuses_bodies_and_still_deletes(tmp_path: Path) -> None:
    async def all_of_it() -> None:
        disk = _FullDisk()
        opened = node(tmp_path, disk)
        store = opened.store
        await store.create_bucket("bkt", "r")
        await store.put(PutRequest("bkt", "k"), Bytes(b"x" * 1000))
        disk.free = 64 << 20
        with pytest.raises(NoSpace):
            await store.put(PutRequest("bkt", "more"), Bytes(bytes(20 << 20)))
        puts = [store.put(PutRequest("bkt", "more"), Bytes(bytes(900_000))) for _ in range(20)]
        results = await asyncio.gather(*puts, return_exceptions=True)
        assert isinstance(results[-1], NoSpace)
        assert (await store.delete("bkt", [DeleteRequest("k")]))[0].error is None
        disk.free = 1 << 40
        await store.put(PutRequest("bkt", "again"), Bytes(b"y"))
        assert await content(store, "bkt", "again") == b"y"
        await opened.aclose()

    asyncio.run(all_of_it())


def test_two_drives_share_one_node(tmp_path: Path) -> None:
    """The second drive gets new volumes while it has more room; both are found again, also without the index."""

    class Uneven(PosixDisk):
        fuller = "one"

        def free_bytes(self, path: Path) -> tuple[int, int]:
            return (1 << 40 if self.fuller not in path.parts else 1 << 39), 1 << 41

    async def all_of_it() -> None:
        disk = Uneven()
        drives = (tmp_path / "one", tmp_path / "two")
        options = NodeOptions(data=drives, host=Host(disk=disk))
        opened = Node(options)
        await opened.store.create_bucket("bkt", "r")  # makes the small volume, on drive two
        disk.fuller = "two"
        await opened.store.put(PutRequest("bkt", "large"), Bytes(b"l" * 1_200_000))
        await opened.aclose()
        assert all(len(list((drive / "volumes").iterdir())) == 1 for drive in drives)
        shutil.rmtree(tmp_path / "one" / "index")
        opened = Node(options)
        assert await content(opened.store, "bkt", "large") == b"l" * 1_200_000
        await opened.aclose()

    asyncio.run(all_of_it())


def test_a_node_says_what_it_takes_yet_and_each_file_system_counts_once(tmp_path: Path) -> None:
    class Small(PosixDisk):
        free = 5 * RESERVE_BYTES

        def free_bytes(self, path: Path) -> tuple[int, int]:
            return self.free, 10 * RESERVE_BYTES

    disk = Small()
    made = Node(NodeOptions((tmp_path / "a", tmp_path / "b"), host=Host(disk=disk)))
    assert made.store.free_bytes("bkt") == 4 * RESERVE_BYTES, "two directories of one file system"
    disk.free = RESERVE_BYTES - 1
    assert made.store.free_bytes("bkt") == 0, "what it keeps back it does not promise"
    disk.free = 5 * RESERVE_BYTES
    for drive in made.engine.volumes.drives:
        drive.missing("pulled")
    assert made.store.free_bytes("bkt") == 0, "no drive takes anything"
    asyncio.run(made.aclose())


def test_what_comes_meanwhile_is_not_waited_for(tmp_path: Path) -> None:
    """A bucket is deleted when what is under way now is through: under load there is always something else."""

    async def work(opened: Node) -> None:
        store, volumes, committer = opened.store, opened.engine.volumes, opened.engine.committer
        await store.create_bucket("bkt", "r")
        sync, gates, begun = volumes.sync, [threading.Event(), threading.Event()], asyncio.Queue[int]()
        loop, numbers = asyncio.get_running_loop(), iter(range(2))

        def gated(those: Sequence[Volume]) -> None:
            number = next(numbers)
            loop.call_soon_threadsafe(begun.put_nowait, number)
            gates[number].wait(20)
            sync(those)

        volumes.sync = gated  # type: ignore[method-assign]
        first = asyncio.create_task(store.put(PutRequest("bkt", "first"), Bytes(b"body")))
        assert await begun.get() == 0
        waiting = asyncio.create_task(committer.through())
        second = asyncio.create_task(store.put(PutRequest("bkt", "second"), Bytes(b"body")))
        await asyncio.sleep(0)
        gates[0].set()
        assert await begun.get() == 1
        await waiting
        await first
        assert not second.done()
        gates[1].set()
        await second
        volumes.sync = sync  # type: ignore[method-assign]

    with_node(tmp_path, work)


def test_an_object_that_cannot_be_opened_keeps_no_volume_open(tmp_path: Path) -> None:
    """One of its parts lies in a volume that is gone."""

    async def work(opened: Node) -> None:
        store, volumes = opened.store, opened.engine.volumes
        await store.create_bucket("bkt", "r")
        ref = UploadRef("bkt", "k", (await store.create_upload(CreateUpload("bkt", "k"))).upload_id)
        parts = []
        for number in (1, 2):
            parts.append(await store.put_part(ref, number, Bytes(bytes(5 * 2**20))))
            for volume in list(volumes.volumes.values()):
                volumes.seal(volume)
        await store.complete_upload(ref, [WantedPart(each.number, each.etag) for each in parts], ALWAYS)
        with opened.engine.index.read() as tables:
            gone = max(part.place.volume for _, part in parts_of(tables, bytes.fromhex(ref.upload_id)))
        volume = volumes.volumes.pop(gone)
        with pytest.raises(CorruptData):
            await store.open("bkt", "k")
        assert [each.pins for each in volumes.volumes.values()] == [0] * len(volumes.volumes)
        volumes.volumes[gone] = volume

    with_node(tmp_path, work)
