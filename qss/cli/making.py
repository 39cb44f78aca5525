"""key new, init, recover, location list, location test: what is done to a file system that is not mounted."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from qss.app.exits import Exit
from qss.cli.session import JsonFlag, print_json, say, session_of

Locations = Annotated[
    list[str] | None,
    typer.Option(
        "--location",
        metavar="URL",
        help="http://host:port/bucket?access_key=…&secret_key_file=FILE (or secret_key=env:NAME), once for each",
    ),
]
DataShards = Annotated[int | None, typer.Option("--k", min=1, max=255, help="Locations that suffice to read")]
SpareShards = Annotated[int | None, typer.Option("--m", min=0, max=255, help="Locations that may be lost")]

keys = typer.Typer(name="key", help="The key of a file system.", no_args_is_help=True)
locations = typer.Typer(name="location", help="The locations of a file system.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(keys)
    app.add_typer(locations)
    app.command()(init)
    app.command()(recover)


@keys.command("new")
def key_new(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write it")] = Path("key"),
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Make a new key. Whoever has it can read everything; without it nobody can read anything."""
    from qss.app.create import new_key

    fs_id = new_key(out.absolute())
    if as_json:
        print_json({"key": str(out.absolute()), "fs_id": fs_id})
    else:
        say(f"New key in {out}. Keep a copy where no fire reaches both: without it nothing can be read again.")


def init(
    context: typer.Context,
    location: Locations = None,
    k: DataShards = None,
    m: SpareShards = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="Key file, made if absent [STATE/key]")] = None,
    state: Annotated[Path | None, typer.Option(metavar="DIR", help="Cache and index [state, beside the file]")] = None,
    mountpoint: Annotated[Path | None, typer.Option(metavar="DIR", help="Where `qssctl mount` mounts it")] = None,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Create a file system: check every location, make buckets, key and configuration file."""
    from qss.app.create import Plan, create
    from qss.config import environment
    from qss.config.units import human_duration

    config = (session_of(context).config or Path("qss.toml")).absolute()
    plan = Plan(
        config=config,
        locations=tuple(location or ()),
        k=k,
        m=m,
        state=(state or config.parent / "state").absolute(),
        key_file=key.absolute() if key else None,
        mountpoint=mountpoint.absolute() if mountpoint else None,
        folder=Path.cwd(),
    )
    report = create(plan, environment())
    if as_json:
        print_json(report)
        return
    total = report["k"] + report["m"]
    say(f"File system {report['fs_id'][:8]} over {len(report['locations'])} locations, configured in {config}.")
    say(
        f"Any {report['k']} of {total} shards give everything back: {report['m']} locations may be lost; "
        f"it takes {total / report['k']:.3g} times the space. Chance to lose something in a year: about "
        f"1 in {10 ** report['nines']:,.0f}, if locations fail independently (docs/operations.md)."
    )
    for name, latency_s in report["latency_s"].items():
        say(f"  {name}: answers in {latency_s * 1000:.0f} ms")
    for warning in report["warnings"]:
        say(f"Warning: {warning}")
    say(f"The key is {report['key_file']}. COPY IT to a safe place now: without it nobody reads anything again.")
    age = human_duration(report["seal_after_s"])
    say(f"What you write is at the locations after about {age}, or at once with qssctl sync.")
    say(f"Next: qssctl --config {config} mount {report['mountpoint'] or 'DIR'}")


def recover(  # noqa: PLR0913, PLR0917 - one for each option
    context: typer.Context,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="The key [that of the configuration]")] = None,
    location: Locations = None,
    k: DataShards = None,
    m: SpareShards = None,
    state: Annotated[Path | None, typer.Option(metavar="DIR", help="Empty state directory to fill")] = None,
    mountpoint: Annotated[Path | None, typer.Option(metavar="DIR", help="Where `qssctl mount` mounts it")] = None,
    snapshot: Annotated[str | None, typer.Option(metavar="NAME", help="Only this snapshot, to be read")] = None,
    only_list: Annotated[bool, typer.Option("--list", help="Only say which snapshots there are.")] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Even if another machine holds it; that one only reads from then on.")
    ] = False,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Bring a file system back on an empty state directory, from its key and any k locations."""
    from qss.app.create import Plan
    from qss.app.restore import recover_configured, recover_from, recover_newest
    from qss.app.restore_snapshot import listing, recovering
    from qss.config import environment

    session = session_of(context)
    newest = partial(recover_newest, take_over=take_over)
    task = listing if only_list else newest if snapshot is None else recovering(snapshot)
    if location:
        config = (session.config or Path("qss.toml")).absolute()
        plan = Plan(
            config=config,
            locations=tuple(location),
            k=k,
            m=m,
            state=(state or config.parent / "state").absolute(),
            key_file=key.absolute() if key else None,
            mountpoint=mountpoint.absolute() if mountpoint else None,
            folder=Path.cwd(),
        )
        report = recover_from(plan, environment(), task, keep=not only_list)
    else:
        report = recover_configured(session.settings(), key.absolute() if key else None, state, task)
    if as_json:
        print_json(report)
    elif only_list:
        _say_snapshots(report)
    else:
        _say_recovered(report)
    if report.get("lost_segments"):
        raise typer.Exit(Exit.DATA)


def _say_recovered(report: dict[str, Any]) -> None:
    from qss.cli.render import utc

    when = f"{utc(report['point']['cut_ns'])} UTC"
    snapshot = report.get("snapshot")
    if snapshot:
        say(f"Restored the snapshot {snapshot} of {when} into {report['state']}: to be read, never written.")
    else:
        say(f"Restored the file system of {when} (root {report['generation']}) into {report['state']}.")
    say(f"{report['files']} inodes, {report['segments']} segments; contents are fetched when they are read.")
    for line in report["notes"]:
        say(line)
    lost = report["lost_segments"]
    if lost:
        say(f"{len(lost)} segments could not be found at enough locations; files in them are not readable.")
    elif snapshot:
        say("Nothing of it is missing. What came after it stays at the locations, for a recover without --snapshot.")
    else:
        say("Nothing that root names is missing. What was written after it is lost.")
    say(f"Next: qssctl --config {report['config']} mount DIR")


def _say_snapshots(report: dict[str, Any]) -> None:
    from qss.cli.render import utc

    say(f"Root {report['generation']}, of {utc(report['cut_ns'])} UTC, knows {len(report['snapshots'])} snapshots.")
    for each in report["snapshots"]:
        say(f"  {each['name']}  {utc(each['created_ns'])}" + (f"  {each['comment']}" if each["comment"] else ""))
    if not report["majority"]:
        say("Most locations did not answer: a newer root may know others.")


@locations.command("list")
def location_list(context: typer.Context, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """The locations, and whether they answer (as the running file system sees it)."""
    from qss.cli import render
    from qss.cli.session import call_mount
    from qss.errors import Retryable

    settings = session_of(context).settings()
    try:
        seen = {each["name"]: each for each in call_mount(settings, "status")["locations"]}
    except Retryable:
        seen = {}
    rows = [
        {
            "name": each.name,
            "url": f"{each.endpoint}/{each.bucket}" + (f"/{each.prefix}" if each.prefix else ""),
            "labels": dict(each.labels),
            "state": {True: "up", False: "down", None: "unknown"}[seen.get(each.name, {}).get("up")],
            "latency_s": seen.get(each.name, {}).get("latency_s"),
            "last_error": seen.get(each.name, {}).get("last_error", ""),
        }
        for each in settings.locations
    ]
    print_json(rows) if as_json else render.locations(rows)


@locations.command("test")
def location_test(context: typer.Context, as_json: Annotated[bool, JsonFlag] = False) -> None:
    """Write, read and delete a small object at every location."""
    from qss.app.create import probe_locations
    from qss.cli import render

    rows = probe_locations(session_of(context).settings())
    print_json(rows) if as_json else render.probes(rows)
    if not all(row["ok"] for row in rows):
        raise typer.Exit(Exit.UNREACHABLE)
