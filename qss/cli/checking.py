"""fsck: does everything hold that should? Rendering and exit codes; the checks are in qss.fsck."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from qss.cli.session import JsonFlag, print_json, say, session_of

_FROM_THE_LOCATIONS = {
    "journal-missing", "journal-damaged", "checkpoint-missing", "checkpoint-damaged", "shards-missing", "shard-damaged",
}  # fmt: skip


def add_to(app: typer.Typer) -> None:
    app.command()(fsck)


def fsck(
    context: typer.Context,
    data: Annotated[bool, typer.Option("--data", help="Read and verify all content that is here.")] = False,
    remote: Annotated[bool, typer.Option("--remote", help="Ask the locations for every shard.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be derived; not while mounted.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --repair: only say what would be done.")] = False,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Check that everything holds that should, mounted or not. Exit code 0: it does (docs/fsck.md)."""
    from qss.app.fsck import check, exit_code
    from qss.cli import render
    from qss.config.units import human_size

    settings = session_of(context).settings()
    options = {"data": data, "remote": remote, "mend": repair, "dry_run": dry_run}
    if not as_json and sys.stderr.isatty():
        with render.stage_bar() as update:
            document = check(settings, update, **options)
    else:
        document = check(settings, print_json if as_json else None, **options)
    if as_json:
        print_json(document)
    else:
        render.findings(document)
        for each in document.get("damaged_files", []):
            names, lost = ", ".join(each["paths"]), human_size(each["lost_bytes"])
            say(f"Not to be had from the locations: {lost} of {names}")
        _say_outcome(document)
    code = exit_code(document)
    if code:
        raise typer.Exit(code)


def _say_outcome(document: dict[str, Any]) -> None:
    for sentence in document["repaired"]:
        say(sentence)
    for sentence in document.get("would_repair", []):
        say(f"Would do: {sentence}")
    if _FROM_THE_LOCATIONS & document["counts"].keys() and not document["left"]["clean"]:
        say("Not mounted, qssctl fsck --repair --remote brings journals and missing shards back from the locations.")
    count = sum(document["counts"].values())
    if not count:
        say("Everything holds.")
    elif document["left"]["clean"]:
        say(f"{count} things did not hold; all are repaired.")
    elif document["left"]["lost"]:
        say("Something here is lost or may be: docs/fsck.md says, kind by kind, what can be done.")
    elif document["repaired"]:
        say("What was not repaired is left; docs/fsck.md says, kind by kind, what can be done.")
    elif any(each["repairable"] for each in document["findings"]):
        say("Repair it with qssctl fsck --repair when it is not mounted.")
