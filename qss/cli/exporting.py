"""export-unsent: what a machine that was taken over has written and nobody else has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qss.app.exits import Exit
from qss.cli.session import JsonFlag, call_mount, print_json, say, session_of, warn


def add_to(app: typer.Typer) -> None:
    app.command("export-unsent")(export_unsent)


def export_unsent(
    context: typer.Context,
    directory: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Where to copy it, under the same paths")
    ] = None,
    only_list: Annotated[bool, typer.Option("--list", help="Only say which files.")] = False,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Copy the files that were written here after the last root this machine published. Needs the mount."""
    from qss.app.unsent import copy_out, unsent

    if directory is None and not only_list:
        raise typer.BadParameter("name the DIR to copy to, or give --list")
    status = call_mount(session_of(context).settings(), "status")
    mountpoint = Path(status["mountpoint"])
    found = unsent(mountpoint, int(status["published_cut_ns"]))
    failed = copy_out(mountpoint, found, directory.absolute()) if directory and not only_list else []
    if as_json:
        print_json({"files": [str(path) for path in found], "failed": failed})
    else:
        for path in found if only_list else ():
            say(str(path))
        if not only_list:
            say(f"{len(found) - len(failed)} files and links written after the last root are in {directory}.")
        for name, why in failed:
            warn(f"{name}: {why}")
    if failed:
        raise typer.Exit(Exit.DATA)
