"""scripts/benchmarks: turns, what is shown of a system that fails, and that no process of a peer is left behind."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks import peers, systems
from benchmarks.figures import Figure
from benchmarks.measure import Step, side_by_side
from benchmarks.processes import Household, NotMeasured
from benchmarks.systems import Lineup, Native


@dataclass
class Pretended:
    """A system without a process; says when it settles."""

    key: str
    place: Path = Path("/nonexistent")
    fsync: str = ""
    settled: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.key

    def parts(self) -> dict[str, list[int]]:
        return {}

    def settle(self) -> None:
        self.settled.append(self.key)


def test_each_step_runs_on_all_systems_before_the_next_and_the_first_one_rotates():
    native, ours = Native(Path("/nonexistent")), Pretended("qss")
    order = []

    def work(label):
        return lambda system, number: order.append((number, label, system.name)) or 1.0

    side_by_side(Lineup([native, ours]), [Step("a", 1, work("a")), Step("b", 1, work("b"))], rounds=2)
    assert order == [
        (0, "a", "native"), (0, "a", "qss"), (0, "b", "native"), (0, "b", "qss"),
        (1, "a", "qss"), (1, "a", "native"), (1, "b", "qss"), (1, "b", "native"),
    ]  # fmt: skip
    assert len(ours.settled) == 4


def test_a_rate_is_of_the_best_round_and_its_ratio_to_native():
    seconds = {"native": [2.0, 4.0], "qss": [8.0, 5.0]}
    lineup = Lineup([Native(Path("/nonexistent")), Pretended("qss")])
    steps = [Step("rate", 100, lambda system, number: seconds[system.name][number], "files/s", target="fast")]
    native, ours = side_by_side(lineup, steps, rounds=2)
    assert (native.value, native.ratio, native.target) == (50.0, 1.0, "")
    assert (ours.value, ours.ratio, ours.target) == (20.0, 0.4, "fast")


def test_seconds_stay_seconds():
    steps = [Step("untar", 100, lambda system, number: 3.0, "s")]
    [native] = side_by_side(Lineup([Native(Path("/nonexistent"))]), steps, rounds=1)
    assert (native.value, native.unit) == (3.0, "s")


def test_a_peer_that_fails_under_work_has_its_figures_so_far_and_a_row_that_says_why():
    def second(system, number):
        if system.key == "peer":
            raise OSError(5, "Input/output error")
        return 1.0

    lineup = Lineup([Native(Path("/nonexistent")), Pretended("peer"), Pretended("other")])
    steps = [Step("first", 1, lambda system, number: 1.0), Step("second", 1, second)]
    figures = {(figure.name, figure.system): figure for figure in side_by_side(lineup, steps, rounds=2)}
    assert figures["first", "peer"].value == 1.0
    assert figures["second", "peer"].value is None
    assert "Input/output error" in figures["second", "peer"].note
    assert figures["second", "other"].value == 1.0


def test_a_failure_of_the_native_file_system_ends_the_run():
    def fail(system, number):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        side_by_side(Lineup([Native(Path("/nonexistent"))]), [Step("a", 1, fail)], rounds=1)


def test_a_figure_that_was_not_measured_has_no_ratio():
    assert Figure("a", None, "", native=5.0).ratio is None


def test_what_is_not_installed_is_reported_and_not_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "program", _not_installed)

    class Place:
        native = tmp_path
        root = tmp_path

    with systems.lineup(Place, ["native", "gocryptfs", "rclone"]) as lineup:
        assert [system.key for system in lineup.systems] == ["native"]
        assert set(lineup.missing) == {peers.Gocryptfs.name, peers.Rclone.name}
    assert list(tmp_path.iterdir()) == []


def _not_installed(name):
    raise NotMeasured(f"{name} is not installed")


def test_a_household_ends_with_all_who_forked_away_from_it(tmp_path):
    household = Household(tmp_path)
    parent = "import os, time; pid = os.fork(); os.setsid() if not pid else None; time.sleep(600)"
    household.start(sys.executable, "-c", parent)
    household.wait_for(lambda: len(household.pids()) == 2, "two processes")
    household.stop()
    assert household.pids() == []


def test_a_command_that_fails_says_its_last_words(tmp_path):
    with pytest.raises(NotMeasured, match="exits with 3: no such volume"):
        Household(tmp_path).run(sys.executable, "-c", "print('no such volume'); raise SystemExit(3)")
