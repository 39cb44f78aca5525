"""Objects of a listing of which no more is known than a listing says: kept as plain tuples, rendered from them.

A page of 1,000 costs 15 ms when each object is a StoredObject and each tag a call, and 2 ms so; what comes out is the
same, byte for byte (tests/unit/s3/test_listed.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, overload
from urllib.parse import quote

from qss.s3.backend import StoredObject
from qss.s3.dates import second_text
from qss.s3.xml import leaf

Row = tuple[str, int, str, int]
"""key, size in bytes, etag without quotes (hexadecimal digits and "-"), time of change in ns"""

_TO_QUOTE: Final = re.compile(r"[^A-Za-z0-9_.\-~/]")
_TO_ESCAPE: Final = re.compile(r"[&<>\"]")
_MS: Final = [f".{ms:03d}Z" for ms in range(1000)]
_CONTENTS: Final = (
    "<Contents>%s<LastModified>%s%s</LastModified><ETag>&quot;%s&quot;</ETag><Size>%d</Size>"
    "<StorageClass>STANDARD</StorageClass>%s</Contents>"
)


class ListedObjects(Sequence[StoredObject]):
    """A sequence of objects that are made when they are looked at."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[StoredObject]:
        return map(_stored, self.rows)

    @overload
    def __getitem__(self, at: int) -> StoredObject: ...
    @overload
    def __getitem__(self, at: slice) -> ListedObjects: ...
    def __getitem__(self, at: int | slice) -> StoredObject | ListedObjects:
        return ListedObjects(self.rows[at]) if isinstance(at, slice) else _stored(self.rows[at])

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]


def _stored(row: Row) -> StoredObject:
    key, size, etag, modified_ns = row
    return StoredObject(key, size, etag, modified_ns)


def contents(rows: Sequence[Row], owner: str, *, encode: bool) -> list[str]:
    """The <Contents> of a listing, one for each row. `owner`: XML. `encode`: keys are percent-encoded."""
    found: list[str] = []
    last, moment = -1, ""
    for name, (_, size, etag, modified_ns) in zip(_names(rows, encode=encode), rows, strict=True):
        second, ns = divmod(modified_ns, 1_000_000_000)
        if second != last:
            last, moment = second, second_text(second)
        found.append(_CONTENTS % (name, moment, _MS[ns // 1_000_000], etag, size, owner))
    return found


def _names(rows: Sequence[Row], *, encode: bool) -> list[str]:
    """The <Key> of each row. What needs no escaping is not looked at one by one."""
    keys = [row[0] for row in rows]
    together = "".join(keys)
    if encode and _TO_QUOTE.search(together):
        keys = [quote(key, safe="/") for key in keys]
    elif not encode and (_TO_ESCAPE.search(together) or not together.isprintable()):
        return [leaf("Key", key) for key in keys]
    return [f"<Key>{key}</Key>" for key in keys]
