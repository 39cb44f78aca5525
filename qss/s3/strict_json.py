"""JSON from outside, without what makes programs disagree: twins, NaN, halves of characters. Pure."""

from __future__ import annotations

import json
from typing import Any, Final

from qss.errors import CorruptData

NOT_JSON: Final = "it is not JSON"


def load(data: bytes | str) -> Any:
    """The value. Raises CorruptData, whose text quotes nothing of the input; nothing else.

    Refused beside what is no JSON: a name that stands twice in one object (parsers choose differently), NaN and
    Infinity, surrogates without their other half (they can be neither written nor answered), numbers and nesting
    beyond what Python reads.
    """
    try:
        value = json.loads(data, object_pairs_hook=_no_twins, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # UnicodeError is a ValueError
        raise CorruptData(NOT_JSON) from None
    return value


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise CorruptData("A name stands twice in one object")
    return value


def _no_constant(name: str) -> Any:
    raise CorruptData(f"{name} is not JSON")
