"""Listing a directory by cookie: stable while entries come and go, because a cookie is never given twice."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import NamedTuple

from qss.errors import FsError
from qss.formats.tables import OrderRow, Table, pair_key, pair_of_key
from qss.fs.attrs import is_dir
from qss.fs.inodes import Inodes
from qss.fs.namespace import COOKIE_DOT, COOKIE_DOTDOT, COOKIE_FIRST
from qss.ids import Ino

_DIRECTORY = 4  # d_type


class Entry(NamedTuple):
    cookie: int  # where a listing goes on after this entry
    name: bytes
    ino: Ino
    type: int  # d_type


def entries(inodes: Inodes, ino: int, after: int = 0) -> Iterator[Entry]:
    """Entries whose cookies are above `after` (0: all), `.` and `..` first. To be used up before any await.

    Raises FsError: ENOTDIR; ENOENT for a deleted directory.
    """
    row = inodes.get(ino)
    if not is_dir(row):
        raise FsError(errno.ENOTDIR)
    if row.nlink == 0:
        raise FsError(errno.ENOENT)
    if after < COOKIE_DOT:
        yield Entry(COOKIE_DOT, b".", Ino(ino), _DIRECTORY)
    if after < COOKIE_DOTDOT:
        yield Entry(COOKIE_DOTDOT, b"..", Ino(row.parent), _DIRECTORY)
    start = pair_key(ino, max(after + 1, COOKIE_FIRST))
    for key, packed in inodes.cache.scan(Table.ORDER, start, pair_key(ino + 1, 0)):
        order = OrderRow.unpack(packed)
        yield Entry(pair_of_key(key)[1], order.name, order.ino, order.type)
