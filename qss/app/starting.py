"""Starting a mount: the one way to do it, whoever asks (qssctl mount, mount.qss, systemd, the demo).

Before the mount process is started, or becomes this process, it is found out whether this machine may write the file
system (qss.app.holding). The offload process finds it out once more before it changes anything at a location.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qss.app import daemon
from qss.app.holding import admit
from qss.app.mountpoint import mounted_type
from qss.app.running import LEAVING_S_MAX, is_alive, is_locked, leaving_path, pid_in, wait_gone
from qss.app.talk import call_mount
from qss.config import Settings
from qss.errors import QssError

UNMOUNTED_S_MAX: Final = 10.0
"""From the moment a mount has gone until its process says so; after that it is taken for one that has only begun, or is
mounted where we do not see it."""
_POLL_S: Final = 0.02


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
    _let_it_say_that_it_leaves(start.settings)
    _after_the_last(start.settings, warn)
    if said := admit(start.settings, take_over=start.take_over, accept_rollback=start.accept_rollback):
        warn(said)


def _let_it_say_that_it_leaves(settings: Settings) -> None:
    """umount(8) may be a moment ahead of the process of that mount, which does not know yet that it is unmounted."""
    try:
        where = call_mount(settings, "where")
    except QssError:  # nobody is there, or is about to begin or to end
        return
    end = time.monotonic() + UNMOUNTED_S_MAX
    while mounted_type(Path(where["mountpoint"])) is None and not leaving_path(settings.run_dir).exists():
        if wait_gone(where["pid"], _POLL_S) or time.monotonic() > end:
            return


def _after_the_last(settings: Settings, warn: Callable[[str], None]) -> None:
    """umount(8) returns at once, while the process of that mount still brings away what was written."""
    pid = pid_in(leaving_path(settings.run_dir))
    if pid is not None and is_locked(settings.state) and is_alive(pid):
        warn("it was unmounted a moment ago and still brings away what was written last; waiting for that")
        wait_gone(pid, settings.mount.drain_s + LEAVING_S_MAX)
