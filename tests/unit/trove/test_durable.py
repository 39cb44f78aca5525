"""What a node has made, or been told, is there after a power cut: names as well as contents."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from qss.host import PosixDisk, SystemEntropy
from qss.s3.backend import PutRequest
from qss.trove.durable import make_directory, replace_durably
from qss.trove.node import clean_slate
from qss.trove.sealing import add_key
from tests.harness.trove_node import Bytes, content, node


class _Watched(PosixDisk):
    def __init__(self) -> None:
        self.synced: list[Path] = []

    def sync_dir(self, path: Path) -> None:
        super().sync_dir(path)
        self.synced.append(path)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was synced, in order, by the name it had then."""
    found: list[Path] = []
    fsync = os.fsync

    def spied(handle: int) -> None:
        fsync(handle)
        found.append(Path(f"/proc/self/fd/{handle}").readlink())

    monkeypatch.setattr(os, "fsync", spied)
    return found


def test_a_file_and_its_name_are_synced(tmp_path: Path, synced: list[Path]) -> None:
    path = tmp_path / "file.json"
    for content_ in (b"one", b"two"):
        synced.clear()
        replace_durably(path, content_)
        assert synced == [tmp_path / "file.new", tmp_path]
        assert path.read_bytes() == content_
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_is_durable_before_anything_is_encrypted_by_it(tmp_path: Path, synced: list[Path]) -> None:
    add_key(tmp_path, SystemEntropy())
    assert synced[-1] == tmp_path


def test_directories_are_synced_into_those_above_them(tmp_path: Path) -> None:
    disk = _Watched()
    make_directory(disk, tmp_path / "a" / "b")
    assert sorted(disk.synced) == [tmp_path, tmp_path / "a"]
    disk.synced.clear()
    make_directory(disk, tmp_path / "a" / "b")
    assert disk.synced == []


def test_what_a_first_start_makes_is_synced_before_anything_is_acknowledged(tmp_path: Path, synced: list[Path]) -> None:
    disk = _Watched()
    opened = node(tmp_path / "some" / "node", disk)
    assert {tmp_path, tmp_path / "some", tmp_path / "some" / "node"} <= {*disk.synced}
    asyncio.run(opened.aclose())


def test_a_first_start_that_broke_off_can_be_made_again(tmp_path: Path) -> None:
    """Its marker was written, and not yet under its name."""

    async def work() -> None:
        (tmp_path / "trove.new").write_bytes(b"{")
        opened = node(tmp_path)
        await opened.store.create_bucket("bkt", "r")
        await opened.store.put(PutRequest("bkt", "k"), Bytes(b"body"))
        assert await content(opened.store, "bkt", "k") == b"body"
        await opened.aclose()
        (tmp_path / "sse.new").write_bytes(b"half a key")
        clean_slate(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"trove.lock"}
        await node(tmp_path).aclose()

    asyncio.run(work())
