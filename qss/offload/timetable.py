"""Bandwidth by the clock: `mon-fri 08:00-18:00 upload 2MB/s download 1MB/s; sat,sun upload 10MB/s`.

Rules are separated by `;`. Each: days (one, a range, a list; none: all), hours (none: the whole day; past midnight if
they end before they begin), then `upload` and/or `download` with a rate a second. The first rule that fits a moment
holds; where none does there is no limit of this kind. Pure but for `Timed`, which applies it to a store. Rates are for
each location, times are local.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

from qss.errors import ConfigInvalid
from qss.offload.bandwidth import Pace
from qss.s3.store import Body, HashesInPlace, ObjectInfo, ObjectStore, TellsRoom, get_into

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES: Final = 24 * 60
_RATE = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)([kmg]?)b?/s", re.ASCII | re.IGNORECASE)
_HOURS = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)", re.ASCII)
_UNITS: Final = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


@dataclass(frozen=True, slots=True)
class Rule:
    days: frozenset[int]  # Monday is 0
    start: int  # minute of the day
    stop: int  # of the same day, or of the next if not above start
    upload: int | None  # bytes a second
    download: int | None

    def fits(self, day: int, minute: int) -> bool:
        if self.start < self.stop:
            return day in self.days and self.start <= minute < self.stop
        return (day in self.days and minute >= self.start) or ((day - 1) % 7 in self.days and minute < self.stop)


@dataclass(frozen=True, slots=True)
class Timetable:
    rules: tuple[Rule, ...]

    @classmethod
    def parse(cls, text: str) -> Timetable:
        """Raises ConfigInvalid, one sentence."""
        rules = tuple(_rule(part) for part in text.split(";") if part.strip())
        if not rules:
            raise ConfigInvalid('a schedule is empty; write for example "mon-fri 08:00-18:00 upload 2MB/s"')
        return cls(rules)

    def at(self, moment: datetime) -> tuple[int | None, int | None]:
        """(upload, download) in bytes a second at a local time; None: no limit."""
        day, minute = moment.weekday(), moment.hour * 60 + moment.minute
        rule = next((each for each in self.rules if each.fits(day, minute)), None)
        return (None, None) if rule is None else (rule.upload, rule.download)

    @property
    def slowest_upload(self) -> int | None:
        return min((each.upload for each in self.rules if each.upload is not None), default=None)


def _rule(text: str) -> Rule:
    words = text.lower().split()
    days, hours = frozenset(range(7)), (0, DAY_MINUTES)
    if words and words[0][:3] in DAYS:
        days = _days(words.pop(0))
    if words and (found := _HOURS.fullmatch(words[0])):
        words.pop(0)
        first, second = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
        if max(int(found[2]), int(found[4])) > 59 or max(first, second) > DAY_MINUTES or first == second:
            raise ConfigInvalid(f'"{found[0]}" are no hours; write for example 08:00-18:00')
        hours = (first, second)
    rates = dict(zip(words[::2], words[1::2], strict=False))
    if not words or len(words) % 2 or len(rates) * 2 != len(words) or not rates.keys() <= {"upload", "download"}:
        raise ConfigInvalid(f'"{text.strip()}" is no rule; write for example "mon-fri 08:00-18:00 upload 2MB/s"')
    return Rule(days, *hours, *(_rate(rates[way]) if way in rates else None for way in ("upload", "download")))


def _days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise ConfigInvalid(f'"{part}" is no day; write for example mon, or mon-fri, or sat,sun')
        start, stop = DAYS.index(first), DAYS.index(last if dash else first)
        found.update((start + step) % 7 for step in range((stop - start) % 7 + 1))
    return frozenset(found)


def _rate(text: str) -> int:
    found = _RATE.fullmatch(text)
    rate = int(float(found[1]) * _UNITS[found[2].lower()]) if found else 0
    if not rate:
        raise ConfigInvalid(f'"{text}" is no rate; write for example 2MB/s')
    return rate


class Timed:
    """An ObjectStore around another, as fast as the timetable allows. `moment` tells the local time. On trio."""

    def __init__(self, store: ObjectStore, timetable: Timetable, moment: Callable[[], datetime]) -> None:
        self._store = store
        self._timetable = timetable
        self._moment = moment
        self._paces: dict[int, Pace] = {}  # upload 0, download 1

    async def _wait(self, way: int, count: int) -> None:
        rate = self._timetable.at(self._moment())[way]
        pace = self._paces.get(way)
        if pace is None or pace.bytes_per_s != rate:
            pace = self._paces[way] = Pace(rate)
        await pace.wait(count)

    async def put(self, key: str, body: Body, *, if_absent: bool = False) -> None:
        async def chunks() -> AsyncIterator[bytes | memoryview]:
            async for chunk in body.chunks():
                await self._wait(0, len(chunk))
                yield chunk

        await self._store.put(key, Body(body.length, chunks), if_absent=if_absent)

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        data = await self._store.get(key, start, stop)
        await self._wait(1, len(data))
        return data

    async def get_into(self, key: str, start: int, into: memoryview) -> None:
        await get_into(self._store, key, start, into)
        await self._wait(1, len(into))

    async def hashes(self, key: str, spans: Sequence[tuple[int, int]]) -> list[bytes] | None:
        return await self._store.hashes(key, spans) if isinstance(self._store, HashesInPlace) else None

    async def free_bytes(self) -> int | None:
        return await self._store.free_bytes() if isinstance(self._store, TellsRoom) else None

    async def head(self, key: str) -> ObjectInfo:
        return await self._store.head(key)

    async def delete(self, key: str) -> None:
        await self._store.delete(key)

    async def list(self, prefix: str = "", after: str = "") -> AsyncIterator[ObjectInfo]:
        # Every ObjectStore.list is an async generator; the port's type says less.
        async with aclosing(cast("AsyncGenerator[ObjectInfo, None]", self._store.list(prefix, after))) as listing:
            async for info in listing:
                yield info
