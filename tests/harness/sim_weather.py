"""What happens to locations and to the disk of the machine, by seed, until it is quiet."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial

import trio

from qss.errors import NoSpace
from qss.ids import LocationId
from tests.harness.sim_machine import Machine, Stores
from tests.harness.sim_store import SimStore, Temper
from tests.harness.sim_time import Trace

PAUSE_S = 12.0
LASTS_S = (1.0, 90.0)

TEMPERS: dict[str, Callable[[random.Random], Temper]] = {
    "down": lambda _: Temper(down=True),
    "slow": lambda rng: Temper(latency_s=rng.choice((0.5, 5.0, 60.0))),
    "busy": lambda rng: Temper(refused=rng.random()),
    "resets": lambda rng: Temper(reset=rng.random()),
    "loses answers": lambda rng: Temper(lost_answer=rng.random()),
    "cuts bodies": lambda rng: Temper(cut=rng.random()),
    "flips answers": lambda rng: Temper(wrong_bytes=rng.random()),
    "short answers": lambda rng: Temper(short=rng.random()),
    "full": lambda _: Temper(full=True),
    "all of it": lambda _: Temper(0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1),
}
UNFAITHFUL: dict[str, Callable[[random.Random], Temper]] = {
    "drops": lambda rng: Temper(drops=rng.random()),
    "shows old": lambda rng: Temper(old=rng.random()),
}


class Weather:
    def __init__(
        self,
        stores: Stores,
        unfaithful: set[LocationId],
        machines: Sequence[Machine],
        rng: random.Random,
        trace: Trace,
        kinds: Collection[str] = TEMPERS,
    ) -> None:
        """`machines` may become more; `kinds`: keys of TEMPERS."""
        self._stores = stores
        self._unfaithful = sorted(unfaithful)
        self._machines = machines
        self._kinds = sorted(kinds)
        self._rng = rng
        self._trace = trace
        self._lost: set[LocationId] = set()  # for good, until somebody puts an empty one in its place
        self.seen: Counter[str] = Counter()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(self._rng.expovariate(1 / PAUSE_S))
                luck = self._rng.random()
                if luck < 0.2 and self._unfaithful:
                    self._betray(self._rng.choice(self._unfaithful), nursery)
                elif luck < 0.27:
                    nursery.start_soon(self._fill_disk)
                elif luck < 0.34:
                    nursery.start_soon(self._partition)
                elif luck < 0.4:
                    self._tell("offload dies")
                    self._some_machine().kill_offload()
                else:
                    kind = self._rng.choice(self._kinds)
                    name = self._rng.choice(sorted(self._stores))
                    nursery.start_soon(self._spell, name, kind, TEMPERS[kind](self._rng))

    def calm(self) -> None:
        """Faults end; what was lost for good is replaced by something empty."""
        for store in self._stores.values():
            store.temper = Temper()
        self._lost.clear()
        for machine in self._machines:
            machine.disk.fail = None
        self._tell("quiet")

    def _some_machine(self) -> Machine:
        return self._machines[0] if len(self._machines) == 1 else self._rng.choice(self._machines)

    def _tell(self, what: str) -> None:
        self.seen[what] += 1
        self._trace.add(what)

    def _betray(self, name: LocationId, nursery: trio.Nursery) -> None:
        store = self._stores[name]
        kind = self._rng.choice((*sorted(UNFAITHFUL), "rots", "rots", "empties", "lost"))
        if kind == "rots":
            self.seen["rots"] += 1
            for _ in range(self._rng.randrange(1, 6)):
                store.flip_a_stored_bit()
        elif kind in ("empties", "lost"):
            self._tell(f"{name} {kind}")
            store.lose_everything()
            if kind == "lost":
                store.temper = Temper(down=True)
                self._lost.add(name)
        else:
            nursery.start_soon(self._spell, name, kind, UNFAITHFUL[kind](self._rng))

    async def _spell(self, name: LocationId, kind: str, temper: Temper) -> None:
        if name in self._lost:
            return
        self._tell(f"{name} {kind}")
        store = self._stores[name]
        store.temper = temper
        await trio.sleep(self._rng.uniform(*LASTS_S))
        self._end(name, store, temper)

    def _end(self, name: LocationId, store: SimStore, temper: Temper) -> None:
        if store.temper is temper and name not in self._lost:
            store.temper = Temper()
            self._trace.add(f"{name} is well")

    async def _partition(self) -> None:
        """Some or all are out of reach together."""
        names = sorted(set(self._stores) - self._lost)
        cut_off = self._rng.sample(names, self._rng.randrange(1, len(names) + 1)) if names else []
        self._tell(f"partition of {len(cut_off)}")
        tempers = {name: Temper(down=True) for name in cut_off}
        for name, temper in tempers.items():
            self._stores[name].temper = temper
        await trio.sleep(self._rng.uniform(*LASTS_S))
        for name, temper in tempers.items():
            self._end(name, self._stores[name], temper)

    async def _fill_disk(self) -> None:
        self._tell("disk full")
        disk, share = self._some_machine().disk, self._rng.random()
        disk.fail = partial(_full, self._rng, share)
        await trio.sleep(self._rng.uniform(1, 20))
        disk.fail = None


def _full(rng: random.Random, share: float, verb: str, _path: object, _number: int) -> Exception | None:
    if verb in ("create", "pwrite", "commit") and rng.random() < share:
        return NoSpace("simulated: the disk is full")
    return None
