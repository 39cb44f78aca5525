"""Versions of objects: their ids, and one page of all of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from qss.s3.backend import VersionEntry, VersionsPage, VersionsQuery
from qss.s3.errors import Code, S3Error
from qss.s3.listing import behind, group_of

NULL: Final = "null"
_TOP: Final = 2**64 - 1
_DIGITS: Final = 16


def version_text(version: int) -> str:
    """The id of a version (a u64 that rises): 16 hex digits that sort as listings do, newest first."""
    return f"{_TOP - version:0{_DIGITS}x}"


def parse_version(text: str) -> int | None:
    """The version an id names; None for the null version. Raises S3Error INVALID_ARGUMENT."""
    if text == NULL:
        return None
    if not text:
        raise S3Error(Code.INVALID_ARGUMENT, "Version id cannot be the empty string")
    try:
        version = _TOP - int(text, 16)
    except ValueError:
        version = -1
    if version < 0 or version_text(version) != text:
        raise S3Error(Code.INVALID_ARGUMENT, "Invalid version id specified")
    return version


def versions_page(scan: Callable[[bytes, str | None], Iterator[VersionEntry]], query: VersionsQuery) -> VersionsPage:
    """`scan(lower, behind)` gives versions with key >= lower in UTF-8 byte order, newest first; with `behind`, of the
    key `lower` only those that follow that version id. Jumps behind each common prefix, as `listing.page`.
    Raises S3Error INVALID_ARGUMENT for a marker that is no version id."""
    if query.version_after is not None:
        parse_version(query.version_after)
    if query.limit <= 0:
        return VersionsPage((), (), None)
    prefix, marker, delimiter = query.prefix.encode(), query.key_after.encode(), query.delimiter.encode()
    entries: list[VersionEntry] = []
    prefixes: list[str] = []
    last: tuple[str, str | None] = "", None
    within = query.version_after if marker >= prefix and not group_of(marker, prefix, delimiter) else None
    lower: bytes | None = max(prefix, marker)
    while lower is not None:
        start, lower = lower, None
        for found in scan(start, within):
            key = found.object.key.encode()
            if not key.startswith(prefix):
                break
            group = group_of(key, prefix, delimiter)
            if (group or key) > marker or (within is not None and key == marker):
                if len(entries) + len(prefixes) == query.limit:
                    return VersionsPage(tuple(entries), tuple(prefixes), last)
                if group:
                    last = group.decode(), None
                    prefixes.append(last[0])
                else:
                    last = found.object.key, found.object.version_id
                    entries.append(found)
            if group:
                lower, within = behind(group), None
                break
    return VersionsPage(tuple(entries), tuple(prefixes), None)
