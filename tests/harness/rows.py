"""Files as the cache sees them: extents of an inode number, without a file system above."""

from __future__ import annotations

from qss.cache.store import SegmentCache
from qss.formats.tables import Table, pair_key
from qss.ids import Ino


def write(cache: SegmentCache, ino: int, data: bytes, offset: int = 0) -> None:
    change = cache.begin()
    for at, extent in cache.append(Ino(ino), offset, data):
        change.put(Table.EXTENTS, pair_key(ino, at), extent.pack())
    cache.commit(change)


def delete(cache: SegmentCache, ino: int) -> None:
    change = cache.begin()
    for key, _ in change.scan(Table.EXTENTS, pair_key(ino, 0), pair_key(ino + 1, 0)):
        change.delete(Table.EXTENTS, key)
    cache.commit(change)
