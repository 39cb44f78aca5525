"""Rows of the index: LMDB keys and values. Integers in keys are big-endian, so that key order is number order;
values are little-endian. docs/formats/tables.md has the byte tables; tests/vectors/tables the frozen vectors.

The same (table, key, value) triples are what the journal records, so this is a durable format: a changed value
layout needs a new table number.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from qss.errors import CorruptData
from qss.ids import Ino, SegmentId
from qss.limits import NAME_BYTES_MAX
from qss.segments import SegmentKind

_NS_PER_S: Final = 1_000_000_000


class Table(enum.IntEnum):
    """Numbers of the tables. Each is a named LMDB database."""

    META = 0  # name → value, see qss.cache and qss.fs
    INODES = 1  # ino → InodeRow
    ENTRIES = 2  # parent, name → EntryRow
    ORDER = 3  # parent, cookie → OrderRow: directory listing in the order of creation
    EXTENTS = 4  # ino, file offset → ExtentRow
    XATTRS = 5  # ino, name → value
    SYMLINKS = 6  # ino → target
    ORPHANS = 7  # ino → empty: link count 0, still open or not yet collected
    SEGMENTS = 8  # segment → SegmentRow
    SNAPSHOTS = 9  # name → SnapshotRow
    PINS = 10  # ino → PinRow
    LIVE = 11  # segment → live bytes; derived from EXTENTS, never journaled
    DEATHS = 12  # data segment without live bytes that a snapshot may need → number of the newest snapshot by then


_U64 = struct.Struct(">Q")
_U64U64 = struct.Struct(">QQ")


def u64_key(number: int) -> bytes:
    """Key of INODES, SYMLINKS, ORPHANS, SEGMENTS, PINS, LIVE, DEATHS."""
    return _U64.pack(number)


def u64_of_key(key: bytes) -> int:
    return int(_U64.unpack_from(key)[0])


def pair_key(first: int, second: int) -> bytes:
    """Key of EXTENTS (ino, file offset) and ORDER (parent, cookie)."""
    return _U64U64.pack(first, second)


def pair_of_key(key: bytes) -> tuple[int, int]:
    first, second = _U64U64.unpack(key)
    return first, second


def name_key(ino: int, name: bytes) -> bytes:
    """Key of ENTRIES (parent, name) and XATTRS (ino, name)."""
    assert 0 < len(name) <= NAME_BYTES_MAX
    return _U64.pack(ino) + name


_INODE = struct.Struct("<IIIIIIQQQQqqqIII")


INODE_BYTES: Final = _INODE.size
_ATIME_BYTES: Final = frozenset(
    (
        *range(struct.calcsize("<IIIIIIQQQQ"), struct.calcsize("<IIIIIIQQQQq")),
        *range(struct.calcsize("<IIIIIIQQQQqqq"), struct.calcsize("<IIIIIIQQQQqqqI")),
    )
)


def is_only_atime(first: bytes, second: bytes) -> bool:
    """Whether two packed inode rows differ in nothing but the access time."""
    return len(first) == len(second) == _INODE.size and _ATIME_BYTES.issuperset(
        at for at in range(_INODE.size) if first[at] != second[at]
    )


@dataclass(slots=True)
class InodeRow:
    """One inode. Mutable on purpose: a transaction function loads it, changes it and puts it back."""

    mode: int  # type and permission bits
    nlink: int
    uid: int
    gid: int
    rdev: int
    generation: int
    size: int  # bytes; of a symlink its target's length
    allocated: int  # bytes of content in the log, for st_blocks
    parent: int  # directories: the inode of `..`; 0 otherwise
    next_cookie: int  # directories: the cookie the next entry gets
    atime_ns: int  # nanoseconds since 1970, may be negative
    mtime_ns: int
    ctime_ns: int

    def pack(self) -> bytes:
        atime_s, atime = divmod(self.atime_ns, _NS_PER_S)
        mtime_s, mtime = divmod(self.mtime_ns, _NS_PER_S)
        ctime_s, ctime = divmod(self.ctime_ns, _NS_PER_S)
        return _INODE.pack(
            self.mode, self.nlink, self.uid, self.gid, self.rdev, self.generation,
            self.size, self.allocated, self.parent, self.next_cookie,
            atime_s, mtime_s, ctime_s, atime, mtime, ctime,
        )  # fmt: skip

    @classmethod
    def unpack(cls, untrusted: bytes) -> InodeRow:
        """Raises CorruptData."""
        try:
            (mode, nlink, uid, gid, rdev, generation, size, allocated, parent, next_cookie,
             atime_s, mtime_s, ctime_s, atime, mtime, ctime) = _INODE.unpack(untrusted)  # fmt: skip
        except struct.error as error:
            raise CorruptData("an inode row has the wrong length") from error
        return cls(
            mode, nlink, uid, gid, rdev, generation, size, allocated, parent, next_cookie,
            atime_s * _NS_PER_S + atime, mtime_s * _NS_PER_S + mtime, ctime_s * _NS_PER_S + ctime,
        )  # fmt: skip


_ENTRY = struct.Struct("<QQB")


class EntryRow(NamedTuple):
    """What a name in a directory stands for."""

    ino: Ino
    cookie: int  # place in the ORDER table
    type: int  # (mode & S_IFMT) >> 12, as in d_type

    def pack(self) -> bytes:
        return _ENTRY.pack(*self)

    @classmethod
    def unpack(cls, untrusted: bytes) -> EntryRow:
        try:
            return cls(*_ENTRY.unpack(untrusted))
        except struct.error as error:
            raise CorruptData("a directory entry has the wrong length") from error


_ORDER = struct.Struct("<QB")


class OrderRow(NamedTuple):
    """One entry of a directory, by cookie."""

    ino: Ino
    type: int
    name: bytes

    def pack(self) -> bytes:
        return _ORDER.pack(self.ino, self.type) + self.name

    @classmethod
    def unpack(cls, untrusted: bytes) -> OrderRow:
        if len(untrusted) <= _ORDER.size:
            raise CorruptData("a directory order row is cut short")
        ino, kind = _ORDER.unpack_from(untrusted)
        return cls(ino, kind, bytes(untrusted[_ORDER.size :]))


_EXTENT = struct.Struct("<QIIII")


class ExtentRow(NamedTuple):
    """`length` bytes of a file from the key's offset on: bytes [skip, skip+length) of the payload of one record."""

    segment: SegmentId
    record_position: int  # bytes from the start of the segment to the record's header
    record_length: int  # bytes of payload in that record
    skip: int  # bytes of that payload before ours
    length: int

    def pack(self) -> bytes:
        return _EXTENT.pack(*self)

    @classmethod
    def unpack(cls, untrusted: bytes) -> ExtentRow:
        try:
            row = cls(*_EXTENT.unpack(untrusted))
        except struct.error as error:
            raise CorruptData("an extent row has the wrong length") from error
        if not 0 < row.length <= row.record_length - row.skip:
            raise CorruptData("an extent row reaches outside its record")
        return row


_SEGMENT = struct.Struct("<BBHHHQqQQ16s")


class SegmentState(enum.IntEnum):
    """Life of a segment; it only moves forward. Whether its bytes are cached here is what the disk shows."""

    SEALED = 1  # closed and synced here; shards missing somewhere
    OFFLOADED = 2  # every shard is placed
    CONDEMNED = 3  # holds no live byte; its shards may be deleted


class SegmentRow(NamedTuple):
    kind: SegmentKind
    state: SegmentState
    k: int  # 0 until stored
    m: int
    placed: int  # shards placed
    length: int
    sealed_ns: int
    needs_upto: SegmentId  # condemned data: the journal with the mark, then 0 when its shards are deleted
    stored_bytes: int
    seal: bytes

    def pack(self) -> bytes:
        return _SEGMENT.pack(*self)

    @classmethod
    def unpack(cls, untrusted: bytes) -> SegmentRow:
        try:
            kind, state, k, m, placed, length, sealed_ns, needs, stored, seal = _SEGMENT.unpack(untrusted)
            return cls(SegmentKind(kind), SegmentState(state), k, m, placed, length, sealed_ns, needs, stored, seal)
        except (struct.error, ValueError) as error:
            raise CorruptData("a segment row does not hold") from error


_PIN = struct.Struct("<q")


class PinRow(NamedTuple):
    """A file or directory whose content, with all below it, stays on this machine. The key is its inode number: the
    pin follows it wherever it is renamed to."""

    created_ns: int  # wall clock
    path: bytes  # when it was pinned, from the root of the file system, "/" first

    def pack(self) -> bytes:
        return _PIN.pack(self.created_ns) + self.path

    @classmethod
    def unpack(cls, untrusted: bytes) -> PinRow:
        """Raises CorruptData."""
        if len(untrusted) <= _PIN.size:
            raise CorruptData("a pin is cut short")
        return cls(_PIN.unpack_from(untrusted)[0], bytes(untrusted[_PIN.size :]))


_NUMBER = struct.Struct("<Q")


def pack_number(number: int) -> bytes:
    """Value of DEATHS."""
    return _NUMBER.pack(number)


def unpack_number(untrusted: bytes) -> int:
    """Raises CorruptData."""
    try:
        return int(_NUMBER.unpack(untrusted)[0])
    except struct.error as error:
        raise CorruptData("a number has the wrong length") from error


_SNAPSHOT = struct.Struct("<QqQQQQBH")
_SNAPSHOT_AUTO: Final = 1


class SnapshotRow(NamedTuple):
    """A cut of both logs that has a name. Its journals: those from the first to the last that have a row."""

    number: int  # counts up from 1, never used again
    created_ns: int  # of the cut, wall clock
    next_segment: SegmentId  # no data segment from here on belongs to it
    journal_first: SegmentId  # behind the checkpoint
    journal_last: SegmentId
    noted_in: SegmentId  # the journal with this row
    automatic: bool  # made by the schedule, and thinned by it
    checkpoint: tuple[SegmentId, ...] = ()
    comment: str = ""

    def pack(self) -> bytes:
        head = _SNAPSHOT.pack(
            self.number, self.created_ns, self.next_segment, self.journal_first, self.journal_last, self.noted_in,
            _SNAPSHOT_AUTO if self.automatic else 0, len(self.checkpoint),
        )  # fmt: skip
        return head + b"".join(map(_NUMBER.pack, self.checkpoint)) + self.comment.encode()

    @classmethod
    def unpack(cls, untrusted: bytes) -> SnapshotRow:
        try:
            number, created_ns, behind, first, last, noted_in, flags, count = _SNAPSHOT.unpack_from(untrusted)
            end = _SNAPSHOT.size + count * _NUMBER.size
            parts = tuple(SegmentId(each) for (each,) in _NUMBER.iter_unpack(untrusted[_SNAPSHOT.size : end]))
            comment = bytes(untrusted[end:]).decode()
        except (struct.error, UnicodeDecodeError) as error:
            raise CorruptData("a snapshot row does not hold") from error
        if len(parts) != count or flags & ~_SNAPSHOT_AUTO:
            raise CorruptData("a snapshot row does not hold")
        return cls(number, created_ns, behind, first, last, noted_in, bool(flags & _SNAPSHOT_AUTO), parts, comment)
