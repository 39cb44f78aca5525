"""Sizes like "1.5G" and durations like "7d": text ↔ numbers. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

_NUMBER: Final = re.compile(r"\s*([0-9]{1,20}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)\s*", re.ASCII)

_SIZE_UNITS: Final = {unit: 1024**power for power, unit in enumerate(["", "K", "M", "G", "T", "P"])}
_DURATION_UNITS: Final = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)} | {
    "d": Decimal(86_400),
    "w": Decimal(604_800),
}


def parse_size(text: str) -> int:
    """Bytes of "512", "64M", "64MiB", "1.5G"; units are powers of 1024. Raises ValueError that says what to write."""
    match = _NUMBER.fullmatch(text)
    unit = match[2].upper().removesuffix("IB") if match else ""
    unit = unit if unit == "" or unit in _SIZE_UNITS else unit.removesuffix("B")
    if match is None or unit not in _SIZE_UNITS:
        raise ValueError('is not a size; write a number and one of K, M, G, T, for example "512M"')
    return int(Decimal(match[1]) * _SIZE_UNITS[unit])


def format_size(count: int) -> str:
    """The shortest exact text that `parse_size` reads back."""
    for unit, factor in reversed(_SIZE_UNITS.items()):
        if count and count % factor == 0:
            return f"{count // factor}{unit}"
    return "0"


def human_size(count: float) -> str:
    """For people: three digits and a unit."""
    amount, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(amount) < 1000 or unit == "PiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.3g} {unit}"


def parse_duration(text: str) -> float:
    """Seconds of "250ms", "30s", "15m", "12h", "7d", "2w". Raises ValueError that says what to write."""
    match = _NUMBER.fullmatch(text)
    factor = _DURATION_UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError('is not a duration; write a number and one of ms, s, m, h, d, w, for example "7d"')
    return float(Decimal(match[1]) * factor)


def parse_moment(text: str, now_ns: int) -> int:
    """Nanoseconds since 1970 of "2026-11-21 09:00", "2026-11-21T10:00:00+01:00" (UTC where it does not say), or of a
    duration before now: "2h". Raises ValueError that says what to write."""
    if _NUMBER.fullmatch(text):
        return now_ns - round(parse_duration(text) * 1e9)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            'is not a moment; write for example "2026-11-21 09:00" (UTC) or "2h" for 2 hours ago'
        ) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e9)


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back, to the millisecond."""
    milliseconds = round(seconds * 1000)
    for unit in ("w", "d", "h", "m", "s", "ms"):
        step = int(_DURATION_UNITS[unit] * 1000)
        if milliseconds and milliseconds % step == 0:
            return f"{milliseconds // step}{unit}"
    return "0s"


def human_duration(seconds: float) -> str:
    """For people: the two largest units."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for unit, step in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= step or (unit == "s" and not parts):
            parts.append(f"{left // step}{unit}")
            left %= step
    return " ".join(parts[:2])
