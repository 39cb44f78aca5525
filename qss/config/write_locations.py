"""Edits of the [[location]] sections of a configuration file that leave every other line as it is. Pure: text in, text
out. What comes out is read again and compared: an edit that would change anything else is refused."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any, Final

from qss.config.write import NewLocation, Value, literal
from qss.errors import ConfigInvalid

_LOCATION: Final = re.compile(r"\s*\[\[\s*location\s*\]\]\s*(#.*)?")
_ANY_HEADER: Final = re.compile(r"\s*\[.*")


def section_of(new: NewLocation) -> list[str]:
    """The lines of one section."""
    lines = ["[[location]]", f"name = {literal(new.name)}", f"url = {literal(new.url)}"]
    lines += [f"{key} = {literal(value)}" for key, value in new.settings.items()]
    if new.labels:
        pairs = ", ".join(f"{literal(key)} = {literal(value)}" for key, value in new.labels.items())
        lines.append(f"labels = {{ {pairs} }}")
    return lines


def with_location(text: str, new: NewLocation) -> str:
    """The text with one more section behind the last. Raises ConfigInvalid when the text does not hold."""
    before = _tables(text)
    lines = text.rstrip("\n").split("\n")
    return _checked(text, "\n".join([*lines, "", *section_of(new), ""]), [*map(dict, before), None])


def without_location(text: str, name: str) -> str:
    """The text without this section, and the comments inside it. Raises ConfigInvalid when there is none."""
    lines, tables = text.split("\n"), _tables(text)
    at, start, stop = _find(lines, tables, name)
    while start and lines[start - 1].lstrip().startswith("#") and stop < len(lines):  # what is said of it goes with it
        start -= 1
    return _checked(text, "\n".join(lines[:start] + lines[stop:]), tables[:at] + tables[at + 1 :])


def with_location_value(text: str, name: str, key: str, value: Value | None) -> str:
    """The text with one key of this section set; None: taken away. Raises ConfigInvalid when there is no section."""
    lines, tables = text.split("\n"), _tables(text)
    at, start, stop = _find(lines, tables, name)
    body = [line for line in lines[start + 1 : stop] if not re.fullmatch(rf"\s*{re.escape(key)}\s*=.*", line)]
    wanted = {each: given for each, given in tables[at].items() if each != key}
    if value is not None:
        while body and not body[-1].strip():
            body.pop()
        body.append(f"{key} = {literal(value)}")
        body += [""] if stop < len(lines) or not lines[-1] else []
        wanted[key] = value
    return _checked(
        text, "\n".join(lines[: start + 1] + body + lines[stop:]), [*tables[:at], wanted, *tables[at + 1 :]]
    )


def _tables(text: str) -> list[dict[str, Any]]:
    try:
        tables = tomllib.loads(text).get("location", [])
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(f"the configuration file is not TOML: {error}") from error
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigInvalid("write each location as a section [[location]]")
    return tables


def name_of(table: dict[str, Any]) -> str:
    """What a section's location is called: its name, else that in its url, else the bucket."""
    from urllib.parse import parse_qs, urlsplit

    if "name" in table:
        return str(table["name"])
    parts = urlsplit(str(table.get("url", "")))
    return parse_qs(parts.query).get("name", [parts.path.strip("/").partition("/")[0]])[-1]


def _find(lines: list[str], tables: list[dict[str, Any]], name: str) -> tuple[int, int, int]:
    """Number of the section, its first line, and the line behind its last."""
    sections = list(_sections(lines))
    names = [name_of(table) for table in tables]
    if name not in names:
        raise ConfigInvalid(f"there is no location {name!r}; there are {', '.join(names)}")
    at = names.index(name)
    if len(sections) != len(tables):
        raise ConfigInvalid("the locations are not written as plain [[location]] sections: edit the file by hand")
    return at, *sections[at]


def _sections(lines: list[str]) -> Iterator[tuple[int, int]]:
    for at, line in enumerate(lines):
        if not _LOCATION.fullmatch(line):
            continue
        stop = next((n for n in range(at + 1, len(lines)) if _ANY_HEADER.fullmatch(lines[n])), len(lines))
        # Comments right above the next header speak of what follows.
        while stop < len(lines) and stop > at + 1 and lines[stop - 1].lstrip().startswith("#"):
            stop -= 1
        yield at, stop


def _checked(before: str, after: str, tables: list[dict[str, Any] | None] | list[dict[str, Any]]) -> str:
    """None among the tables: anything may stand there."""
    old, new = tomllib.loads(before), {}
    try:
        new = tomllib.loads(after)
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid("the configuration file cannot be edited safely: edit it by hand") from error
    found = new.pop("location", [])
    old.pop("location", None)
    same = len(found) == len(tables) and all(
        want is None or want == have for want, have in zip(tables, found, strict=True)
    )
    if old != new or not same:
        raise ConfigInvalid("the configuration file cannot be edited safely: edit it by hand")
    return after
