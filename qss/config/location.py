"""Locations as people write them: `http://host:port/bucket/prefix?region=…`, in the file or as an argument."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from qss.config.schema import refuse_unknown
from qss.errors import ConfigInvalid
from qss.ids import LocationId
from qss.offload.options import LocationOptions

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]", re.ASCII)
_QUERY: Final = [
    "region", "name", "access_key", "secret_key", "secret_key_file", "weight", "metered", "ca_file", "client_cert",
    "client_key"
]  # fmt: skip

_ENV: Final = "env:"


def location_of(values: Mapping[str, Any], environ: Mapping[str, str], where: str, folder: Path) -> LocationOptions:
    """One location from the values of its section (`url` among them). Raises ConfigInvalid."""
    url = values.get("url")
    if not url:
        raise ConfigInvalid(f'{where}: a location needs url = "http://host:port/bucket"')
    parts, query = _split(url, where)
    given = dict(query) | {key: value for key, value in values.items() if key != "url"}
    bucket, _, prefix = parts.path.strip("/").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ConfigInvalid(f"{where}: the url {url.partition('?')[0]} names no bucket; write http://host:port/bucket")
    name = str(given.get("name") or bucket)
    if not _NAME.fullmatch(name):
        raise ConfigInvalid(f'{where}: "{name}" is no name for a location; use letters, digits, dot, dash, underscore')
    secret_file = given.get("secret_file")
    secret = "" if secret_file else _resolve(given.get("secret_key"), "AWS_SECRET_ACCESS_KEY", environ, where)
    if secret_file and given.get("secret_key"):
        raise ConfigInvalid(f"{where}: write either secret_key or secret_key_file, not both")
    return LocationOptions(
        name=LocationId(name),
        endpoint=f"{parts.scheme}://{parts.netloc}",
        bucket=bucket,
        prefix=prefix,
        region=str(given.get("region", "us-east-1")),
        access_key=_resolve(given.get("access_key"), "AWS_ACCESS_KEY_ID", environ, where),
        secret_key=secret,
        secret_file=Path(folder, secret_file) if secret_file else None,
        labels=dict(given.get("labels", {})),
        weight=float(given.get("weight", 1.0)),
        metered=bool(given.get("metered", False)),
        draining=bool(given.get("draining", False)),
        **_tls(given, parts.scheme, where, folder),
    )


def _tls(given: Mapping[str, Any], scheme: str, where: str, folder: Path) -> dict[str, Path]:
    files = {name: Path(folder, given[name]) for name in ("ca_file", "client_cert", "client_key") if given.get(name)}
    if files and scheme != "https":
        raise ConfigInvalid(f"{where}: {next(iter(files))} goes with an https url")
    if "client_key" in files and "client_cert" not in files:
        raise ConfigInvalid(f"{where}: client_key goes with client_cert")
    return files


def _split(url: str, where: str) -> tuple[Any, dict[str, Any]]:
    """The URL's parts, and what its query says, by attribute. Raises ConfigInvalid; never shows a query."""
    plain = url.partition("?")[0]
    try:
        parts = urlsplit(url)
        port_holds = parts.port is None or parts.port > 0
    except ValueError as error:
        raise ConfigInvalid(f"{where}: a location's url does not hold; write http://host:port/bucket") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_holds:
        raise ConfigInvalid(f"{where}: {plain} is no S3 address; write http://host:port/bucket")
    if parts.username is not None or parts.password is not None:
        raise ConfigInvalid(f"{where}: no user and password in a url; use access_key and secret_key_file")
    query: dict[str, Any] = {}
    labels: dict[str, str] = {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key.startswith("label."):
            labels[key.removeprefix("label.")] = value
            continue
        refuse_unknown({key: value}, [*_QUERY, "label.NAME"], f"{where}, after the ? of its url")
        query["secret_file" if key == "secret_key_file" else key] = value
    if "weight" in query:
        try:
            query["weight"] = float(query["weight"])
        except ValueError as error:
            raise ConfigInvalid(f"{where}: weight must be a number") from error
    if "metered" in query:
        if query["metered"] not in ("true", "false"):
            raise ConfigInvalid(f"{where}: metered must be true or false")
        query["metered"] = query["metered"] == "true"
    if labels:
        query["labels"] = labels
    secret = query.get("secret_key")
    if secret is not None and not secret.startswith(_ENV):
        raise ConfigInvalid(
            f"{where}: a secret may not stand in a url, where others can see it; use secret_key_file=FILE or "
            "secret_key=env:NAME"
        )
    return parts, query


def _resolve(value: str | None, default: str, environ: Mapping[str, str], where: str) -> str:
    if value is None:
        return environ.get(default, "")
    if not value.startswith(_ENV):
        return value
    name = value.removeprefix(_ENV)
    if name not in environ:
        raise ConfigInvalid(f"{where}: the environment variable {name} is not set")
    return environ[name]
