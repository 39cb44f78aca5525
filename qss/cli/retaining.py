"""retention show, set, run, pin, unpin, pins: which local copies are kept."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qss.cli.session import JsonFlag, call_mount, print_json, say, session_of

if TYPE_CHECKING:
    from qss.config import Settings
    from qss.config.write import Value

retention = typer.Typer(name="retention", help="Which local copies are kept.", no_args_is_help=True)

PathArgument = Annotated[Path, typer.Argument(metavar="PATH", help="A file or directory of the mounted file system")]


def add_to(app: typer.Typer) -> None:
    app.add_typer(retention)


@retention.command("show")
def show(
    context: typer.Context,
    upcoming: Annotated[int, typer.Option("--next", min=0, max=200, help="So many of those that go next")] = 10,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """The limits, what is cached, what would go next and why, what is pinned."""
    from qss.cli import render_retention

    document = call_mount(session_of(context).settings(), "retention.show", next=upcoming)
    print_json(document) if as_json else render_retention.shown(document)


@retention.command("set")
def set_limits(
    context: typer.Context,
    max_size: Annotated[str | None, typer.Option(metavar="SIZE", help='Local copies up to this, e.g. "10G"')] = None,
    max_age: Annotated[str | None, typer.Option(metavar="TIME", help='Unused so long, e.g. "7d" or none')] = None,
    min_free: Annotated[str | None, typer.Option(metavar="SIZE", help='Disk space left free, e.g. "1G"')] = None,
    path: Annotated[str | None, typer.Option(metavar="PATH", help="Only what is below, from the root: /videos")] = None,
    drop: Annotated[bool, typer.Option("--drop", help="The general limits hold for --path again.")] = False,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Set limits, in the configuration file and in the running file system."""
    session = session_of(context)
    given = {"max_size": max_size, "max_age": max_age, "min_free": min_free}
    values: dict[str, Value] = {name: value for name, value in given.items() if value is not None}
    if drop and (path is None or values):
        raise typer.BadParameter("--drop goes with --path and nothing else")
    if path is not None and min_free is not None:
        raise typer.BadParameter("--min-free is about the whole disk and does not go with --path")
    if not values and not drop:
        raise typer.BadParameter("name at least one of --max-size, --max-age, --min-free")
    settings = _edit_config(session.config_path(), values, path)
    limits = asdict(settings.cache.retention)
    from qss.errors import Unreachable

    try:
        call_mount(settings, "retention.set", **limits)
        applied = True
    except Unreachable:
        applied = False
    if as_json:
        print_json(limits | {"applied": applied})
    else:
        say("Set." if applied else "Set; it applies from the next mount on.")


def _edit_config(config: Path, values: dict[str, Value], path: str | None) -> Settings:
    """Change [retention], or the section of a path (no values: take it away), if what comes out holds."""
    from qss.app.running import write_whole
    from qss.config import environment, parse
    from qss.config.write import path_section, with_values, without_section

    text = config.read_text(encoding="utf-8")
    if path is None:
        text = with_values(text, "retention", values)
    elif values:
        text = with_values(text, path_section(path), values)
    else:
        text = without_section(text, path_section(path))
    settings = parse(text, config, environment())
    write_whole(config, text, os.stat(config).st_mode & 0o777)
    return settings


@retention.command("run")
def run(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Evict everything that is safe and not pinned.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Apply the limits now: drop local copies of what is safe at the locations."""
    from qss.cli import render_retention
    from qss.config.units import human_size

    done: dict[str, Any] = call_mount(
        session_of(context).settings(), "retention.run", everything=everything, dry_run=dry_run
    )
    if as_json:
        print_json(done)
        return
    if dry_run:
        render_retention.copies(done["victims"])
    verb = "would go" if dry_run else "went"
    say(f"{human_size(done['bytes'])} of local copies {verb}; {human_size(done['local_bytes'])} are left.")


@retention.command("pin")
def pin(context: typer.Context, path: PathArgument, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """Keep a file, or all below a directory, on this machine; what is not here is brought back in the background."""
    _change_pins(context, "retention.pin", path, as_json)


@retention.command("unpin")
def unpin(context: typer.Context, path: PathArgument, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """Let the general limits hold for it again."""
    _change_pins(context, "retention.unpin", path, as_json)


@retention.command("pins")
def pins(context: typer.Context, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """What is pinned, and how much of it is here."""
    from qss.cli import render_retention

    found = call_mount(session_of(context).settings(), "retention.pins")
    print_json(found) if as_json else render_retention.pins(found)


def _change_pins(context: typer.Context, method: str, path: Path, as_json: bool) -> None:
    from qss.cli import render_retention

    settings = session_of(context).settings()
    inside = path_inside(path, Path(call_mount(settings, "where")["mountpoint"]))
    found = call_mount(settings, method, path=inside)
    print_json(found) if as_json else render_retention.pins(found)


def path_inside(path: Path, mountpoint: Path) -> str:
    """A path of this machine as one from the root of the file system. Links above its last name are followed.

    Raises Refused when it is not below the mountpoint.
    """
    from qss.errors import Refused

    real = (
        Path(os.path.realpath(path.parent), path.name) if path.name not in ("", "..") else Path(os.path.realpath(path))
    )
    root = Path(os.path.realpath(mountpoint))
    if not real.is_relative_to(root):
        raise Refused(f"{path} is not in the file system mounted on {mountpoint}")
    return "/" + ("" if real == root else str(real.relative_to(root)))
