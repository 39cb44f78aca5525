"""`trove repair`: what verifies is kept, what does not is named and dropped for good, damaged volumes are set aside."""

from __future__ import annotations

import asyncio
import errno
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qss.app.exits import Exit
from qss.app.trove import repair_node
from qss.errors import Damaged, Refused
from qss.formats.volume import Superblock
from qss.host import PosixDisk
from qss.host.disk import Handle
from qss.s3.backend import ALWAYS, CreateUpload, DeleteRequest, ListQuery, PutRequest, UploadRef, WantedPart
from qss.s3.errors import S3Error
from qss.trove.identity import SET_ASIDE
from qss.trove.node import Node, clean_slate
from qss.trove.repair import mend_superblocks, mended_superblock, repair
from tests.harness.trove_node import Bytes, content, drop_dead, node

PART = 5 * 2**20


async def _fill(directory: Path) -> tuple[dict[str, bytes], dict[str, tuple[Path, int]]]:
    """A node with objects of all kinds, stopped. Returns their bytes, and where the record of each begins."""
    opened = node(directory)
    store = opened.store
    await store.create_bucket("bkt", "us-east-1")
    rng = random.Random(3)
    bodies = {f"k{number}": rng.randbytes(70_000) for number in range(6)}
    for key, body in bodies.items():
        await store.put(PutRequest("bkt", key), Bytes(body))
    await store.put(PutRequest("bkt", "deleted"), Bytes(b"d" * 1000))
    await store.delete("bkt", [DeleteRequest("deleted")])
    for name in ("big", "open"):
        upload = await store.create_upload(CreateUpload("bkt", name))
        ref = UploadRef("bkt", name, upload.upload_id)
        parts = [rng.randbytes(PART), rng.randbytes(100)]
        done = [await store.put_part(ref, number, Bytes(part)) for number, part in enumerate(parts, 1)]
        if name == "big":
            await store.complete_upload(ref, [WantedPart(each.number, each.etag) for each in done], ALWAYS)
            bodies[name] = b"".join(parts)
    where = {key: _place(opened, key) for key in bodies}
    await opened.aclose()
    return bodies, where


def _place(opened: Node, key: str) -> tuple[Path, int]:
    row = opened.store.row("bkt", key)
    assert row is not None
    return opened.engine.volumes.volumes[row.place.volume].path, row.place.position


def _flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 8]))


def _repair(directory: Path, capsys: pytest.CaptureFixture[str], **options: bool) -> tuple[int, list[dict[str, Any]]]:
    wanted = {"dry_run": False, "rebuild_index": False, "forget_missing": False} | options
    code = repair_node((directory,), **wanted)
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


async def _holds(directory: Path, bodies: dict[str, bytes], lost: set[str]) -> None:
    opened = node(directory)
    page = await opened.store.list_objects(ListQuery("bkt"))
    assert [each.key for each in page.objects] == sorted(bodies.keys() - lost)
    for key in bodies.keys() - lost:
        assert await content(opened.store, "bkt", key) == bodies[key]
    for key in lost:
        with pytest.raises(S3Error):
            await opened.store.open("bkt", key)
    await opened.scrubber.round()
    assert opened.status()["damaged"] == []
    await opened.aclose()


@pytest.mark.parametrize("rebuild", [False, True])
def test_what_verifies_is_kept_and_the_rest_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rebuild: bool
) -> None:
    bodies, where = asyncio.run(_fill(tmp_path))
    _flip(where["k1"][0], where["k1"][1] + 30_000)  # body
    _flip(where["k3"][0], where["k3"][1] + 70_200)  # footer
    large = next(path for path in (tmp_path / "volumes").iterdir() if path.stat().st_size > PART)
    _flip(large, large.read_bytes().find(bodies["big"][:64]) + 100)  # a part of "big"
    lost = {"k1", "k3", "big"}
    code, lines = _repair(tmp_path, capsys, dry_run=True, rebuild_index=rebuild)
    assert code == Exit.DATA
    assert {each["key"] for each in lines[:-1]} == lost
    assert not (tmp_path / SET_ASIDE).exists()
    code, lines = _repair(tmp_path, capsys, rebuild_index=rebuild)
    assert code == Exit.OK
    assert {each["key"] for each in lines[:-1]} == lost
    assert lines[-1]["lost_objects"] == 3
    assert sorted(path.name for path in (tmp_path / SET_ASIDE).iterdir()) == sorted(lines[-1]["set_aside"])
    asyncio.run(_holds(tmp_path, bodies, lost))
    shutil.rmtree(tmp_path / "index")  # and it stays so, whatever happens to the index
    asyncio.run(_holds(tmp_path, bodies, lost))
    code, lines = _repair(tmp_path, capsys, dry_run=True)
    assert (code, len(lines)) == (Exit.OK, 1)


def test_an_illegible_record_takes_nothing_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bodies, where = asyncio.run(_fill(tmp_path))
    _flip(where["k2"][0], where["k2"][1] + 10)
    _, lines = _repair(tmp_path, capsys)
    assert [each["key"] for each in lines[:-1]] == ["k2"]
    asyncio.run(_holds(tmp_path, bodies, {"k2"}))


def test_a_bucket_whose_record_is_gone_is_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bodies, where = asyncio.run(_fill(tmp_path))
    _flip(where["k0"][0], 130)  # the bucket's record is the first one of the volume
    _, lines = _repair(tmp_path, capsys)
    assert lines[-1]["rewritten"] == 1
    asyncio.run(_holds(tmp_path, bodies, set()))
    shutil.rmtree(tmp_path / "index")
    asyncio.run(_holds(tmp_path, bodies, set()))


def test_a_damaged_superblock_is_mended_or_its_volume_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bodies, where = asyncio.run(_fill(tmp_path))
    volume = where["k0"][0]
    _flip(volume, 45)
    _, lines = _repair(tmp_path, capsys)
    assert lines[0] == {"mended": volume.name}
    asyncio.run(_holds(tmp_path, bodies, set()))
    for at in (10, 20, 45, 60):
        _flip(volume, at)
    _, lines = _repair(tmp_path, capsys)
    assert lines[-1]["set_aside"] == [volume.name]
    lost = {each["key"] for each in lines if each.get("lost") == "object"}
    assert lost >= {f"k{number}" for number in range(6)}
    asyncio.run(_holds(tmp_path, bodies, lost))


class _Stubborn(PosixDisk):
    """Takes no renames, as a file system that has turned read-only."""

    def rename(self, old: Path, new: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    def open(self, path: Path, *, write: bool = False) -> Handle:
        if write:
            raise OSError(errno.EROFS, "Read-only file system")
        return super().open(path)


def test_what_the_disk_does_not_let_us_do_is_one_sentence(tmp_path: Path) -> None:
    bodies, where = asyncio.run(_fill(tmp_path))
    assert mend_superblocks(_Stubborn(), (tmp_path,)) == []
    _flip(where["k1"][0], where["k1"][1] + 30_000)

    async def work() -> None:
        opened = node(tmp_path)
        opened.engine.volumes.disk = _Stubborn()
        with pytest.raises(Refused, match="cannot be set aside: Read-only file system"):
            await repair(opened, lambda _: None, dry_run=False)
        drop_dead(opened)

    asyncio.run(work())
    asyncio.run(_holds_but(tmp_path, bodies, "k1"))
    _flip(where["k1"][0], 45)
    with pytest.raises(Refused, match="cannot be mended: Read-only file system"):
        mend_superblocks(_Stubborn(), (tmp_path,))


async def _holds_but(directory: Path, bodies: dict[str, bytes], damaged: str) -> None:
    opened = node(directory)
    for key, body in bodies.items():
        if key == damaged:
            with pytest.raises(Damaged):
                await content(opened.store, "bkt", key)
        else:
            assert await content(opened.store, "bkt", key) == body
    await opened.aclose()


def test_what_was_set_aside_does_not_stand_in_the_way_of_a_new_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, where = asyncio.run(_fill(tmp_path))
    _flip(where["k1"][0], where["k1"][1] + 30_000)
    _repair(tmp_path, capsys)
    kept = sorted(path.name for path in (tmp_path / SET_ASIDE).iterdir())
    clean_slate(tmp_path)
    asyncio.run(node(tmp_path).aclose())
    assert sorted(path.name for path in (tmp_path / SET_ASIDE).iterdir()) == kept != []


superblocks = st.builds(
    Superblock, st.integers(0, 2**32 - 1), st.integers(0, 2**63), st.binary(min_size=16, max_size=16),
    st.binary(min_size=16, max_size=16),
)  # fmt: skip


@given(superblocks, st.integers(0, 56 * 8 - 1), st.binary(min_size=16, max_size=16))
@settings(max_examples=30, deadline=None)
def test_a_mended_superblock_is_the_one_that_was_there(block: Superblock, bit: int, other: bytes) -> None:
    content = bytearray(block.encode())
    assert mended_superblock(bytes(content)) is None
    content[bit // 8] ^= 1 << bit % 8
    assert mended_superblock(bytes(content)) == block
    content[56:72] = other  # with a wrong check as well, it is not guessed
    if other != block.identity:
        assert mended_superblock(bytes(content)) is None
