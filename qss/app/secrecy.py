"""How the master key gets from one process to the next: 32 bytes through a pipe, the child's standard input.

Never in arguments, the environment or a file: other users see the first, and the others outlive the process. Only the
process that was started by a person (or systemd) opens the key file; what it starts is handed the key.
"""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from typing import Final

from qss.config import Settings
from qss.errors import Refused
from qss.formats.keyfile import KEY_BYTES
from qss.offload.keys import MasterKey

KEY_ON_STDIN: Final = "--key-on-stdin"
"""The argument that tells a child so."""


def received(settings: Settings, *, on_stdin: bool) -> Settings:
    """With the key that whoever started this process has written to our standard input. Raises Refused."""
    if not on_stdin or settings.opened is not None:
        return settings
    raw = b""
    while len(raw) < KEY_BYTES:
        part = os.read(0, KEY_BYTES - len(raw))
        if not part:
            raise Refused("whoever started this process promised it the key, and went away")
        raw += part
    return replace(settings, opened=MasterKey(raw))


def handed_over(settings: Settings) -> tuple[list[str], bytes]:
    """(further arguments, first words) for a child that needs the key. Without an opened key it has to look itself."""
    if settings.opened is None:
        return [], b""
    return [KEY_ON_STDIN], settings.opened.raw


def no_core_dumps() -> None:
    """For this process and those it starts: a core would hold the key. 1 byte, for a limit of 0 does not hold for
    handlers that the kernel pipes cores to (core(5)); no core is that short."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0 if hard == 0 else 1, hard))
