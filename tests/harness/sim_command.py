"""The command line of the simulator: `scripts/sim SEED [--trace]`, `scripts/sim --seeds A-B`."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import traceback
from pathlib import Path

from tests.harness.sim_run import Outcome, Simulation
from tests.harness.sim_two import TwoMachines


def simulate(seed: int, keep_trace: bool = False, *, two: bool = False) -> Outcome:
    """Run one seed in a directory of its own, in memory where there is such a place. Raises what went wrong."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="qss-sim-", dir=memory if memory.is_dir() else None) as folder:
        kind = TwoMachines if two else Simulation
        simulation = kind(seed, Path(folder), keep_trace)
        try:
            return simulation.run()
        finally:
            if keep_trace:
                sys.stdout.write("".join(f"{line}\n" for line in simulation.trace.lines or ()))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/sim")
    parser.add_argument("seed", nargs="?", type=int)
    parser.add_argument("--seeds", metavar="A-B", help="every seed from A to B")
    parser.add_argument("--trace", action="store_true", help="print everything that happened")
    parser.add_argument("--two", action="store_true", help="several machines that know one file system")
    given = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    if given.seeds:
        first, _, last = given.seeds.partition("-")
        seeds = range(int(first), int(last) + 1)
    elif given.seed is not None:
        seeds = range(given.seed, given.seed + 1)
    else:
        parser.error("a seed, or --seeds A-B")
    failed = []
    for seed in seeds:
        try:
            outcome = simulate(seed, given.trace, two=given.two)
        except Exception:
            failed.append(seed)
            print(f"seed {seed} failed:\n{traceback.format_exc()}")
        else:
            told = ", ".join(f"{what} {count}" for what, count in sorted(outcome.seen.items()))
            print(f"seed {seed} {outcome.trace.digest}, {outcome.trace.count} events: {told}")
    if failed:
        print(f"failed: {failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
