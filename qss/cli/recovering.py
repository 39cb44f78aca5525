"""recover: a file system, or what it was, from the key and any k locations. drill: would that work?

docs/recovery.md shows both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qss.app.exits import Exit
from qss.cli.making import DataShards, Locations, SpareShards
from qss.cli.session import JsonFlag, Session, print_json, say, session_of

if TYPE_CHECKING:
    from qss.config import Settings
    from qss.offload.keys import MasterKey

KeyFile = Annotated[Path | None, typer.Option("--key", metavar="FILE", help="The key [that of the configuration]")]
Moment = Annotated[
    str | None,
    typer.Option("--at", metavar="TIME", help='As of then: "2026-11-21 09:00" (UTC), or "2h" for 2 hours ago'),
]


def add_to(app: typer.Typer) -> None:
    app.command()(recover)
    app.command()(drill)


def recover(  # noqa: PLR0913, PLR0917 - one for each option
    context: typer.Context,
    key: KeyFile = None,
    location: Locations = None,
    k: DataShards = None,
    m: SpareShards = None,
    state: Annotated[Path | None, typer.Option(metavar="DIR", help="Empty state directory to fill")] = None,
    mountpoint: Annotated[Path | None, typer.Option(metavar="DIR", help="Where `qssctl mount` mounts it")] = None,
    at: Moment = None,
    snapshot: Annotated[str | None, typer.Option(metavar="NAME", help="Only this snapshot, to be read")] = None,
    only_list: Annotated[bool, typer.Option("--list", help="Only say which roots and snapshots there are.")] = False,
    accept_loss: Annotated[
        bool, typer.Option("--partial", help="Also when something is lost: restore all else, and list what is damaged.")
    ] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Even if another machine holds it; that one only reads from then on.")
    ] = False,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Bring a file system back on an empty state directory, from its key and any k locations."""
    from qss.app.restore import Wish, recover_newest
    from qss.app.restore_snapshot import listing, recovering
    from qss.cli import render_recovery

    session = session_of(context)
    if snapshot is not None and at is not None:
        raise typer.BadParameter("--at and --snapshot exclude each other")
    wish = Wish(take_over, accept_loss, moment(at))
    task: Callable[[Settings, MasterKey], dict[str, Any]] = partial(recover_newest, wish=wish)
    if only_list:
        task = listing
    elif snapshot is not None:
        task = recovering(snapshot, partial=accept_loss)
    source = Source(location, key, k, m, state, mountpoint)
    report = from_locations(session, source, task, keep=not only_list)
    if as_json:
        print_json(report)
    elif only_list:
        render_recovery.listing(report)
    else:
        render_recovery.recovered(report)
        words = session.unlock is not None and (session.unlock.words or session.unlock.words_file)
        if words and report["restored"]:
            say(f"The key lies bare in {report['key_file']}: qssctl key add --passphrase locks it.")
    if report.get("damaged_files") or report.get("lost_for_snapshots") or not report.get("restored", True):
        raise typer.Exit(Exit.DATA)


def drill(  # noqa: PLR0913, PLR0917 - one for each option
    context: typer.Context,
    sample: Annotated[
        int | None, typer.Option("--sample", metavar="N", min=0, help="Fetch N stripes of up to 4 MiB [64]")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Fetch and verify all content.")] = False,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Which sample; the report says it")] = None,
    at: Moment = None,
    key: KeyFile = None,
    location: Locations = None,
    scratch: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Room for journals and index [the system's]")
    ] = None,
    as_json: Annotated[bool, JsonFlag] = False,
) -> None:
    """Prove that everything can be restored from the key and the locations alone. Changes nothing, here or there."""
    from qss.app.drill import SAMPLE, Wanted, drilling, exit_code
    from qss.cli import render, render_recovery
    from qss.host import Host

    if full and sample is not None:
        raise typer.BadParameter("--sample and --full exclude each other")
    if seed is None:
        seed = int.from_bytes(Host().entropy.token(4), "little")
    stripes = None if full else SAMPLE if sample is None else sample
    wanted = Wanted(stripes, seed, moment(at), scratch.absolute() if scratch else None)
    session, source = session_of(context), Source(location, key)
    if not as_json and sys.stderr.isatty():
        with render.stage_bar() as update:
            report = from_locations(session, source, drilling(wanted, update), keep=False)
    else:
        report = from_locations(session, source, drilling(wanted, print_json if as_json else None), keep=False)
    if as_json:
        print_json(report)
    else:
        render_recovery.drilled(report)
    code = exit_code(report)
    if code:
        raise typer.Exit(code)


def moment(text: str | None) -> int | None:
    """Nanoseconds since 1970."""
    from qss.config.units import parse_moment
    from qss.host import Host

    if text is None:
        return None
    try:
        return parse_moment(text, Host().clock.now_ns())
    except ValueError as error:
        raise typer.BadParameter(f"--at {text} {error}") from error


@dataclass(frozen=True, slots=True)
class Source:
    """Where to recover from, and to, as far as the command line says it."""

    location: list[str] | None = None
    key: Path | None = None
    k: int | None = None
    m: int | None = None
    state: Path | None = None
    mountpoint: Path | None = None


def from_locations(
    session: Session, source: Source, task: Callable[[Settings, MasterKey], dict[str, Any]], *, keep: bool
) -> dict[str, Any]:
    """Do it with the locations named on the command line, else with those of the configuration. `keep`: write the
    configuration file at the end, if there is none."""
    from qss.app.create import Plan
    from qss.app.restore import recover_configured, recover_from
    from qss.config import UnlockOptions, environment

    if not source.location:
        return recover_configured(session.settings(), source.key.absolute() if source.key else None, source.state, task)
    config = (session.config or Path("qss.toml")).absolute()
    plan = Plan(
        config=config,
        locations=tuple(source.location),
        k=source.k,
        m=source.m,
        state=(source.state or config.parent / "state").absolute(),
        key_file=source.key.absolute() if source.key else None,
        mountpoint=source.mountpoint.absolute() if source.mountpoint else None,
        folder=Path.cwd(),
        unlock=session.unlock or UnlockOptions(),
    )
    return recover_from(plan, environment(), task, keep=keep)
