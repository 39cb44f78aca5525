"""When snapshots are made by themselves, and which of those go again. Pure.

One series, made at the finest period of the schedule; thinned so that of each period as many are kept as it says: the
newest of each of the last so many hours (days, weeks, months) that have one. All in UTC; weeks begin on Monday.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Final, NamedTuple, Self

from qss.errors import Refused

PERIODS: Final = ("hourly", "daily", "weekly", "monthly")
"""Finest first."""
KEPT_MAX: Final = 1000
"""Of one period."""
OFF: Final = "off"

_S_PER_HOUR: Final = 3600
_S_PER_DAY: Final = 24 * _S_PER_HOUR
_DAYS_TO_MONDAY: Final = 3  # 1970 began on a Thursday
_EXAMPLE: Final = 'write for example "hourly=24 daily=7 weekly=4 monthly=12", or "off"'


class Taken(NamedTuple):
    """A snapshot that the schedule has made."""

    number: int
    created_ns: int


def period_of(period: str, at_ns: int) -> int:
    """Number of the hour, day, week or month that this moment lies in."""
    seconds = at_ns // 1_000_000_000
    if period == "hourly":
        return seconds // _S_PER_HOUR
    days = seconds // _S_PER_DAY
    if period == "daily":
        return days
    if period == "weekly":
        return (days + _DAYS_TO_MONDAY) // 7
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.year * 12 + moment.month


@dataclass(frozen=True, slots=True)
class Schedule:
    """How many of each period are kept; none at all: off."""

    kept: tuple[tuple[str, int], ...] = ()  # (period, at least 1), finest first

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises Refused, with what to write."""
        if text.strip() in ("", OFF):
            return cls()
        kept: dict[str, int] = {}
        for word in text.split():
            period, _, count = word.partition("=")
            known = period in PERIODS and period not in kept
            if not (known and count.isascii() and count.isdigit() and int(count) <= KEPT_MAX):
                raise Refused(f'"{word}" is no part of a schedule: {_EXAMPLE}')
            kept[period] = int(count)
        return cls(tuple((period, kept[period]) for period in PERIODS if kept.get(period)))

    def __str__(self) -> str:
        return " ".join(f"{period}={count}" for period, count in self.kept) or OFF

    def is_due(self, taken: Iterable[Taken], now_ns: int) -> bool:
        """Whether the running period of the finest kind has none yet. However many were missed, one is due."""
        if not self.kept:
            return False
        finest = self.kept[0][0]
        newest_ns = max((each.created_ns for each in taken), default=None)
        return newest_ns is None or period_of(finest, newest_ns) < period_of(finest, now_ns)

    def surplus(self, taken: Iterable[Taken]) -> list[Taken]:
        """Those that no period keeps, oldest first. Without a schedule none goes: it was switched off, not emptied."""
        if not self.kept:
            return []
        newest_first = sorted(taken, key=lambda each: (each.created_ns, each.number), reverse=True)
        keep: set[Taken] = set()
        for period, count in self.kept:
            newest_of: dict[int, Taken] = {}
            for each in newest_first:
                newest_of.setdefault(period_of(period, each.created_ns), each)
            keep.update(islice(newest_of.values(), count))
        return [each for each in reversed(newest_first) if each not in keep]


def name_at(at_ns: int) -> str:
    """Name of a snapshot made by the schedule at this moment."""
    return datetime.fromtimestamp(at_ns // 1_000_000_000, UTC).strftime("auto-%Y-%m-%dT%H:%M:%SZ")
