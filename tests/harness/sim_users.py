"""The users of one machine of the simulator, and its lives: start, look, steps of crash_world and `sync`, until they
stop it or it dies."""

from __future__ import annotations

import errno
import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Final

import trio

from qss.errors import FsError, NoSpace
from tests.harness.crash_disk import Fate
from tests.harness.crash_index import IndexFate
from tests.harness.crash_world import STEPS, Model, Picture
from tests.harness.sim_machine import Machine, SimWorld
from tests.harness.sim_time import CrashAtAwait, Trace

WEIGHTS: Final = {
    "write small": 6, "write large": 4, "overwrite": 4, "cut short": 2, "rename": 3, "delete most": 2, "fsync": 5,
    "seal": 2, "rotate": 2, "checkpoint index": 2, "condemn": 1, "evict": 5, "fetch back": 4, "compact": 2,
    "snapshot": 2, "drop snapshot": 1, "sync": 6,
}  # fmt: skip
SYNC_S_MAX: Final = 120.0
FATES: Final = (None, *Fate)


class Users:
    """`model`: what they have been told is there."""

    refusals: tuple[int, ...] = (errno.EIO, errno.ENOSPC)
    """Answers they live with."""

    def __init__(self, machine: Machine, crash: CrashAtAwait, rng: random.Random, trace: Trace, steps: int) -> None:
        self.machine = machine
        self.model = Model()
        self.remote = 0  # index of the newest state a root must bring back
        self.calm = False
        self.leaving = False
        self.seen: Counter[str] = Counter()
        self.steps_left = steps
        self._steps = steps
        self._crash = crash
        self._rng = rng
        self._trace = trace
        self._known = False

    async def life(self, drive: Callable | None = None) -> None:
        """One life of the machine, and what is left of it."""
        machine = self.machine
        if not self.calm:
            self._arm(machine)
        self._known = False  # what is there after the start
        await machine.live(self.model, drive or self._users)
        machine.disk.cut_at = None if not machine.dead else machine.disk.cut_at
        self._crash.disarm()
        if machine.dead:
            fate = self._rng.choice(FATES)
            if fate is None and self._known:  # the change under way, or without it
                self.model.covered = max(self.model.covered, len(self.model.states) - 2)
            self.seen[f"died: {fate}"] += 1
            fates = (IndexFate.NOW, IndexFate.GONE, IndexFate.DAMAGED) if fate is None else tuple(IndexFate)
            machine.boot_again(fate, self._rng.choice(fates))
        else:
            if machine.closed:
                self.model.covered = len(self.model.states) - 1
            machine.index._opened.clear()

    def _arm(self, machine: Machine) -> None:
        """How this life will end."""
        luck = self._rng.random()
        count = int(math.exp(self._rng.uniform(0, math.log(20_000))))
        if luck < 0.45:
            self._crash.arm(count, machine.kill)
        elif luck < 0.7:
            machine.disk.cut_at = machine.disk.changes + count % 400
        elif luck < 0.85:
            self._crash.arm(count, machine.kill_offload)

    async def _users(self, world: SimWorld) -> None:
        await self.after_start(world, self._use)

    async def after_start(self, world: SimWorld, then: Callable) -> None:
        """Look whether what is there may be there; go on from it."""
        found = await self.look(world)
        acceptable = self.model.states[self.model.covered :]
        if found not in acceptable:
            raise AssertionError(
                f"not a state that ever was, or older than the last sync: {_difference(found, acceptable)}"
            )
        self.model.states.append(found)
        self._known = True
        self._trace.add(f"{len(found)} files are there")
        await then(world)

    async def look(self, world: SimWorld) -> Picture:
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
        for _ in range(self._rng.randrange(1, self._steps)):
            if self.steps_left <= 0 or self.leaving:
                return
            self.steps_left -= 1
            step = self._rng.choices(names, weights)[0]
            self._trace.add(f"step {step}")
            try:
                await (self._sync(world) if step == "sync" else STEPS[step](world))
            except (FsError, OSError) as error:
                if not isinstance(error, NoSpace) and error.errno not in self.refusals:
                    raise
                self.seen[f"refused: {errno.errorcode[error.errno or errno.ENOSPC]}"] += 1
                self._trace.add(f"refused: {error}")
            await trio.sleep(self._rng.expovariate(1 / 6))

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
