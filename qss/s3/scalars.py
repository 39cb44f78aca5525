"""Numbers and bytes as headers, queries and documents write them. Pure; None for what is none, never an exception.

`str.isdigit` takes more than `int` does, and `int` more than a protocol does: spaces, "_", digits of other scripts,
and as many of them as it likes to refuse with another error.
"""

from __future__ import annotations

import base64
from typing import Final

DIGITS_MAX: Final = 15
"""Unless told: beyond any number of bytes here."""


def number_of(untrusted: str, digits_max: int = DIGITS_MAX) -> int | None:
    """Of 1 to `digits_max` digits, and nothing else."""
    if untrusted.isascii() and untrusted.isdigit() and len(untrusted) <= digits_max:
        return int(untrusted)
    return None


def integer_of(untrusted: str, digits_max: int = DIGITS_MAX) -> int | None:
    """As `number_of`, also with "-" before it."""
    value = number_of(untrusted.removeprefix("-"), digits_max)
    return -value if value is not None and untrusted.startswith("-") else value


def base64_of(untrusted: str) -> bytes | None:
    """With its padding, and with nothing else in it."""
    try:
        return base64.b64decode(untrusted, validate=True)
    except ValueError:  # binascii.Error is one
        return None
