"""status, sync: what a mounted file system is asked and told."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from qss.cli.session import JsonFlag, call_mount, print_json, say, session_of


def add_to(app: typer.Typer) -> None:
    app.command()(status)
    app.command()(sync)


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
