"""mount, umount."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qss.cli.session import JsonFlag, call_mount, print_json, say, session_of, warn

if TYPE_CHECKING:
    from qss.config import Settings


def add_to(app: typer.Typer) -> None:
    app.command()(mount)
    app.command()(umount)


def mount(
    context: typer.Context,
    directory: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="[that of the configuration]")] = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay; log to standard error.")] = False,
    log_file: Annotated[Path | None, typer.Option(metavar="FILE", help="[STATE/log/qss.log]")] = None,
    options: Annotated[str, typer.Option("-o", metavar="OPTIONS", help="As mount(8): ro,noatime,uid=1000,…")] = "",
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Even if another machine holds it; that one only reads from then on.")
    ] = False,
    accept_rollback: Annotated[
        bool, typer.Option("--accept-rollback", help="Even if the locations show an older or another history.")
    ] = False,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Mount the file system; returns when it is ready."""
    from qss.app.identity import unlocked
    from qss.app.starting import Start, in_background, in_foreground
    from qss.config import environment, with_options
    from qss.errors import ConfigInvalid

    session = session_of(context)
    settings = session.settings()
    mountpoint = directory.absolute() if directory else settings.mountpoint
    if mountpoint is None:
        raise ConfigInvalid("name the directory to mount on, or set mountpoint in the configuration")
    options_hold = with_options(settings.mount, options)  # refused here, before anything is started
    settings = unlocked(replace(settings, mount=options_hold))  # whoever knows the passphrase is asked here
    start = Start(settings, mountpoint, log_file, options, take_over, accept_rollback)
    if foreground:
        raise typer.Exit(in_foreground(start, _tell))
    pid = in_background(start, environment(), _tell)
    print_json({"mountpoint": str(mountpoint), "pid": pid}) if as_json else say(f"Mounted on {mountpoint}.")


def _tell(sentence: str) -> None:
    warn(f"qssctl: {sentence}")


def umount(
    context: typer.Context,
    directory: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="[where it is mounted]")] = None,
    lazy: Annotated[bool, typer.Option("--lazy", help="Even if it is in use.")] = False,
    drain: Annotated[str | None, typer.Option(metavar="TIME", help="How long offload may go on, e.g. 30s")] = None,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Unmount, seal what was written, give offload a bounded time to bring it to the locations."""
    from qss.app.running import LEAVING_S_MAX, is_locked, wait_gone
    from qss.config.units import human_size, parse_duration
    from qss.errors import Refused, Unreachable

    settings = session_of(context).settings()
    if directory is not None and _umount_snapshot(settings, directory.absolute(), lazy=lazy):
        print_json({"mountpoint": str(directory.absolute())}) if as_json else say(f"Unmounted {directory.absolute()}.")
        return
    try:
        drain_s = parse_duration(drain) if drain is not None else settings.mount.drain_s
    except ValueError as error:
        raise typer.BadParameter(f"--drain {drain} {error}") from error
    try:
        where = call_mount(settings, "where")
    except Unreachable:
        if is_locked(settings.state):
            raise
        _clear_dead(directory or settings.mountpoint)
        return
    seen = Path(where["mountpoint"])
    if directory is not None and directory.absolute() != seen:
        raise Refused(f"this file system is mounted on {seen}, not on {directory}")
    left = call_mount(settings, "unmount", lazy=lazy, drain_s=drain_s)
    wait_gone(where["pid"], drain_s + LEAVING_S_MAX)
    at_risk = left["at_risk_bytes"]
    if as_json:
        print_json(left)
    elif at_risk:
        warn(
            f"{human_size(at_risk)} are only on this machine yet and are offloaded after the next mount: "
            "keep the state directory."
        )
    else:
        say(f"Unmounted {seen}; everything is safe at the locations.")


def _umount_snapshot(settings: Settings, directory: Path, *, lazy: bool) -> bool:
    """Whether a snapshot was mounted there; then its process has gone."""
    from qss.app.running import LEAVING_S_MAX, wait_gone
    from qss.app.snapshots import SOCKET, all_mounted
    from qss.app.talk import call

    for folder, mounted in all_mounted(settings):
        if Path(mounted.mountpoint) == directory and (folder / SOCKET).exists():
            call(folder / SOCKET, "unmount", lazy=lazy)
            wait_gone(mounted.pid, LEAVING_S_MAX)
            return True
    return False


def _clear_dead(directory: Path | None) -> None:
    """Take away what a mount process that is gone has left behind."""
    from qss.app import mountpoint
    from qss.errors import Unreachable

    kind = mountpoint.mounted_type(directory) if directory else None
    if directory is None or kind is None or not (kind.startswith("fuse") and mountpoint.is_dead(directory)):
        raise Unreachable("the file system is not mounted")
    mountpoint.unmount(directory, lazy=True)
    say(f"Its process was gone; {directory} is cleared. What was written is offloaded after the next mount.")
