"""For every crash test: the real disk is not synced, whose power nobody cuts; some run without threads."""

from __future__ import annotations

import pytest
import trio

from qss.cache.index import Index
from qss.host import PosixDisk
from tests.harness.cuts import in_turn


@pytest.fixture(autouse=True)
def the_real_disk_is_not_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    """LMDB's file, which goes with every cut or is watched by tests/harness/crash_index.py, and restored copies."""
    monkeypatch.setattr(Index, "sync", lambda _index: None)
    monkeypatch.setattr(PosixDisk, "sync_data", lambda _disk, _handle: None)
    monkeypatch.setattr(PosixDisk, "sync_dir", lambda _disk, _path: None)


@pytest.fixture
def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a thread would do is done in turn: each change of the disk comes at the same place in every run. Kills and
    lives drawn at random keep their threads."""
    monkeypatch.setattr(trio.to_thread, "run_sync", in_turn)
