"""The demo file system as a person starts it: `scripts/run --detach`, real nodes, a real mount."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
QSSCTL = Path(sys.executable).parent / "qssctl"
WAIT_S_MAX = 120.0


def wait_until(what: str, true: Callable[[], object], wait_s: float = WAIT_S_MAX) -> None:
    """Poll until `true()` holds; fails the test when it does not within the bound."""
    deadline = time.monotonic() + wait_s
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {wait_s:g} s in vain: {what}")
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Is this process there, and not merely waiting to be reaped?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def forget_pages(mnt: Path) -> None:
    """Make the kernel forget the content of a mount's files, which it may serve from its memory or not, as it likes."""
    for folder, _, names in os.walk(mnt):
        for path in (Path(folder, name) for name in names):
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Demo:
    """One demo directory; every method is what a person would type."""

    def __init__(self, root: Path, *, k: int = 4, m: int = 2, nodes: int | None = None) -> None:
        self.root = root
        self.k, self.m, self.nodes = k, m, nodes or k + m
        self.mnt = root / "mnt"
        self.state = root / "state"
        self.config = root / "qss.toml"

    def start(self) -> None:
        """Start whatever of the demo is not running; returns when it is mounted."""
        self._script("--detach", "--k", self.k, "--m", self.m, "--nodes", self.nodes)

    def stop(self) -> None:
        self._script("--stop")

    def _script(self, *arguments: object) -> None:
        command = [str(REPOSITORY / "scripts" / "run"), "--dir", str(self.root), *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=180, check=False
        )
        assert done.returncode == 0, f"{command} → {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.logs()}"

    def logs(self) -> str:
        """The last lines of every log of the demo, for a failed assertion."""
        parts = []
        for path in sorted(self.root.rglob("*.log")):
            if self.state / "cache" in path.parents or path.stat().st_size > 64 << 20:
                continue
            parts.append(f"--- {path}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-30:]))
        return "\n".join(parts)

    def qssctl(self, *arguments: str, check: bool = True, timeout_s: float = 180) -> subprocess.CompletedProcess[str]:
        command = [str(QSSCTL), "--config", str(self.config), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout_s, check=False
        )
        if check:
            assert done.returncode == 0, f"{command} → {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done

    def status(self) -> dict[str, Any]:
        return json.loads(self.qssctl("status", "--json").stdout)

    def sync(self) -> None:
        self.qssctl("sync")

    def evict_all(self) -> None:
        """All that is stored; the next read of it goes to the locations."""
        self.qssctl("retention", "run", "--all")
        forget_pages(self.mnt)

    def pid(self, name: str) -> int:
        """Of `mount`, `offload` or `trove-N`."""
        return int((self.root / "run" / f"{name}.pid").read_text())

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        wait_until(f"{name} ({pid}) is gone", lambda: not alive(pid))

    def local_segment_bytes(self) -> int:
        """Bytes of file content kept on this machine: data segments and fetched stripes."""
        cache = self.state / "cache"
        files = [*(cache / "data").glob("*"), *(cache / "stripes").glob("*")]
        return sum(path.stat().st_size for path in files)


@contextmanager
def running_demo(root: Path, **options: int) -> Iterator[Demo]:
    """A started demo that is stopped again whatever happens, and leaves no mount behind."""
    demo = Demo(root, **options)
    try:
        demo.start()
        yield demo
    finally:
        try:
            demo.stop()
        finally:
            if os.path.ismount(demo.mnt):
                subprocess.run(["fusermount3", "-u", "-z", str(demo.mnt)], check=False)
