"""The deterministic simulator: one file system of ours, its locations and its users, in one `trio.run`, by one seed.

    weather ── locations and disk misbehave          users ── steps of crash_world, and `sync`
    machine ── cache, file system, courier, vault; dies at any await, boots, goes on

Then it is quiet, and everything promised must hold (`Simulation.quiet`). docs/simulator.md
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from qss.cache.options import CacheOptions
from qss.ids import LocationId
from qss.limits import KIB, MIB
from qss.offload.keys import FsKeys, MasterKey
from qss.offload.options import OffloadOptions
from tests.harness.sim_machine import Machine, indexes_watched
from tests.harness.sim_quiet import Quiet
from tests.harness.sim_store import SimStore
from tests.harness.sim_time import CrashAtAwait, Trace, simulated
from tests.harness.sim_users import Users
from tests.harness.sim_weather import Weather

CACHE: Final = CacheOptions(
    segment_bytes=64 * KIB, journal_bytes=4 * KIB, index_map_bytes=16 * MIB, free_bytes_hard=0, free_bytes_soft=1,
    compact_bytes_per_s=1 << 40, compact_waste_bytes_min=0, fetch_deadline_s=30.0, admit_deadline_s=0.0,
    seal_after_s=15.0, checkpoint_every_s=20.0,
)  # fmt: skip
CODES: Final = ((2, 1, 3), (2, 1, 4), (3, 2, 5), (3, 2, 6), (4, 2, 7))
"""(k, m, locations); what m lose is never a majority."""
STEPS_OF_USERS: Final = 45


@dataclass
class Outcome:
    """What one seed came to; `trace` has its lines if they were kept."""

    seed: int
    trace: Trace
    seen: Counter[str] = field(default_factory=Counter)


class Drawn:
    """What a seed draws before anything happens: the code, the locations, the key. `_main` is what happens then."""

    def __init__(self, seed: int, base: Path, keep_trace: bool = False) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.trace = Trace(keep_trace)
        self.seen: Counter[str] = Counter()
        self._base = base
        self.k, self.m, count = self.rng.choice(CODES)
        names = [LocationId(f"trove-{number}") for number in range(1, count + 1)]
        self.stores = {name: SimStore(name, random.Random(self.rng.random()), self.trace) for name in names}
        self.options = OffloadOptions(k=self.k, m=self.m, memory_bytes=48 * MIB, compression_level=1)
        self.keys = FsKeys.derive(MasterKey(random.Random(seed).randbytes(32)))

    def run(self) -> Outcome:
        simulated(self.seed, self._main)
        return Outcome(self.seed, self.trace, self.seen)

    async def _main(self, crash: CrashAtAwait) -> None:
        raise NotImplementedError


class Simulation(Drawn):
    """One machine. Some locations, no more than may be lost, do not keep what they were given."""

    def __init__(self, seed: int, base: Path, keep_trace: bool = False) -> None:
        super().__init__(seed, base, keep_trace)
        self.unfaithful = set(self.rng.sample(list(self.stores), self.rng.randrange(0, self.m + 1)))

    async def _main(self, crash: CrashAtAwait) -> None:
        machine = Machine(
            "one", self._base, self.stores, self.keys, self.options, CACHE, self.rng, self.trace
        )  # fmt: skip
        users = Users(machine, crash, self.rng, self.trace, STEPS_OF_USERS)
        weather = Weather(self.stores, self.unfaithful, [machine], self.rng, self.trace)
        with indexes_watched([machine]):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(weather.run)
                while users.steps_left > 0:
                    await users.life()
                nursery.cancel_scope.cancel()
            weather.calm()
            users.calm = True
            quiet = Quiet(machine, self.stores, users.model, self.trace)
            await users.life(lambda world: users.after_start(world, quiet.settle))
            if machine.dead:
                raise AssertionError("it died in the quiet")
            quiet.check_files()
            await quiet.check_recovery(self._base / "new")
        self.seen += weather.seen + users.seen
