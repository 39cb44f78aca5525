"""What `trove serve` takes. None: as trove.toml says, or the default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    list[Path] | None, typer.Option("--data", metavar="DIR", help="Data directory; again for more drives.")
]
S3 = Annotated[
    str | None,
    typer.Option("--s3", metavar="ADDR", help="Host:port of the S3 API, port 0 picks one; off [127.0.0.1:9000]."),
]
Admin = Annotated[
    str | None, typer.Option("--admin", metavar="ADDR", help="Host:port of the admin API [default: off].")
]
Files = Annotated[
    str | None, typer.Option("--files", metavar="ADDR", help="Host:port of the REST file API [default: off].")
]
Console = Annotated[
    str | None, typer.Option("--console", metavar="ADDR", help="Host:port of the web console [default: off].")
]
TlsCert = Annotated[
    Path | None, typer.Option("--tls-cert", metavar="FILE", help="PEM: with it every front door speaks TLS.")
]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Its key, PEM, 0600.")]
TlsClientCa = Annotated[
    Path | None,
    typer.Option("--tls-client-ca", metavar="FILE", help="PEM: clients need a certificate signed by this."),
]
MutualTls = Annotated[
    list[str] | None, typer.Option("--mutual-tls", metavar="FRONT", help="Only this front wants one; again [all].")
]
AccessLog = Annotated[
    Path | None, typer.Option("--access-log", metavar="FILE", help="One JSON line a request; SIGHUP begins a new.")
]
PublicUrl = Annotated[
    str | None, typer.Option("--public-url", metavar="URL", help="Where people reach the file API, for shares.")
]
Domain = Annotated[
    list[str] | None,
    typer.Option("--domain", metavar="NAME", help="NAME's subdomains are buckets; again for more."),
]
Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="trove.toml")]
AccessKey = Annotated[
    str | None, typer.Option("--access-key", help="Access key [$TROVE_ACCESS_KEY; default: made at first start].")
]
SecretKeyFile = Annotated[
    Path | None, typer.Option("--secret-key-file", metavar="FILE", help="Its secret key [$TROVE_SECRET_KEY].")
]
Sync = Annotated[str | None, typer.Option("--sync", help="group, each or os: docs/trove.md [group].")]
CleanSlate = Annotated[
    bool, typer.Option("--clean-slate", help="First remove what a node has in DIR; no other directory's content.")
]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Start without drives that are not there, and what is on them.")
]
PidFile = Annotated[Path | None, typer.Option("--pid-file", metavar="FILE")]
