"""S3 servers beside Trove: each started on loopback with its own defaults, telemetry off, and stopped again.

What a PUT that was answered has survived is said by each: it is the first thing to know about its speed.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from benchmarks.load import Target
from benchmarks.peers import program
from benchmarks.processes import Household, free_ports
from qss.s3.sigv4 import Credentials
from qss.trove.testing import TroveServer

_CREDENTIALS = Credentials("bench-access-key", "bench-secret-key-0123456789")


class Store:
    """One S3 server. `prepare` gives the target; `stop` is right at any moment."""

    name = ""
    sync = ""  # what a PUT that was answered has survived
    checks = "signature checked"

    def __init__(self, scratch: Path) -> None:
        scratch.mkdir()
        self.scratch = scratch
        self.household = Household(scratch)

    def prepare(self) -> Target:
        """Raises NotMeasured, after which `stop` still has to be called."""
        raise NotImplementedError

    def pids(self) -> list[int]:
        return self.household.pids()

    def stop(self) -> None:
        self.household.stop()

    def _listening(self, port: int, wait_s_max: float = 40.0) -> Target:
        self.household.wait_for(lambda: _answers(port), f"{self.name} at its port", wait_s_max)
        return Target("127.0.0.1", port, _CREDENTIALS)

    def _folder(self, name: str) -> Path:
        path = self.scratch / name
        path.mkdir()
        return path


class Trove(Store):
    """Ours; its files and admin doors stay closed but for the one that scrubs."""

    mode = "group"
    name = "Trove, sync=group"
    sync = "a power cut: one fdatasync for all that wait"
    checks = "signature checked, each byte read compared with its BLAKE3"

    def prepare(self) -> Target:
        self.server = TroveServer(self.scratch / "data", sync=self.mode)
        self.server.start()
        host, _, port = self.server.endpoint.partition("//")[2].rpartition(":")
        return Target(host, int(port), Credentials(self.server.access_key, self.server.secret_key))

    def pids(self) -> list[int]:
        return [self.server.pid]

    def stop(self) -> None:
        with suppress(AttributeError):
            self.server.close()


class TroveUnsynced(Trove):
    """As the others here, which sync nothing."""

    mode = "os"
    name = "Trove, sync=os"
    sync = "the death of the process; no sync"


class SeaweedFs(Store):
    name = "SeaweedFS"
    sync = "the death of the process; no sync"

    def prepare(self) -> Target:
        here = "127.0.0.1"
        master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = free_ports(8)
        config = self.scratch / "s3.json"
        keys = {"accessKey": _CREDENTIALS.access_key, "secretKey": _CREDENTIALS.secret_key}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identities = [{"name": "bench", "credentials": [keys], "actions": actions}]
        config.write_text(json.dumps({"identities": identities}))
        self.household.start(
            program("weed"), "server", f"-dir={self._folder('data')}", f"-ip={here}", f"-ip.bind={here}",
            f"-master.port={master}", f"-master.port.grpc={master_grpc}", "-master.peers=none",
            "-master.telemetry=false", "-master.volumeSizeLimitMB=1024", "-volume.max=60", "-volume.preStopSeconds=0",
            f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}",
            "-filer", f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}",
            f"-filer.localSocket={self.scratch / 'filer'}",
            "-s3", f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}", f"-s3.config={config}",
            also={"HOME": str(self._folder("home"))},
        )  # fmt: skip
        return self._listening(s3)


class RcloneS3(Store):
    name = "rclone serve s3"
    sync = "the death of the process; no sync"

    def prepare(self) -> Target:
        (port,) = free_ports(1)
        key = f'"{_CREDENTIALS.access_key},{_CREDENTIALS.secret_key}"'  # quoted: it reads its environment as CSV
        config = {"HOME": str(self._folder("home")), "RCLONE_CONFIG": str(self.scratch / "rclone.conf")}
        words = ("serve", "s3", "--addr", f"127.0.0.1:{port}", self._folder("data"))
        self.household.start(program("rclone"), *words, also=config | {"RCLONE_AUTH_KEY": key})
        return self._listening(port)


class Moto(Store):
    name = "moto"
    sync = "nothing: it keeps objects in memory"
    checks = "signature not checked"

    def prepare(self) -> Target:
        (port,) = free_ports(1)
        self.household.start(program("moto_server"), "-H", "127.0.0.1", "-p", port)
        return self._listening(port)


class S3rver(Store):
    """Its one pair of keys is built in."""

    name = "s3rver"
    sync = "the death of the process; no sync"

    def prepare(self) -> Target:
        (port,) = free_ports(1)
        words = ("-d", self._folder("data"), "-a", "127.0.0.1", "-p", port, "--silent")
        self.household.start(program("s3rver"), *words)
        target = self._listening(port)
        return Target(target.host, target.port, Credentials("S3RVER", "S3RVER"))


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
        return True
    return False


STORES: tuple[Callable[[Path], Store], ...] = (Trove, TroveUnsynced, SeaweedFs, RcloneS3, S3rver, Moto)
