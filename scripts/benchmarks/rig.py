"""The demo file system a benchmark runs on, and a native directory beside it on the same disk."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parents[2]
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Demo:
    """One demo of `scripts/run --detach`; as a context it is started, and stopped whatever happens."""

    def __init__(self, root: Path, k: int, m: int, nodes: int | None = None) -> None:
        self.root = root
        self._nodes = nodes or k + m
        self.mnt = root / "mnt"
        self._code = (k, m)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            log = self.root / "log" / "qss.log"
            if log.exists():
                print(*log.read_text(errors="replace").splitlines()[-5:], sep="\n", file=sys.stderr)
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start what is not running."""
        k, m = self._code
        _script("run", "--dir", self.root, "--k", k, "--m", m, "--nodes", self._nodes, "--detach")

    def stop(self) -> None:
        """Stop what is running."""
        _script("run", "--stop", "--dir", self.root)

    def reconfigure(self, section: str, line: str) -> None:
        """Put a line into a section of the configuration, and mount with it."""
        self.stop()
        config = self.root / "qss.toml"
        text = config.read_text()
        header = f"[{section}]\n"
        config.write_text(text.replace(header, f"{header}{line}\n") if header in text else f"{text}\n{header}{line}\n")
        self.start()

    def qssctl(self, *args: str) -> str:
        """Run qssctl on the demo's configuration; its standard output."""
        command = [Path(sys.executable).parent / "qssctl", "--config", self.root / "qss.toml", *args]
        return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout

    def pid(self, name: str) -> int:
        """Process id of `mount`, `offload` or `trove-N`."""
        return int((self.root / "run" / f"{name}.pid").read_text())

    def pids(self, *prefixes: str) -> list[int]:
        """Process ids of the demo's parts whose name starts with one of the prefixes; all without."""
        return [
            int(path.read_text())
            for path in sorted((self.root / "run").glob("*.pid"))
            if not prefixes or path.name.startswith(prefixes)
        ]


class Rig:
    """A demo in a scratch directory; `mnt` is its mount, `native` a plain directory beside it."""

    def __init__(self, parent: Path | None = None, k: int = 4, m: int = 2) -> None:
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        self.root = Path(tempfile.mkdtemp(prefix="qss-bench-", dir=parent)).resolve()
        self.demo = Demo(self.root / "demo", k, m)
        self.mnt = self.demo.mnt
        self.native = self.root / "native"

    def __enter__(self) -> Self:
        self.native.mkdir()
        try:
            self.demo.__enter__()
        except BaseException:
            shutil.rmtree(self.root, ignore_errors=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.demo.stop()
        finally:
            shutil.rmtree(self.root, ignore_errors=True)

    def qssctl(self, *args: str) -> str:
        """Run qssctl on the demo's configuration; its standard output."""
        return self.demo.qssctl(*args)

    def status(self) -> dict[str, Any]:
        """`qssctl status --json`."""
        document: dict[str, Any] = json.loads(self.qssctl("status", "--json"))
        return document

    def pid(self, name: str) -> int:
        """Process id of `mount`, `offload` or `trove-N`."""
        return self.demo.pid(name)

    def pids(self, *prefixes: str) -> list[int]:
        """Process ids of the demo's parts whose name starts with one of the prefixes; all without."""
        return self.demo.pids(*prefixes)


def _script(name: str, *args: object) -> None:
    subprocess.run(
        [REPOSITORY / "scripts" / name, *map(str, args)],
        check=True,
        stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )


def drop_caches(what: int = 3) -> bool:
    """Write back and forget the page cache (1), names and inodes (2) or both (3); False where it is not permitted."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text(str(what))
    except OSError:
        return False
    return True


def cpu_s(pids: list[int]) -> float:
    """User and system CPU seconds used so far by these processes; one that has ended counts nothing."""
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS_PER_S


def resident_mib(pids: list[int], kind: str = "VmRSS") -> float:
    """Resident memory of these processes together, MiB. `kind` as in /proc/PID/status: RssAnon has no mapped files."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{kind}:"):
                total += int(line.split()[1])
    return total / 1024


def timed(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def best(rounds: int, *works: Callable[[], float]) -> list[float]:
    """The least result of each work over some rounds, taken in turns so that noise hits all alike."""
    results = [[work() for work in works] for _ in range(rounds)]
    return [min(column) for column in zip(*results, strict=True)]
