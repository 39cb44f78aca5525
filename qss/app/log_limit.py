"""A log that cannot be flooded: so many of one message a minute, and then how many were left out."""

from __future__ import annotations

import logging
from typing import Final

BURST: Final = 20
WINDOW_S: Final = 60.0
KINDS_MAX: Final = 1000
"""Different messages remembered; beyond, the oldest window is forgotten."""


class LogLimit(logging.Filter):
    """Lets BURST records of one kind (logger and unformatted message) through in a window that begins with the first.

    The first one of a later window says how many were left out. Time is the records' own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}  # kind: begin of its window, records in it

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.name, str(record.msg)
        since, count = self._seen.get(kind, (record.created, 0))
        if record.created - since >= WINDOW_S:
            if count > BURST:
                record.msg = f"{record.msg!s} ({count - BURST} more like this were left out)"
            since, count = record.created, 0
            self._seen.pop(kind, None)
        if kind not in self._seen and len(self._seen) >= KINDS_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[kind] = since, count + 1
        return count < BURST


def limit_logs() -> None:
    """Put a limit before every handler of the root logger."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(LogLimit())
