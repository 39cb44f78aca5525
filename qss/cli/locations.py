"""location list, test, add, drain, keep, remove, replace, reload, rebalance: where shards are, changed in use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qss.app.exits import Exit
from qss.cli.session import JsonFlag, print_json, say, session_of

if TYPE_CHECKING:
    from qss.app.location_changes import Changer, NewPlace

locations = typer.Typer(name="location", help="The locations of a file system.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a location")]
Url = Annotated[
    str,
    typer.Argument(metavar="URL", help="http://host:port/bucket?access_key=…&secret_key_file=FILE, as in init"),
]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="E.g. rack=r1; repeatable")]
Weight = Annotated[float | None, typer.Option("--weight", help="Share of shards relative to the others [1]")]
Metered = Annotated[bool, typer.Option("--metered", help="Reading from it costs money: others are asked first")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is done.")]
Lost = Annotated[bool, typer.Option("--lost", help="It is gone for good: its shards are rebuilt elsewhere.")]
AcceptLoss = Annotated[
    bool, typer.Option("--accept-loss", help="With --lost: even if some content cannot be read any more.")
]


def add_to(app: typer.Typer) -> None:
    app.add_typer(locations)


@locations.command("list")
def location_list(context: typer.Context, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """The locations, what they hold, and whether they answer (as the running file system sees it)."""
    from qss.app.location_list import rows_of
    from qss.cli import render_locations

    rows = rows_of(session_of(context).settings())
    print_json(rows) if as_json else render_locations.locations(rows)


@locations.command("test")
def location_test(context: typer.Context, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """Write, read and delete a small object at every location."""
    from qss.app.create import probe_locations
    from qss.cli import render

    rows = probe_locations(session_of(context).settings())
    print_json(rows) if as_json else render.probes(rows)
    if not all(row["ok"] for row in rows):
        raise typer.Exit(Exit.UNREACHABLE)


@locations.command("add")
def location_add(
    context: typer.Context,
    name: Name,
    url: Url,
    label: Labels = None,
    weight: Weight = None,
    metered: Metered = False,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Add a location. New shards go there too; what is stored stays where it is (see rebalance)."""
    new = _new(name, url, label, weight, metered)
    with _changer(context, as_json) as changer:
        report = changer.add(new, Path.cwd())
    if as_json:
        print_json(report)
        return
    say(f"Location {name} answers in {report['latency_s'] * 1000:.0f} ms and is in use{_when(report)}.")
    for warning in report["warnings"]:
        say(f"Warning: {warning}")


@locations.command("drain")
def location_drain(
    context: typer.Context, name: Name, no_wait: NoWait = False, as_json: Annotated[bool, JsonFlag] = False
) -> None:
    """Move everything away from a location. Goes on by itself when this command is interrupted."""
    with _changer(context, as_json) as changer:
        report = changer.drain(name, wait=not no_wait)
    if as_json:
        print_json(report)
    elif report["drained"]:
        say(f"Location {name} is drained: qssctl location remove {name} takes it out.")
    else:
        say(f"Location {name} is being drained{_when(report)}; qssctl location list shows how far it is.")


@locations.command("keep")
def location_keep(context: typer.Context, name: Name, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """End draining: new shards may go there again."""
    with _changer(context, as_json) as changer:
        report = changer.keep(name)
    print_json(report) if as_json else say(f"Location {name} takes shards again{_when(report)}.")


@locations.command("remove")
def location_remove(
    context: typer.Context,
    name: Name,
    lost: Lost = False,
    accept_loss: AcceptLoss = False,
    no_wait: NoWait = False,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Take a location out; it must be drained, or lost."""
    if accept_loss and not lost:
        raise typer.BadParameter("--accept-loss goes with --lost")
    with _changer(context, as_json) as changer:
        report = changer.remove(name, lost=lost, accept_loss=accept_loss)
        if report["missing_shards"] and not report["lost_segments"] and not no_wait:
            changer.repaired(name)
    if as_json:
        print_json(report)
        return
    say(f"Location {name} is taken out.")
    if report["lost_segments"]:
        say(f"{len(report['lost_segments'])} segments cannot be read any more; qssctl fsck --remote names their files.")
    elif report["missing_shards"]:
        done = "are being rebuilt" if no_wait else "have been rebuilt"
        say(f"{report['missing_shards']} shards {done} at the others.")


@locations.command("replace")
def location_replace(
    context: typer.Context,
    old: Annotated[str, typer.Argument(metavar="OLD", help="Name of the location that goes")],
    name: Annotated[str, typer.Argument(metavar="NEW", help="Name of the one that comes")],
    url: Url,
    label: Labels = None,
    weight: Weight = None,
    lost: Lost = False,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Add one location, move everything there is at another one away from it, and take that out."""
    new = _new(name, url, label, weight)
    with _changer(context, as_json) as changer:
        changer.add(new, Path.cwd())
        if not lost:
            changer.drain(old, wait=True)
        report = changer.remove(old, lost=lost, accept_loss=False)
        if report["missing_shards"]:
            changer.repaired(old)
    print_json(report) if as_json else say(f"Location {old} is replaced by {name}.")


@locations.command("reload")
def location_reload(context: typer.Context, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """Take over [[location]] sections that were edited by hand; one location may come or go at a time."""
    with _changer(context, as_json) as changer:
        change = changer.reload()
    words = {"came": "added", "left": "removed", "altered": "changed"}
    said = [f"{words[kind]}: {', '.join(names)}" for kind, names in change.items() if names]
    print_json(change) if as_json else say("; ".join(said) or "The locations are as they were.")


@locations.command("rebalance")
def location_rebalance(context: typer.Context, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """Move as few shards as it takes until each location has its share by weight. Begin it again after a restart."""
    with _changer(context, as_json) as changer:
        done = changer.rebalance()
    print_json(done) if as_json else say(f"{done['moved']} shards were moved.")


def _new(name: str, url: str, label: list[str] | None, weight: float | None, metered: bool = False) -> NewPlace:
    from qss.app.location_changes import NewPlace

    pairs = [each.partition("=") for each in label or []]
    if not all(key and equals for key, equals, _ in pairs):
        raise typer.BadParameter("write labels as KEY=VALUE, for example --label rack=r1")
    return NewPlace(name, url, {key: value for key, _, value in pairs}, weight, metered)


@contextmanager
def _changer(context: typer.Context, as_json: bool) -> Iterator[Changer]:
    """With a bar on a terminal, JSON lines with --json."""
    from qss.app.location_changes import Changer
    from qss.cli import render_locations
    from qss.config import environment

    config = session_of(context).config_path()
    if as_json:
        seen: list[dict[str, Any]] = []

        def tell(document: dict[str, Any]) -> None:
            if document and seen[-1:] != [document]:
                seen[:] = [document]
                print_json(document)

        yield Changer(config, environment(), tell)
    elif sys.stderr.isatty():
        with render_locations.move_bar() as update:
            yield Changer(config, environment(), update)
    else:
        ignore: Callable[[dict[str, Any]], None] | None = None
        yield Changer(config, environment(), ignore)


def _when(report: dict[str, Any]) -> str:
    return "" if report["applied"] else " from the next mount on"
