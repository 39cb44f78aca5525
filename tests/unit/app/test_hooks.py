"""User hooks: real scripts get what docs/hooks.md says, in order, and never hold anything up."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest
import trio

from qss.app.hooks import EVENTS, PARALLEL_MAX, UserHooks, check_facts
from qss.app.running import wait_gone
from qss.config import HookOptions
from qss.errors import CorruptData
from qss.host import SystemClock

PAGE = Path(__file__).resolve().parents[3] / "docs" / "hooks.md"
SAMPLES: dict[type, Any] = {str: "text", int: 7, list: [1]}


def facts_of(event: str) -> dict[str, Any]:
    return {name: SAMPLES[kind] for name, kind in EVENTS[event].items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hooks").mkdir()
    return tmp_path / "hooks"


def hook(folder: Path, event: str, script: str) -> None:
    (folder / event).write_text(f"#!/bin/sh\n{script}\n")
    (folder / event).chmod(0o755)


def hooks_in(folder: Path, **options: Any) -> UserHooks:
    return UserHooks(HookOptions(folder, **options), SystemClock())


async def run_all(hooks: UserHooks) -> None:
    hooks.finish()
    with trio.fail_after(30):
        await hooks.run()
    assert hooks.finished.is_set()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_every_event_reaches_its_script_with_its_facts(folder: Path) -> None:
    for event in EVENTS:
        hook(folder, event, f"cat >> {folder.parent}/{event}.out")
    hooks = hooks_in(folder)
    for event in EVENTS:
        hooks.post(event, facts_of(event))
    await run_all(hooks)
    assert (hooks.failed, hooks.dropped) == (0, 0)
    for event in EVENTS:
        (got,) = lines(folder.parent / f"{event}.out")
        assert got.pop("time_ns") > 1_700_000_000 * 10**9
        assert got == {"event": event, **facts_of(event)}


def test_the_page_names_every_event_and_every_fact() -> None:
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE))
    assert rows.keys() == EVENTS.keys()
    for event, schema in EVENTS.items():
        assert set(re.findall(r"`([a-z_]+)`", rows[event].rpartition("|")[2])) == schema.keys(), event


@pytest.mark.parametrize("facts", [{}, {"location": 1}, {"location": "a", "more": 1}])
def test_facts_must_be_those_of_the_event(facts: dict[str, Any]) -> None:
    with pytest.raises(CorruptData):
        check_facts("location-up", facts)
    with pytest.raises(CorruptData):
        check_facts("no-such-event", facts)


async def test_one_event_s_hooks_run_in_order_and_close_comes_last(folder: Path) -> None:
    out = folder.parent / "out"
    hook(folder, "location-up", f"sleep 0.2; cat >> {out}")
    hook(folder, "location-down", f"cat >> {out}")
    hook(folder, "close", f"cat >> {out}; exit 3")
    hooks = hooks_in(folder)
    for number in range(3):
        hooks.post("location-up", {"location": str(number)})
        hooks.post("location-down", {"location": str(number)})
    hooks.post("ready", {"mountpoint": "/mnt"})  # no such hook: nothing happens
    hooks.post("close", {"at_risk_bytes": 0})
    await run_all(hooks)
    seen = lines(out)
    for event in ("location-up", "location-down"):
        assert [each["location"] for each in seen if each["event"] == event] == ["0", "1", "2"]
    assert seen[-1]["event"] == "close"
    assert len(seen) == 7
    assert hooks.failed == 1, "close ended with 3"


async def test_not_more_than_some_run_at_once(folder: Path) -> None:
    out = folder.parent / "out"
    events = [event for event in EVENTS if event != "close"]
    for event in events:
        hook(folder, event, f"echo + >> {out}; sleep 0.1; echo - >> {out}")
    hooks = hooks_in(folder)
    for event in events:
        hooks.post(event, facts_of(event))
    await run_all(hooks)
    running = most = 0
    for line in out.read_text().split():
        running += 1 if line == "+" else -1
        most = max(most, running)
    assert 1 < most <= PARALLEL_MAX


async def test_a_hook_that_hangs_is_stopped_with_all_it_started(folder: Path) -> None:
    out = folder.parent / "out"
    hook(folder, "ready", f"sleep 1000 & echo $! > {out}; wait")
    hooks = hooks_in(folder, time_limit_s=1.0)
    hooks.post("ready", {"mountpoint": "/mnt"})
    await run_all(hooks)
    assert hooks.failed == 1
    assert wait_gone(int(out.read_text()), 20), "killed with the hook"


async def test_what_a_hook_leaves_running_does_not_hold_it_up(folder: Path) -> None:
    out = folder.parent / "out"
    hook(folder, "ready", f"sleep 1000 & echo $! > {out}")
    hooks = hooks_in(folder)
    hooks.post("ready", {"mountpoint": "/mnt"})
    await run_all(hooks)
    assert hooks.failed == 0
    os.kill(int(out.read_text()), 9)


async def test_what_a_hook_says_is_in_the_log_up_to_a_bound(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    hook(folder, "ready", "echo to the log; echo and errors >&2; head -c 10000000 /dev/zero | tr '\\0' x")
    hook(folder, "close", "exec cat no-such-file")
    hooks = hooks_in(folder)
    with caplog.at_level(logging.INFO):
        hooks.post("ready", {"mountpoint": "/mnt"})
        hooks.post("close", {"at_risk_bytes": 0})
        await run_all(hooks)
    said = [record.getMessage() for record in caplog.records]
    assert "hook ready: to the log" in said
    assert "hook ready: and errors" in said
    assert sum(map(len, said)) < 20_000
    assert any(line.startswith("hook close: cat:") for line in said)
    assert any(line.endswith("ended with status 1") for line in said)


async def test_a_hook_that_reads_nothing_or_cannot_be_run(folder: Path) -> None:
    hook(folder, "ready", "exec true")
    (folder / "close").write_text("#!/no/such/interpreter\n")
    (folder / "close").chmod(0o755)
    hooks = hooks_in(folder)
    hooks.post("ready", {"mountpoint": "/" + "m" * 1_000_000})
    hooks.post("close", {"at_risk_bytes": 0})
    await run_all(hooks)
    assert hooks.failed == 1


async def test_posting_never_waits_and_the_oldest_is_dropped(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = folder.parent / "out"
    hook(folder, "location-up", f"cat >> {out}")
    hooks = hooks_in(folder, queue_max=2)
    for number in range(5):
        hooks.post("location-up", {"location": str(number)})
    assert hooks.dropped == 3
    assert "oldest is dropped, location-up" in caplog.text
    await run_all(hooks)
    assert [each["location"] for each in lines(out)] == ["3", "4"]
