"""What a benchmark returns, and how it is shown."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value. `native` is the same work on the plain disk in the same run, in the same unit."""

    name: str
    value: float
    unit: str
    native: float | None = None
    target: str = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Value over native: above 1 is more than native, whatever the unit means."""
        return self.value / self.native if self.native else None


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    cores = sum(1 for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("processor"))
    return {
        "cpu": cpu,
        "cores": cores,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_1min": float(Path("/proc/loadavg").read_text().split()[0]),
    }


def show(figures: list[Figure], json_file: Path | None) -> None:
    """A table on the terminal, and the same as JSON in a file."""
    from rich.console import Console
    from rich.table import Table

    table = Table("benchmark", "value", "unit", "native", "ratio", "target", "note")
    for figure in figures:
        table.add_row(
            figure.name,
            f"{figure.value:,.2f}",
            figure.unit,
            "" if figure.native is None else f"{figure.native:,.2f}",
            "" if figure.ratio is None else f"{figure.ratio:.2f}",
            figure.target,
            figure.note,
        )
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    if json_file is not None:
        report = {"machine": machine(), "figures": [asdict(figure) | {"ratio": figure.ratio} for figure in figures]}
        json_file.write_text(json.dumps(report, indent=2) + "\n")
