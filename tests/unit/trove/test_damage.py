"""No wrong byte is ever served, whatever happens to the volumes; and what is damaged is said."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from qss.errors import Damaged
from qss.s3.backend import ALWAYS, CreateUpload, ListQuery, PutRequest, UploadRef, WantedPart
from qss.s3.errors import S3Error
from qss.trove.compaction import compact_one
from qss.trove.node import Node
from tests.harness.trove_node import Bytes, content, with_node

SIZES = (0, 1, 4096, 65_536, 70_000, 300_000, 1_200_000)


async def _fill(made: Node, rng: random.Random) -> dict[str, bytes]:
    await made.store.create_bucket("bkt", "us-east-1")
    bodies = {f"k{size}": rng.randbytes(size) for size in SIZES}
    for key, body in bodies.items():
        await made.store.put(PutRequest("bkt", key), Bytes(body))
    ref = UploadRef("bkt", "parts", (await made.store.create_upload(CreateUpload("bkt", "parts"))).upload_id)
    body = rng.randbytes(5 * 1024 * 1024 + 100)
    parts = [
        await made.store.put_part(ref, number, Bytes(part))
        for number, part in enumerate((body[: 5 * 1024 * 1024], body[5 * 1024 * 1024 :]), 1)
    ]
    await made.store.complete_upload(ref, [WantedPart(part.number, part.etag) for part in parts], ALWAYS)
    return bodies | {"parts": body}


async def _read_all(opened: Node, bodies: dict[str, bytes]) -> set[str]:
    """Keys that are refused. Asserts that the others are right, whole and in ranges."""
    refused = set()
    for key, body in bodies.items():
        try:
            assert await content(opened.store, "bkt", key) == body
            reader = await opened.store.open("bkt", key)
            middle = len(body) // 2
            assert bytes(await reader.read(middle, min(middle + 10, len(body)))) == body[middle : middle + 10]
            await reader.aclose()
        except (Damaged, S3Error):
            refused.add(key)
    return refused


@pytest.mark.parametrize("rebuild", [False, True])
def test_flipped_bits_are_never_served(tmp_path: Path, rebuild: bool) -> None:
    rng = random.Random(1)
    bodies: dict[str, bytes] = {}

    async def fill(opened: Node) -> None:
        bodies.update(await _fill(opened, rng))

    with_node(tmp_path / "n", fill)
    refused: set[str] = set()
    for number in range(60):
        directory = tmp_path / f"copy{number}"
        shutil.copytree(tmp_path / "n", directory)
        volumes = sorted((directory / "volumes").iterdir())
        target = volumes[number % len(volumes)]
        data = bytearray(target.read_bytes())
        # Half of the flips go where headers, tables and small objects are: the first 200 KiB.
        at = rng.randrange(128, len(data) if number % 4 < 2 else min(len(data), 200_000))
        data[at] ^= 1 << rng.randrange(8)
        target.write_bytes(data)
        if rebuild:
            shutil.rmtree(directory / "index")

        async def check(opened: Node) -> None:
            refused.update(await _read_all(opened, bodies))

        with_node(directory, check)
        shutil.rmtree(directory)
    assert refused, "no flip hit anything: the test shows nothing"


def test_damage_is_counted_and_listed_and_its_volume_kept(tmp_path: Path) -> None:
    body = random.Random(2).randbytes(300_000)

    async def fill(opened: Node) -> None:
        await opened.store.create_bucket("bkt", "us-east-1")
        await opened.store.put(PutRequest("bkt", "bad"), Bytes(body))
        await opened.store.put(PutRequest("bkt", "good"), Bytes(body[::-1]))

    with_node(tmp_path, fill)
    (volume,) = (tmp_path / "volumes").iterdir()
    data = bytearray(volume.read_bytes())
    data[data.find(body[:16]) + 100_000] ^= 1
    volume.write_bytes(data)

    async def read(opened: Node) -> None:
        reader = await opened.store.open("bkt", "bad")
        assert await reader.read(0, 65_536) == body[:65_536]  # what verifies is served
        with pytest.raises(Damaged):
            await reader.read(100_000, 100_001)
        await reader.aclose()
        opened.store.records.flush_damage()
        (note,) = opened.status()["damaged"]
        assert note["by"] == "read"
        assert opened.status()["damaged_reads"] == 1
        assert await compact_one(opened.engine, -1.0, 0) == 0
        assert volume.exists()
        assert await content(opened.store, "bkt", "good") == body[::-1]

    with_node(tmp_path, read)


def test_an_acknowledged_record_at_the_end_is_not_taken_for_a_torn_one(tmp_path: Path) -> None:
    """The index knows up to where the volume was synced: damage below is kept and reported, not cut."""

    async def fill(opened: Node) -> None:
        await opened.store.create_bucket("bkt", "us-east-1")
        await opened.store.put(PutRequest("bkt", "first"), Bytes(b"1" * 5000))
        await opened.store.put(PutRequest("bkt", "second"), Bytes(b"2" * 5000))
        await opened.store.put(PutRequest("bkt", "last"), Bytes(b"3" * 5000))

    with_node(tmp_path, fill)
    (volume,) = (tmp_path / "volumes").iterdir()
    data = bytearray(volume.read_bytes())
    data[data.find(b"TRVF", data.find(b"2" * 5000)) + 20] ^= 1
    volume.write_bytes(data)
    shutil.rmtree(tmp_path / "index")

    async def check(opened: Node) -> None:
        assert opened.report.damaged == 1
        assert volume.stat().st_size == len(data)
        page = await opened.store.list_objects(ListQuery("bkt"))
        assert [each.key for each in page.objects] == ["first", "last", "second"]
        with pytest.raises(Damaged):
            await opened.store.open("bkt", "second")
        await opened.store.put(PutRequest("bkt", "second"), Bytes(b"healed"))
        assert await content(opened.store, "bkt", "second") == b"healed"

    with_node(tmp_path, check)
