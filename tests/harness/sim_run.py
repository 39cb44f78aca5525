"""The deterministic simulator: one file system of ours, its locations and its users, in one `trio.run`, by one seed.

    weather ── locations and disk misbehave          users ── steps of crash_world, and `sync`
    machine ── cache, file system, courier, vault; dies at any await, boots, goes on

Then it is quiet, and everything promised must hold (`Simulation.quiet`). docs/simulator.md
"""

from __future__ import annotations

import errno
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from qss.cache.options import CacheOptions
from qss.errors import FsError, NoSpace
from qss.ids import LocationId
from qss.limits import KIB, MIB
from qss.offload.keys import FsKeys, MasterKey
from qss.offload.options import OffloadOptions
from tests.harness.crash_disk import Fate
from tests.harness.crash_index import IndexFate
from tests.harness.crash_world import STEPS, Model, Picture
from tests.harness.sim_machine import Machine, SimWorld, indexes_watched
from tests.harness.sim_quiet import Quiet
from tests.harness.sim_store import SimStore
from tests.harness.sim_time import CrashAtAwait, Trace, simulated
from tests.harness.sim_weather import Weather

CACHE: Final = CacheOptions(
    segment_bytes=64 * KIB, journal_bytes=4 * KIB, index_map_bytes=16 * MIB, free_bytes_hard=0, free_bytes_soft=1,
    compact_bytes_per_s=1 << 40, compact_waste_bytes_min=0, fetch_deadline_s=30.0, admit_deadline_s=0.0,
    seal_after_s=15.0, checkpoint_every_s=20.0,
)  # fmt: skip
CODES: Final = ((2, 1, 3), (2, 1, 4), (3, 2, 5), (3, 2, 6), (4, 2, 7))
"""(k, m, locations); what m lose is never a majority."""
STEPS_OF_USERS: Final = 45
WEIGHTS: Final = {
    "write small": 6, "write large": 4, "overwrite": 4, "cut short": 2, "rename": 3, "delete most": 2, "fsync": 5,
    "seal": 2, "rotate": 2, "checkpoint index": 2, "condemn": 1, "evict": 5, "fetch back": 4, "compact": 2,
    "snapshot": 2, "drop snapshot": 1, "sync": 6,
}  # fmt: skip
SYNC_S_MAX: Final = 120.0
FATES: Final = (None, *Fate)


@dataclass
class Outcome:
    """What one seed came to; `trace` has its lines if they were kept."""

    seed: int
    trace: Trace
    seen: Counter[str] = field(default_factory=Counter)


class Simulation:
    def __init__(self, seed: int, base: Path, keep_trace: bool = False) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.trace = Trace(keep_trace)
        self.seen: Counter[str] = Counter()
        self._base = base
        self.k, self.m, count = self.rng.choice(CODES)
        names = [LocationId(f"trove-{number}") for number in range(1, count + 1)]
        self.stores = {name: SimStore(name, random.Random(self.rng.random()), self.trace) for name in names}
        self.unfaithful = set(self.rng.sample(names, self.rng.randrange(0, self.m + 1)))
        self.options = OffloadOptions(k=self.k, m=self.m, memory_bytes=48 * MIB, compression_level=1)
        self.keys = FsKeys.derive(MasterKey(random.Random(seed).randbytes(32)))
        self.model = Model()
        self.remote = 0  # index of the newest state a root must bring back
        self.calm = False
        self._known = False
        self._steps_left = STEPS_OF_USERS

    def run(self) -> Outcome:
        simulated(self.seed, self._main)
        return Outcome(self.seed, self.trace, self.seen)

    async def _main(self, crash: CrashAtAwait) -> None:
        self.crash = crash
        self.machine = self._machine("one")
        self.weather = Weather(self.stores, self.unfaithful, self.machine, self.rng, self.trace)
        machines = [self.machine]
        with indexes_watched(machines):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.weather.run)
                while self._steps_left > 0:
                    await self._life(self._users)
                nursery.cancel_scope.cancel()
            self.weather.calm()
            self.calm = True
            quiet = Quiet(self.machine, self.stores, self.model, self.trace)
            await self._life(lambda world: self._after_start(world, quiet.settle))
            if self.machine.dead:
                raise AssertionError("it died in the quiet")
            quiet.check_files()
            await quiet.check_recovery(self._base / "new")
        self.seen += self.weather.seen

    def _machine(self, name: str) -> Machine:
        return Machine(name, self._base, self.stores, self.keys, self.options, CACHE, self.rng, self.trace)

    async def _life(self, drive: Callable) -> None:
        machine = self.machine
        if not self.calm:
            self._arm(machine)
        self._known = False  # what is there after the start
        await machine.live(self.model, drive)
        machine.disk.cut_at = None if not machine.dead else machine.disk.cut_at
        self.crash.disarm()
        if machine.dead:
            fate = self.rng.choice(FATES)
            if fate is None and self._known:  # the change under way, or without it
                self.model.covered = max(self.model.covered, len(self.model.states) - 2)
            self.seen[f"died: {fate}"] += 1
            fates = (IndexFate.NOW, IndexFate.GONE, IndexFate.DAMAGED) if fate is None else tuple(IndexFate)
            machine.boot_again(fate, self.rng.choice(fates))
        else:
            if machine.closed:
                self.model.covered = len(self.model.states) - 1
            machine.index._opened.clear()

    def _arm(self, machine: Machine) -> None:
        """How this life will end."""
        luck = self.rng.random()
        count = int(math.exp(self.rng.uniform(0, math.log(20_000))))
        if luck < 0.45:
            self.crash.arm(count, machine.kill)
        elif luck < 0.7:
            machine.disk.cut_at = machine.disk.changes + count % 400
        elif luck < 0.85:
            self.crash.arm(count, machine.kill_offload)

    # -- users

    async def _users(self, world: SimWorld) -> None:
        await self._after_start(world, self._use)

    async def _after_start(self, world: SimWorld, then: Callable) -> None:
        found = await self._look(world)
        acceptable = self.model.states[self.model.covered :]
        if found not in acceptable:
            raise AssertionError(
                f"not a state that ever was, or older than the last sync: {_difference(found, acceptable)}"
            )
        self.model.states.append(found)
        self._known = True
        self.trace.add(f"{len(found)} files are there")
        await then(world)

    async def _look(self, world: SimWorld) -> Picture:
        """Everything; as long as it takes, since locations may be out of reach."""
        for number in range(100):
            try:
                return await world.picture()
            except FsError as error:
                if error.errno != errno.EIO or (self.calm and number > 20):
                    raise
                await trio.sleep(10)
        raise AssertionError("what is there cannot be read")

    async def _use(self, world: SimWorld) -> None:
        names, weights = list(WEIGHTS), list(WEIGHTS.values())
        for _ in range(self.rng.randrange(1, STEPS_OF_USERS)):
            if self._steps_left <= 0:
                return
            self._steps_left -= 1
            step = self.rng.choices(names, weights)[0]
            self.trace.add(f"step {step}")
            try:
                await (self._sync(world) if step == "sync" else STEPS[step](world))
            except (FsError, OSError) as error:
                if not isinstance(error, NoSpace) and error.errno not in (errno.EIO, errno.ENOSPC):
                    raise
                self.seen[f"refused: {errno.errorcode[error.errno or errno.ENOSPC]}"] += 1
                self.trace.add(f"refused: {error}")
            await trio.sleep(self.rng.expovariate(1 / 6))

    async def _sync(self, world: SimWorld) -> None:
        at = len(self.model.states) - 1
        journal = await world.cache.cut()
        self.model.covered = max(self.model.covered, at)
        with trio.move_on_after(SYNC_S_MAX) as limit:
            await world.cache.wait_published(journal)
            self.remote = at
        self.seen["synced" if not limit.cancelled_caught else "not synced in time"] += 1


def _difference(found: Picture, acceptable: list[Picture]) -> str:
    nearest = min(acceptable, key=lambda each: len(set(each.items()) ^ set(found.items())))
    return f"{sorted({path for path, _ in set(nearest.items()) ^ set(found.items())})} of {sorted(found)}"
