"""Seeds of the deterministic simulator (docs/simulator.md). `QSS_SIM_SEEDS=200 pytest tests/sim` runs more; a seed that
ever failed stays in REGRESSIONS."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from qss.offload.roots import Roots
from qss.s3.store import ObjectStore
from tests.contracts.object_store import ObjectStoreContract
from tests.harness.crash_disk import CrashDisk
from tests.harness.sim_command import simulate
from tests.harness.sim_run import Simulation
from tests.harness.sim_store import SimStore
from tests.harness.sim_time import Trace

SEEDS = int(os.environ.get("QSS_SIM_SEEDS", "20"))
REGRESSIONS = (1, 16)
"""Of what was wrong once: 1, roots whose time was over stayed at locations that had been away; 16, with more suspect
shards than may be lost a segment was never repaired."""


class TestSimStoreInGoodWeather(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return SimStore("trove-1", random.Random(1), Trace()).link(lambda: True)


@pytest.mark.parametrize("seed", sorted({*range(100, 100 + SEEDS), *REGRESSIONS}))
def test_after_quiet_everything_promised_holds(seed: int) -> None:
    assert simulate(seed).trace.count > 100


def test_one_seed_is_one_trace_in_any_process() -> None:
    path = os.pathsep.join(filter(None, sys.path))

    def digest(hash_seed: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tests.harness.sim_command", "7"],
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": path},
            cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        return done.stdout

    assert digest("1") == digest("2")
    assert simulate(7).trace.digest in digest("3")
    assert simulate(8).trace.digest != simulate(7).trace.digest


def test_the_weather_has_everything_in_it(tmp_path: Path) -> None:
    """Over some seeds: deaths by await and by power, every way of locations to misbehave, refusals and syncs."""
    seen: Counter[str] = Counter()
    for seed in range(1, 9):
        folder = tmp_path / str(seed)
        folder.mkdir()
        outcome = Simulation(seed, folder).run()
        seen.update(
            {kind.partition(" ")[2] if kind.startswith("trove-") else kind.split(":")[0] for kind in outcome.seen}
        )
    wanted = {"died", "offload dies", "disk full", "down", "slow", "full", "loses answers", "rots", "synced", "refused"}
    assert wanted <= seen.keys()


def test_a_disk_that_lies_about_syncs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the simulator can fail. Without it, what an fsync covered is lost when the power goes."""
    monkeypatch.setattr(CrashDisk, "sync_data", lambda disk, handle: disk.changing("sync_data", Path("/lie/lie")))
    assert _failures(range(1, 13))


def test_reading_without_looking_at_hashes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qss.offload.fetcher.hash_of", lambda _block: b"")
    monkeypatch.setattr("qss.formats.manifest.Manifest.hash_of", lambda *_: b"")
    assert _failures(range(1, 13))


def test_a_root_that_is_not_written_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def publish(roots: Roots, point: object) -> None:
        """Says it is done."""

    monkeypatch.setattr(Roots, "publish", publish)
    assert _failures(range(1, 4))


def _failures(seeds: range) -> list[int]:
    failed = []
    for seed in seeds:
        try:
            simulate(seed)
        except (Exception, BaseExceptionGroup):
            failed.append(seed)
            break
    return failed
