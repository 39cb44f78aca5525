"""Seeds of the simulator with several machines that know one file system (docs/simulator.md). When `QSS_SIM_SEEDS`
names more than usual, a quarter as many of these."""

from __future__ import annotations

import os

import pytest

from qss.offload.fence import Fence
from tests.harness.sim_command import simulate

SEEDS = int(os.environ.get("QSS_SIM_SEEDS", "20")) // 4
FEW = (14, 31, 46)
"""Take-overs, copies, machines that were cut off; quick ones."""
REGRESSIONS = (3, 7, 64, 81)
"""Of what was wrong once: 7, two recoveries gave the same numbers to their segments, and one took the other's content
for its own; 64, with locations away an older root was taken; 81, the first root after a recovery was an older one."""


def seeds() -> list[int]:
    return list(FEW) if len(FEW) * 2 >= SEEDS else sorted({*FEW, *REGRESSIONS, *range(200, 200 + SEEDS)})


@pytest.mark.parametrize("seed", seeds())
def test_one_writes_the_others_know_and_nothing_acknowledged_is_lost(seed: int) -> None:
    outcome = simulate(seed, two=True)
    assert outcome.trace.count > 100
    assert {"recovered", "copy"} & outcome.seen.keys(), "no second machine"


def test_a_machine_that_ignores_that_it_has_lost_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """So this can fail."""
    monkeypatch.setattr(Fence, "put_up", lambda _fence, _reason: None)
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        simulate(31, two=True)
