"""init: a new file system."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
