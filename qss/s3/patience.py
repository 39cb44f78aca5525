"""How long clients may keep a server waiting, and how many of them may be there. Pure.

A client that sends a head, a body or takes an answer too slowly is let go: each open connection costs memory, and one
that waits for nothing costs it for ever. What "too slowly" means is one sum: a client may let us wait `wait_s` seconds
in all for one body or one answer, and one second more for each RATE_BYTES_MIN that have passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

RATE_BYTES_MIN: Final = 1024
"""A second: slower than any line that is in use, and Apache's mod_reqtimeout (500) is hardly milder."""
FILES_KEPT_BACK: Final = 1024
"""Open files of the process that connections never use up: volumes, index, logs."""
CONNECTIONS_MIN: Final = 64


@dataclass(frozen=True, slots=True)
class Patience:
    """Of one front door."""

    head_s: float = 30.0
    """An idle connection, and a head that is being sent."""
    wait_s: float = 60.0
    """Waiting for a body's next bytes, or for an answer's to be taken, in all; see `allowance_s`."""
    connections_max: int = 10_240
    """Open at once. More wait in the system's queue until others have gone."""


USUAL: Final = Patience()


class Waiting:
    """What is left of a client's allowance for one body or one answer. Times are the caller's, in seconds."""

    __slots__ = ("_bytes", "_wait_s", "_waited_s")

    def __init__(self, patience: Patience) -> None:
        self._wait_s = patience.wait_s
        self._bytes = 0
        self._waited_s = 0.0

    @property
    def allowance_s(self) -> float:
        """How long we wait for the next bytes; 0 when it is enough."""
        return max(self._wait_s + self._bytes / RATE_BYTES_MIN - self._waited_s, 0.0)

    def passed(self, count: int, after_s: float) -> None:
        """`count` bytes have passed, after so many seconds of waiting."""
        self._bytes += count
        self._waited_s += after_s


def shared(fronts: Mapping[str, Patience], files_max: int) -> dict[str, Patience]:
    """By name, with no more connections together than a process with so many files may have open. Fronts that ask for
    few get them; the others share the rest evenly."""
    room, told = files_max - FILES_KEPT_BACK, dict(fronts)
    smallest_first = sorted(fronts, key=lambda name: fronts[name].connections_max)
    for number, name in enumerate(smallest_first):
        fair = max(room // (len(smallest_first) - number), CONNECTIONS_MIN)
        told[name] = replace(fronts[name], connections_max=min(fronts[name].connections_max, fair))
        room -= told[name].connections_max
    return told
