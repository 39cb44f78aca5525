"""snapshot create, list, delete, mount, diff, schedule. docs/snapshots.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qss.app.exits import Exit
from qss.cli.session import JsonFlag, print_json, say, session_of

if TYPE_CHECKING:
    from qss.fs.diff import Difference

snapshot = typer.Typer(name="snapshot", help="What the file system was, kept under a name.", no_args_is_help=True)
schedule = typer.Typer(name="schedule", help="Snapshots made and thinned by themselves.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME")]


def add_to(app: typer.Typer) -> None:
    snapshot.add_typer(schedule)
    app.add_typer(snapshot)


def _ask(context: typer.Context, method: str, **params: Any) -> Any:
    from qss.app.snapshots import ask

    return ask(session_of(context).settings(), f"snapshot.{method}", **params)


@snapshot.command("create")
def create(
    context: typer.Context,
    name: Name,
    comment: Annotated[str, typer.Option(metavar="TEXT", help="Shown by list")] = "",
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Keep what the file system is now. Takes no time and, until something changes, no space."""
    made = _ask(context, "create", name=name, comment=comment)
    if as_json:
        print_json(made)
    else:
        say(f"Snapshot {name} is made; it can be recovered elsewhere once list says it is protected (or after a sync).")


@snapshot.command("list")
def list_(context: typer.Context, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """The snapshots, oldest first: when, what each keeps by itself, whether the locations have it."""
    from qss.cli import render

    document = _ask(context, "list")
    if as_json:
        print_json(document)
    elif document["snapshots"]:
        render.snapshots(document)
    else:
        say("There are no snapshots.")


@snapshot.command("delete")
def delete(context: typer.Context, name: Name, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """Let go of a snapshot; the space that only it needed is given back, here and at the locations."""
    from qss.config.units import human_size

    gone = _ask(context, "delete", name=name)
    if as_json:
        print_json(gone)
    else:
        say(f"Snapshot {name} is deleted; it alone kept {human_size(gone['alone_bytes'])}.")


@snapshot.command("mount")
def mount(
    context: typer.Context,
    name: Name,
    directory: Annotated[Path, typer.Argument(metavar="DIR")],
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay; log to standard error.")] = False,
    options: Annotated[str, typer.Option("-o", metavar="OPTIONS", help="As mount(8): noexec,uid=1000,…")] = "",
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Mount a snapshot read-only, beside the file system or without it; umount DIR ends it."""
    from qss.app import daemon
    from qss.app.identity import unlocked
    from qss.app.snapshots import find
    from qss.config import environment, with_options

    settings = session_of(context).settings()
    settings = replace(settings, mount=with_options(settings.mount, options))
    settings = unlocked(settings)
    find(settings, name)  # refused here, before anything is started
    place = directory.absolute()
    arguments = ["--config", str(settings.source), "--name", name, "--mountpoint", str(place), "--options", options]
    if foreground:
        from qss.app.snapshot_mount import main

        raise typer.Exit(main(arguments, settings))
    log = (settings.log.file or settings.state / "log" / "qss.log").absolute()
    pid = daemon.start(
        [*arguments, "--log-file", str(log)], environment(), log, "qss.app.snapshot_mount", settings.opened
    )
    document = {"snapshot": name, "mountpoint": str(place), "pid": pid}
    print_json(document) if as_json else say(f"Snapshot {name} is mounted on {place}, to be read.")


@snapshot.command("diff")
def diff(
    context: typer.Context,
    older: Annotated[str, typer.Argument(metavar="A")],
    newer: Annotated[str, typer.Argument(metavar="[B]", help="A snapshot, or live: as it is now")] = "live",
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """What has changed from A to B, a line each: + added, - removed, M modified, R renamed. Exit code 12: something."""
    from qss.app.snapshot_diff import differences

    found = 0
    with differences(session_of(context).settings(), older, newer) as changes:
        for found, each in enumerate(changes, 1):  # noqa: B007
            print_json(each.to_json()) if as_json else say(_line(each))
    if found:
        raise typer.Exit(Exit.DIFFERENT)


def _line(each: Difference) -> str:
    """One line; what could end it or move the cursor is escaped."""
    path = _printable(each.path)
    if each.before is not None:
        return f"R {_printable(each.before)} -> {path}"
    if each.content or each.attributes:
        parts = [name for name, differs in (("content", each.content), ("attributes", each.attributes)) if differs]
        return f"M {path} ({', '.join(parts)})"
    return f"{'+' if each.what == 'added' else '-'} {path}"


def _printable(path: bytes) -> str:
    text = path.decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in text)


@schedule.command("show")
def schedule_show(context: typer.Context, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """Which snapshots are made and kept by themselves."""
    document = _ask(context, "schedule")
    print_json(document) if as_json else say(document["schedule"])


@schedule.command("set")
def schedule_set(
    context: typer.Context,
    text: Annotated[str, typer.Argument(metavar="SCHEDULE", help='e.g. "hourly=24 daily=7 weekly=4 monthly=12"; off')],
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Make and thin snapshots by themselves from now on. Those made by hand are never touched."""
    document = _ask(context, "schedule", set=text)
    if as_json:
        print_json(document)
    elif document["schedule"] == "off":
        say("No snapshots are made by themselves; those there are stay.")
    else:
        say(f"Snapshots are made and kept: {document['schedule']}.")
