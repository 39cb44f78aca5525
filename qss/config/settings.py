"""Everything that can be set about one file system, as plain frozen values. `qss.config.read` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qss.cache.options import CacheOptions
from qss.ids import LocationId
from qss.limits import MIB
from qss.offload.keys import MasterKey
from qss.offload.options import LocationOptions, OffloadOptions


@dataclass(frozen=True, slots=True)
class MountSettings:
    """How the file system shows itself to the kernel."""

    allow_other: bool = True  # users besides the mounting one may use it, as far as modes let them
    writeback_cache: bool = False  # the kernel collects small writes: faster, less safe when the machine crashes
    drain_s: float = 10.0  # at the end: how long offload may go on with what is at risk
    read_only: bool = False
    atime: str = "relatime"  # or "noatime"
    nodev: bool = False  # as mount(8): device files have no meaning here
    nosuid: bool = False
    noexec: bool = False
    uid: int | None = None  # shown as the owner of everything, whatever is stored
    gid: int | None = None
    read_ahead_bytes: int = MIB  # of the kernel, where we may set it
    quota_bytes: int | None = None  # of content; None: as much as there is room for
    quota_inodes: int | None = None
    passphrase_file: Path | None = None  # for machines that mount with nobody there


@dataclass(frozen=True, slots=True)
class UnlockOptions:
    """What a user says of how the key is opened; from the command line, for one command."""

    key_file: Path | None = None  # this one, not that of the configuration
    passphrase_file: Path | None = None
    passphrase_fd: int | None = None  # open in this process; read once
    identity: Path | None = None  # of a recipient
    words: bool = False  # the recovery words, which are the key: no key file is needed
    words_file: Path | None = None


@dataclass(frozen=True, slots=True)
class HookOptions:
    """User hooks: executables named like the event, in one directory."""

    folder: Path
    time_limit_s: float = 30.0  # then the hook is killed
    queue_max: int = 1024  # events waiting; more are dropped, with a line in the log


@dataclass(frozen=True, slots=True)
class LogOptions:
    level: str = "info"
    file: Path | None = None  # None: standard error


@dataclass(frozen=True, slots=True)
class Settings:
    """One file system. Paths are absolute."""

    source: Path  # the configuration file
    state: Path  # cache, index, key
    run_dir: Path  # sockets, pid files
    key_file: Path
    mountpoint: Path | None
    cache: CacheOptions
    offload: OffloadOptions
    locations: tuple[LocationOptions, ...]
    mount: MountSettings
    hooks: HookOptions
    log: LogOptions
    schedule: str | None = None  # of snapshots, unless one was set at run time
    unlock: UnlockOptions = UnlockOptions()
    opened: MasterKey | None = None  # the key, once this process has it

    @property
    def cache_dir(self) -> Path:
        return self.state / "cache"

    @property
    def offload_dir(self) -> Path:
        """What the offload process remembers: manifests, the last root."""
        return self.state / "offload"

    @property
    def mount_socket(self) -> Path:
        return self.run_dir / "mount.sock"

    @property
    def offload_socket(self) -> Path:
        return self.run_dir / "offload.sock"

    def location(self, name: LocationId) -> LocationOptions | None:
        return next((each for each in self.locations if each.name == name), None)
