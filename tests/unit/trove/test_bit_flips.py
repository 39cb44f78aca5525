"""10,000 bits turned, one after the other, in volumes as they lie on the disk: no wrong byte is ever served."""

from __future__ import annotations

import asyncio
import bisect
import random
from pathlib import Path

from qss.errors import Damaged
from qss.formats.volume import SUPERBLOCK_BYTES
from qss.host import PosixDisk
from qss.host.disk import Handle
from qss.s3.backend import ALWAYS, Attributes, CreateUpload, DeleteRequest, PutRequest, UploadRef, WantedPart
from qss.trove.node import Node
from tests.harness.trove_node import Bytes, content, node

FLIPS = 10_000
SIZES = (0, 1, 100, 4096, 5000, 30_000, 65_535, 65_536, 65_537)


class TurningDisk(PosixDisk):
    """One bit of one file reads wrong."""

    def __init__(self) -> None:
        self._paths: dict[int, Path] = {}
        self.path: Path | None = None
        self.at = 0
        self.bit = 0

    def create(self, path: Path) -> Handle:
        handle = super().create(path)
        self._paths[handle] = path
        return handle

    def open(self, path: Path, *, write: bool = False) -> Handle:
        handle = super().open(path, write=write)
        self._paths[handle] = path
        return handle

    def pread(self, handle: Handle, count: int, position: int) -> bytes:
        data = super().pread(handle, count, position)
        if self._paths[handle] != self.path or not position <= self.at < position + len(data):
            return data
        turned = bytearray(data)
        turned[self.at - position] ^= 1 << self.bit
        return bytes(turned)


async def _fill(opened: Node, rng: random.Random) -> dict[str, bytes]:
    store = opened.store
    await store.create_bucket("bkt", "us-east-1")
    bodies = {f"k{number:03d}": rng.randbytes(SIZES[number % len(SIZES)]) for number in range(150)}
    for number, (key, body) in enumerate(bodies.items()):
        attributes = Attributes(metadata=(("number", str(number)),), tags=(("t", key),))
        await store.put(PutRequest("bkt", key, attributes), Bytes(body))
    bodies["large"] = rng.randbytes(1_200_000)
    await store.put(PutRequest("bkt", "large"), Bytes(bodies["large"]))
    for number in range(0, 150, 10):  # dead records between
        await store.delete("bkt", [DeleteRequest(f"k{number:03d}")])
        del bodies[f"k{number:03d}"]
    upload = await store.create_upload(CreateUpload("bkt", "composite"))
    ref = UploadRef("bkt", "composite", upload.upload_id)
    part = rng.randbytes(200_000)
    done = await store.put_part(ref, 1, Bytes(part))
    await store.complete_upload(ref, [WantedPart(1, done.etag)], ALWAYS)
    return bodies | {"composite": part}


def _spans(opened: Node, bodies: dict[str, bytes]) -> dict[Path, list[tuple[int, int, str]]]:
    """For each volume: (begin, end, key) of the records that objects are made of, in order."""
    spans: dict[Path, list[tuple[int, int, str]]] = {}
    with opened.engine.index.read() as tables:
        rows = {key: opened.store.row("bkt", key) for key in bodies}
        places = [(key, row.place) for key, row in rows.items() if row is not None]
        from qss.trove.rows import decode_part

        places += [("composite", decode_part(value).place) for _, value in tables.scan(tables.dbs.parts)]
    for key, place in places:
        path = opened.engine.volumes.volumes[place.volume].path
        spans.setdefault(path, []).append((place.position, place.position + place.length, key))
    return {path: sorted(found) for path, found in spans.items()}


def test_ten_thousand_flips(tmp_path: Path) -> None:
    rng = random.Random(20)
    disk = TurningDisk()

    async def work() -> None:
        opened = node(tmp_path, disk)
        bodies = await _fill(opened, rng)
        said = {key: (await opened.store.head("bkt", key)) for key in bodies}
        spans = _spans(opened, bodies)
        keys = sorted(bodies)
        refused = served = 0
        for number in range(FLIPS):
            disk.path = rng.choice(sorted(spans))
            size = disk.path.stat().st_size
            begin, end, key = rng.choice(spans[disk.path])
            # Two thirds where headers, tables and footers are: at both ends of a record.
            near = min(400, end - begin)
            disk.at = (
                begin + rng.randrange(near) if number % 3 == 0
                else end - 1 - rng.randrange(near) if number % 3 == 1
                else rng.randrange(SUPERBLOCK_BYTES, size)
            )  # fmt: skip
            disk.bit = rng.randrange(8)
            hit = bisect.bisect(spans[disk.path], (disk.at, size, "")) - 1
            for each in {spans[disk.path][max(hit, 0)][2], key, rng.choice(keys)}:
                try:
                    body = await content(opened.store, "bkt", each)
                    info = await opened.store.head("bkt", each)
                    first = rng.randrange(len(body) + 1)
                    reader = await opened.store.open("bkt", each)
                    some = bytes(await reader.read(first, min(first + 5000, len(body))))
                    await reader.aclose()
                except Damaged:
                    refused += 1
                    continue
                served += 1
                assert body == bodies[each]
                assert info == said[each]
                assert some == body[first : first + 5000]
        disk.path = None
        assert refused > FLIPS / 2, "the flips hit nothing: the test shows nothing"
        assert served > FLIPS / 2
        for key, body in bodies.items():
            assert await content(opened.store, "bkt", key) == body
        opened.store.records.flush_damage()
        await opened.scrubber.round()  # what was noted verifies now
        assert opened.status()["damaged_records"] == 0
        await opened.aclose()

    asyncio.run(work())
