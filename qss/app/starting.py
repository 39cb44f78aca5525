"""Starting a mount: the one way to do it, whoever asks (qssctl mount, mount.qss, systemd, the demo).

Before the mount process is started, or becomes this process, it is found out whether this machine may write the file
system (qss.app.holding). The offload process finds it out once more before it changes anything at a location.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from qss.app import daemon
from qss.app.holding import admit
from qss.app.running import LEAVING_S_MAX, is_alive, is_locked, leaving_path, pid_in, wait_gone
from qss.config import Settings


@dataclass(frozen=True, slots=True)
class Start:
    """What is to be mounted where, and what the user insists on."""

    settings: Settings  # with the key in it: qss.app.identity.unlocked
    mountpoint: Path
    log_file: Path | None = None  # None: that of the configuration
    options: str = ""  # as mount(8)
    take_over: bool = False
    accept_rollback: bool = False

    @property
    def arguments(self) -> list[str]:
        """Of the mount process."""
        found = ["--config", str(self.settings.source), "--mountpoint", str(self.mountpoint)]
        found += ["--options", self.options]
        return found if self.log_file is None else [*found, "--log-file", str(self.log_file.absolute())]


def in_background(start: Start, environ: Mapping[str, str], warn: Callable[[str], None]) -> int:
    """The process id once it is mounted. `warn` hears why it is only read, or what could not be found out.

    Raises Refused when another machine holds it, and what `daemon.start` does.
    """
    _admit(start, warn)
    log = (start.log_file or start.settings.log.file or start.settings.state / "log" / "qss.log").absolute()
    return daemon.start(start.arguments, environ, log, key=start.settings.opened)


def in_foreground(start: Start, warn: Callable[[str], None]) -> int:
    """This process is the mount process; its exit code. Raises Refused as `in_background`."""
    _admit(start, warn)
    from qss.app.mount import main  # not for those who only start it

    return main(start.arguments, start.settings)


def _admit(start: Start, warn: Callable[[str], None]) -> None:
    _after_the_last(start.settings, warn)
    if said := admit(start.settings, take_over=start.take_over, accept_rollback=start.accept_rollback):
        warn(said)


def _after_the_last(settings: Settings, warn: Callable[[str], None]) -> None:
    """umount(8) returns at once, while the process of that mount still brings away what was written."""
    pid = pid_in(leaving_path(settings.run_dir))
    if pid is not None and is_locked(settings.state) and is_alive(pid):
        warn("it was unmounted a moment ago and still brings away what was written last; waiting for that")
        wait_gone(pid, settings.mount.drain_s + LEAVING_S_MAX)
