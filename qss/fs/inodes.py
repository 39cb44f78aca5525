"""Inodes and transactions on them: the one place that turns values into rows of the cache.

`Inodes` keeps unpacked rows in memory. They stay right because the file system is the sole writer and every change
goes through a `Transaction`, which forgets what it touched when it fails. Rows given out by `Inodes.get` are for
reading only; a transaction's own rows may be changed and are written once, at its end.
"""

from __future__ import annotations

import errno
from types import TracebackType
from typing import Final, Self

from qss.errors import FsError, NoSpace
from qss.formats.tables import InodeRow, Table, u64_key
from qss.fs.store import Store
from qss.host.clock import Clock
from qss.ids import ROOT_INO, Ino

INODES_CACHED_MAX: Final = 32_768  # rows in memory, some 600 bytes each
INO_BLOCK: Final = 1_000  # numbers reserved by one durable step; unused ones are lost with the process
ATIMES_PENDING_MAX: Final = 256  # access times kept in memory before they are written
NEXT_INO: Final = b"fs.next_ino"  # in META: u64, big-endian; no inode has this number or a higher one

_DIRECTORY_COOKIE_FIRST: Final = 3  # 1 and 2 are . and ..


class Inodes:
    def __init__(
        self, cache: Store, clock: Clock, *, root_mode: int = 0o755, root_owner: tuple[int, int] = (0, 0)
    ) -> None:
        """Reads the next inode number; makes the root directory when there is none."""
        self.cache = cache
        self.clock = clock
        self.rows: dict[int, InodeRow] = {}
        self.ghosts: dict[int, InodeRow] = {}
        """Inodes whose rows are gone, while somebody still knows their number (a deleted current directory)."""
        self.atimes: dict[int, int] = {}
        """Access times not yet written. Losing them in a crash is allowed, as with lazytime."""
        self._next_ino = self._reserved = ROOT_INO + 1
        stored = cache.get(Table.META, NEXT_INO)
        if stored is not None:
            self._next_ino = self._reserved = int.from_bytes(stored, "big")
        if cache.get(Table.INODES, u64_key(ROOT_INO)) is None:
            self._make_root(root_mode, *root_owner)

    def _make_root(self, mode: int, uid: int, gid: int) -> None:
        now = self.clock.now_ns()
        with Transaction(self) as tx:
            root = InodeRow(
                0o040000 | mode, 2, uid, gid, 0, 0, 4096, 0, ROOT_INO, _DIRECTORY_COOKIE_FIRST, now, now, now
            )  # fmt: skip
            tx.add_inode(ROOT_INO, root)

    def get(self, ino: int) -> InodeRow:
        """The row, for reading only. Raises FsError(ENOENT)."""
        row = self.rows.get(ino)
        return row if row is not None else self._load(ino)

    def _load(self, ino: int) -> InodeRow:
        packed = self.cache.get(Table.INODES, u64_key(ino))
        if packed is None:
            ghost = self.ghosts.get(ino)
            if ghost is None:
                raise FsError(errno.ENOENT, f"inode {ino}")
            return ghost
        row = InodeRow.unpack(packed)
        atime = self.atimes.get(ino)
        if atime is not None:
            row.atime_ns = atime
        self.keep(ino, row)
        return row

    def keep(self, ino: int, row: InodeRow) -> None:
        rows = self.rows
        if len(rows) >= INODES_CACHED_MAX:
            for old in list(rows)[: INODES_CACHED_MAX // 2]:  # the oldest half: dicts keep the order of insertion
                del rows[old]
        rows[ino] = row

    def new_ino(self, tx: Transaction) -> Ino:
        """A number never used before, not even by a crashed process."""
        ino = self._next_ino
        if ino >= self._reserved:
            self._reserved = ino + INO_BLOCK
            tx.put(Table.META, NEXT_INO, self._reserved.to_bytes(8, "big"))
            tx.on_failure_reserve = ino  # the step was not made durable: make it again
        self._next_ino = ino + 1
        return Ino(ino)

    def forget_reservation(self, upto: int) -> None:
        self._reserved = upto

    def touch_atime(self, ino: int, row: InodeRow, now_ns: int) -> None:
        """Move the access time, in memory; written with the inode's next change or by `write_atimes`."""
        row.atime_ns = now_ns
        if ino in self.ghosts:
            return
        self.atimes[ino] = now_ns
        if len(self.atimes) >= ATIMES_PENDING_MAX:
            self.write_atimes()

    def write_atimes(self) -> None:
        """Make the pending access times durable. On a full disk they are dropped: no read fails for their sake."""
        if not self.atimes:
            return
        try:
            with Transaction(self) as tx:
                tx.quiet = True
                for ino in list(self.atimes):
                    tx.put_inode(ino, tx.inode(ino))
        except NoSpace:
            self.atimes.clear()


class Transaction:
    """One change of the file system, all or nothing: `with Transaction(inodes) as tx`. No await inside."""

    __slots__ = ("_dirty", "_gone", "_inodes", "_touched", "change", "delete", "on_failure_reserve", "put", "quiet")

    def __init__(self, inodes: Inodes) -> None:
        self._inodes = inodes
        self._dirty: dict[int, InodeRow] = {}
        self._touched: dict[int, InodeRow] = {}
        self._gone: dict[int, InodeRow | None] = {}
        self.change = inodes.cache.begin()
        self.put = self.change.put
        self.delete = self.change.delete
        self.on_failure_reserve: int | None = None
        self.quiet = False  # not worth an upload by itself

    def inode(self, ino: int) -> InodeRow:
        """A row that may be changed; say so with `put_inode`. Raises FsError(ENOENT)."""
        row = self._touched.get(ino)
        if row is None:
            row = self._touched[ino] = self._inodes.get(ino)
        return row

    def put_inode(self, ino: int, row: InodeRow) -> None:
        self._dirty[ino] = row

    def add_inode(self, ino: int, row: InodeRow) -> None:
        self._touched[ino] = self._dirty[ino] = row

    def drop_inode(self, ino: int, ghost: InodeRow | None) -> None:
        """Delete the row. `ghost`: what `Inodes.get` still answers while somebody knows the number."""
        self._dirty.pop(ino, None)
        self.delete(Table.INODES, u64_key(ino))
        self._gone[ino] = ghost

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        inodes = self._inodes
        if kind is None:
            try:
                for ino, row in self._dirty.items():
                    self.put(Table.INODES, u64_key(ino), row.pack())
                inodes.cache.commit(self.change, quiet=self.quiet)
            except BaseException:
                self._forget()
                raise
            rows = inodes.rows
            for ino, row in self._dirty.items():
                if rows.get(ino) is not row:  # new, or crowded out meanwhile
                    inodes.keep(ino, row)
            if inodes.atimes:
                for ino in self._dirty:
                    inodes.atimes.pop(ino, None)
            for ino, ghost in self._gone.items():
                inodes.rows.pop(ino, None)
                inodes.atimes.pop(ino, None)
                if ghost is not None:
                    inodes.ghosts[ino] = ghost
        else:
            self._forget()

    def _forget(self) -> None:
        for ino in self._touched:
            self._inodes.rows.pop(ino, None)
        if self.on_failure_reserve is not None:
            self._inodes.forget_reservation(self.on_failure_reserve)
