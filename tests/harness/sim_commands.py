"""`qssctl recover`, `qssctl mount` and `cp -a` of a state directory, for machines of the simulator.

The product's own code is run, between reading the configuration and starting processes: its locations, roots and hold
are those of the machine that `settings` stands for.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from qss.app import holding, restore
from qss.host import Host, PosixDisk
from qss.offload.fence import Fence
from qss.offload.nodes import Nodes
from qss.offload.roots import RootBook, Roots
from tests.harness.sim_machine import Machine, Offload
from tests.harness.sim_time import SimClock, SimEntropy


@dataclass(frozen=True)
class Settings:
    """What the commands read of qss.config.Settings."""

    machine: Machine

    @property
    def cache_dir(self) -> Path:
        return self.machine.root

    @property
    def offload_dir(self) -> Path:
        return self.machine.state

    @property
    def offload(self):
        return self.machine.options

    @property
    def cache(self):
        return self.machine.cache_options


async def admit(machine: Machine, *, take_over: bool) -> str:
    """Before a mount. Raises as qss.app.holding.admit."""
    return await holding._admit(Settings(machine), machine.keys, take_over, False)


async def recover(machine: Machine, *, take_over: bool, partial: bool = False):
    """Onto an empty machine. Raises as qss.app.restore.recover_newest, and returns its outcome."""
    shutil.rmtree(machine.root)  # what an attempt that was interrupted has left
    shutil.rmtree(machine.state)
    machine.root.mkdir()
    outcome = await restore._bring_back(
        Settings(machine), machine.keys, restore.Wish(take_over=take_over, partial=partial)
    )
    machine.index._opened.clear()
    if outcome.restored:
        machine.disk.take_in(machine.root)
        machine.index.synced = machine.index.now()
    return outcome


def copy(old: Machine, new: Machine) -> None:
    """All of the state directory of `old` as it is now, whether it runs or not."""
    new.disk = old.disk.moved(old.root, new.root)
    new.host = Host(new.disk, new.host.clock, new.host.entropy)
    index = old.index.now()
    if index:
        new.index.path.parent.mkdir(parents=True)
        new.index.path.write_bytes(index)
        new.index.synced = index
    shutil.rmtree(new.state)
    shutil.copytree(old.state, new.state)


def fence_of(machine: Machine) -> str:
    """Why it only reads; empty: it may write."""
    return Fence(machine.state).reason


@contextlib.contextmanager
def commands_simulated(machines: list[Machine]) -> Iterator[None]:
    """While it lasts the commands above work. `machines`: the first one's random bytes are drawn from."""

    @contextlib.asynccontextmanager
    async def open_nodes(settings: Settings, _host: Host) -> AsyncIterator[Nodes]:
        machine = settings.machine
        yield Offload(
            machine.stores, machine.keys, machine.options, machine.host, machine.state, machine.name, machine.cut_off
        ).nodes

    def make_roots(settings: Settings, keys, nodes: Nodes, host: Host) -> Roots:
        code = settings.offload.k, settings.offload.m
        book = RootBook(nodes, keys, host)
        return Roots(book, keys, host, settings.offload_dir, code, created_by=settings.machine.name)

    def make_host() -> Host:
        return Host(PosixDisk(), SimClock("boot-1"), SimEntropy(machines[0].rng))

    def hold_of(settings: Settings, known, _host: Host):
        return settings.machine.hold(known)

    with contextlib.ExitStack() as stack:
        for module in (holding, restore):
            names = {"open_nodes": open_nodes, "make_roots": make_roots, "Host": make_host, "hold_of": hold_of}
            stack.enter_context(mock.patch.multiple(module, **names))
        yield
