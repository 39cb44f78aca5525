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
    app.command()(rewrite)


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


def rewrite(
    context: typer.Context,
    k: Annotated[int | None, typer.Option("--k", min=1, max=255, help="First set k in the configuration")] = None,
    m: Annotated[int | None, typer.Option("--m", min=0, max=255, help="First set m in the configuration")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be moved.")] = False,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Move what is stored under another k and m to those of the configuration; interrupted, go on the next time."""
    from qss.cli import render_upkeep

    session = session_of(context)
    settings = session.settings()
    wanted = (k if k is not None else settings.offload.k, m if m is not None else settings.offload.m)
    if wanted != (settings.offload.k, settings.offload.m):
        _set_code(session.config_path(), wanted, dry_run)
        note = "would be set" if dry_run else "set"
        document = {"k": wanted[0], "m": wanted[1], "set": not dry_run, "applies": "from the next mount on"}
        text = f"k={wanted[0]}, m={wanted[1]} {note}; it holds for new segments from the next mount on."
        print_json(document) if as_json else say(f"{text} Then run qssctl rewrite again for what is stored already.")
        return
    if not as_json and sys.stderr.isatty() and not dry_run:
        with render_upkeep.warm_bar("writing again") as update:
            done = call_mount(settings, "rewrite", update)
    else:
        done = call_mount(settings, "rewrite", print_json if as_json else None, dry_run=dry_run)
    print_json(done) if as_json else say(render_upkeep.rewritten(done, dry_run))
    if done["failed"]:
        raise typer.Exit(4)


def _set_code(config: Path, code: tuple[int, int], dry_run: bool) -> None:
    """Change [code], if what comes out holds: enough locations, a policy that can be kept."""
    import os

    from qss.app.create import policy_warnings
    from qss.app.running import write_whole
    from qss.config import environment, parse
    from qss.config.write import with_values

    text = with_values(config.read_text(encoding="utf-8"), "code", {"k": code[0], "m": code[1]})
    policy_warnings(parse(text, config, environment()))
    if not dry_run:
        write_whole(config, text, os.stat(config).st_mode & 0o777)
