"""The fence: what keeps a machine from writing a file system that another machine has taken over.

It is a small file in the state directory, so that it outlives every process, and it is never lowered by itself:
only a take-over, which the user asks for, does that. It names no key and is read without asking any location.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from qss.errors import CorruptData
from qss.offload.files import replace_file


class Fence:
    """Owner of `fenced.json`."""

    def __init__(self, state: Path) -> None:
        """`state`: this machine's directory, e.g. `state/offload`. Raises CorruptData."""
        self._path = state / "fenced.json"
        self._listeners: list[Callable[[str], None]] = []
        self.reason = read_reason(self._path)

    @property
    def up(self) -> bool:
        return bool(self.reason)

    def put_up(self, reason: str) -> None:
        """From now on this machine must not change anything at the locations. The first reason is kept."""
        if self.reason:
            return
        self.reason = reason
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._path, (json.dumps({"reason": reason}) + "\n").encode(), sync=True)
        for listener in self._listeners:
            listener(reason)

    def tell(self, listener: Callable[[str], None]) -> None:
        """It hears the reason when the fence goes up, once; not when it is up already."""
        self._listeners.append(listener)

    def lower(self) -> None:
        """The user has decided that this machine writes."""
        self._path.unlink(missing_ok=True)
        self.reason = ""


def read_reason(path: Path) -> str:
    """Empty: there is no fence. Raises CorruptData."""
    try:
        return str(json.loads(path.read_bytes())["reason"]) or "another machine has taken over"
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptData(f"{path} cannot be read: this machine may have been fenced off; look there") from error
