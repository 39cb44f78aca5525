"""Configuration files as people want to find them: a commented one to start with, and small edits that leave the
rest as it is. Pure: text in, text out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HEADER: Final = re.compile(r"\s*\[([^\[\]]+)\]\s*(#.*)?")
_ANY_HEADER: Final = re.compile(r"\s*\[.*")

Value = str | int | float | bool
"""What `with_values` can write."""


@dataclass(frozen=True, slots=True)
class NewLocation:
    """One location to be written. `settings` are keys of a [[location]] section besides name and url."""

    name: str
    url: str
    settings: Mapping[str, Value]
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NewConfig:
    state: str
    key_file: str
    mountpoint: str | None
    k: int
    m: int
    locations: Sequence[NewLocation]
    extra: Mapping[str, Mapping[str, Value]]  # section → key → value, besides the commented defaults


def literal(value: Value) -> str:
    """A TOML value. TOML's basic strings are JSON's, but for DEL."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


def render(new: NewConfig) -> str:
    """A whole configuration file with comments."""
    mountpoint = f"mountpoint = {literal(new.mountpoint)}" if new.mountpoint else '# mountpoint = "/mnt/qss"'
    lines = [
        "# QSS Quantum Storage: one file system. Paths are relative to this file.",
        "# All keys: docs/configuration.md. Keys that are not known are refused.",
        "",
        "[filesystem]",
        f"state = {literal(new.state)}            # cache, index, sockets",
        f"key_file = {literal(new.key_file)}      # without it nobody reads anything: keep a copy elsewhere",
        mountpoint,
        "",
        "[code]",
        f"k = {new.k}  # any k locations give everything back",
        f"m = {new.m}  # so many may be lost",
        "",
        "[cache]",
        '# segment_size = "64M"     # unit of offloading',
        '# seal_after = "30s"       # what was written is offloaded after this long at the latest',
        '# fetch_deadline = "60s"   # a read that needs a location fails after this long',
        "",
        "[retention]",
        '# max_size = "10G"         # local copies beyond this are dropped, least recently used first',
        '# max_age = "none"         # unused for longer they go as well, e.g. "7d"',
        '# min_free = "1G"          # space left free on this disk',
        "",
        "[offload]",
        "# compression_level = 1    # zstd; 0: never",
        '# memory = "128M"',
        "",
    ]
    for place in new.locations:
        lines += ["[[location]]", f"name = {literal(place.name)}", f"url = {literal(place.url)}"]
        lines += [f"{key} = {literal(value)}" for key, value in place.settings.items()]
        if place.labels:
            pairs = ", ".join(f"{literal(key)} = {literal(value)}" for key, value in place.labels.items())
            lines.append(f"labels = {{ {pairs} }}")
        lines.append("")
    text = "\n".join(lines)
    for section, values in new.extra.items():
        text = with_values(text, section, values)
    return text


def with_values(text: str, section: str, values: Mapping[str, Value]) -> str:
    """The text with these keys of one plain section set, every other line as it was.

    Knows sections and `key = value` lines as people write them; the caller parses the result before it keeps it.
    """
    lines = text.split("\n")
    start = next((at for at, line in enumerate(lines) if _section_of(line) == section), None)
    if start is None:
        gap = [""] if lines and lines[-1] else []
        return "\n".join([*lines, *gap, f"[{section}]", *(f"{k} = {literal(v)}" for k, v in values.items()), ""])
    stop = next((at for at in range(start + 1, len(lines)) if _ANY_HEADER.fullmatch(lines[at])), len(lines))
    body = lines[start + 1 : stop]
    for key, value in values.items():
        body = _with_line(body, key, f"{key} = {literal(value)}")
    return "\n".join(lines[: start + 1] + body + lines[stop:])


def without_section(text: str, section: str) -> str:
    """The text without this plain section, its header included; the same text if there is none."""
    lines = text.split("\n")
    start = next((at for at, line in enumerate(lines) if _section_of(line) == section), None)
    if start is None:
        return text
    stop = next((at for at in range(start + 1, len(lines)) if _ANY_HEADER.fullmatch(lines[at])), len(lines))
    return "\n".join(lines[:start] + lines[stop:])


def path_section(path: str) -> str:
    """The section of a path's retention policy."""
    return f"retention.paths.{literal(path)}"


def _section_of(line: str) -> str | None:
    match = _HEADER.fullmatch(line)
    return match[1].strip() if match else None


def _with_line(body: list[str], key: str, line: str) -> list[str]:
    """Replace the key's line; else its commented default; else put it first."""
    for pattern in (rf"\s*{re.escape(key)}\s*=.*", rf"\s*#\s*{re.escape(key)}\s*=.*"):
        for at, old in enumerate(body):
            if re.fullmatch(pattern, old):
                return [*body[:at], line + _comment_of(old), *body[at + 1 :]]
    return [line, *body]


def _comment_of(line: str) -> str:
    match = re.search(r"\s+#[^\"']*$", line[1:])
    return match[0] if match else ""


def relative(path: Path, folder: Path) -> str:
    """How a path is best written in a file in `folder`."""
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
