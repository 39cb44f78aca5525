"""TOML to frozen options; the only reader of configuration files and of the environment.

Names are loaded when they are asked for: the storage node needs the environment, and not what a mount is told.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qss.config.find import environment, find_config
    from qss.config.mount_options import with_options
    from qss.config.read import load, parse
    from qss.config.settings import HookOptions, LogOptions, MountSettings, Settings, UnlockOptions

_HOMES = {
    "HookOptions": "settings",
    "LogOptions": "settings",
    "MountSettings": "settings",
    "Settings": "settings",
    "UnlockOptions": "settings",
    "environment": "find",
    "find_config": "find",
    "load": "read",
    "parse": "read",
    "with_options": "mount_options",
}

__all__ = [
    "HookOptions",
    "LogOptions",
    "MountSettings",
    "Settings",
    "UnlockOptions",
    "environment",
    "find_config",
    "load",
    "parse",
    "with_options",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
