"""Patterns of policies: "*" and "?" as wildcards, "${aws:username}" as variables whose values are never wildcards.

Source: "IAM JSON policy elements: Resource" and "IAM policy elements: Variables and tags". Matching is linear in both
lengths but for one factor, whatever the pattern: policies are written by users.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from qss.errors import CorruptData


class Wild(enum.Enum):
    """A wildcard."""

    ANY = "*"  # any characters, also none
    ONE = "?"  # exactly one


Piece = str | Wild
"""A literal character run or a wildcard."""

_VARIABLE: Final = re.compile(r"\$\{([^{}]*)\}")
_NAMED: Final = re.compile(r"\s*([A-Za-z0-9:/_.@=+-]+)\s*(?:,\s*'([^']*)'\s*)?")
_ESCAPES: Final = {"*": "*", "?": "?", "$": "$"}


@dataclass(frozen=True, slots=True)
class Variable:
    """A condition key (lower-case) whose value of the request stands here; `default` where there is none."""

    name: str
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern taken apart. `literal`: the one text it matches, when it has neither wildcards nor variables."""

    text: str
    pieces: tuple[Piece | Variable, ...]
    literal: str | None

    def resolve(self, value_of: Callable[[str], str | None]) -> tuple[Piece, ...] | None:
        """The pattern for one request; None when a variable has no single value there."""
        resolved: list[Piece] = []
        for piece in self.pieces:
            if isinstance(piece, Variable):
                value = value_of(piece.name)
                value = piece.default if value is None else value
                if value is None:
                    return None
                resolved.append(value)
            else:
                resolved.append(piece)
        return tuple(resolved)


def compile_pattern(text: str, *, variables: bool = True, wildcards: bool = True) -> Pattern:
    """Raises CorruptData for a variable that is not closed or has no name."""
    pieces: list[Piece | Variable] = []
    at = 0
    for found in _VARIABLE.finditer(text) if variables else ():
        _literals(text[at : found.start()], pieces, wildcards, checked=True)
        pieces.append(_variable(found[1]))
        at = found.end()
    _literals(text[at:], pieces, wildcards, checked=variables)
    literals = [piece for piece in pieces if isinstance(piece, str)]
    return Pattern(text, tuple(pieces), "".join(literals) if len(literals) == len(pieces) else None)


def _literals(text: str, pieces: list[Piece | Variable], wildcards: bool, *, checked: bool) -> None:
    if checked and "${" in text:
        raise CorruptData("a policy variable is not closed")
    if not wildcards:
        if text:
            pieces.append(text)
        return
    for run in re.split(r"([*?])", text):
        if run in ("*", "?"):
            wild = Wild(run)
            if not (wild is Wild.ANY and pieces and pieces[-1] is Wild.ANY):
                pieces.append(wild)
        elif run:
            pieces.append(run)


def _variable(inner: str) -> str | Variable:
    if inner in _ESCAPES:
        return _ESCAPES[inner]
    found = _NAMED.fullmatch(inner)
    if found is None:
        raise CorruptData("a policy variable has no name")
    return Variable(found[1].lower(), found[2])


def matches(pieces: Sequence[Piece], text: str) -> bool:
    """Whether the whole of `text` is what the pattern says. Greedy with one step back: no exponential cases."""
    if not pieces:
        return not text
    at = piece = 0
    back_piece, back_at = -1, 0
    while at < len(text) or piece < len(pieces):
        if piece < len(pieces):
            wanted = pieces[piece]
            if wanted is Wild.ANY:
                if piece == len(pieces) - 1:
                    return True
                back_piece, back_at = piece, at
                piece += 1
                continue
            if wanted is Wild.ONE:
                if at < len(text):
                    at, piece = at + 1, piece + 1
                    continue
            elif text.startswith(wanted, at):
                at, piece = at + len(wanted), piece + 1
                continue
        if back_piece < 0 or back_at >= len(text):
            return False
        back_at += 1
        at, piece = back_at, back_piece + 1
    return True
