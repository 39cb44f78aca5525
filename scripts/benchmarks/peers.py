"""File systems that a user would otherwise mount, each behind the same few calls. Everything stays on this machine.

What an fsync means is said by each and can be seen: the benchmark `fs-fsync` counts with strace what reaches the disk.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.processes import Household, NotMeasured, free_ports, is_mounted, unmount, wait_idle

_PASSPHRASE = "of the benchmark; what it protects is thrown away"
_DRAIN_S_MAX = 180.0


def program(name: str) -> Path:
    """Where a program is: the virtual environment first, then PATH. Raises NotMeasured when it is not installed."""
    inside = Path(sys.executable).parent / name
    found = inside if inside.exists() else shutil.which(name)
    if found is None:
        raise NotMeasured(f"{name} is not installed; scripts/bench --setup-peers installs it")
    return Path(found)


class Peer:
    """One mounted file system. `prepare`, then work on `place`, then `stop`, which is right at any moment."""

    key = ""  # for --systems
    name = ""
    fsync = ""  # what an fsync means there, and how we know
    asks_version: tuple[str, ...] = ()  # program and word that make it say its version

    def __init__(self, scratch: Path) -> None:
        scratch.mkdir()
        self.scratch = scratch
        self.place = scratch / "mnt"
        self.place.mkdir()
        self.household = Household(scratch)

    def prepare(self) -> None:
        """Mount. Raises NotMeasured, after which `stop` still has to be called."""
        raise NotImplementedError

    def version(self) -> str:
        """What it says of itself in its first line."""
        name, word = self.asks_version
        try:
            said = subprocess.run([program(name), word], check=False, capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.SubprocessError):
            return "version not known"
        return next(iter((said.stdout or said.stderr).strip().splitlines()), "version not known")

    def parts(self) -> dict[str, list[int]]:
        """Its processes under the names that the notes of the table use."""
        return {self.key: self.household.pids()}

    def settle(self) -> None:
        """Let it end what it does in the background, so that the next system has the machine for itself."""
        wait_idle(self.household.pids)

    def stop(self) -> None:
        """Unmount, end all its processes, forget what it stored."""
        try:
            unmount(self.place)
            self.household.stop()
            unmount(self.place)
        finally:
            if not is_mounted(self.place):
                shutil.rmtree(self.scratch, ignore_errors=True)

    def _wait_mounted(self) -> None:
        self.household.wait_for(lambda: is_mounted(self.place), f"mount of {self.name}")

    def _folder(self, name: str) -> Path:
        folder = self.scratch / name
        folder.mkdir()
        return folder

    def _secret(self) -> Path:
        path = self.scratch / "passphrase"
        path.write_text(_PASSPHRASE + "\n")
        path.chmod(0o600)
        return path


class Bindfs(Peer):
    """FUSE in C that passes everything through: what the kernel's FUSE itself costs."""

    key = "bindfs"
    name = "bindfs (C, passes through)"
    fsync = "fsync of the file below: durable"
    asks_version = ("bindfs", "--version")

    def prepare(self) -> None:
        options = "kernel_cache,attr_timeout=3600,entry_timeout=3600,negative_timeout=3600"
        self.household.start(program("bindfs"), "-f", "-o", options, self._folder("data"), self.place)
        self._wait_mounted()


class Gocryptfs(Peer):
    """One encrypted file below for each file above."""

    key = "gocryptfs"
    name = "gocryptfs"
    fsync = "fsync of the encrypted file below: durable"
    asks_version = ("gocryptfs", "-version")

    def prepare(self) -> None:
        data, secret = self._folder("data"), self._secret()
        binary = program("gocryptfs")
        self.household.run(binary, "-q", "-init", "-passfile", secret, data)
        self.household.start(binary, "-q", "-fg", "-passfile", secret, data, self.place)
        self._wait_mounted()


class JuiceFs(Peer):
    """Metadata in SQLite, blocks as files; no report of usage, no backup of metadata, no trash."""

    key = "juicefs"
    name = "JuiceFS (SQLite, files)"
    fsync = "uploads the blocks (files written without fsync) and commits to SQLite in WAL mode: not synced"
    asks_version = ("juicefs", "version")

    def prepare(self) -> None:
        meta = f"sqlite3://{self.scratch / 'meta.db'}"
        binary = program("juicefs")
        [metrics] = free_ports(1)
        self.household.run(
            binary, "format", "--storage", "file", "--bucket", f"{self._folder('data')}/", "--trash-days", "0",
            meta, "bench",
        )  # fmt: skip
        self.household.start(
            binary, "mount", "--no-usage-report", "--no-syslog", "--backup-meta", "0", "--cache-dir",
            self._folder("cache"), "--metrics", f"127.0.0.1:{metrics}", meta, self.place,
        )  # fmt: skip
        self._wait_mounted()


class Rclone(Peer):
    """`rclone mount --vfs-cache-mode full` of a crypt remote on a local directory; it uploads 5 s after close."""

    key = "rclone"
    name = "rclone mount (crypt, full cache)"
    fsync = "nothing; the upload starts 5 s after close: not synced"
    asks_version = ("rclone", "version")

    def prepare(self) -> None:
        binary, data, settings = program("rclone"), self._folder("data"), self.scratch / "rclone.conf"
        obscured = subprocess.run(
            [binary, "obscure", "-"], input=_PASSPHRASE, check=True, capture_output=True, text=True
        ).stdout.strip()
        settings.touch(0o600)
        settings.write_text(f"[secret]\ntype = crypt\nremote = {data}\npassword = {obscured}\n")
        self._binary, self._socket = binary, self.scratch / "rc"
        self.household.start(
            binary, "mount", "--config", settings, "--vfs-cache-mode", "full", "--cache-dir", self._folder("cache"),
            "--rc", "--rc-no-auth", "--rc-addr", f"unix://{self._socket}", "secret:", self.place,
        )  # fmt: skip
        self._wait_mounted()

    def settle(self) -> None:
        """Wait for the uploads as well: they start 5 s after the last close."""
        until = time.monotonic() + _DRAIN_S_MAX
        while time.monotonic() < until and self._uploads():
            time.sleep(0.5)
        super().settle()

    def _uploads(self) -> int:
        answer = subprocess.run(
            [self._binary, "rc", "--unix-socket", self._socket, "vfs/stats"],
            check=False, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        if answer.returncode:
            return 0
        cache = json.loads(answer.stdout).get("diskCache") or {}
        return int(cache.get("uploadsInProgress", 0)) + int(cache.get("uploadsQueued", 0))


class WeedMount(Peer):
    """SeaweedFS on loopback: master, volume server and filer in one process, `weed mount` in another; no telemetry."""

    key = "weed"
    name = "weed mount (SeaweedFS)"
    fsync = "flushes to the volume server, which does not sync: not synced"
    asks_version = ("weed", "version")

    def prepare(self) -> None:
        binary, here = program("weed"), "127.0.0.1"
        master, master_grpc, volume, volume_grpc, filer, filer_grpc = free_ports(6)
        home = {"HOME": str(self._folder("home"))}
        self.household.start(
            binary, "server", f"-dir={self._folder('data')}", f"-ip={here}", f"-ip.bind={here}",
            f"-master.port={master}", f"-master.port.grpc={master_grpc}", "-master.peers=none",
            "-master.telemetry=false", "-master.volumeSizeLimitMB=1024", "-volume.max=60", "-volume.preStopSeconds=0",
            f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}",
            "-filer", f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}",
            f"-filer.localSocket={self.scratch / 'filer'}", also=home,
        )  # fmt: skip
        self.household.wait_for(lambda: _listens(filer_grpc) and _listens(volume_grpc), "SeaweedFS server")
        self.household.start(
            binary, "mount", f"-filer={here}:{filer}.{filer_grpc}", f"-dir={self.place}",
            f"-cacheDir={self._folder('cache')}", f"-localSocket={self.scratch / 'mount'}", also=home,
        )  # fmt: skip
        self._wait_mounted()

    def parts(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {"mount": [], "server": []}
        for pid in self.household.pids():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            found["mount" if b"mount" in words else "server"].append(pid)
        return found


def _listens(port: int) -> bool:
    """Whether somebody listens on this port of any IPv4 address."""
    wanted = f":{port:04X}"
    return any(
        (fields := line.split())[1].endswith(wanted) and fields[3] == "0A"
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
    )


PEERS: tuple[type[Peer], ...] = (Bindfs, Gocryptfs, JuiceFs, Rclone, WeedMount)
