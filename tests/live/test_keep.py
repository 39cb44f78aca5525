"""What stays on this machine, with real nodes: pins, limits by path, hooks as scripts, what status says is lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qss.app.exits import Exit
from qss.app.hooks import EVENTS
from qss.config.write import with_values
from tests.harness.demo import Demo, wait_until

pytestmark = pytest.mark.live

MIB = 1 << 20
TROVES = ("trove-1", "trove-2", "trove-3")


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path / "demo", k=2, m=1)
    try:
        demo.start()
        for event in EVENTS:
            hook = demo.state / "hooks" / event
            hook.parent.mkdir(exist_ok=True)
            hook.write_text(f"#!/bin/sh\ncat >> {demo.root}/events; echo {event} was heard of\n")
            hook.chmod(0o755)
        yield demo
    finally:
        for name in TROVES:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                os.kill(demo.pid(name), signal.SIGCONT)
        demo.stop()


def be_impatient(demo: Demo) -> None:
    """From the next start on."""
    options = {"fetch_deadline": "6s", "seal_after": "2s"}
    demo.config.write_text(with_values(demo.config.read_text(), "cache", options))
    timing = {"probe_interval": "500ms", "get_deadline": "2s", "breaker_open_first": "200ms"}
    demo.config.write_text(with_values(demo.config.read_text(), "offload", timing))


def events(demo: Demo) -> list[dict[str, Any]]:
    with contextlib.suppress(FileNotFoundError):
        return [json.loads(line) for line in (demo.root / "events").read_text().splitlines()]
    return []


def heard(demo: Demo, event: str, *, since_ns: int = 0) -> list[dict[str, Any]]:
    return [each for each in events(demo) if each["event"] == event and each["time_ns"] > since_ns]


def down(demo: Demo) -> set[str]:
    """Locations of which the last that was heard is that they are down."""
    both = heard(demo, "location-down") + heard(demo, "location-up")
    last = {each["location"]: each["event"] for each in sorted(both, key=lambda each: each["time_ns"])}
    return {location for location, event in last.items() if event == "location-down"}


def reads(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return bool(path.read_bytes())
    return False


def cached(path: Path) -> bool:
    state = json.loads(os.getxattr(path, "user.qss.state"))
    return bool(state["cached"] == state["stored"])


def test_pins_limits_hooks_and_what_is_lost(demo: Demo) -> None:
    names = ("pinned", "videos", "docs")
    for name in names:
        (demo.mnt / name).mkdir()
        (demo.mnt / name / "file").write_bytes(os.urandom(3 * MIB))
        demo.sync()  # each in a segment of its own

    # Pins: what is pinned stays, comes back, follows its file, survives a restart.
    demo.qssctl("retention", "pin", str(demo.mnt / "pinned"))
    demo.evict_all()
    assert [cached(demo.mnt / name / "file") for name in names] == [True, False, False]
    demo.qssctl("retention", "pin", str(demo.mnt / "docs" / "file"))
    wait_until("pinned content comes back", lambda: cached(demo.mnt / "docs" / "file"))
    os.rename(demo.mnt / "docs" / "file", demo.mnt / "docs" / "renamed")
    demo.sync()
    demo.stop()
    demo.start()
    demo.evict_all()
    assert cached(demo.mnt / "docs" / "renamed")
    pins = json.loads(demo.qssctl("retention", "pins", "--json").stdout)
    assert {pin["path"]: pin["local_bytes"] for pin in pins} == {"/pinned": 3 * MIB, "/docs/renamed": 3 * MIB}
    assert {pin["path"] for pin in demo.status()["pins"]} == {"/pinned", "/docs/renamed"}
    demo.qssctl("retention", "unpin", str(demo.mnt / "docs" / "renamed"))
    refused = demo.qssctl("retention", "unpin", str(demo.mnt / "docs" / "renamed"), check=False)
    assert refused.returncode == Exit.REFUSED

    # Limits of a path; what would go, and why.
    assert (demo.mnt / "videos" / "file").read_bytes()
    assert cached(demo.mnt / "videos" / "file")
    demo.qssctl("retention", "set", "--path", "/videos", "--max-size", "1G")  # nothing goes while we look
    dry = json.loads(demo.qssctl("retention", "run", "--dry-run", "--all", "--json").stdout)
    assert {victim["policy"] for victim in dry["victims"]} == {"/videos", None}
    shown = json.loads(demo.qssctl("retention", "show", "--json").stdout)
    assert {each["policy"]: bool(each["reason"]) for each in shown["next"]} == {"/videos": False, None: False}
    assert [each["pin"] for each in shown["kept"]] == ["/pinned"]
    assert "/videos" in demo.qssctl("retention", "show").stdout
    demo.qssctl("retention", "set", "--path", "/videos", "--max-size", "0")
    wait_until("it goes by itself", lambda: not cached(demo.mnt / "videos" / "file"))
    assert cached(demo.mnt / "docs" / "renamed")

    # Locations away: hooks hear of it, status names what cannot be read, and all heals when they are back.
    demo.stop()
    be_impatient(demo)
    demo.start()
    demo.evict_all()
    for name in TROVES[:2]:
        os.kill(demo.pid(name), signal.SIGSTOP)
    wait_until("they are missed", lambda: set(TROVES[:2]) <= down(demo))
    with pytest.raises(OSError, match="Input/output error"):
        (demo.mnt / "videos" / "file").read_bytes()
    wait_until("it has a name", lambda: heard(demo, "segment-missing"))
    (lost,) = heard(demo, "segment-missing")
    assert lost["paths"] == ["/videos/file"]
    (unreadable,) = demo.status()["damage"]["unreadable"]
    assert unreadable["paths"] == ["/videos/file"]
    assert "/videos/file" in demo.qssctl("status").stdout
    for name in TROVES[:2]:
        os.kill(demo.pid(name), signal.SIGCONT)
    wait_until("they are back", lambda: not down(demo))
    wait_until("it can be read again", lambda: not demo.status()["damage"]["unreadable"])

    # Reading has put nothing at risk, and a seal is heard of at once.
    wait_until("all is safe", lambda: demo.status()["at_risk_bytes"] == 0)
    wait_until("it is read", lambda: reads(demo.mnt / "videos" / "file"))
    assert demo.status()["at_risk_bytes"] == 0
    demo.kill("trove-3")
    killed_ns = time.time_ns()
    (demo.mnt / "more").write_bytes(os.urandom(MIB))
    wait_until("it is stored with a shard missing", lambda: heard(demo, "degraded", since_ns=killed_ns))
    assert demo.status()["offload"]["wakes"] > 0
    demo.stop()
    assert {each["event"] for each in events(demo)} == set(EVENTS)
    assert events(demo)[-1]["event"] == "close"
    assert "hook ready: ready was heard of" in (demo.root / "log" / "qss.log").read_text()
