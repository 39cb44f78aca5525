"""trove.toml: what `trove serve` may be told in a file. The command line goes before it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

from qss.config import schema
from qss.config.schema import Field, Fields
from qss.errors import ConfigInvalid


def _paths_in(folder: Path) -> schema.Parser:
    one = schema.path_in(folder)

    def parse(value: Any) -> tuple[Path, ...]:
        return tuple(one(each) for each in (value if isinstance(value, list) else [value]))

    return parse


def _names(value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) for each in names):
        raise ValueError("is not right; write a list of names")
    return tuple(names)


def _fields(folder: Path) -> Fields:
    return {
        "data": Field("data", _paths_in(folder)),
        "s3": Field("s3", schema.text),
        "admin": Field("admin", schema.text),
        "files": Field("files", schema.text),
        "console": Field("console", schema.text),
        "tls_cert": Field("tls_cert", schema.path_in(folder)),
        "tls_key": Field("tls_key", schema.path_in(folder)),
        "tls_client_ca": Field("tls_client_ca", schema.path_in(folder)),
        "mutual_tls": Field("mutual_tls", _names),
        "access_log": Field("access_log", schema.path_in(folder)),
        "public_url": Field("public_url", schema.text),
        "domain": Field("domains", _names),
        "access_key": Field("access_key", schema.text),
        "secret_key_file": Field("secret_key_file", schema.path_in(folder)),
        "client_wait": Field("client_wait_s", schema.duration(1)),
        "sync": Field("sync", schema.one_of("group", "each", "os")),
        "upload_max_age": Field("upload_age_s_max", schema.duration(1)),
        "compact_garbage": Field("compact_garbage", schema.number),
        "compact_limit": Field("compact_bytes_per_s", schema.optional(schema.size(1))),
        "scrub_period": Field("scrub_period_s", schema.optional(schema.duration(1))),
        "scrub_limit": Field("scrub_bytes_per_s", schema.optional(schema.size(1))),
        "sse_c_over_http": Field("sse_c_over_http", schema.flag),
    }


KEYS: Final = tuple(_fields(Path("/")))


def load_trove(path: Path) -> dict[str, Any]:
    """The values of a file, by name. Raises ConfigInvalid, in one sentence that says what to write."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"cannot read {path}: {error}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigInvalid(f"{path.name} is not TOML: {error}") from error
    return schema.apply(document, _fields(path.absolute().parent), path.name)
