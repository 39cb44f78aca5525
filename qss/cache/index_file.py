"""LMDB's file, looked at before LMDB is: a damaged one makes LMDB read where nothing is, and that ends the process.

LMDB has no checksums. Two things are checked instead, and what fails them is not opened but rebuilt from the journal:

    after a clean stop   the file is, byte for byte, the one whose BLAKE3 was noted at the stop
    otherwise            every page that can be reached from the newest meta page says that it is that page and of the
                         kind it should be, no page is reached twice, and there are as many as the roots say

The second finds pages that were overwritten, lost, or are of another moment; not single bits inside a page. Format:
LMDB 0.9 (`mdb.c`: MDB_page, MDB_node, MDB_meta, MDB_db), little-endian, 64 bits. docs/adr/0099.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from blake3 import blake3

from qss.errors import CorruptData

DATA_FILE: Final = "data.mdb"

_MAGIC: Final = 0xBEEFC0DE
_VERSION: Final = 1
_NO_ROOT: Final = 2**64 - 1
_BRANCH, _LEAF, _META = 0x01, 0x02, 0x08
_SUBDATA: Final = 0x02

_PAGE: Final = struct.Struct("<QHHHH")  # number, pad, flags, lower, upper
_META_HEAD: Final = struct.Struct("<IIQQ")  # magic, version, address, map size; two MDB_db follow
_DB: Final = struct.Struct("<IHHQQQQQ")  # pad, flags, depth, branch, leaf and overflow pages, entries, root
_META_END: Final = struct.Struct("<QQ")  # last page, transaction
_NODE: Final = struct.Struct("<HHHH")  # low, high, flags, length of the key


class _Root(NamedTuple):
    depth: int
    branch_pages: int
    leaf_pages: int
    page: int


class _Meta(NamedTuple):
    page_bytes: int
    free: _Root
    main: _Root
    txnid: int


def last_txnid(path: Path) -> int:
    """Number of the last committed transaction. Raises CorruptData, also when there is no such file."""
    with _mapped(path) as content:
        return _newest_meta(content).txnid


def verify_tree(path: Path) -> None:
    """Every page LMDB would reach is one. About 1 µs a page. Raises CorruptData."""
    with _mapped(path) as content:
        meta = _newest_meta(content)
        seen = bytearray(len(content) // meta.page_bytes)
        tree = _Tree(content, meta.page_bytes, seen)
        tree.leaves_of(meta.free)
        for page in tree.leaves_of(meta.main):
            for root in tree.roots_in(page):
                tree.leaves_of(root)


def digest_of(path: Path) -> str:
    """BLAKE3 of the file, hexadecimal. Raises CorruptData when it cannot be read. Blocks; uses all processors."""
    try:
        return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()
    except OSError as error:
        raise CorruptData(f"the index cannot be read: {error}") from error


@contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            view = memoryview(mapped)
            try:
                yield view
            finally:
                view.release()
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise CorruptData(f"the index cannot be read: {error}") from error


def _newest_meta(content: memoryview) -> _Meta:
    first = _meta_at(content, 0)
    second = _meta_at(content, first.page_bytes)
    return max(first, second, key=lambda meta: meta.txnid)


def _meta_at(content: memoryview, at: int) -> _Meta:
    try:
        _, _, flags, _, _ = _PAGE.unpack_from(content, at)
        at += _PAGE.size
        magic, version, _, _ = _META_HEAD.unpack_from(content, at)
        at += _META_HEAD.size
        page_bytes, free = _root_at(content, at)
        _, main = _root_at(content, at + _DB.size)
        _, txnid = _META_END.unpack_from(content, at + 2 * _DB.size)
    except struct.error as error:
        raise CorruptData("the index is cut short") from error
    if flags != _META or magic != _MAGIC or version != _VERSION or not 512 <= page_bytes <= 1 << 16:
        raise CorruptData("the index does not begin as it should")
    return _Meta(page_bytes, free, main, txnid)


def _root_at(content: memoryview, at: int) -> tuple[int, _Root]:
    pad, _, depth, branch, leaf, _, _, page = _DB.unpack_from(content, at)
    return pad, _Root(depth, branch, leaf, page)


class _Tree:
    """Pages of one moment of LMDB's file."""

    def __init__(self, content: memoryview, page_bytes: int, seen: bytearray) -> None:
        self._content = content
        self._page_bytes = page_bytes
        self._seen = seen

    def leaves_of(self, root: _Root) -> list[int]:
        """Numbers of the leaf pages below a root, all pages on the way checked."""
        if root.page == _NO_ROOT:
            return []
        level, branches = [root.page], 0
        for _ in range(root.depth - 1):
            branches += len(level)
            if branches > root.branch_pages:
                raise CorruptData("the index has more pages than it should")
            level = [child for page in level for child in self._children(page)]
        if len(level) > root.leaf_pages or branches + len(level) != root.branch_pages + root.leaf_pages:
            raise CorruptData("the index has not as many pages as it should")
        for page in level:
            self._nodes(page, _LEAF)
        return level

    def roots_in(self, page: int) -> Iterator[_Root]:
        """The roots of named tables in a leaf of the main one."""
        at, offsets = self._nodes(page, _LEAF, again=True)
        for offset in offsets:
            low, high, flags, key_bytes = _NODE.unpack_from(self._content, at + offset)
            if flags & _SUBDATA:
                if low | high << 16 != _DB.size or offset + _NODE.size + key_bytes + _DB.size > self._page_bytes:
                    raise CorruptData("a table of the index cannot be found")
                yield _root_at(self._content, at + offset + _NODE.size + key_bytes)[1]

    def _children(self, page: int) -> list[int]:
        at, offsets = self._nodes(page, _BRANCH)
        found = []
        for offset in offsets:
            low, high, top, _ = _NODE.unpack_from(self._content, at + offset)
            found.append(low | high << 16 | top << 32)
        return found

    def _nodes(self, page: int, kind: int, *, again: bool = False) -> tuple[int, tuple[int, ...]]:
        """Where the page is, and the offsets of its nodes in it."""
        size = self._page_bytes
        if page >= len(self._seen) or (self._seen[page] and not again):
            raise CorruptData("the index leads to a page that is not there")
        self._seen[page] = 1
        at = page * size
        number, _, flags, lower, upper = _PAGE.unpack_from(self._content, at)
        if number != page or flags != kind or not _PAGE.size <= lower <= upper <= size:
            raise CorruptData(f"page {page} of the index is not what it should be")
        offsets = struct.unpack_from(f"<{(lower - _PAGE.size) // 2}H", self._content, at + _PAGE.size)
        if offsets and (min(offsets) < upper or max(offsets) > size - _NODE.size):
            raise CorruptData(f"page {page} of the index is not what it should be")
        return at, offsets
