"""Another machine, on which a demo's file system is brought back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.harness.demo import QSSCTL, WAIT_S_MAX, Demo


class Elsewhere:
    """It has the key and knows some of the locations, and nothing else yet."""

    def __init__(self, demo: Demo, root: Path, nodes: Sequence[str] = ("trove-1", "trove-2", "trove-3")) -> None:
        root.mkdir()
        self.demo, self.root = demo, root
        self.config, self.key, self.mnt, self.state = root / "qss.toml", root / "key", root / "mnt", root / "state"
        shutil.copy(demo.state / "key", self.key)
        ports = json.loads((demo.root / "ports.json").read_text())
        secret = f"access_key=demo&secret_key_file={demo.root / 'credentials'}"
        self.places: list[str] = []
        for name in nodes:
            self.places += ["--location", f"http://127.0.0.1:{ports[name]}/qss?{secret}"]

    def qssctl(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """`code`: what it has to exit with; None: whatever it does."""
        command = [str(QSSCTL), "--config", str(self.config), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S_MAX, check=False)
        assert code is None or done.returncode == code, (done, self.demo.logs())
        return done

    def recover(self, *arguments: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        return self.qssctl("recover", "--key", str(self.key), *self.places, *arguments, code=code)

    def recovered(self, *arguments: str) -> dict[str, Any]:
        """The report of a recovery."""
        report: dict[str, Any] = json.loads(self.recover("--json", *arguments).stdout)
        return report

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        self.qssctl("mount", str(self.mnt))
        try:
            yield self.mnt
        finally:
            self.qssctl("umount", "--lazy", "--drain", "1s")
        assert not os.path.ismount(self.mnt)
