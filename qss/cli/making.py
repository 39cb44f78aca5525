"""init, recover: what is done to a file system that is not mounted."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qss.app.exits import Exit
from qss.cli.session import JsonFlag, print_json, say, session_of

if TYPE_CHECKING:
    from qss.app.create import Plan

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


def add_to(app: typer.Typer) -> None:
    app.command()(init)
    app.command()(recover)


def init(  # noqa: PLR0913, PLR0917 - one for each option
    context: typer.Context,
    location: Locations = None,
    k: DataShards = None,
    m: SpareShards = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="Key file, made if absent [STATE/key]")] = None,
    state: Annotated[Path | None, typer.Option(metavar="DIR", help="Cache and index [state, beside the file]")] = None,
    mountpoint: Annotated[Path | None, typer.Option(metavar="DIR", help="Where `qssctl mount` mounts it")] = None,
    passphrase: Annotated[bool, typer.Option("--passphrase", help="Lock the new key by one, asked for twice")] = False,
    with_words: Annotated[bool, typer.Option("--with-words", help="The key's 24 words on the recovery sheet")] = False,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Create a file system: check every location, make buckets, key and configuration file."""
    from qss.app.create import Plan, create
    from qss.config import UnlockOptions, environment
    from qss.config.units import human_duration

    session = session_of(context)
    config = (session.config or Path("qss.toml")).absolute()
    plan = Plan(
        config=config,
        locations=tuple(location or ()),
        k=k,
        m=m,
        state=(state or config.parent / "state").absolute(),
        key_file=key.absolute() if key else None,
        mountpoint=mountpoint.absolute() if mountpoint else None,
        folder=Path.cwd(),
        unlock=session.unlock or UnlockOptions(),
        words_on_sheet=with_words,
    )
    if passphrase:
        plan = _locked(plan)
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
    say(f"What brings everything back on another machine stands in {report['sheet']}: PRINT IT.")
    age = human_duration(report["seal_after_s"])
    say(f"What you write is at the locations after about {age}, or at once with qssctl sync.")
    say(f"Next: qssctl --config {config} mount {report['mountpoint'] or 'DIR'}")


def _locked(plan: Plan) -> Plan:
    """With a passphrase for the new key: that of --passphrase-file or --passphrase-fd, or typed twice."""
    from qss.app.unlock import ask_new, passphrase_source
    from qss.errors import Refused

    if plan.key.exists():
        raise Refused(f"{plan.key} is there already: leave out --passphrase, or lock it with qssctl key add")
    unlock = plan.unlock
    named = unlock.passphrase_fd is not None or unlock.passphrase_file is not None
    source = passphrase_source(unlock, None, {}) if named else None
    return replace(plan, passphrase=source() if source is not None else ask_new("the new passphrase"))


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
    from qss.config import UnlockOptions, environment

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
            unlock=session.unlock or UnlockOptions(),
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
        if session.unlock is not None and (session.unlock.words or session.unlock.words_file):
            say(f"The key lies bare in {report['key_file']}: qssctl key add --passphrase locks it.")
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
