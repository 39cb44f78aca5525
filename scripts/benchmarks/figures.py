"""What a benchmark returns, and how it is shown."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value. `native` is the same work on the plain disk in the same run, in the same unit.

    `value` is None where it could not be measured; `note` says why then.
    """

    name: str
    value: float | None
    unit: str
    native: float | None = None
    target: str = ""
    note: str = ""
    system: str = "QSS"
    cpu_us: float | None = None  # of all processes of the system, for each operation
    caller_us: float | None = None  # of the program that works on it, the kernel's part included

    @property
    def ratio(self) -> float | None:
        """Value over native: above 1 is more than native, whatever the unit means."""
        return self.value / self.native if self.native and self.value is not None else None


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    return {
        "cpu": next(models, platform.processor()),
        "cores": sum(1 for line in lines if line.startswith("processor")),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_1min": os.getloadavg()[0],
    }


def show(figures: list[Figure], json_file: Path | None, fsyncs: dict[str, str] | None = None) -> None:
    """A table on the terminal, and the same as JSON in a file. `fsyncs`: what an fsync is to each system."""
    from rich.console import Console
    from rich.table import Table

    table = Table("benchmark", "system", "value", "unit", "native", "ratio", "CPU µs/op", "caller", "target", "note")
    for column in (2, 4, 5, 6, 7):
        table.columns[column].justify = "right"
    many = Counter(figure.name for figure in figures)
    before = ""
    for figure in figures:
        if figure.name != before and (many[figure.name] > 1 or many[before] > 1):
            table.add_section()
        table.add_row("" if figure.name == before else figure.name, *_cells(figure))
        before = figure.name
    console = Console(width=None if sys.stdout.isatty() else 190)
    console.print(table)
    for system, sentence in (fsyncs or {}).items():
        console.print(f"fsync, {system}: {sentence}", highlight=False)
    if json_file is not None:
        rows = [asdict(figure) | {"ratio": figure.ratio} for figure in figures]
        report = {"machine": machine(), "fsync": fsyncs or {}, "figures": rows}
        json_file.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def _cells(figure: Figure) -> Iterable[str]:
    measured = figure.value is not None
    return (
        figure.system,
        _number(figure.value),
        figure.unit if measured else "",
        _number(figure.native),
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        _number(figure.cpu_us),
        _number(figure.caller_us),
        figure.target,
        figure.note if measured else f"not measured: {figure.note}",
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:.2f}"
