"""TOML to frozen options; the only reader of configuration files and of the environment."""

from __future__ import annotations

from qss.config.find import environment, find_config
from qss.config.mount_options import with_options
from qss.config.read import load, parse
from qss.config.settings import HookOptions, LogOptions, MountSettings, Settings, UnlockOptions

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
