"""What is said to be synced was synced: of a volume that one thread writes to while another syncs it; of the index."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import lmdb
import pytest

import qss.trove.index
from qss.errors import Retryable
from qss.formats.volume import Header, Kind
from qss.host import PosixDisk, SystemClock, SystemEntropy
from qss.s3.backend import PutRequest
from qss.trove.drives import Drive
from qss.trove.index import Index
from qss.trove.volumes import VolumeSet
from tests.harness.trove_node import Bytes, node


def test_a_body_under_way_never_counts_as_written(tmp_path: Path) -> None:
    """The syncing thread may look between any two lines of `begin`."""
    volumes = VolumeSet([Drive(tmp_path, "", SystemClock())], PosixDisk(), SystemClock(), SystemEntropy(), bytes(16))
    first = volumes.begin(Header(Kind.OBJECT, b"b/k", 1, body_len=100))
    volumes.void(first)  # its volume is there from now on
    volume, position = first.volume, first.volume.end
    seen: list[int] = []

    def look(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code is VolumeSet.begin.__code__:
            seen.append(volume.whole_to)
            return look
        return None

    before = sys.gettrace()
    sys.settrace(look)
    try:
        slot = volumes.begin(Header(Kind.OBJECT, b"b/k", 2, body_len=100))
    finally:
        sys.settrace(before)
    assert slot.position == position
    assert set(seen) == {position}
    assert volume.whole_to == position
    volumes.void(slot)
    assert volume.whole_to == volume.end
    volumes.close()


def test_a_marker_that_cannot_be_written_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that the index has changed since it was synced. Without it nothing may be changed, and so not the next
    time either."""

    async def work() -> None:
        opened = node(tmp_path)
        await opened.store.create_bucket("bkt", "r")
        await opened.engine.checkpoint()

        def full(path: Path, content: bytes) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(qss.trove.index, "replace_durably", full)
            for _ in range(2):
                with pytest.raises(Retryable):
                    await opened.store.put(PutRequest("bkt", "k"), Bytes(b"body"))
        await opened.store.put(PutRequest("bkt", "k"), Bytes(b"body"))
        shutil.copytree(tmp_path / "index", tmp_path / "copy")
        another_boot = Index(tmp_path / "copy", "after a power cut")
        assert another_boot.rebuilding
        another_boot.close()
        await opened.aclose()

    asyncio.run(work())


class _Failing:
    """An environment whose next sync fails."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self.fails = True

    def sync(self, force: bool) -> None:
        if self.fails:
            self.fails = False
            raise lmdb.Error("mdb_env_sync: Input/output error")
        self._env.sync(force)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)


def test_a_failed_sync_of_the_index_is_final(tmp_path: Path) -> None:
    """The kernel tells of pages it could not write only once."""
    index = Index(tmp_path / "index", "boot")
    index.trust()
    index._env = _Failing(index._env)
    with index.write() as tables:
        tables.saw(1, 1)
    with pytest.raises(Retryable):
        index.checkpoint()
    index.checkpoint()
    index.close()
    assert Index(tmp_path / "index", "boot").rebuilding is False  # the page cache has it all
    again = Index(tmp_path / "index", "after a power cut")
    assert again.rebuilding
    again.close()


def test_what_the_index_refuses_may_be_tried_again(tmp_path: Path) -> None:
    index = Index(tmp_path / "index", "boot")

    def full() -> None:
        with index.write() as tables:
            tables.saw(7, 7)
            raise lmdb.DiskError("mdb_txn_commit: No space left on device")

    with pytest.raises(Retryable):
        full()
    assert 7 not in index.totals.volumes
    index.close()
