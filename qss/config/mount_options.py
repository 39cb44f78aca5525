"""`-o` of mount(8): a text like `ro,noatime,uid=1000` to MountSettings. Pure."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable
from typing import Any, Final

from qss.config import schema
from qss.config.settings import MountSettings
from qss.errors import ConfigInvalid

FLAGS: Final[dict[str, dict[str, Any]]] = {
    "ro": {"read_only": True},
    "rw": {"read_only": False},
    "noatime": {"atime": "noatime"},
    "relatime": {"atime": "relatime"},
    "allow_other": {"allow_other": True},
    "noallow_other": {"allow_other": False},
    "writeback_cache": {"writeback_cache": True},
    "nowriteback_cache": {"writeback_cache": False},
    "dev": {"nodev": False},
    "nodev": {"nodev": True},
    "suid": {"nosuid": False},
    "nosuid": {"nosuid": True},
    "exec": {"noexec": False},
    "noexec": {"noexec": True},
}
VALUES: Final = ("uid", "gid", "read_ahead", "quota_bytes", "quota_inodes", "drain", "passphrase_file")

_OF_MOUNT: Final = (
    "defaults", "auto", "noauto", "user", "nouser", "users", "nofail", "_netdev", "async", "default_permissions",
)  # fmt: skip
"""Read by mount(8) and systemd, or what we do anyway."""
_REFUSED: Final = {
    "max_read": "is set by libfuse to the most the kernel takes; read_ahead is what can be set",
    "max_write": "is set by libfuse to the most the kernel takes",
    "sync": "is not offered; fsync is real, and programs ask for it",
}


def with_options(settings: MountSettings, given: str) -> MountSettings:
    """`settings` with what `given` says; the last word on each holds. Raises ConfigInvalid for what is not known."""
    changes: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in given.split(","))):
        name, equals, text = item.partition("=")
        if name in _OF_MOUNT or name.startswith(("x-", "comment")):
            continue
        if name in _REFUSED:
            raise ConfigInvalid(f"the mount option {name} {_REFUSED[name]}")
        if name in FLAGS and not equals:
            changes |= FLAGS[name]
        elif name in VALUES and equals:
            field = schema.MOUNT[name]
            changes[field.target] = _parsed(field.parse, name, text)
        else:
            near = difflib.get_close_matches(name, [*FLAGS, *VALUES], n=1, cutoff=0.0)[0]
            near += "=…" if near in VALUES else ""
            raise ConfigInvalid(f'the mount option "{item}" is not known; did you mean "{near}"?')
    return dataclasses.replace(settings, **changes)


def _parsed(parse: Callable[[Any], Any], name: str, text: str) -> Any:
    try:
        return parse(int(text) if text.isdecimal() else text)
    except ValueError as error:
        raise ConfigInvalid(f"the mount option {name}={text} {error}") from error
