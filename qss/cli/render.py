"""Documents of the running processes, for people. rich is imported only here and in render_retention."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from qss.config.units import human_duration, human_size

REFRESH_S = 1.0

UNREADABLE_MAX = 20
"""Lines; `status --json` has all of them."""
PRESSURE = {
    "slow": "nearly full: writers are slowed",
    "waiting": "at its limit: writers wait for room",
    "full": "full: writers get ENOSPC",
}

Document = dict[str, Any]


def console() -> Console:
    """Standard output."""
    return Console(highlight=False, soft_wrap=True)


def pairs(rows: list[tuple[str, str]]) -> Table:
    """Names and values."""
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(name, value)
    return table


def table_of(*columns: str) -> Table:
    """An empty table with these columns."""
    return Table(*columns, box=None, pad_edge=False, header_style="bold")


def _latency(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"


def _durability(document: Document) -> str:
    """In short; `qssctl durability` says more."""
    text, repair = f"{document['nines']:.1f} nines", document["repair"]
    if repair is None or not repair["queued"]:
        return text
    spare = repair["least_spare"]
    close = f"may lose {spare} shards more" if spare >= 0 else "cannot be read now"
    text += f"; [yellow]{repair['queued']} segments to be repaired[/], the one closest to loss {close}"
    return text + (f"; given up: {', '.join(repair['given_up'])}" if repair["given_up"] else "")


def _status(document: Document) -> Group:
    cache, offload, damage = document["cache"], document["offload"], document["damage"]
    at_risk = document["at_risk_bytes"]
    risk = "nothing; everything is safe at the locations"
    if at_risk:
        age = document["oldest_unsafe_age_s"]
        risk = f"[yellow]{human_size(at_risk)}[/]" + (f", the oldest for {human_duration(age)}" if age else "")
    pressure = document["pressure"]
    process = f"pid {offload['pid']}" if offload["running"] else "[red]not running[/]"
    rows = [
        ("mounted on", str(document["mountpoint"])),
        ("at risk", risk),
        ("local copies", f"{human_size(cache['local_bytes'])} of at most {human_size(cache['size_bytes_max'])}"),
        ("fetched", f"{human_size(cache['fetched_bytes'])} in {cache['fetches']} stripes"),
        ("code", f"any {document['k']} of {document['k'] + document['m']} shards give everything back"),
        ("offload", f"{process}, {document['queue']['segments']} segments wait"),
        ("durability", _durability(document)),
    ]
    if document.get("fenced"):
        rows.insert(1, ("READ-ONLY", f"[red]{escape(document['fenced'])}[/]"))
    if cache["snapshots"]:
        held = human_size(cache["snapshot_bytes"])
        rows.append(("snapshots", f"{cache['snapshots']}, which keep {held} that would be free without them"))
    if pressure["state"] != "ok":
        waiting = f", {pressure['waiting_writers']} writers wait" if pressure["waiting_writers"] else ""
        text = f"[yellow]{PRESSURE[pressure['state']]}[/]{waiting}; {human_size(pressure['free_bytes'])} are free"
        rows.append(("cache disk", text))
    if document["pins"]:
        content, here = (sum(pin[name] for pin in document["pins"]) for name in ("bytes", "local_bytes"))
        count = len(document["pins"])
        rows.append(("pinned", f"{human_size(content)} in {count} paths, {human_size(here)} of it here"))
    if damage["found"]:
        good = damage["healed"] + damage.get("repaired", 0)
        rows.append(("damage", f"[red]{damage['found']} damaged blocks or objects found[/], {good} made good"))
    rows += [("error", f"[red]{line}[/]") for line in document["errors"]]
    for each in damage["unreadable"][:UNREADABLE_MAX]:
        paths = ", ".join(each["paths"][:3]) + (", …" if len(each["paths"]) > 3 else "")
        where = f"segment {each['segment']:x}, stripe {each['stripe']}"
        rows.append(("unreadable", f"[red]{where}[/]: {escape(paths or 'its files are looked for')}: {each['reason']}"))
    table = table_of("location", "state", "latency", "last error")
    for each in document["locations"]:
        state = "[green]up[/]" if each["up"] else "[red]down[/]"
        table.add_row(each["name"], state, _latency(each["latency_s"]), each["last_error"])
    return Group(pairs(rows), "", table)


def status(document: Document) -> None:
    console().print(_status(document))


def watch(fetch: Callable[[], Document]) -> None:
    """Until interrupted."""
    with Live(_status(fetch()), console=console(), screen=False, auto_refresh=False) as live:
        while True:
            time.sleep(REFRESH_S)
            live.update(_status(fetch()), refresh=True)


@contextlib.contextmanager
def sync_bar() -> Iterator[Callable[[Document], None]]:
    """A progress bar on standard error, fed with {"at_risk_bytes"}."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("offloading", total=None)
        total = 0

        def update(document: Document) -> None:
            nonlocal total
            left = document["at_risk_bytes"]
            total = max(total, left)
            progress.update(task, total=total or None, completed=total - left)

        yield update


def snapshots(document: Document) -> None:
    table = table_of("name", "created (UTC)", "kept by it alone", "protected", "mounted on", "comment")
    for each in document["snapshots"]:
        protected = "yes" if each["protected"] else "[yellow]not yet[/]"
        alone = human_size(each["alone_bytes"])
        table.add_row(
            each["name"], utc(each["created_ns"]), alone, protected, Text(each["mounted_on"]), Text(each["comment"])
        )
    console().print(table)


def utc(at_ns: int) -> str:
    """A moment, for people: 2026-11-21 09:00:00."""
    return datetime.fromtimestamp(at_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")


def probes(rows: list[Document]) -> None:
    table = table_of("location", "state", "took", "error")
    for row in rows:
        table.add_row(row["name"], "works" if row["ok"] else "FAILS", _latency(row["latency_s"]), row["error"])
    console().print(table)


@contextlib.contextmanager
def stage_bar() -> Iterator[Callable[[Document], None]]:
    """A line on standard error that says what is looked at, fed with {"stage", "looked_at"}."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("checking", total=None)
        yield lambda document: progress.update(task, description=f"{document['stage']}: {document['looked_at']}")


def findings(document: Document) -> None:
    if document["findings"]:
        table = table_of("kind", "severity", "what is wrong", "repairable")
        for each in document["findings"]:
            colour = "red" if each["severity"] == "loss" else "yellow"
            kind, severity = each["kind"], f"[{colour}]{each['severity']}[/]"
            table.add_row(kind, severity, Text(each["sentence"]), "yes" if each["repairable"] else "no")
        console().print(table)
    more = sum(document["counts"].values()) - len(document["findings"])
    if more:
        console().print(f"… and {more} more of these kinds.")
