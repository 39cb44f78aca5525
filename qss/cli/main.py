"""qssctl: everything about one file system. Arguments in, exit codes out; the work is done in qss.app."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer

from qss.app.exits import Exit, exit_of
from qss.cli import (
    checking,
    exporting,
    keys,
    live,
    locations,
    making,
    mounting,
    recovering,
    retaining,
    snapshots,
    upkeep,
)
from qss.cli.session import JsonFlag, Session, print_json, say, warn
from qss.errors import QssError

app = typer.Typer(
    name="qssctl",
    help="QSS Quantum Storage: a mounted file system whose data survives the loss of any m of its k+m locations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Configuration file [default: $QSS_CONFIG, ./qss.toml, the user's, the system's]",
        ),
    ] = None,
    passphrase_file: Annotated[Path | None, typer.Option(metavar="FILE", help="With the passphrase of the key")] = None,
    passphrase_fd: Annotated[int | None, typer.Option(metavar="N", help="Read the passphrase from there")] = None,
    identity: Annotated[Path | None, typer.Option(metavar="FILE", help="Of a recipient of the key")] = None,
    words: Annotated[bool, typer.Option("--words", help="Ask for the 24 words instead of the key file.")] = False,
    words_file: Annotated[Path | None, typer.Option(metavar="FILE", help="With the 24 words")] = None,
) -> None:
    from qss.config import UnlockOptions

    unlock = UnlockOptions(None, passphrase_file, passphrase_fd, identity, words, words_file)
    context.obj = Session(config, None if unlock == UnlockOptions() else unlock)


@app.command()
def version(as_json: Annotated[bool, JsonFlag] = False) -> None:
    """Print the version."""
    number = installed_version("qss")
    print_json({"version": number}) if as_json else say(f"qssctl {number}")


making.add_to(app)
recovering.add_to(app)
keys.add_to(app)
mounting.add_to(app)
live.add_to(app)
locations.add_to(app)
retaining.add_to(app)
checking.add_to(app)
snapshots.add_to(app)
exporting.add_to(app)
upkeep.add_to(app)


def run(arguments: list[str]) -> int:
    """The exit code of one command line; errors are one sentence on standard error."""
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name="qssctl", standalone_mode=False)
    except QssError as error:
        warn(f"qssctl: {error}")
        return exit_of(error)
    except KeyboardInterrupt:
        return 130
    except typer.Exit as error:
        return error.exit_code
    except typer.Abort:
        return 130
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's own: wrong arguments
            raise
        warn(f"qssctl: {error.format_message().rstrip('.')}; see qssctl --help")
        return Exit.USAGE
    return code if isinstance(code, int) else Exit.OK


def main() -> None:
    """Entry point."""
    code: int = Exit.INTERNAL
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.OK
    except Exception as error:
        if os.environ.get("QSS_TRACEBACK"):
            raise
        warn(f"qssctl: internal error, please report it: {type(error).__name__}: {error} (QSS_TRACEBACK=1 shows more)")
    sys.exit(code)
