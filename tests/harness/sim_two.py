"""Several machines and one file system: take-overs, copies of a state directory, machines that are cut off and come
back; by one seed. `scripts/sim --two SEED`, docs/simulator.md

Locations are faithful here (they may be away, slow, full, or lose answers): majorities that lie are beyond what fencing
promises.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

import trio

from qss.errors import FsError, QssError
from tests.harness.crash_world import Model, Picture
from tests.harness.sim_commands import commands_simulated, copy, recover
from tests.harness.sim_machine import Machine, SimWorld, indexes_watched
from tests.harness.sim_party import Party
from tests.harness.sim_quiet import Quiet
from tests.harness.sim_run import CACHE, Drawn
from tests.harness.sim_time import CrashAtAwait
from tests.harness.sim_weather import TEMPERS, Weather

STEPS: Final = 12
"""Of users, at most, in one life."""
STAGES: Final = 3
PARTIES_MAX: Final = 4
KINDS: Final = sorted(set(TEMPERS) - {"flips answers", "short answers", "all of it"})
ROOTS_MAX: Final = 2000
SETTLE_S: Final = 200.0
RECOVERIES_MAX: Final = 30


class TwoMachines(Drawn):
    def __init__(self, seed: int, base: Path, keep_trace: bool = False) -> None:
        super().__init__(seed, base, keep_trace)
        self._no_shards = {self.keys.hold_name(), self.keys.probe_name(), self.keys.root_name(None)}
        self._no_shards |= {self.keys.root_name(number) for number in range(1, ROOTS_MAX)}
        self.machines: list[Machine] = []
        self._named = 0
        self.parties: list[Party] = []
        for store in self.stores.values():
            store.on_change = self._on_change

    async def _main(self, crash: CrashAtAwait) -> None:
        first = self._new_machine()
        weather = Weather(self.stores, set(), self.machines, self.rng, self.trace, KINDS)
        with indexes_watched(self.machines), commands_simulated(self.machines):
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                async with trio.open_nursery() as storm:
                    storm.start_soon(weather.run)
                    storm.start_soon(self._networks)
                    self._begin(self._party_of(first))
                    for _ in range(self.rng.randrange(1, STAGES + 1)):
                        await trio.sleep(self.rng.uniform(30, 250))
                        await self._stage()
                    if len(self.parties) == 1:
                        await self._second()
                    await trio.sleep(self.rng.uniform(30, 250))
                    storm.cancel_scope.cancel()
                weather.calm()
                for machine in self.machines:
                    machine.cut_off.clear()
                await self._quiet()
                nursery.cancel_scope.cancel()
        self.seen += weather.seen
        for party in self.parties:
            self.seen += party.seen

    # -- machines

    def _new_machine(self) -> Machine:
        self._named += 1
        name = f"machine-{self._named}"
        machine = Machine(
            name, self._base, self.stores, self.keys, self.options, CACHE, self.rng, self.trace
        )  # fmt: skip
        self.machines.append(machine)
        return machine

    def _party_of(self, machine: Machine) -> Party:
        crash = CrashAtAwait()
        trio.lowlevel.add_instrument(crash)
        party = Party(machine, crash, self.rng, self.trace, STEPS)
        party.steps_left = 10**9
        self.parties.append(party)
        return party

    def _begin(self, party: Party) -> None:
        self._nursery.start_soon(party.run)

    async def _networks(self) -> None:
        """Now and then a machine has no way to some locations, or to all."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(self.rng.expovariate(1 / 60))
                nursery.start_soon(self._cut_off, self.rng.choice(self.machines), self.rng.uniform(1, 90))

    async def _cut_off(self, machine: Machine, for_s: float, count: int | None = None) -> None:
        names = sorted(self.stores)
        chosen = self.rng.sample(names, self.rng.randrange(1, len(names) + 1) if count is None else count)
        kind = "most" if len(chosen) > len(names) // 2 else "few"
        self._tell(f"cut off from {kind}", machine.name)
        machine.cut_off.update(chosen)
        await trio.sleep(for_s)
        machine.cut_off.difference_update(chosen)

    def _tell(self, what: str, who: str) -> None:
        self.seen[what] += 1
        self.trace.add(f"{who}: {what}")

    # -- what operators do

    async def _stage(self) -> None:
        if len(self.parties) >= PARTIES_MAX:
            return
        act = self.rng.choice(("recover", "take over", "take over", "copy", "copy", "cut off", "burnt"))
        one = self.rng.choice([party for party in self.parties if not party.fenced] or self.parties)
        self._tell(act, one.name)
        if act == "copy":
            await self._copy(one)
        elif act == "cut off":  # taken for dead, and comes back
            self._nursery.start_soon(self._cut_off, one.machine, self.rng.uniform(40, 300), len(self.stores))
            await trio.sleep(self.rng.uniform(0, 60))
            await self._recover(take_over=self.rng.random() < 0.3)
        elif act == "burnt":
            one.machine.kill()
            one.leaving = True
            await one.ended.wait()
            await self._recover(take_over=self.rng.random() < 0.5)
            if self.rng.random() < 0.5:  # it was only a fuse
                await trio.sleep(self.rng.uniform(0, 60))
                one.leaving, one.ended = False, trio.Event()
                self._begin(one)
        else:
            await self._recover(take_over=act == "take over")

    async def _second(self) -> None:
        """There is one in every seed. Recoveries may all have been refused, and rightly: beside a machine that lives,
        or because the one that burnt had published nothing yet."""
        (first,) = self.parties
        self._tell("alone so far", first.name)
        if first.ended.is_set():  # it was burnt
            first.leaving, first.ended = False, trio.Event()
            self._begin(first)
        if await self._recover(take_over=True) is None:
            self._tell("copy", first.name)
            await self._copy(first)

    async def _copy(self, one: Party) -> None:
        stopped = self.rng.random() < 0.5
        if stopped:
            await one.leave()
        machine = self._new_machine()
        copy(one.machine, machine)
        if self.rng.random() < 0.4:  # an image of the whole machine
            machine.seat = one.machine.seat
            self._tell("one seat", machine.name)
        party = self._party_of(machine)
        party.model = Model(list(one.model.states), one.model.covered)
        party.origin, party.remote = (one, len(one.model.states) - 1), one.remote
        party.insists = self.rng.random() < 0.3
        if stopped:
            self._begin(one)
        await trio.sleep(self.rng.choice((0.0, self.rng.uniform(0, 60))))
        self._begin(party)

    async def _recover(self, *, take_over: bool, even_empty: bool = False) -> Party | None:
        """`even_empty`: also when nothing has been stored yet."""
        machine, empty = self._new_machine(), False
        for _ in range(RECOVERIES_MAX):
            acknowledged = {party.name: party.remote for party in self.parties}
            outcome = None
            with trio.move_on_after(self.rng.uniform(1, 60) if self.rng.random() < 0.2 else 1e9):
                try:
                    outcome = await recover(machine, take_over=take_over, partial=empty)
                    assert not (empty and outcome.report.root.point.logs), "something has been stored after all"
                except QssError as error:
                    empty = even_empty and "nothing of this file system has been stored yet" in str(error)
                    self._tell("a recovery is refused", f"{machine.name} {error}")
                    if "take it over" in str(error) and self.rng.random() < 0.5:
                        break
            if outcome is not None and outcome.restored:
                return self._recovered(machine, acknowledged, outcome.report.majority)
            await trio.sleep(self.rng.uniform(1, 30))
        self.machines.remove(machine)
        return None

    def _recovered(self, machine: Machine, acknowledged: dict[str, int], sure: bool) -> Party:
        self._tell("recovered", machine.name)
        party = self._party_of(machine)
        others = self.parties[:-1]

        def find_origin(found: Picture) -> None:
            whose = [(each, _last(each.model.states, found)) for each in others if found in each.model.states]
            assert whose, "what was recovered never was"
            party.model.states[:] = [found]  # the world has this very model
            fitting = [each for each in whose if each[1] >= acknowledged.get(each[0].name, 0)]
            assert fitting or not sure, (
                "what was recovered is older than what was acknowledged:"
                f" {[(each.name, index) for each, index in whose]}, {acknowledged}"
            )
            party.origin = (fitting or whose)[-1]

        party.find_origin = find_origin
        self._begin(party)
        return party

    # -- what must hold

    def _on_change(self, key: str, name: str) -> None:
        """A location is about to store or delete something: nobody else may do so now."""
        if key in self._no_shards:
            return
        for machine in self.machines:
            offload = machine.offload
            if machine.name != name and offload is not None and offload.alive() and offload.tenure.may_change:
                raise AssertionError(f"{name} changes {key[-12:]} while {machine.name} may")

    async def _quiet(self) -> None:
        for party in self.parties:
            party.calm = True
            party.leaving = True
        await self._until_ended()
        for party in self.parties:
            party.leaving, party.ended = False, trio.Event()
            party.drive = self._idle(party)
            self._begin(party)
        await trio.sleep(SETTLE_S)
        writers = [party for party in self.parties if party.writes]
        if not writers:  # nobody may: the operator decides
            self._tell("nobody writes", "all")
            party = await self._recover(take_over=True, even_empty=True)
            assert party is not None, "it cannot be recovered in the quiet"
            party.calm, party.drive = True, self._idle(party)
            await trio.sleep(SETTLE_S)
            writers = [party for party in self.parties if party.writes]
        assert len(writers) == 1, f"{[party.name for party in writers]} write"
        (winner,) = writers
        self.trace.add(f"{winner.name} has won")
        self._check_acknowledged(winner)
        for party in self.parties:
            if party is not winner:
                assert party.fenced or party.refused, f"{party.name} has not been told"
        await winner.leave()
        quiet = Quiet(winner.machine, self.stores, winner.model, self.trace, strays_of=self._others(winner))
        await winner.life(lambda world: winner.after_start(world, quiet.settle))
        assert not winner.machine.dead, "it died in the quiet"
        quiet.check_files()
        await quiet.check_recovery(self._base / "new")
        for party in self.parties:
            if party is not winner:
                await party.leave()

    async def _until_ended(self) -> None:
        for party in self.parties:
            await party.ended.wait()

    def _others(self, winner: Party) -> set[str]:
        return {machine.name for machine in self.machines if machine is not winner.machine}

    def _check_acknowledged(self, winner: Party) -> None:
        """Whatever a sync promised anywhere is in what goes on."""
        taken = {winner.name: winner.remote}
        party = winner
        while party.origin is not None:
            party, index = party.origin
            taken[party.name] = index
            assert _promised(party) in party.model.states[: index + 1], (
                f"a sync of {party.name} was acknowledged, and is not in what goes on"
            )
        for each in self.parties:
            if each.name not in taken and each.origin is not None:
                base = each.origin[1] if len(each.model.states) > each.origin[1] else 0
                assert _promised(each) in each.model.states[: base + 1], (
                    f"a sync of {each.name}, which has lost, was acknowledged"
                )

    def _idle(self, party: Party):
        """Writes now and then; told no, it looks whether all is there that was never offloaded."""

        async def drive(world: SimWorld) -> None:
            looked = False
            while not party.leaving:
                await trio.sleep(5)
                path = world.fresh()
                try:
                    world.create(path)
                    await world.write(path, 0, world.rng.randbytes(500))
                except (FsError, OSError) as error:
                    if getattr(error, "errno", None) != errno.EROFS:
                        raise
                    assert party.fenced, "a file system that is only read, and no fence"
                    if not looked:
                        await self._check_unsent(party, world)
                        looked = True

        return drive

    async def _check_unsent(self, party: Party, world: SimWorld) -> None:
        """As `qssctl export-unsent` finds it: by change times."""
        since = world.cache.facts().published_cut_ns - 10**9
        base = set(party.model.states[party.remote].values()) if party.remote < len(party.model.states) else set()
        for path, content in sorted(party.model.now.items()):
            if content is None or content in base:
                continue
            ino = world.fs.lookup(*world.place(path))
            if world.fs.getattr(ino).ctime_ns < since:
                continue
            self.seen["unsent files looked at"] += 1
            handle = await world.fs.open(ino, os.O_RDONLY)
            try:
                found = bytes(await world.fs.read(handle, 0, len(content)))
            except FsError:
                self.seen["unsent files not readable"] += 1
                continue
            finally:
                world.fs.release(handle)
            assert found == content, f"{path} of {party.name} is not what was written"


def _promised(party: Party) -> Picture:
    """What a sync has promised: the same may have been there before (of a state that was looked at again)."""
    return party.model.states[party.remote]


def _last(states: list[Picture], wanted: Picture) -> int:
    return max(number for number, state in enumerate(states) if state == wanted)
