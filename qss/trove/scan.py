"""Reading a volume from a position to its end: what is whole, what never arrived, what is damaged, what is torn.

The difference between *torn* and *damaged* is the floor: each record says up to where its volume had been synced when
it was begun. What does not verify below the highest floor was once acknowledged: it is kept and reported. What does
not verify at the very end and above every floor never was: it is cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from qss.errors import CorruptData
from qss.formats.volume import (
    ALIGN_BYTES,
    HEADER_BYTES,
    RECORD_MAGIC,
    SUPERBLOCK_BYTES,
    Footer,
    Header,
    decode_footer,
    decode_header,
    head_len,
    is_unfinished,
    verify_blocks,
)
from qss.host import Disk
from qss.limits import BLOCK_BYTES, MIB
from qss.trove.facts import WITH_BODY, Fact
from qss.trove.rows import Place
from qss.trove.slots import Volume

BATCH_RECORDS: Final = 64
"""Read ahead at a time by what goes through a volume: what a stop or a request waits for at most."""
_READ_AHEAD: Final = 4096
_PIECE_BYTES: Final = 4 * MIB

assert _PIECE_BYTES % BLOCK_BYTES == 0


@dataclass(frozen=True, slots=True)
class Whole:
    """A record whose header and footer verify."""

    place: Place
    header: Header
    footer: Footer
    table: bytes


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A header without a footer: the body did not arrive."""

    place: Place
    header: Header


@dataclass(frozen=True, slots=True)
class BadFooter:
    """The header verifies, the footer does not."""

    place: Place
    header: Header


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Bytes [position, stop) between records hold no header that verifies."""

    position: int
    stop: int


Found = Whole | Unfinished | BadFooter | Unreadable


def scan(disk: Disk, volume: Volume, start: int = SUPERBLOCK_BYTES) -> Iterator[Found]:
    """Everything from `start`, which must be the beginning of a record, in order of position."""
    size = disk.size(volume.handle)
    position = start
    while position < size:
        try:
            header, data = _header(disk, volume, position)
        except CorruptData:
            stop = _next_header(disk, volume, position + ALIGN_BYTES, size)
            yield Unreadable(position, stop)
            position = stop
            continue
        yield _rest(disk, volume, Place(volume.number, position, header.record_len), header, data)
        position += header.record_len


def next_few(found: Iterator[Found], limit: int | None = None) -> list[Found]:
    """The next records of a scan that begin below `limit`; empty at the end. Waits for the disk: in a thread."""
    return [each for each in islice(found, BATCH_RECORDS) if limit is None or position_of(each) < limit]


def _rest(disk: Disk, volume: Volume, place: Place, header: Header, data: bytes) -> Whole | Unfinished | BadFooter:
    """A record whose header verifies; `data` is what has been read of it."""
    tail_len = header.record_len - header.table_at
    tail = data[header.table_at : header.record_len]
    try:
        if len(tail) < tail_len:
            tail = _pread(disk, volume, tail_len, place.position + header.table_at)
        if len(tail) < tail_len or is_unfinished(header, tail):
            return Unfinished(place, header)
        footer, table = decode_footer(header, tail, volume.place_of(place.position))
    except CorruptData:
        return BadFooter(place, header)
    return Whole(place, header, footer, table)


def _pread(disk: Disk, volume: Volume, count: int, position: int) -> bytes:
    """As `Disk.pread`. Raises CorruptData where the drive cannot read, which is noted there."""
    try:
        return disk.pread(volume.handle, count, position)
    except OSError as error:
        volume.drive.note(error, writing=False)
        raise CorruptData(f"cannot be read: {error.strerror}") from error


def _header(disk: Disk, volume: Volume, position: int) -> tuple[Header, bytes]:
    data = _pread(disk, volume, _READ_AHEAD, position)
    need = head_len(data)
    if need > len(data):
        data = _pread(disk, volume, need, position)
    return decode_header(data, *volume.place_of(position)), data


def _next_header(disk: Disk, volume: Volume, start: int, size: int) -> int:
    """Position of the next header that verifies, or the end of the file."""
    at, count = start, _PIECE_BYTES
    while at < size:
        try:
            window = _pread(disk, volume, count, at)
        except CorruptData:
            if count > BLOCK_BYTES:  # a bad sector: go on in small steps from here, around it
                count = BLOCK_BYTES
            else:
                at += count
            continue
        hit = window.find(RECORD_MAGIC)
        while hit >= 0:
            if (at + hit) % ALIGN_BYTES == 0:
                try:
                    _header(disk, volume, at + hit)
                except CorruptData:
                    pass
                else:
                    return at + hit
            hit = window.find(RECORD_MAGIC, hit + 1)
        at += count
    return size


def body_pieces(disk: Disk, volume: Volume, whole: Whole) -> Iterator[int]:
    """Read a record's body and compare it with its table; gives the bytes of each piece that verifies. Raises
    CorruptData at the first one that does not."""
    header, done = whole.header, 0
    at = whole.place.position + header.body_at
    while done < header.body_len:
        piece = _pread(disk, volume, min(_PIECE_BYTES, header.body_len - done), at + done)
        first = done // BLOCK_BYTES * 32
        entries = whole.table[first : first + -(-len(piece) // BLOCK_BYTES) * 32]
        if not piece or not verify_blocks(piece, entries):
            raise CorruptData("bytes do not match their hash")
        done += len(piece)
        yield len(piece)


def body_verifies(disk: Disk, volume: Volume, whole: Whole) -> bool:
    """As `body_pieces`, all at once."""
    try:
        return sum(body_pieces(disk, volume, whole)) == whole.header.body_len
    except CorruptData:
        return False


def position_of(found: Found) -> int:
    """Where it begins."""
    return found.position if isinstance(found, Unreadable) else found.place.position


def end_of(found: Found) -> int:
    """Where the next one begins."""
    return found.stop if isinstance(found, Unreadable) else found.place.position + found.place.length


def fact_of(disk: Disk, volume: Volume, whole: Whole) -> Fact:
    """What a record says to the index. Raises CorruptData when a body that says something does not verify."""
    header, footer = whole.header, whole.footer
    body = b""
    if header.kind in WITH_BODY:
        if not body_verifies(disk, volume, whole):
            raise CorruptData("list of parts or document does not verify")
        body = _pread(disk, volume, header.body_len, whole.place.position + header.body_at)
    return Fact(
        kind=header.kind,
        key=header.key,
        version=footer.version,
        place=whole.place,
        meta=header.meta,
        tenant=header.tenant,
        body_at=header.body_at,
        size=header.body_len,
        etag=footer.etag,
        etag_kind=footer.etag_kind,
        late=footer.late,
        body=body,
        numbered=footer.numbered,
        sealed=header.sealed,
    )


def damaged_fact(found: BadFooter | Whole) -> Fact:
    """What is left to say of a record with damaged bytes: its key exists, its bytes are not to be served. What has no
    bytes is said by the header alone (`IN_HEADER`). A footer that verifies knows the version better: that of a long
    body was given when it had arrived."""
    header = found.header
    known = found.footer if isinstance(found, Whole) else header
    return Fact(
        kind=header.kind,
        key=header.key,
        version=known.version,
        place=found.place,
        meta=header.meta,
        tenant=header.tenant,
        body_at=header.body_at,
        size=header.body_len,
        damaged=True,
        numbered=known.numbered,
        sealed=header.sealed,
    )


assert HEADER_BYTES <= _READ_AHEAD
