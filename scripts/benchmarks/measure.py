"""The same steps on each system in turns: one step on all of them, then the next, so that noise hits all alike."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.figures import Figure
from benchmarks.rig import cpu_s
from benchmarks.systems import Lineup, Native, System

_FAILURES = (OSError, subprocess.SubprocessError)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is measured. `run` and `prepare` get the system and the number of the round."""

    name: str
    operations: float  # that one run does
    run: Callable[[System, int], float]  # wall seconds of what counts
    unit: str = "files/s"  # operations a second, or "s": seconds of one run
    prepare: Callable[[System, int], None] | None = None  # not counted
    target: str = ""  # of QSS
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Reading:
    wall_s: float
    caller_s: float
    parts_s: dict[str, float]


_Readings = defaultdict[tuple[str, str], list[_Reading]]  # of a step's name and a system's


class Interrupted(KeyboardInterrupt):
    """Ctrl-C; what was measured before comes along."""

    def __init__(self, figures: list[Figure]) -> None:
        super().__init__()
        self.figures = figures


def side_by_side(lineup: Lineup, steps: Sequence[Step], rounds: int) -> list[Figure]:
    """Run all steps on all systems, some rounds. Wall time is the best round's, CPU the mean of all.

    A system that fails under work is reported and left out from there on. Raises Interrupted on Ctrl-C.
    """
    readings: _Readings = defaultdict(list)
    everybody = list(lineup.systems)
    try:
        _run_all(lineup, steps, rounds, readings)
    except KeyboardInterrupt:
        raise Interrupted(_figures(lineup, steps, everybody, readings)) from None
    return _figures(lineup, steps, everybody, readings)


def _run_all(lineup: Lineup, steps: Sequence[Step], rounds: int, readings: _Readings) -> None:
    for number in range(rounds):
        for step in steps:
            for system in _rotated(lineup.systems, number):
                say(f"{step.name}, {system.name}, round {number + 1} of {rounds}")
                try:
                    readings[step.name, system.name].append(_once(step, system, number))
                except _FAILURES as error:
                    if isinstance(system, Native):
                        raise
                    lineup.drop(system, f"{step.name}: {_reason(error)}")


def _figures(lineup: Lineup, steps: Sequence[Step], everybody: Sequence[System], readings: _Readings) -> list[Figure]:
    """`everybody`: native first."""
    figures = []
    for step in steps:
        natively = readings[step.name, everybody[0].name]
        for system in everybody:
            seen = readings[step.name, system.name]
            if seen:
                figures.append(_figure(step, system, seen, _value(step, natively) if natively else None))
        figures += not_measured(
            step.name, lineup, {system.name for system in everybody if readings[step.name, system.name]}
        )
    return figures


def not_measured(name: str, lineup: Lineup, measured: set[str] | None = None) -> list[Figure]:
    """A row for each system that was wanted and has no figure."""
    return [
        Figure(name, None, "", note=reason, system=system)
        for system, reason in lineup.missing.items()
        if system not in (measured or set())
    ]


def say(text: str) -> None:
    """Progress, for those who wait."""
    print(f"… {text}", file=sys.stderr, flush=True)


class Meter:
    """CPU of the caller and of a system's parts from here to `read`."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._caller_s = _caller_s()
        self._parts_s = {name: cpu_s(pids) for name, pids in system.parts().items()}

    def read(self) -> tuple[float, dict[str, float]]:
        """CPU seconds of the caller and of each part."""
        parts_s = {name: cpu_s(pids) - self._parts_s.get(name, 0.0) for name, pids in self._system.parts().items()}
        return _caller_s() - self._caller_s, parts_s


def _once(step: Step, system: System, number: int) -> _Reading:
    if step.prepare is not None:
        step.prepare(system, number)
        system.settle()
    os.sync()
    meter = Meter(system)
    wall_s = step.run(system, number)
    caller_s, parts_s = meter.read()
    system.settle()
    return _Reading(wall_s, caller_s, parts_s)


def _caller_s() -> float:
    """User and system CPU seconds of this process and of its children that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def _rotated(systems: Sequence[System], number: int) -> list[System]:
    """Who is first changes with each round."""
    turn = number % len(systems)
    return [*systems[turn:], *systems[:turn]]


def _value(step: Step, seen: Sequence[_Reading]) -> float:
    wall_s = min(reading.wall_s for reading in seen)
    return wall_s if step.unit == "s" else step.operations / wall_s


def _figure(step: Step, system: System, seen: Sequence[_Reading], natively: float | None) -> Figure:
    operations = step.operations * len(seen)
    parts = {name: sum(each.parts_s.get(name, 0.0) for each in seen) / operations * 1e6 for name in seen[0].parts_s}
    notes = [step.note] if step.note else []
    if len(parts) > 1:
        notes.append("CPU: " + ", ".join(f"{name} {spent:,.0f}" for name, spent in parts.items()))
    return Figure(
        step.name,
        _value(step, seen),
        step.unit,
        natively,
        step.target if system.key.startswith("qss") else "",
        "; ".join(notes),
        system.name,
        sum(parts.values()) if parts else None,
        sum(each.caller_s for each in seen) / operations * 1e6,
    )


def _reason(error: Exception) -> str:
    said = getattr(error, "stderr", None)
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return f"{error}: {text.strip().splitlines()[-1]}" if text and text.strip() else str(error)
