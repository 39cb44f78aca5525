"""Which bytes of which files are lost with a segment, or a part of one. For recovery, the drill and status."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from qss.errors import CorruptData
from qss.formats.tables import ExtentRow, InodeRow, Table, pair_of_key, u64_key
from qss.fs.tree import Pause, Rows, pages, paths_of
from qss.ids import Ino

Wanted = Callable[[ExtentRow], bool]
Range = tuple[int, int]
"""[start, stop) of a file, in bytes."""


class Index(Rows, Protocol):
    """A cache, or the index of a restore point."""

    def get(self, table: Table, key: bytes) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A file that can be named, and what of it is lost."""

    ino: Ino
    size: int
    ranges: tuple[Range, ...]  # in order, apart from each other
    paths: tuple[bytes, ...]  # every name it has, from the root of the file system, "/" first

    @property
    def lost_bytes(self) -> int:
        return sum(stop - start for start, stop in self.ranges)

    def to_json(self) -> dict[str, Any]:
        return {
            "paths": [os.fsdecode(path) for path in self.paths],
            "ino": self.ino,
            "size": self.size,
            "lost_bytes": self.lost_bytes,
            "ranges": [list(each) for each in self.ranges],
        }

    @classmethod
    def of_json(cls, value: Any) -> DamagedFile:
        """Raises CorruptData."""
        try:
            return cls(
                Ino(int(value["ino"])),
                int(value["size"]),
                tuple((int(start), int(stop)) for start, stop in value["ranges"]),
                tuple(os.fsencode(path) for path in value["paths"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptData("an entry of a list of damaged files does not hold") from error


async def files_in_segments(index: Index, segments: Container[int], pause: Pause) -> list[DamagedFile]:
    """Files of which bytes lie in these segments."""
    return await damaged_files(index, lambda extent: extent.segment in segments, pause)


async def damaged_files(index: Index, lost: Wanted, pause: Pause) -> list[DamagedFile]:
    """Files with a name and an extent that is `lost`, by their first path. Looks at every extent and every name there
    is. A file whose last name is gone is nobody's loss."""
    ranges: dict[Ino, list[Range]] = {}
    async for page in pages(index, Table.EXTENTS, b"", None, pause):
        for key, value in page:
            extent = ExtentRow.unpack(value)
            if lost(extent):
                ino, offset = pair_of_key(key)
                ranges.setdefault(Ino(ino), []).append((offset, offset + extent.length))
    if not ranges:
        return []
    paths = await paths_of(index, ranges, pause)
    found = []
    for ino, each in ranges.items():
        packed = index.get(Table.INODES, u64_key(ino))
        if packed is not None and paths[ino]:
            size = InodeRow.unpack(packed).size
            found.append(DamagedFile(ino, size, joined(each), tuple(sorted(paths[ino]))))
    return sorted(found, key=lambda file: file.paths)


def joined(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """In order, and those that touch as one. Pure."""
    found: list[Range] = []
    for start, stop in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return tuple(found)
