"""A real Trove for tests, in a process of its own on a port the system chose.

with TroveServer() as trove:
    client = boto3.client("s3", endpoint_url=trove.endpoint, aws_access_key_id=trove.access_key, …)
    trove.kill(); trove.restart()
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

from qss.errors import Retryable
from qss.host import SystemEntropy

START_S_MAX: Final = 120.0
STOP_S_MAX: Final = 60.0


class TroveServer:
    """`trove serve` as a process. `data=None` means a directory that goes away at the end."""

    def __init__(
        self,
        data: Path | None = None,
        *,
        access_key: str = "test-access-key",
        secret_key: str | None = None,
        sync: str = "group",
        extra: tuple[str, ...] = (),
        fronts: tuple[str, ...] = ("s3", "admin"),
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        """`fronts`: those to open, of s3, files, admin and console. `tls`: certificate and key, for all of them."""
        self._own: Path | None = Path(tempfile.mkdtemp(prefix="trove-")) if data is None else None
        self.data = data if data is not None else Path(str(self._own))
        self.access_key = access_key
        self.secret_key = secret_key or SystemEntropy().token(20).hex()
        self.admin_token = SystemEntropy().token(20).hex()
        self._sync = sync
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None
        self._addresses = dict.fromkeys(fronts, "127.0.0.1:0")
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self._extra += ("--tls-cert", str(tls[0]), "--tls-key", str(tls[1]))

    @property
    def endpoint(self) -> str:
        """http://host:port of the S3 API."""
        return self.url("s3")

    @property
    def admin(self) -> str:
        """http://host:port of the admin API."""
        return self.url("admin")

    def url(self, front: str) -> str:
        """http://host:port of one of the fronts, or https."""
        return f"{self._scheme}://{self._addresses[front]}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> None:
        """Returns when it listens. Keeps its ports over restarts. Raises Retryable when it does not come up."""
        assert self._process is None, "already running"
        self.data.mkdir(parents=True, exist_ok=True)
        addresses = [part for name, address in self._addresses.items() for part in (f"--{name}", address)]
        if "s3" not in self._addresses:
            addresses += ["--s3", "off"]
        arguments = ["serve", "--data", str(self.data), *addresses, "--sync", self._sync, "--json", *self._extra]
        environ = {
            "TROVE_ACCESS_KEY": self.access_key,
            "TROVE_SECRET_KEY": self.secret_key,
            "TROVE_ADMIN_TOKEN": self.admin_token,
        }
        self._process = self._launch(arguments, environ)
        ready = self._ready_line()
        self._addresses = {name: ready[name] for name in self._addresses}

    def _launch(self, arguments: list[str], environ: dict[str, str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "qss.cli.trove", *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | environ, start_new_session=True)

    def _ready_line(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], START_S_MAX)
        line = self._process.stdout.readline() if readable else b""
        if not line:
            self.stop()
            raise Retryable("trove did not start; its reason stands on standard error")
        value: dict[str, Any] = json.loads(line)
        return value

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait; killed when it takes too long."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Start again on the same directory and ports; stops it first if it runs."""
        self.stop()
        self.start()

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.stop()
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)


def running_trove(data: Path | None = None) -> Iterator[TroveServer]:
    """For a fixture: `trove = pytest.fixture(running_trove)`, or `yield from running_trove(tmp_path)`."""
    with TroveServer(data) as server:
        yield server
