"""scrub, repair, durability, warm: keeping what is stored whole, and bringing it near."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from qss.cli.session import JsonFlag, call_mount, print_json, say, session_of

scrub = typer.Typer(name="scrub", help="Looking at every shard, whether it is read or not.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(scrub)
    app.command()(repair)
    app.command()(durability)
    app.command()(warm)


def _scrub(context: typer.Context, method: str, as_json: bool) -> None:
    from qss.cli import render_upkeep

    found = call_mount(session_of(context).settings(), method)
    print_json(found) if as_json else render_upkeep.scrub(found)


@scrub.command("start")
def start(context: typer.Context, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """Begin a round now, or go on with one that was stopped."""
    _scrub(context, "scrub.start", as_json)


@scrub.command("stop")
def stop(context: typer.Context, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """Stop it until it is started again; it will go on where it is."""
    _scrub(context, "scrub.stop", as_json)


@scrub.command("status")
def scrub_status(context: typer.Context, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """How far the round is, and what was found at each location."""
    _scrub(context, "scrub.status", as_json)


def repair(context: typer.Context, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """What waits to be repaired, and which locations are given up."""
    from qss.cli import render_upkeep

    found = call_mount(session_of(context).settings(), "repair.status")
    print_json(found) if as_json else render_upkeep.repair(found)


def durability(context: typer.Context, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """What the code costs and survives, how likely loss is and under which assumptions, the weakest segment today."""
    from qss.app.durability import document
    from qss.cli import render_upkeep
    from qss.errors import Unreachable

    settings = session_of(context).settings()
    try:
        found = call_mount(settings, "durability")
    except Unreachable:
        found = document(settings, None)
    print_json(found) if as_json else render_upkeep.durability(found)


def warm(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Files or directories of the file system")],
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Bring content back to this machine before it is needed, as far as the cache's limits allow."""
    from qss.cli import render_upkeep
    from qss.cli.retaining import path_inside

    settings = session_of(context).settings()
    mountpoint = Path(call_mount(settings, "where")["mountpoint"])
    inside = [path_inside(path, mountpoint) for path in paths]
    if not as_json and sys.stderr.isatty():
        with render_upkeep.warm_bar() as update:
            done = call_mount(settings, "warm", update, paths=inside)
    else:
        done = call_mount(settings, "warm", print_json if as_json else None, paths=inside)
    if as_json:
        print_json(done)
    else:
        say(render_upkeep.warmed(done))
    if done["failed_bytes"]:
        raise typer.Exit(4)
