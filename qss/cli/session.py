"""What every command of qssctl has at hand: the configuration, and a line to the running processes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from qss.config import Settings, UnlockOptions

JsonFlag = typer.Option("--json", help="Print one JSON document instead of text.")


@dataclass(slots=True)
class Session:
    """The global options."""

    config: Path | None = None
    unlock: UnlockOptions | None = None

    def config_path(self) -> Path:
        from qss.config import environment, find_config

        return find_config(self.config, environment(), Path.cwd())

    def settings(self) -> Settings:
        from qss.config import environment, load

        settings = load(self.config_path(), environment())
        return settings if self.unlock is None else replace(settings, unlock=self.unlock)


def session_of(context: typer.Context) -> Session:
    session = context.find_object(Session)
    assert session is not None
    return session


def call_mount(settings: Settings, method: str, on_progress: Callable[[Any], None] | None = None, **params: Any) -> Any:
    """One call to the mount process of this file system."""
    from qss.app import talk

    return talk.call_mount(settings, method, on_progress, **params)


def print_json(document: Any) -> None:
    print(json.dumps(document), flush=True)


def say(line: str) -> None:
    print(line, flush=True)


def warn(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
