"""status, sync, retention: what a mounted file system is asked and told."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qss.cli.session import JsonFlag, call_mount, print_json, say, session_of

if TYPE_CHECKING:
    from qss.config import Settings
    from qss.config.write import Value

retention = typer.Typer(name="retention", help="Which local copies are kept.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.command()(status)
    app.command()(sync)
    app.add_typer(retention)


def status(
    context: typer.Context,
    as_json: Annotated[bool, JsonFlag] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every second.")] = False,
) -> None:
    """How the file system is: what is at risk, the cache, the locations, damage."""
    from qss.cli import render

    settings = session_of(context).settings()
    if watch:
        render.watch(lambda: call_mount(settings, "status"))
        return
    document = call_mount(settings, "status")
    if as_json:
        print_json(document)
    elif "snapshot" in document:
        say(f"The snapshot {document['snapshot']} is mounted on {document['mountpoint']}, to be read; nothing else.")
    else:
        render.status(document)


def sync(context: typer.Context, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """Return when everything written so far is safe at the locations."""
    from qss.cli import render

    settings = session_of(context).settings()
    if not as_json and sys.stderr.isatty():
        with render.sync_bar() as update:
            done = call_mount(settings, "sync", update)
    else:
        done = call_mount(settings, "sync", print_json if as_json else None)
    print_json(done) if as_json else say("Everything written before is safe at the locations.")


@retention.command("show")
def retention_show(context: typer.Context, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """The limits, and what is cached."""
    from qss.cli import render

    document = call_mount(session_of(context).settings(), "retention.show")
    print_json(document) if as_json else render.retention(document)


@retention.command("set")
def retention_set(
    context: typer.Context,
    max_size: Annotated[str | None, typer.Option(metavar="SIZE", help='Local copies up to this, e.g. "10G"')] = None,
    max_age: Annotated[str | None, typer.Option(metavar="TIME", help='Unused so long, e.g. "7d" or none')] = None,
    min_free: Annotated[str | None, typer.Option(metavar="SIZE", help='Disk space left free, e.g. "1G"')] = None,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Set limits, in the configuration file and in the running file system."""
    session = session_of(context)
    given = {"max_size": max_size, "max_age": max_age, "min_free": min_free}
    values: dict[str, Value] = {name: value for name, value in given.items() if value is not None}
    if not values:
        raise typer.BadParameter("name at least one of --max-size, --max-age, --min-free")
    settings = _edit_config(session.config_path(), values)
    limits = settings.cache.retention
    document: dict[str, Any] = {
        "size_bytes_max": limits.size_bytes_max,
        "age_s_max": limits.age_s_max,
        "free_bytes_min": limits.free_bytes_min,
    }
    from qss.errors import Unreachable

    try:
        call_mount(settings, "retention.set", **document)
        applied = True
    except Unreachable:
        applied = False
    if as_json:
        print_json(document | {"applied": applied})
    else:
        say("Set." if applied else "Set; it applies from the next mount on.")


def _edit_config(path: Path, values: dict[str, Value]) -> Settings:
    """Change the [retention] section of the file, if what comes out holds."""
    from qss.app.running import write_whole
    from qss.config import environment, parse
    from qss.config.write import with_values

    text = with_values(path.read_text(encoding="utf-8"), "retention", values)
    settings = parse(text, path, environment())
    write_whole(path, text, os.stat(path).st_mode & 0o777)
    return settings


@retention.command("run")
def retention_run(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Evict everything that is safe.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Apply the limits now: drop local copies of what is safe at the locations."""
    from qss.config.units import human_size

    done: dict[str, Any] = call_mount(
        session_of(context).settings(), "retention.run", everything=everything, dry_run=dry_run
    )
    if as_json:
        print_json(done)
    else:
        verb = "would go" if dry_run else "went"
        say(f"{human_size(done['bytes'])} of local copies {verb}; {human_size(done['local_bytes'])} are left.")
