"""A file system of which nothing has been stored yet has a root that names nothing (ADR 0152): what is made of it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from qss.app import restore_snapshot
from qss.errors import PreconditionFailed, Refused
from qss.ids import LocationId
from qss.limits import MIB
from qss.offload.keys import FsKeys, MasterKey
from qss.offload.options import OffloadOptions
from qss.offload.recovery import Recovery
from tests.harness.sim_commands import Settings, commands_simulated, recover
from tests.harness.sim_machine import Machine, Offload
from tests.harness.sim_run import CACHE
from tests.harness.sim_store import SimStore
from tests.harness.sim_time import Trace


def offload_of(machine: Machine) -> Offload:
    return Offload(machine.stores, machine.keys, machine.options, machine.host, machine.state, machine.name)


@pytest.fixture
async def machines(tmp_path: Path, autojump_clock: object) -> tuple[Machine, Machine]:
    """The first has begun to write, and stored nothing; the second knows the key."""
    names = [LocationId(f"trove-{number}") for number in (1, 2, 3)]
    stores = {name: SimStore(name, random.Random(1), Trace()) for name in names}
    keys = FsKeys.derive(MasterKey(bytes(32)))
    options = OffloadOptions(k=2, m=1, memory_bytes=48 * MIB)
    first, second = (
        Machine(name, tmp_path, stores, keys, options, CACHE, random.Random(2), Trace()) for name in ("first", "second")
    )
    roots = offload_of(first).roots
    await roots.publish(roots.nothing_yet())
    return first, second


async def test_it_is_recovered_only_when_that_is_wanted(machines: tuple[Machine, Machine]) -> None:
    first, second = machines
    with commands_simulated([second]):
        with pytest.raises(Refused, match="nothing of this file system has been stored yet"):
            await recover(second, take_over=False)
        outcome = await recover(second, take_over=False, partial=True)
    assert (outcome.restored, outcome.segments, outcome.report.root.point.logs) == (True, 0, {})
    with pytest.raises(PreconditionFailed, match="another machine"):
        await offload_of(first).roots.catch_up()
    theirs = await offload_of(second).roots.catch_up()
    assert theirs is not None
    assert (theirs.generation, theirs.epoch) == (2, 1)
    assert theirs.point.next_segment > 2**20, "behind all the first may have sent"


async def test_it_has_no_snapshots(machines: tuple[Machine, Machine], tmp_path: Path) -> None:
    first, second = machines
    asking = offload_of(second)
    known = await restore_snapshot._newest(
        Settings(second), Recovery(asking.vault, asking.book), second.host, tmp_path / "scratch"
    )
    assert not known.rows
    assert known.report.root == await offload_of(first).roots.newest()
