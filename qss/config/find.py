"""Which configuration file, and the environment as a value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from qss.errors import ConfigInvalid


def environment() -> Mapping[str, str]:
    """The one place that looks at it."""
    return os.environ


def candidates(environ: Mapping[str, str], folder: Path) -> list[Path]:
    """Where a configuration is looked for when none is named, first wins."""
    user = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "/root")) / ".config")
    return [folder / "qss.toml", user / "qss" / "qss.toml", Path("/etc/qss/qss.toml")]


def find_config(named: Path | None, environ: Mapping[str, str], folder: Path) -> Path:
    """The configuration file, absolute. Raises ConfigInvalid if there is none."""
    if named is None and environ.get("QSS_CONFIG"):
        named = Path(environ["QSS_CONFIG"])
    if named is not None:
        if not named.is_file():
            raise ConfigInvalid(f"there is no configuration file {named}")
        return named.absolute()
    looked = candidates(environ, folder)
    for path in looked:
        if path.is_file():
            return path
    places = ", ".join(map(str, looked))
    raise ConfigInvalid(f"no configuration file: name one with --config or $QSS_CONFIG (looked for {places})")
