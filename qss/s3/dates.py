"""Dates as S3 writes them: HTTP's in headers, ISO 8601 in documents. Pure; times are nanoseconds since 1970.

A date that names no zone is UTC. Only what can be written again is read: the years 1 to 9999, in UTC. A later time, as
a rule of many days makes it, is written as the last of these.

Sources: RFC 9110 section 5.6.7; ISO 8601.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from typing import Final

from qss.errors import CorruptData

SECOND_NS: Final = 1_000_000_000
_LAST_S: Final = 253_402_300_799  # 9999-12-31T23:59:59Z


def second_text(second: int) -> str:
    """A time of whole seconds since 1970, as 2009-10-12T17:50:30."""
    return f"{datetime.fromtimestamp(min(second, _LAST_S), UTC):%Y-%m-%dT%H:%M:%S}"


def iso(time_ns: int) -> str:
    """As 2009-10-12T17:50:30.000Z."""
    return f"{second_text(time_ns // SECOND_NS)}.{time_ns // 1_000_000 % 1000:03d}Z"


def http_date(time_ns: int) -> str:
    """As Mon, 12 Oct 2009 17:50:30 GMT."""
    return _http_date(min(time_ns // SECOND_NS, _LAST_S))


@lru_cache(4096)
def _http_date(time_s: int) -> str:
    return formatdate(time_s, usegmt=True)


def http_date_ns(text: str) -> int:
    """From a header, in whole seconds. Raises CorruptData."""
    try:
        return int(_in_utc(parsedate_to_datetime(text)).timestamp()) * SECOND_NS
    except (ValueError, TypeError, OverflowError):
        raise CorruptData(f"not an HTTP date: {text[:40]!r}") from None


def iso_date_ns(text: str) -> int:
    """From a document, to the microsecond. Raises CorruptData."""
    try:
        moment = _in_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise CorruptData(f"not an ISO date: {text[:40]!r}") from None
    return int(moment.replace(microsecond=0).timestamp()) * SECOND_NS + moment.microsecond * 1000


def _in_utc(moment: datetime) -> datetime:
    """Raises OverflowError for what is no year of four digits there."""
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
