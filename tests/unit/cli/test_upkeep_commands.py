"""durability without a mount; what the documents of scrub, repair and warm look like to people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qss.app.durability import document, key_copies
from qss.cli import render_upkeep
from qss.cli.main import run
from qss.config import load
from qss.offload.status import silent_majority

LOCATIONS = "".join(f'[[location]]\nurl = "http://127.0.0.1:1/bucket-{n}"\n' for n in range(6))
STANDING = {
    "segments": 12, "stored_bytes": 10, "by_spare": {"-1": 1, "2": 11}, "weakest": 31, "weakest_code": [4, 2],
    "missing": 3, "silent": 1, "weakest_spare": -1, "given_up": ["trove-1"],
}  # fmt: skip
REPAIR = {"queued": 3, "in_flight": 1, "least_spare": 0, "given_up": ["trove-1"], "repaired_segments": 7,
          "repaired_bytes": 1 << 20}  # fmt: skip


@pytest.fixture
def config(tmp_path: Path, monkeypatch) -> Path:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    path = tmp_path / "qss.toml"
    path.write_text(f"[code]\nk = 4\nm = 2\n{LOCATIONS}")
    return path


def test_durability_is_known_without_a_mount(config: Path, capsys) -> None:
    assert run(["--config", str(config), "durability", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["overhead"], found["may_be_lost"], found["locations"], found["standing"]) == (1.5, 2, 6, None)
    assert (found["reads_need"], found["uploads_need"], found["safe_needs"]) == (4, 4, 6)
    assert found["nines"] <= found["nines_common_mode"], "no code helps against what all locations have in common"
    assert found["default"] == {"k": 4, "m": 2}
    assert found["keys"]["here"] == 0
    assert run(["--config", str(config), "durability"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "1.50 bytes stored for each byte" in text
    assert "any 2 of the 6 locations" in text
    assert "of 6 locations 4 to read, 4 to upload (a majority says who writes), 6 until" in text
    assert "not mounted" in text


def test_a_margin_never_takes_uploads_below_a_majority(config: Path) -> None:
    """2+4 can be read from two locations; what four do not take has no root, and nobody knows who writes."""
    config.write_text(f"[code]\nk = 2\nm = 4\n[offload]\nmargin = 0\n{LOCATIONS}")
    found = document(load(config, {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}), None)
    assert (found["reads_need"], found["uploads_need"], found["safe_needs"]) == (2, 4, 4)


@pytest.mark.parametrize(("up", "said"), [(6, ""), (4, ""), (3, "3 of 6 locations are up"), (0, "until 4 are")])
def test_a_silent_majority_is_said_in_one_sentence(up: int, said: str) -> None:
    text = silent_majority([number < up for number in range(6)])
    assert said in text
    assert bool(text) == bool(said)


def test_a_key_file_is_counted_and_a_broken_one_is_not(config: Path) -> None:
    settings = load(config, {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"})
    settings.key_file.parent.mkdir(parents=True)
    settings.key_file.write_bytes(b"nonsense")
    assert key_copies(settings)["here"] == 0


def test_the_weakest_segment_is_named(config: Path, capsys) -> None:
    settings = load(config, {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"})
    render_upkeep.durability(document(settings, STANDING))
    text = " ".join(capsys.readouterr().out.split())
    assert "1f: only 3 of 4 shards" in text
    assert "of all shards 3 are missing, 1 do not answer" in text, "counted over all segments, not of the weakest"


def test_scrub_and_repair_are_shown(capsys) -> None:
    facts = {
        "state": "running", "rounds": 2, "started_ns": 1, "ended_ns": 1, "segments": 10, "segments_done": 4,
        "shards": 24, "bytes": 1 << 20, "bad": 1, "silent": 2, "repair": REPAIR,
        "locations": {"trove-1": {"sound": 20, "bad": 1, "silent": 2}},
    }  # fmt: skip
    render_upkeep.scrub(facts)
    render_upkeep.repair(REPAIR)
    text = " ".join(capsys.readouterr().out.split())
    assert "4 of 10 segments" in text
    assert "1 shards missing or damaged" in text
    assert "closest to loss may lose 0 shards more" in text
    assert "given up" in text


def test_warming_says_what_it_could_not() -> None:
    done = {"files": 2, "total_bytes": 100, "local_bytes": 50, "left_bytes": 30, "failed_bytes": 20}
    line = render_upkeep.warmed(done)
    assert "2 files" in line
    assert "limits leave no room" in line
    assert "cannot be had" in line


def test_another_code_is_set_only_if_it_can_be(config: Path, capsys) -> None:
    before = config.read_text()
    assert run(["--config", str(config), "rewrite", "--k", "5", "--m", "2"]) == 3
    assert "7 locations" in capsys.readouterr().err
    assert run(["--config", str(config), "rewrite", "--m", "1", "--dry-run"]) == 0
    assert config.read_text() == before
    assert run(["--config", str(config), "rewrite", "--k", "5", "--m", "1"]) == 0
    assert "next mount" in capsys.readouterr().out
    settings = load(config, {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"})
    assert (settings.offload.k, settings.offload.m) == (5, 1)
    assert run(["--config", str(config), "rewrite"]) == 4  # not mounted
