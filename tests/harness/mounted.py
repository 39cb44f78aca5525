"""A mounted file system in a process of its own, for live tests. Whatever happens, it ends unmounted."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WAIT_S = 120
"""Until it counts as hanging."""


class Mounted:
    def __init__(self, folder: Path, *flags: str, module: str = "tests.harness.mount_runner") -> None:
        self.state = folder / "state"
        self.path = folder / "mnt"
        self.log = folder / "mount.log"
        self.flags = flags
        self.module = module
        self.process: subprocess.Popen[bytes] | None = None
        for each in (self.state, self.path):
            each.mkdir(parents=True, exist_ok=True)

    def start(self, *flags: str) -> None:
        command = [sys.executable, "-m", self.module, str(self.state), str(self.path), *self.flags, *flags]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log)
        self._expect(b"ready")

    def evict(self) -> None:
        """What was written so far is gone from this machine."""
        assert self.process is not None
        self.process.send_signal(signal.SIGUSR1)
        self._expect(b"evicted")

    def _expect(self, word: bytes) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], WAIT_S)
        line = self.process.stdout.readline() if readable else b""
        assert line.strip() == word, self.log.read_text()

    def stop(self) -> int:
        """End it in an orderly way; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self._reap()

    def kill(self) -> None:
        """kill -9, as a crash of the process."""
        assert self.process is not None
        self.process.kill()
        self._reap()

    def unmount(self) -> int:
        """As a user does it; the exit code of the process that served it."""
        subprocess.run(["umount", str(self.path)], check=True, timeout=WAIT_S)
        return self._reap()

    def _reap(self) -> int:
        assert self.process is not None
        code = self.process.wait(WAIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    def close(self) -> None:
        """After a test, whatever its state."""
        if self.process is not None:
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                self.stop()
        if self.process is not None:
            self.kill()
        subprocess.run(["umount", "-l", str(self.path)], check=False, capture_output=True, timeout=WAIT_S)

    def is_mounted(self) -> bool:
        return any(str(self.path) == line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """A real program; its output. Fails the test with what it said."""
    done = subprocess.run(
        [str(part) for part in command], check=False, cwd=cwd, timeout=900, capture_output=True, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
