"""Sealed objects in a node: what is stored tells nothing, ranges are right, and nothing that was touched opens."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qss.cli.trove import run as run_trove
from qss.errors import CorruptData, Damaged, Refused
from qss.formats.sse import (
    FRAME_BYTES,
    PLAIN_BYTES,
    Envelope,
    Mode,
    decode_key_file,
    encode_key_file,
    key_id_of,
    sealed_len,
)
from qss.host import SystemEntropy
from qss.s3.backend import ALWAYS, CreateUpload, DeleteRequest, EtagMode, ListQuery, PutRequest, UploadRef, WantedPart
from qss.s3.errors import Code, S3Error
from qss.s3.sse import CustomerKey, Encryption, KeyNeeded, KeyNotApplicable, Sse
from qss.trove.compaction import compact
from qss.trove.ledger import Ledger
from qss.trove.node import Node, clean_slate
from qss.trove.sealing import KEY_FILE, BodyCipher, NodeKeys, ObjectKey, SealedBody, Sealer
from qss.trove.verify import verify_all
from tests.harness.trove_node import Bytes, content, node, with_node

PART = 5 * 1024 * 1024
NAME = b"bkt/key"
SIZES = (0, 1, 4096, PLAIN_BYTES - 1, PLAIN_BYTES, PLAIN_BYTES + 1, 2 * PLAIN_BYTES, 1_200_000)


def customer(number: int) -> CustomerKey:
    key = bytes([number]) * 32
    return CustomerKey(key, base64.b64encode(hashlib.md5(key, usedforsecurity=False).digest()).decode())


MINE, OTHER = customer(1), customer(2)


async def put(opened: Node, key: str, body: bytes, encryption: Encryption | None) -> None:
    mode = EtagMode.OPAQUE if encryption and encryption.customer else EtagMode.MD5
    found = await opened.store.put(PutRequest("bkt", key, encryption=encryption, etag_mode=mode), Bytes(body))
    assert found.size == len(body)


async def put_parts(opened: Node, key: str, parts: list[bytes], encryption: Encryption) -> None:
    upload = await opened.store.create_upload(CreateUpload("bkt", key, encryption=encryption))
    ref = UploadRef("bkt", key, upload.upload_id)
    mine = encryption.customer

    async def send(number: int, part: bytes) -> WantedPart:
        if mine is None:
            sent = await opened.store.put_part(ref, number, Bytes(part))
        else:
            sent = await opened.store.put_part_with(ref, number, Bytes(part), mine)
        assert sent.size == len(part)
        return WantedPart(number, sent.etag)

    await send(2, b"sent again later")
    wanted = [await send(number, part) for number, part in enumerate(parts, 2)]
    done = await opened.store.complete_upload(ref, wanted, ALWAYS)
    assert (done.size, done.sse) == (sum(map(len, parts)), Sse.MANAGED if mine is None else Sse.CUSTOMER)


async def read(opened: Node, key: str, start: int, stop: int, mine: CustomerKey | None = None) -> bytes:
    store = opened.store
    reader = await (store.open("bkt", key) if mine is None else store.open_with("bkt", key, None, mine))
    try:
        whole = bytes(await reader.read(start, stop))
        assert b"".join([bytes(chunk) async for chunk in reader.chunks(start, stop)]) == whole
        return whole
    finally:
        await reader.aclose()


def volumes(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted((directory / "volumes").iterdir()))


# -- bodies
async def seal(cipher: BodyCipher, body: bytes, piece: int = 10_000) -> list[bytes]:
    sealed = SealedBody(Bytes(body, piece=piece), cipher)
    frames = [bytes(chunk) async for chunk in sealed.chunks()]
    assert sealed.length == sum(map(len, frames)) == sealed_len(len(body))
    assert sealed.digests().length == len(body)
    return frames


def object_key() -> ObjectKey:
    return ObjectKey(Envelope(Mode.CUSTOMER, bytes(8), bytes(16), bytes(48)), bytes(range(32)))


@given(st.sampled_from([0, 1, PLAIN_BYTES - 1, PLAIN_BYTES, PLAIN_BYTES + 1, 200_000]), st.sampled_from([999, 70_000]))
@settings(max_examples=15)
def test_frames_open_in_their_place_only(size: int, piece: int) -> None:
    body = random.Random(size).randbytes(size)
    frames = asyncio.run(seal(object_key().body(), body, piece))
    cipher, last = object_key().body(), len(frames) - 1
    assert b"".join(cipher.open(each, n, last=n == last) for n, each in enumerate(frames)) == body
    assert all(len(each) == FRAME_BYTES for each in frames[:-1])
    for wrong in (
        lambda: cipher.open(frames[last], last, last=False),  # something was cut off behind it
        lambda: cipher.open(frames[0], 0, last=last != 0),  # what was behind it was cut off
        lambda: cipher.open(frames[0], 1, last=last == 0),
        lambda: cipher.open(frames[last][:-1], last, last=True),
        lambda: cipher.open(frames[last] + b"\0", last, last=True),
        lambda: object_key().body(b"salt").open(frames[0], 0, last=last == 0),
        lambda: object_key().body(b"", 1).open(frames[0], 0, last=last == 0),
    ):
        with pytest.raises(CorruptData):
            wrong()


@given(st.data())
@settings(max_examples=60)
def test_no_bit_of_a_frame_may_change(data: st.DataObject) -> None:
    frame = bytearray(object_key().body().seal(b"some bytes", 3, last=True))
    at = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[at // 8] ^= 1 << at % 8
    with pytest.raises(CorruptData):
        object_key().body().open(bytes(frame), 3, last=True)


# -- envelopes
@contextmanager
def node_keys(directory: Path) -> Iterator[NodeKeys]:
    directory.mkdir(exist_ok=True)
    ledger = Ledger(directory)
    try:
        yield NodeKeys(directory, SystemEntropy(), ledger)
    finally:
        ledger.close()


@contextmanager
def sealer(directory: Path) -> Iterator[Sealer]:
    with node_keys(directory) as keys:
        yield Sealer(keys, SystemEntropy().token)


def both(one: Sealer) -> tuple[ObjectKey, ObjectKey]:
    """A key of the node's and one of a customer's."""

    async def make() -> tuple[ObjectKey, ObjectKey]:
        return await one.new(NAME, Encryption()), await one.new(NAME, Encryption(MINE))

    return asyncio.run(make())


def test_an_envelope_opens_with_its_key_and_name_only(tmp_path: Path) -> None:
    with sealer(tmp_path) as one:
        managed, mine = both(one)
        assert one.open(managed.envelope, NAME, None) == managed
        assert one.open(mine.envelope, NAME, MINE) == mine
        with pytest.raises(KeyNeeded):
            one.open(mine.envelope, NAME, None)
        with pytest.raises(KeyNotApplicable):
            one.open(managed.envelope, NAME, MINE)
        for name, key in ((NAME, OTHER), (b"bkt/other", MINE)):
            with pytest.raises(S3Error) as caught:
                one.open(mine.envelope, name, key)
            assert caught.value.code is Code.ACCESS_DENIED
        with pytest.raises(CorruptData):
            one.open(managed.envelope, b"bkt/other", None)
    with sealer(tmp_path) as again:
        assert again.open(managed.envelope, NAME, None) == managed, "the key file is what counts"
    with sealer(tmp_path / "elsewhere") as other, pytest.raises(S3Error, match="lacks") as caught:
        other.open(managed.envelope, NAME, None)
    assert caught.value.code is Code.OBJECT_DAMAGED


def test_every_field_of_an_envelope_is_bound(tmp_path: Path) -> None:
    with sealer(tmp_path) as one:
        managed, mine = (key.envelope for key in both(one))
        for wrong, key in (
            (replace(managed, salt=bytes(16)), None),
            (replace(managed, wrapped=managed.wrapped[:-1] + bytes([managed.wrapped[-1] ^ 1])), None),
            (replace(managed, key_id=bytes(8)), None),
            (replace(managed, mode=Mode.CUSTOMER), MINE),
            (replace(mine, salt=bytes(16)), MINE),
            (replace(mine, mode=Mode.NODE), None),
            (replace(mine, key_id=b"x" * 8), MINE),
        ):
            with pytest.raises((CorruptData, S3Error)):
                one.open(wrong, NAME, key)


def test_secrets_do_not_show(tmp_path: Path) -> None:
    with sealer(tmp_path) as one:
        key = both(one)[1]
    for value in (MINE, Encryption(MINE), key, key.envelope):
        assert repr(MINE.key) not in repr(value)
        assert repr(key.key) not in repr(value)
        assert "wrapped" not in repr(value)


def test_the_key_file(tmp_path: Path) -> None:
    path = tmp_path / KEY_FILE
    with node_keys(tmp_path) as keys:
        assert not path.exists(), "made when it is needed"
        newest = asyncio.run(keys.newest())
        assert path.stat().st_mode & 0o777 == 0o600
        assert asyncio.run(keys.newest()) == newest
    with node_keys(tmp_path) as keys:
        assert asyncio.run(keys.newest()) == newest
    path.chmod(0o640)
    with pytest.raises(Refused, match="chmod 600"), node_keys(tmp_path):
        pass
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Refused, match="put back"), node_keys(tmp_path):
        pass


def test_a_lost_key_file_is_not_made_anew_unasked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / KEY_FILE
    with node_keys(tmp_path) as keys:
        newest = asyncio.run(keys.newest())
    kept = path.read_bytes()
    path.unlink()
    with node_keys(tmp_path) as keys:
        assert key_id_of(newest).hex() in caplog.text
        with pytest.raises(S3Error, match="put back"):
            asyncio.run(keys.newest())
    assert not path.exists()
    path.write_bytes(kept)
    path.chmod(0o600)
    with node_keys(tmp_path) as keys:
        assert asyncio.run(keys.newest()) == newest


def test_a_new_key_goes_in_front_of_the_old(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def fill(opened: Node) -> None:
        await opened.store.create_bucket("bkt", "r")
        await put(opened, "old", b"old", Encryption())

    async def look(opened: Node) -> None:
        await put(opened, "new", b"new", Encryption())
        assert (await read(opened, "old", 0, 3), await read(opened, "new", 0, 3)) == (b"old", b"new")

    with_node(tmp_path, fill)
    assert run_trove(["new-key", "--data", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["keys"] == 2
    with_node(tmp_path, look)
    keys = decode_key_file((tmp_path / KEY_FILE).read_bytes())
    (tmp_path / KEY_FILE).write_bytes(encode_key_file(keys[:1]))

    async def without_the_old(opened: Node) -> None:
        assert await read(opened, "new", 0, 3) == b"new"
        with pytest.raises(S3Error, match="lacks"):
            await opened.store.open("bkt", "old")

    with_node(tmp_path, without_the_old)
    (tmp_path / "none").mkdir()
    assert run_trove(["new-key", "--data", str(tmp_path / "none")]) == 3


# -- objects in a node
@pytest.mark.parametrize("mine", [None, MINE], ids=["SSE-S3", "SSE-C"])
def test_what_is_put_is_read_and_what_is_stored_tells_nothing(tmp_path: Path, mine: CustomerKey | None) -> None:
    rng = random.Random(1)
    bodies = {f"k{size}": (b"plain " + rng.randbytes(size))[:size] for size in SIZES}
    parts = [b"plain " * (PART // 6 + 1), rng.randbytes(100_000), b"plain end"]
    parts = [parts[0], parts[0][:PART] + parts[1], parts[2]]
    encryption = Encryption(mine)

    async def fill(opened: Node) -> None:
        await opened.store.create_bucket("bkt", "r")
        for key, body in bodies.items():
            await put(opened, key, body, encryption)
        await put_parts(opened, "parts", parts, encryption)

    async def look(opened: Node) -> None:
        listed = {each.key: each.size for each in (await opened.store.list_objects(ListQuery("bkt"))).objects}
        assert listed == {key: len(body) for key, body in whole.items()}
        for key, body in whole.items():
            found = await opened.store.head("bkt", key)
            assert (found.size, found.sse) == (len(body), Sse.MANAGED if mine is None else Sse.CUSTOMER)
            assert await read(opened, key, 0, min(len(body), 4 * 1024 * 1024), mine) == body[: 4 * 1024 * 1024]
            for _ in range(4):
                start = rng.randrange(len(body) + 1)
                stop = min(start + rng.choice((0, 1, 50, 70_000, 300_000)), len(body))
                assert await read(opened, key, start, stop, mine) == body[start:stop]
        parts_at = PART - 10
        assert await read(opened, "parts", parts_at, parts_at + 50, mine) == whole["parts"][parts_at : parts_at + 50]

    whole = {**bodies, "parts": b"".join(parts)}
    with_node(tmp_path, fill)
    with_node(tmp_path, look)
    assert b"plain plain" not in volumes(tmp_path)
    assert MINE.key not in volumes(tmp_path)
    assert MINE.md5.encode() not in volumes(tmp_path)
    shutil.rmtree(tmp_path / "index")
    with_node(tmp_path, look)

    async def move(opened: Node) -> None:
        await opened.store.delete("bkt", [DeleteRequest("k1")])
        for volume in list(opened.engine.volumes.volumes.values()):
            assert await compact(opened.engine, volume) > 0

    with_node(tmp_path, move)
    del whole["k1"]
    with_node(tmp_path, look)


@given(st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ranges_are_those_of_the_plain_bytes(ranges_node: tuple[Node, bytes], data: st.DataObject) -> None:
    opened, body = ranges_node
    near = st.builds(
        lambda edge, off: min(max(edge + off, 0), len(body)),
        st.sampled_from([0, PLAIN_BYTES, PART, PART + PLAIN_BYTES, 2 * PART, len(body)]),
        st.integers(-20, 20),
    )
    start, stop = sorted((data.draw(near), data.draw(near)))
    stop = min(stop, start + 1024 * 1024)
    assert asyncio.run(read(opened, "parts", start, stop, MINE)) == body[start:stop]


@pytest.fixture(scope="module")
def ranges_node(tmp_path_factory: pytest.TempPathFactory):
    rng = random.Random(5)
    parts = [rng.randbytes(PART), rng.randbytes(PART), rng.randbytes(77_777)]
    opened = node(tmp_path_factory.mktemp("ranges"))

    async def fill() -> None:
        await opened.store.create_bucket("bkt", "r")
        await put_parts(opened, "parts", parts, Encryption(MINE))

    asyncio.run(fill())
    yield opened, b"".join(parts)
    asyncio.run(opened.aclose())


def test_keys_that_do_not_fit(tmp_path: Path) -> None:
    async def work(opened: Node) -> None:
        store = opened.store
        await store.create_bucket("bkt", "r")
        await put(opened, "plain", b"x", None)
        await put(opened, "managed", b"x", Encryption())
        await put(opened, "mine", b"x", Encryption(MINE))
        with pytest.raises(KeyNeeded):
            await store.open("bkt", "mine")
        for key in ("plain", "managed"):
            with pytest.raises(KeyNotApplicable):
                await store.open_with("bkt", key, None, MINE)
        with pytest.raises(S3Error) as caught:
            await store.open_with("bkt", "mine", None, OTHER)
        assert caught.value.code is Code.ACCESS_DENIED
        uploads = {}
        for name, encryption in (("plain", None), ("managed", Encryption()), ("mine", Encryption(MINE))):
            made = await store.create_upload(CreateUpload("bkt", name, encryption=encryption))
            uploads[name] = UploadRef("bkt", name, made.upload_id)
        with pytest.raises(KeyNeeded):
            await store.put_part(uploads["mine"], 1, Bytes(b"x"))
        for key in ("plain", "managed"):
            with pytest.raises(KeyNotApplicable):
                await store.put_part_with(uploads[key], 1, Bytes(b"x"), MINE)
        with pytest.raises(S3Error) as caught:
            await store.put_part_with(uploads["mine"], 1, Bytes(b"x"), OTHER)
        assert caught.value.code is Code.ACCESS_DENIED
        assert not any(volume.open_slots for volume in opened.engine.volumes.volumes.values())

    with_node(tmp_path, work)


def test_without_the_nodes_key_all_verifies_and_nothing_opens(tmp_path: Path) -> None:
    async def fill(opened: Node) -> None:
        await opened.store.create_bucket("bkt", "r")
        await opened.store.set_encryption("bkt", encrypted=True)
        await put(opened, "managed", b"body" * 50_000, None)
        await put(opened, "mine", b"body", Encryption(MINE))
        assert (await opened.store.head("bkt", "managed")).sse is Sse.MANAGED

    async def look(opened: Node) -> None:
        assert await verify_all(opened.store, None) == {"sound": 2, "damaged": []}
        with pytest.raises(S3Error, match="lacks") as caught:
            await opened.store.open("bkt", "managed")
        assert caught.value.code is Code.OBJECT_DAMAGED
        assert await read(opened, "mine", 0, 4, MINE) == b"body"

    with_node(tmp_path, fill)
    kept = (tmp_path / KEY_FILE).read_bytes()
    (tmp_path / KEY_FILE).unlink()
    with_node(tmp_path, look)
    (tmp_path / KEY_FILE).write_bytes(kept)
    (tmp_path / KEY_FILE).chmod(0o600)

    async def again(opened: Node) -> None:
        assert await content(opened.store, "bkt", "managed") == b"body" * 50_000

    with_node(tmp_path, again)
    clean_slate(tmp_path)
    assert not (tmp_path / KEY_FILE).exists()


def test_rot_in_a_sealed_body_is_found_with_no_key(tmp_path: Path) -> None:
    async def fill(opened: Node) -> None:
        await opened.store.create_bucket("bkt", "r")
        await put(opened, "mine", bytes(300_000), Encryption(MINE))

    with_node(tmp_path, fill)
    (path,) = [each for each in (tmp_path / "volumes").iterdir() if each.stat().st_size > 300_000]
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 4]))

    async def look(opened: Node) -> None:
        found = await verify_all(opened.store, None)
        assert [each["key"] for each in found["damaged"]] == ["mine"]
        with pytest.raises(Damaged):
            await read(opened, "mine", 0, 300_000, MINE)
        assert await read(opened, "mine", 0, 10, MINE) == bytes(10), "other blocks are sound"

    with_node(tmp_path, look)
