"""trove: the storage node. Arguments in, exit codes out; the work is done in qss.app.trove.

Exit codes: 0 stopped in order · 1 our bug · 2 wrong arguments · 3 you must act (directory in use, configuration,
address taken) · 4 temporary · 5 damage was found.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from qss.cli import serve_options as options

app = typer.Typer(
    name="trove",
    help="Trove: an S3 object store in one program. Small objects in big volumes, every byte verified on every read.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

OneData = Annotated[list[Path], typer.Option("--data", metavar="DIR", help="Data directory of a stopped node.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document a line on standard output.")]


@app.callback()
def _trove() -> None:
    pass


@app.command()
def serve(  # noqa: PLR0913, PLR0917 - each parameter is an option of the command
    data: options.Data = None,
    s3: options.S3 = None,
    admin: options.Admin = None,
    files: options.Files = None,
    console: options.Console = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    tls_client_ca: options.TlsClientCa = None,
    mutual_tls: options.MutualTls = None,
    access_log: options.AccessLog = None,
    public_url: options.PublicUrl = None,
    domain: options.Domain = None,
    config: options.Config = None,
    access_key: options.AccessKey = None,
    secret_key_file: options.SecretKeyFile = None,
    sync: options.Sync = None,
    clean_slate: options.CleanSlate = False,
    allow_missing: options.AllowMissing = False,
    pid_file: options.PidFile = None,
    as_json: AsJson = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    from qss.app.trove import ServeOptions, serve_node

    wanted = ServeOptions(
        data=tuple(data or ()),
        s3=s3,
        admin=admin,
        files=files,
        console=console,
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_client_ca=tls_client_ca,
        mutual_tls=tuple(mutual_tls or ()),
        access_log=access_log,
        public_url=public_url,
        domains=tuple(domain or ()),
        config=config,
        access_key=access_key,
        secret_key_file=secret_key_file,
        sync=sync,
        clean_slate=clean_slate,
        allow_missing=allow_missing,
        pid_file=pid_file,
        as_json=as_json,
    )
    serve_node(wanted)


@app.command()
def inspect(data: OneData) -> None:
    """Print what a stopped node holds, as JSON."""
    from qss.app.trove import inspect_node

    inspect_node(tuple(data))


@app.command()
def verify(data: OneData) -> None:
    """Read every object of a stopped node and compare all hashes; exit code 5 if one does not verify."""
    from qss.app.trove import verify_node

    raise typer.Exit(verify_node(tuple(data)))


@app.command()
def compact(data: OneData) -> None:
    """Give the space of deleted objects of a stopped node back to the disk."""
    from qss.app.trove import compact_node

    compact_node(tuple(data))


@app.command("new-key")
def new_key(data: OneData) -> None:
    """Make a new key of a stopped node for server-side encryption; older ones go on opening what is under them."""
    from qss.app.trove import new_node_key

    new_node_key(data[0])


@app.command()
def repair(
    data: OneData,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be given up; then exit code 5.")
    ] = False,
    rebuild_index: Annotated[
        bool, typer.Option("--rebuild-index", help="First make the index again from the volumes.")
    ] = False,
    forget_missing: Annotated[
        bool, typer.Option("--forget-missing", help="Give up drives that are not there, and what is on them.")
    ] = False,
) -> None:
    """Keep every byte of a stopped node that verifies; list and drop what does not; set damaged volumes aside."""
    from qss.app.trove import repair_node

    code = repair_node(tuple(data), dry_run=dry_run, rebuild_index=rebuild_index, forget_missing=forget_missing)
    raise typer.Exit(code)


def run(arguments: list[str]) -> int:
    """The exit code of one command line; errors are one sentence on standard error."""
    from qss.app.exits import Exit, exit_of
    from qss.errors import QssError

    command = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name="trove", standalone_mode=False)
    except QssError as error:
        sys.stderr.write(f"trove: {error}\n")
        return exit_of(error)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except typer.Exit as error:
        return error.exit_code
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's own: wrong arguments
            raise
        sys.stderr.write(f"trove: {error.format_message()}\n")
        return Exit.USAGE
    return code if isinstance(code, int) else Exit.OK


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
