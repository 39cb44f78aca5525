"""A start after a clean stop writes and syncs nothing; and what it did not write is written before the first change."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qss.host import Host
from qss.s3.backend import PutRequest
from qss.trove.node import Node, NodeOptions
from tests.harness.trove_node import Bytes, content, drop_dead


class Boot:
    """A clock of the machine's `number`th life."""

    def __init__(self, number: int) -> None:
        self._number = number

    def now_ns(self) -> int:
        return time.time_ns()

    def boot_id(self) -> str:
        return f"boot {self._number}"


def _node(directory: Path, boot: int) -> Node:
    return Node(NodeOptions((directory,), host=Host(clock=Boot(boot))))


def _state(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


async def _put(one: Node, key: str) -> None:
    await one.store.put(PutRequest("bkt", key), Bytes(key.encode()))


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    async def work() -> None:
        one = _node(tmp_path, 1)
        await one.store.create_bucket("bkt", "us-east-1")
        await _put(one, "a")
        await one.aclose()

    asyncio.run(work())
    return tmp_path


def test_a_clean_start_touches_nothing(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def spied(name: str) -> Callable[[int], None]:
        return lambda _: synced.append(name)

    before = _state(stopped)
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, spied(name))
    one = _node(stopped, 2)
    assert (one.report.rebuilt, one.report.records, synced) == (False, 0, [])
    assert _state(stopped) == before
    drop_dead(one)
    again = _node(stopped, 3)  # killed or not: as before
    assert (again.report.rebuilt, again.report.records) == (False, 0)
    drop_dead(again)


def test_after_the_first_change_a_power_cut_leaves_nothing_to_trust(stopped: Path) -> None:
    async def work() -> None:
        one = _node(stopped, 2)
        await _put(one, "b")
        drop_dead(one)
        again = _node(stopped, 2)  # only killed: the page cache has it all
        assert not again.report.rebuilt
        await _put(again, "c")
        drop_dead(again)
        rebuilt = _node(stopped, 3)
        assert rebuilt.report.rebuilt
        for key in "abc":
            assert await content(rebuilt.store, "bkt", key) == key.encode()
        await rebuilt.aclose()

    asyncio.run(work())


def test_a_volume_that_went_away_empty_is_forgotten_at_a_clean_start(stopped: Path) -> None:
    """The one thing a clean start may have to write."""

    async def work() -> None:
        one = _node(stopped, 1)
        with one.engine.index.write() as tables:
            tables.saw(99, 1)
        await one.aclose()
        again = _node(stopped, 2)
        assert again.report.volumes_missing == [99]
        assert 99 not in again.engine.index.totals.volumes
        await again.aclose()
        last = _node(stopped, 3)
        assert (last.report.rebuilt, last.report.volumes_missing) == (False, [])
        await last.aclose()

    asyncio.run(work())
