"""One volume file, and room in it for a body that arrives in pieces.

Large bodies go past the page cache (docs/adr/0054): the pages of a piece that lie wholly inside the body are written
from page-aligned memory with a direct handle, the pages shared with what stands before and behind the body through
the cache. No page is ever written both ways, so the two never disagree.
"""

from __future__ import annotations

import errno
import mmap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qss.errors import NoSpace, Retryable
from qss.formats.volume import SUPERBLOCK_BYTES, Header, Superblock, hash_blocks
from qss.host import Disk
from qss.host.disk import DIRECT_BYTES, Handle
from qss.limits import BLOCK_BYTES, MIB
from qss.trove.drives import Drive
from qss.trove.rows import Place

PIECE_BYTES: Final = 1 * MIB
SPARE_PIECES_MAX: Final = 8
"""Kept for the next body; the memory of others goes back to the system."""
DIRECT_BODY_BYTES_MIN: Final = 4 * MIB
"""Smaller bodies are likely read again soon and stay in the page cache."""

assert PIECE_BYTES % BLOCK_BYTES == BLOCK_BYTES % DIRECT_BYTES == 0
assert PIECE_BYTES <= DIRECT_BODY_BYTES_MIN  # the first piece of a direct body is a full one


@dataclass(slots=True, eq=False)
class Volume:
    """One file. `end` is where the next record goes; `floor` is what is known to be synced."""

    path: Path
    handle: Handle
    superblock: Superblock
    drive: Drive
    end: int = SUPERBLOCK_BYTES
    floor: int = SUPERBLOCK_BYTES
    sealed: bool = False
    failed: bool = False  # a write or sync failed: what the disk holds is uncertain, no more goes here
    unsettled: dict[int, int] = field(default_factory=dict)  # position → version: not in the index yet
    open_slots: dict[int, None] = field(default_factory=dict)  # begun, footer not written
    marked_at: int = SUPERBLOCK_BYTES  # end of the last mark
    pins: int = 0
    condemned: bool = False
    emptying: bool = False  # compaction is at it
    direct: Handle | None = None  # opened with the first large body
    identity: bytes = field(init=False)  # the superblock's, which is a hash

    def __post_init__(self) -> None:
        self.identity = self.superblock.identity

    @property
    def number(self) -> int:
        return self.superblock.number

    @property
    def low(self) -> int:
        """Every record below is in the index, or dead."""
        return next(iter(self.unsettled), self.end)

    @property
    def whole_to(self) -> int:
        """Every record below has been written to its footer. Asked in another thread than records are begun in: the end
        first, for what is begun after that lies behind it; and of the slots a copy, made in one go."""
        end = self.end
        return min(list(self.open_slots), default=end)

    @property
    def writable(self) -> bool:
        return self.drive.writable and not self.failed

    def fail(self, error: OSError) -> None:
        """A write or sync failed: what the disk holds is uncertain, so no more goes here."""
        self.failed = self.sealed = True
        self.drive.note(error, writing=True)

    def place_of(self, position: int) -> tuple[bytes, int]:
        return self.identity, position

    def close(self, disk: Disk) -> None:
        disk.close(self.handle)
        if self.direct is not None:
            disk.close(self.direct)


@dataclass(slots=True, eq=False)
class Piece:
    """Up to PIECE_BYTES of a body, in page-aligned memory: byte `lead` of it is the first of the body's.

    `lead` is the body's position in the volume modulo DIRECT_BYTES, so that pages here are pages there.
    """

    memory: memoryview
    lead: int
    count: int = 0

    @property
    def body(self) -> memoryview:
        return self.memory[self.lead : self.lead + self.count]

    @property
    def full(self) -> bool:
        return self.count == PIECE_BYTES

    def take(self, data: memoryview) -> memoryview:
        """Copy what there is room for; returns the rest."""
        taken = data[: PIECE_BYTES - self.count]
        at = self.lead + self.count
        self.memory[at : at + len(taken)] = taken
        self.count += len(taken)
        return data[len(taken) :]


@dataclass(slots=True, eq=False)
class Slot:
    """Contiguous room for a record whose body arrives in pieces."""

    disk: Disk
    volume: Volume
    position: int
    header: Header
    spares: list[memoryview]  # shared by all slots of a node
    table: bytearray = field(default_factory=bytearray)
    written: int = 0
    direct: Handle | None = None
    _carry: bytes = b""  # behind the last whole page of the last piece; the next one writes it

    @property
    def place(self) -> Place:
        return Place(self.volume.number, self.position, self.header.record_len)

    @property
    def _body_at(self) -> int:
        return self.position + self.header.body_at

    def piece(self) -> Piece:
        """An empty piece, to be filled and given to `write` once."""
        try:
            memory = self.spares.pop()
        except IndexError:
            memory = memoryview(mmap.mmap(-1, PIECE_BYTES + DIRECT_BYTES))
        return Piece(memory, self._body_at % DIRECT_BYTES)

    def write(self, piece: Piece) -> None:
        """The next bytes of the body: multiples of 64 KiB but for the last. Hashes and writes; may run in a pool."""
        assert self.written % BLOCK_BYTES == 0, "only the last piece may be odd"
        assert self.written + piece.count <= self.header.body_len, "more than announced"
        self.table += hash_blocks(piece.body)
        try:
            if self.direct is None:
                self.disk.pwrite(self.volume.handle, [piece.body], self._body_at + self.written)
            else:
                self._write_pages(piece, self.direct)
        except NoSpace:
            raise NoSpace("the disk of this node is full") from None
        except OSError as error:
            self.volume.fail(error)
            raise Retryable(f"writing a volume failed: {error.strerror}") from error
        self.written += piece.count
        if len(self.spares) < SPARE_PIECES_MAX:
            self.spares.append(piece.memory)

    def _write_pages(self, piece: Piece, direct: Handle) -> None:
        """Whole pages directly; the body's first and last, where others have bytes too, through the cache."""
        data = piece.memory[: piece.lead + piece.count]
        base = self._body_at + self.written - piece.lead
        first = 0
        if self.written:
            data[: piece.lead] = self._carry
        elif piece.lead:
            first = DIRECT_BYTES
            self.disk.pwrite(self.volume.handle, [data[piece.lead : first]], base + piece.lead)
        last = len(data) // DIRECT_BYTES * DIRECT_BYTES
        if last > first:
            self._write_direct(direct, data[first:last], base + first)
        self._carry = b""
        if self.written + piece.count < self.header.body_len:
            self._carry = bytes(data[last:])
        elif last < len(data):
            self.disk.pwrite(self.volume.handle, [data[last:]], base + last)

    def _write_direct(self, direct: Handle, pages: memoryview, position: int) -> None:
        try:
            self.disk.pwrite(direct, [pages], position)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self.disk.pwrite(self.volume.handle, [pages], position)  # this disk wants more than DIRECT_BYTES
