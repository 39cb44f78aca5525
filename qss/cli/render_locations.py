"""Locations for people. Where nobody has a terminal nothing is cut or folded: a line is a location."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn
from rich.text import Text

from qss.cli.render import Document, table_of
from qss.config.units import human_size

WIDTH_MAX = 10_000
"""Columns of a line that goes into a file or a pipe."""
STEPS = {"test": "testing", "settle": "telling the others", "drain": "draining", "repair": "rebuilding"}


def locations(rows: list[Document]) -> None:
    """A table, on standard output."""
    table = table_of("location", "url", "state", "shards", "bytes", "free", "latency", "errors", "labels", "last error")
    for row in rows:
        labels = ", ".join(f"{key}={value}" for key, value in row["labels"].items())
        state = row["state"]
        if state == "draining" and row["shards_left"]:
            state = f"draining, {row['shards_left']} shards left"
        if row["metered"]:
            state += ", metered"
        cells = [
            row["name"], row["url"], state, _or_dash(row["shards"], str), _or_dash(row["bytes"], human_size),
            _or_dash(row["free_bytes"], human_size),
            _or_dash(row["latency_s"], lambda seconds: f"{seconds * 1000:.0f} ms"),
            _or_dash(row["error_rate"], lambda rate: f"{rate:.0%}"), labels, row["last_error"],
        ]  # fmt: skip
        table.add_row(*map(Text, cells))
    for column in table.columns:
        column.overflow = "fold"
    width = None if sys.stdout.isatty() else WIDTH_MAX
    Console(highlight=False, soft_wrap=True, width=width).print(table)


def _or_dash(value: Any, show: Callable[[Any], str]) -> str:
    return "-" if value is None else show(value)


@contextlib.contextmanager
def move_bar() -> Iterator[Callable[[Document], None]]:
    """A bar on standard error, fed with {"step"} and {"bytes_left", "shards_left", "stuck"}."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        total = 0

        def update(document: Document) -> None:
            nonlocal total
            if "step" in document:
                total = 0
                step = document["step"]
                progress.update(task, description=STEPS.get(step, step), total=None, completed=0)
            if "bytes_left" in document:
                left = document["bytes_left"]
                total = max(total, left)
                progress.update(task, total=total or None, completed=total - left)

        yield update
