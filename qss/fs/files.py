"""Contents: read, write, truncate. A write is bytes in the data log, then one transaction that names them."""

from __future__ import annotations

import errno
from collections import deque
from itertools import islice
from typing import Final

import trio

from qss.errors import FsError
from qss.formats.tables import ExtentRow, InodeRow, Table, pair_key, pair_of_key
from qss.fs.attrs import is_dir, is_file
from qss.fs.extents import Piece, Placed, pieces, splice
from qss.fs.inodes import Inodes, Transaction
from qss.fs.quota import UNLIMITED, Quota
from qss.fs.store import Store
from qss.ids import Ino
from qss.limits import FILE_BYTES_MAX

TRUNCATE_ROWS_MAX: Final = 1_000  # extents removed by one transaction of a truncate

_KEY_LAST: Final = 2**64 - 1


class Files:
    def __init__(self, inodes: Inodes, quota: Quota = UNLIMITED) -> None:
        self._inodes = inodes
        self._quota = quota
        self._cache: Store = inodes.cache
        self._last: dict[int, Placed] = {}  # inode → extent last read from; dropped by every change of its extents

    # -- reading

    def read_now(self, ino: int, offset: int, count: int) -> bytes | memoryview | None:
        """Up to `count` bytes at `offset`, fewer at the end of the file; None when some are not cached here.

        Never waits. Raises FsError: EISDIR, EINVAL.
        """
        row = self._readable(ino)
        stop = min(offset + count, row.size)
        if offset >= stop:
            return b""
        last = self._last.get(ino)
        if last is not None:
            at, extent = last
            if at <= offset and stop <= at + extent.length:
                return self._cache.read_now(extent, offset - at, stop - at)
        parts = self._pieces(ino, offset, stop)
        if len(parts) == 1:
            piece = parts[0]
            if piece.extent is None:
                return bytes(piece.length)
            self._remember(ino, offset - piece.start, piece.extent)
            return self._cache.read_now(piece.extent, piece.start, piece.stop)
        buffers: list[bytes | memoryview] = []
        for length, part, start, end in parts:
            if part is None:
                buffers.append(bytes(length))
                continue
            data = self._cache.read_now(part, start, end)
            if data is None:
                return None
            buffers.append(data)
        last_piece = parts[-1]
        if last_piece.extent is not None:  # a sequential reader goes on there
            self._remember(ino, stop - last_piece.stop, last_piece.extent)
        return b"".join(buffers)

    async def read(self, ino: int, offset: int, count: int) -> bytes | memoryview:
        """As `read_now`, and what is not cached is fetched. Raises FsError(EIO) when it cannot be had in time."""
        while True:
            row = self._readable(ino)
            stop = min(offset + count, row.size)
            if offset >= stop:
                return b""
            parts = self._pieces(ino, offset, stop)
            try:
                buffers = [await self._read_piece(piece) for piece in parts]
            except FsError:
                # Compaction may have moved the bytes while we waited; then the new place is worth a try.
                if self._pieces(ino, offset, min(stop, self._readable(ino).size)) == parts:
                    raise
                continue
            return buffers[0] if len(buffers) == 1 else b"".join(buffers)

    async def _read_piece(self, piece: Piece) -> bytes | memoryview:
        if piece.extent is None:
            return bytes(piece.length)
        data = self._cache.read_now(piece.extent, piece.start, piece.stop)
        if data is not None:
            return data
        return await self._cache.read(piece.extent, piece.start, piece.stop)

    def _readable(self, ino: int) -> InodeRow:
        row = self._inodes.get(ino)
        if not is_file(row):
            raise FsError(errno.EISDIR if is_dir(row) else errno.EINVAL)
        return row

    def _pieces(self, ino: int, start: int, stop: int) -> list[Piece]:
        return pieces(self._meeting(ino, start, stop), start, stop)

    def _meeting(self, ino: int, start: int, stop: int) -> list[Placed]:
        """Extents that meet [start, stop), in order, and the one that ends at `start` if there is one."""
        cache = self._cache
        found: list[Placed] = []
        first = pair_key(ino, start)
        before = cache.floor(Table.EXTENTS, first)
        if before is not None:
            owner, offset = pair_of_key(before[0])
            if owner == ino and offset < start:
                extent = ExtentRow.unpack(before[1])
                if offset + extent.length >= start:
                    found.append((offset, extent))
                    if offset + extent.length >= stop:
                        return found
        for key, packed in cache.scan(Table.EXTENTS, first, pair_key(ino, stop)):
            found.append((pair_of_key(key)[1], ExtentRow.unpack(packed)))
        return found

    def _remember(self, ino: int, offset: int, extent: ExtentRow) -> None:
        if len(self._last) >= 4096:
            self._last.clear()
        self._last[ino] = (offset, extent)

    def forget_place(self, ino: int) -> None:
        """The rows of this file's extents have changed (a move by compaction, a deletion)."""
        self._last.pop(ino, None)

    # -- writing

    async def write(self, ino: int, offset: int | None, data: bytes | memoryview) -> int:
        """Write at `offset`; None: at the end, wherever that is now. The count written, always all.

        The caller has been admitted. Raises FsError: EFBIG, EDQUOT, EISDIR, EINVAL, EROFS; NoSpace.
        """
        count = len(data)
        while True:
            size = self._readable(ino).size
            start = size if offset is None else offset
            stop = start + count
            if stop > FILE_BYTES_MAX:
                raise FsError(errno.EFBIG)
            if not count:
                return 0
            if self._quota.bytes_max is not None:
                self._check_quota(ino, start, stop)
            # 1. The bytes. After a crash here they are garbage that no row names.
            placed = await self._cache.append_in_turn(Ino(ino), start, data)
            if offset is not None or self._readable(ino).size == start:
                break  # else the end was moved while a thread wrote
        # 2. The commit point.
        self._name(ino, start, stop, placed)
        return count

    def _name(self, ino: int, start: int, stop: int, placed: list[Placed]) -> None:
        """From here on [start, stop) of the file is what these extents hold."""
        inodes, count = self._inodes, stop - start
        self._last.pop(ino, None)
        with Transaction(inodes) as tx:
            row = tx.inode(ino)
            freed = 0
            if start >= row.size:  # no extent lies beyond the end
                for at, extent in placed:
                    tx.put(Table.EXTENTS, pair_key(ino, at), extent.pack())
            else:
                freed = self._splice(tx, ino, start, stop, placed)
            row.allocated += count - freed
            row.size = max(row.size, stop)
            row.mtime_ns = row.ctime_ns = inodes.clock.now_ns()
            tx.put_inode(ino, row)

    def _check_quota(self, ino: int, start: int, stop: int) -> None:
        used = self._cache.live_bytes
        if used + stop - start > (self._quota.bytes_max or 0):  # near the limit: what is overwritten does not count
            holes = sum(piece.length for piece in self._pieces(ino, start, stop) if piece.extent is None)
            self._quota.check_bytes(used, holes)

    def _splice(self, tx: Transaction, ino: int, start: int, stop: int, new: list[Placed]) -> int:
        """Returns the bytes of content that lost their name."""
        if len(new) == 1:
            key = pair_key(ino, start)
            packed = tx.change.get(Table.EXTENTS, key)
            if packed is not None and ExtentRow.unpack(packed).length == stop - start:
                tx.put(Table.EXTENTS, key, new[0][1].pack())  # a page of a database, written once more
                return stop - start
        done = splice(self._meeting(ino, start, stop), start, stop, new)
        for at in done.deletes:
            tx.delete(Table.EXTENTS, pair_key(ino, at))
        for at, extent in done.puts:
            tx.put(Table.EXTENTS, pair_key(ino, at), extent.pack())
        return done.freed

    async def truncate(self, ino: int, size: int) -> None:
        """Make the file `size` bytes long; what is gained reads as zeros.

        A file of very many extents shrinks in several transactions, from its end; after a crash it may have any of the
        sizes between. Raises FsError: EISDIR, EINVAL, EFBIG.
        """
        if size < 0:
            raise FsError(errno.EINVAL)
        if size > FILE_BYTES_MAX:
            raise FsError(errno.EFBIG)
        while True:
            row = self._readable(ino)
            if size >= row.size:
                break
            tail = self._tail(ino, size, row.size)
            if len(tail) <= TRUNCATE_ROWS_MAX:
                break
            self._resize(ino, tail[-TRUNCATE_ROWS_MAX][0], tail)
            await trio.lowlevel.checkpoint()
        self._resize(ino, size, self._tail(ino, size, row.size) if size < row.size else [])

    def _tail(self, ino: int, size: int, end: int) -> list[Placed]:
        """The extents that meet [size, end); of very many, the last ones."""
        found = self._first_few(ino, size)
        if len(found) <= TRUNCATE_ROWS_MAX:
            return found
        last: deque[Placed] = deque()
        key = pair_key(ino, end)
        while len(last) <= TRUNCATE_ROWS_MAX:
            row = self._cache.floor(Table.EXTENTS, key)
            assert row is not None
            offset = pair_of_key(row[0])[1]
            last.appendleft((offset, ExtentRow.unpack(row[1])))
            key = pair_key(ino, offset - 1)
        return list(last)

    def _first_few(self, ino: int, start: int) -> list[Placed]:
        found = [placed for placed in self._meeting(ino, start, start + 1) if placed[0] < start]
        rows = self._cache.scan(Table.EXTENTS, pair_key(ino, start), pair_key(ino, _KEY_LAST))
        for key, packed in islice(rows, TRUNCATE_ROWS_MAX + 1):
            found.append((pair_of_key(key)[1], ExtentRow.unpack(packed)))
        return found

    def _resize(self, ino: int, size: int, tail: list[Placed]) -> None:
        self._last.pop(ino, None)
        with Transaction(self._inodes) as tx:
            row = tx.inode(ino)
            if tail:
                done = splice([placed for placed in tail if placed[0] + placed[1].length > size], size, row.size)
                for at in done.deletes:
                    tx.delete(Table.EXTENTS, pair_key(ino, at))
                for at, extent in done.puts:
                    tx.put(Table.EXTENTS, pair_key(ino, at), extent.pack())
                row.allocated -= done.freed
            row.size = size
            row.mtime_ns = row.ctime_ns = self._inodes.clock.now_ns()
            tx.put_inode(ino, row)
