"""The demo file system as a person starts it: `scripts/run --detach`, real nodes, a real mount."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qss.app.mountpoint import unmount
from qss.app.running import is_alive, pid_in
from qss.config.write import with_values

REPOSITORY = Path(__file__).resolve().parents[2]
QSSCTL = Path(sys.executable).parent / "qssctl"
WAIT_S_MAX = 180.0
"""Until it counts as hanging."""


def wait_until(what: str, true: Callable[[], object], wait_s: float = WAIT_S_MAX) -> None:
    """Poll until `true()` holds; fails the test when it does not within the bound."""
    deadline = time.monotonic() + wait_s
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {wait_s:g} s in vain: {what}")
        time.sleep(0.05)


def bytes_of(paths: Iterable[Path]) -> int:
    """Sizes of files, some of which may be removed while we look."""
    total = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


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

    def start_again_with(self, table: str, **values: str) -> None:
        """With other settings of a table of the configuration."""
        self.stop()
        self.config.write_text(with_values(self.config.read_text(), table, values))
        self.start()

    def _script(self, *arguments: object) -> None:
        command = [str(REPOSITORY / "scripts" / "run"), "--dir", str(self.root), *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=WAIT_S_MAX, check=False
        )
        assert done.returncode == 0, f"{command} → {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.logs()}"

    def logs(self) -> str:
        """The last lines of every log of the demo, for a failed assertion."""
        paths = sorted((self.root / "log").glob("*.log"))
        return "\n".join(
            f"--- {path}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-30:]) for path in paths
        )

    def qssctl(
        self, *arguments: str, check: bool = True, timeout_s: float = WAIT_S_MAX
    ) -> subprocess.CompletedProcess[str]:
        command = [str(QSSCTL), "--config", str(self.config), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=WAIT_S_MAX, check=False
        )
        if check:
            assert done.returncode == 0, f"{command} → {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done

    def s3(self, name: str) -> Any:
        """A client of a node."""
        from tests.harness.boto import boto_client  # here: few tests look into a node

        port = json.loads((self.root / "ports.json").read_text())[name]
        secret = (self.root / "credentials").read_text().split()[0]
        return boto_client(f"http://127.0.0.1:{port}", "demo", secret)

    def status(self) -> dict[str, Any]:
        """Asked again while the offload process, which has two seconds for it, does not get to answer; not while it
        is down."""
        deadline = time.monotonic() + WAIT_S_MAX
        while True:
            status: dict[str, Any] = json.loads(self.qssctl("status", "--json").stdout)
            answered = "root_generation" in status["offload"] or any("ended" in line for line in status["errors"])
            if answered or time.monotonic() > deadline:
                return status

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
        wait_until(f"{name} ({pid}) is gone", lambda: not is_alive(pid))

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Its files stay as they are: the processes that write them, if any run, do nothing meanwhile."""
        noted = [pid_in(self.root / "run" / f"{name}.pid") for name in ("mount", "offload")]
        pids = [pid for pid in noted if pid is not None and is_alive(pid)]
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def local_segment_bytes(self) -> int:
        """Bytes of file content kept on this machine: data segments and fetched stripes."""
        cache = self.state / "cache"
        return bytes_of([*(cache / "data").glob("*"), *(cache / "stripes").glob("*")])

    def lose_machine(self) -> None:
        """It burns: both processes are gone, and so are the mount and the state directory."""
        offload = self.pid("offload")
        self.kill("mount")
        wait_until("offload leaves with the mount process", lambda: not is_alive(offload))
        unmount(self.mnt, lazy=True)
        shutil.rmtree(self.state)


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
