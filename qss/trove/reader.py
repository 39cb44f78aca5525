"""Reading objects: every byte is compared with its block's BLAKE3 before it leaves, whole or ranged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from blake3 import blake3

from qss.errors import CorruptData
from qss.formats.sse import Envelope
from qss.formats.volume import (
    HASH_BYTES,
    Footer,
    Header,
    Kind,
    decode_footer,
    decode_header,
    decode_parts,
    hash_blocks,
    parts_len,
)
from qss.limits import BLOCK_BYTES, KIB
from qss.ranges import round_up
from qss.s3.backend import Chunk, StoredObject
from qss.s3.versions import NULL, version_text
from qss.trove.engine import INLINE_BYTES_MAX, Engine
from qss.trove.facts import PART_KEY
from qss.trove.meta import amended, attributes_of, checksum_of, envelope_of, load
from qss.trove.rows import ObjectRow, Place, decode_part
from qss.trove.sealing import sse_of
from qss.values import quick

log = logging.getLogger(__name__)

WHOLE_RECORD_BYTES_MAX: Final = 128 * KIB
"""A record up to this size is read with one pread."""
PIECE_BYTES: Final = 256 * KIB
"""What a stream hands over at a time. The server holds some seven of them for a client that reads slowly, so 128
streams at a standstill keep 250 MiB; pieces of 1 MiB would keep 850, and cost no less CPU (docs/adr/0055)."""

DAMAGE_NOTED_MAX: Final = 10_000
"""Places between two writes to the index; further ones are noted when they are read again."""
DAMAGE_LOGGED_MAX: Final = 5
DIGEST_PIECE_BYTES: Final = 512 * KIB
"""What is read at a time only to be hashed: small enough to be in the processor's cache still."""

assert PIECE_BYTES % BLOCK_BYTES == DIGEST_PIECE_BYTES % BLOCK_BYTES == 0


@quick
@dataclass(frozen=True, slots=True)
class Opened:
    """A record whose header, table and footer verify; of a small one, the body too, unverified yet."""

    place: Place
    header: Header
    footer: Footer
    table: bytes
    body: memoryview | None = None


@dataclass(slots=True)
class Counters:
    """What reading has met."""

    bytes_read: int = 0
    damaged_reads: int = 0
    last_damage: dict[Place, tuple[str, str]] = field(default_factory=dict)  # key, what


class Records:
    """Opens and verifies records; notes damage where it meets it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.counters = Counters()

    def open(self, place: Place, body_at: int, size: int, key: bytes = b"") -> Opened:
        """Header, key, metadata, table and footer of a record, verified. Raises CorruptData, which is noted, as damage
        of `key` where the caller knows it."""
        try:
            return self._open(place, body_at, size)
        except CorruptData as error:
            self.note_damage(place, key, str(error))
            raise

    def _open(self, place: Place, body_at: int, size: int) -> Opened:
        volumes = self._engine.volumes
        where = volumes.there(place.volume).place_of(place.position)
        if place.length <= WHOLE_RECORD_BYTES_MAX:
            data = volumes.read(place, 0, place.length)
            header = decode_header(data, *where)
            footer, table = decode_footer(header, data[header.table_at :], where)
            body: memoryview | None = memoryview(data)[header.body_at : header.table_at]
        else:
            header = decode_header(volumes.read(place, 0, body_at), *where)
            tail = volumes.read(place, body_at + size, place.length - body_at - size)
            footer, table = decode_footer(header, tail, where)
            body = None
        if header.body_len != size or header.body_at != body_at or footer.void:
            raise CorruptData("record is not the one the index names")
        return Opened(place, header, footer, table, body)

    async def read(self, record: Opened, start: int, stop: int) -> Chunk:
        """Bytes [start, stop) of a record's body, verified. Raises CorruptData, which is noted."""
        if start >= stop:
            return b""
        if stop - start < INLINE_BYTES_MAX:
            return self.read_now(record, start, stop)
        return await self._engine.in_pool(self.read_now, record, start, stop)

    def read_now(self, record: Opened, start: int, stop: int) -> Chunk:
        try:
            return self._verified(record, start, stop)
        except CorruptData as error:
            self.note_damage(record.place, record.header.key, str(error))
            raise

    def _verified(self, record: Opened, start: int, stop: int) -> Chunk:
        first = start // BLOCK_BYTES * BLOCK_BYTES
        last = min(round_up(stop, BLOCK_BYTES), record.header.body_len)
        head, data, tail = self._around(record, (first, start, stop, last))
        if len(data) == record.header.body_len:
            whole = hash_blocks(data) == record.table
            return self._counted(data, len(data), whole=whole)
        entry = first // BLOCK_BYTES * HASH_BYTES
        entries = record.table[entry : entry + -(-(last - first) // BLOCK_BYTES) * HASH_BYTES]
        return self._counted(data, last - first, whole=_is_whole(head, data, tail, entries))

    def _counted(self, data: Chunk, count: int, *, whole: bool) -> Chunk:
        if not whole:
            raise CorruptData("bytes do not match their hash")
        self.counters.bytes_read += count
        return data

    def _around(self, record: Opened, marks: tuple[int, int, int, int]) -> tuple[Chunk, Chunk, Chunk]:
        """The bytes between four places of a body. The middle is what the server sends as it is: cut out of one read
        it would have to be copied."""
        first, start, stop, last = marks
        if record.body is not None:
            body = record.body
            return body[first:start], body[start:stop], body[stop:last]
        read, place, body_at = self._engine.volumes.read, record.place, record.header.body_at
        head = read(place, body_at + first, start - first) if start > first else b""
        tail = read(place, body_at + stop, last - stop) if last > stop else b""
        return head, read(place, body_at + start, stop - start), tail

    async def digest(self, cuts: Iterable[tuple[Opened, int, int]]) -> bytes:
        """BLAKE3 of these pieces of records' bodies, end to end, read and verified now. Raises CorruptData."""
        hashing = asyncio.ensure_future(self._engine.in_pool(self._digest_now, cuts))
        try:
            return await asyncio.shield(hashing)
        except asyncio.CancelledError:  # its volumes must stay open until the thread is through
            await asyncio.wait([hashing])
            raise

    def _digest_now(self, cuts: Iterable[tuple[Opened, int, int]]) -> bytes:
        digest = blake3()
        for record, start, stop in cuts:
            digest.update(self.read_now(record, start, stop))
        return digest.digest()

    def note_damage(self, place: Place, key: bytes, what: str) -> None:
        """Count it and remember where; written to the index by `flush_damage`, off the reading path."""
        self.counters.damaged_reads += 1
        if len(self.counters.last_damage) < DAMAGE_NOTED_MAX:
            self.counters.last_damage[place] = (key.decode("utf-8", "replace"), what)

    def flush_damage(self) -> None:
        """Write what was noted to the index, and one line about it to the log. On the loop's thread only.

        What is known already is not said again, however often it is read.
        """
        noted, self.counters.last_damage = self.counters.last_damage, {}
        if not noted:
            return
        with self._engine.index.read() as tables:
            fresh = {
                place: note for place, note in noted.items() if not tables.is_damaged(place.volume, place.position)
            }
        if not fresh:
            return
        with self._engine.index.write() as tables:
            for place, (key, what) in fresh.items():
                note = {"length": place.length, "key": key, "what": what, "by": "read"}
                tables.add_damage(place.volume, place.position, note)
        some = [f"{key or 'a part'} (volume {place.volume} at {place.position})" for place, (key, _) in fresh.items()]
        shown, more = some[:DAMAGE_LOGGED_MAX], len(some) - DAMAGE_LOGGED_MAX
        log.warning("reads met damage: %s%s", ", ".join(shown), f" and {more} more" if more > 0 else "")


@quick
@dataclass(frozen=True, slots=True)
class Segment:
    """Stored bytes [start, start+size) of an object are the body of one record."""

    start: int
    size: int
    place: Place
    body_at: int
    number: int = 0  # of the part; 0: no part
    late: bytes = b""  # of the part: its checksum


class TroveReader:
    """One version of an object, the bytes as they are stored: those of a sealed one are read in plain through a
    PlainReader (qss.trove.unsealing). Its volumes stay open until `aclose`."""

    def __init__(self, records: Records, info: StoredObject, segments: list[Segment], first: Opened | None) -> None:
        self._records = records
        self._info = info
        self.segments = segments
        self._opened: tuple[int, Opened] | None = None if first is None else (0, first)
        self.envelope: Envelope | None = None  # of a sealed one
        self._unpin: list[Callable[[], None]] = []

    def pin(self, engine: Engine) -> None:
        first = self._opened
        if first is not None and first[1].body is not None and len(self.segments) == 1:
            return  # what there is to read has been read
        try:
            for number in {segment.place.volume for segment in self.segments}:
                self._unpin.append(engine.volumes.pin(number))
        except BaseException:
            self.unpin()
            raise

    @property
    def info(self) -> StoredObject:
        return self._info

    @property
    def stored_bytes(self) -> int:
        """What `chunks` counts. Of an object that is not sealed, its size."""
        return sum(segment.size for segment in self.segments)

    def name_version(self, row: ObjectRow) -> None:
        """The bucket has versioning: `info` says the version's id."""
        self._info = named(self._info, row)

    def amend(self, said: bytes) -> None:
        """Tags or lock have been replaced since the record was written. Raises CorruptData."""
        self._info = replace(self._info, attributes=amended(self._info.attributes, said))

    async def read(self, start: int, stop: int) -> Chunk:
        if start < stop and stop - start < INLINE_BYTES_MAX and len(self.segments) == 1:
            return self._records.read_now(self.record(0), start, stop)
        pieces = [piece async for piece in self._pieces(start, stop, None)]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def chunks(self, start: int, stop: int) -> AsyncIterator[Chunk]:
        async for piece in self._pieces(start, stop, PIECE_BYTES):
            yield piece

    async def digest(self, start: int, stop: int) -> bytes:
        """BLAKE3 of bytes [start, stop), read and verified now, in one go. Raises CorruptData."""
        return await self._records.digest(self._cuts(start, stop, DIGEST_PIECE_BYTES))

    async def _pieces(self, start: int, stop: int, piece: int | None) -> AsyncIterator[Chunk]:
        for record, inner, to in self._cuts(start, stop, piece):
            yield await self._records.read(record, inner, to)

    def _cuts(self, start: int, stop: int, piece: int | None) -> Iterator[tuple[Opened, int, int]]:
        """Records, each with the bytes [start, stop) of its body that belong here; at most `piece` at a time. Raises
        CorruptData when it comes to one that cannot be opened."""
        for index, segment in enumerate(self.segments):
            at = max(start, segment.start)
            end = min(stop, segment.start + segment.size)
            while at < end:
                record = self.record(index)
                # Pieces end at block borders, so that no block is read and hashed twice.
                inner = at - segment.start
                to = end - segment.start
                if piece is not None:
                    to = min(to, inner // BLOCK_BYTES * BLOCK_BYTES + piece)
                yield record, inner, to
                at = segment.start + to

    def record(self, index: int) -> Opened:
        """The record of a segment. Raises CorruptData."""
        if self._opened is None or self._opened[0] != index:
            segment = self.segments[index]
            self._opened = (index, self._records.open(segment.place, segment.body_at, segment.size))
        return self._opened[1]

    async def aclose(self) -> None:
        self.unpin()

    def unpin(self) -> None:
        for unpin in self._unpin:
            unpin()
        self._unpin.clear()


def _is_whole(head: Chunk, data: Chunk, tail: Chunk, table: bytes) -> bool:
    """Whether these three, end to end, are the blocks the table names. The outer two are less than a block."""
    view = memoryview(data)
    start, stop = 0, BLOCK_BYTES - len(head)
    for entry in range(0, len(table), HASH_BYTES):
        digest = blake3(head if entry == 0 else b"").update(view[start:stop])
        if entry == len(table) - HASH_BYTES:
            digest.update(tail)
        if digest.digest() != table[entry : entry + HASH_BYTES]:
            return False
        start, stop = stop, stop + BLOCK_BYTES
    return True


def stored(key: str, row: ObjectRow, meta: dict[str, Any] | None = None, late: bytes = b"") -> StoredObject:
    """What is said about an object; without metadata, what a listing says. Without `version_id`: see `named`."""
    if meta is None:
        return StoredObject(key=key, size=row.size, etag=row.etag_text, modified_ns=row.version)
    found = StoredObject(
        key, row.size, row.etag_text, row.version, attributes_of(meta), checksum_of(load(late) or meta)
    )
    envelope = envelope_of(meta)
    return found if envelope is None else replace(found, sse=sse_of(envelope))


def named(found: StoredObject, row: ObjectRow) -> StoredObject:
    """With its version's id, for buckets that have versioning."""
    return replace(found, version_id=version_of(row))


def version_of(row: ObjectRow) -> str:
    """The id of a version."""
    return version_text(row.version) if row.numbered else NULL


def _opened(records: Records, full: bytes, row: ObjectRow) -> Opened:
    """The record that `row` names, under record key `full`. Raises CorruptData."""
    if row.damaged:
        raise CorruptData("this object is known to be damaged")
    # A composite's row counts the bytes of its parts; its own body is its list, as long as the record says.
    size = row.stored_size if not row.parts else parts_len(row.parts)
    record = records.open(row.place, row.body_at, size, full)
    if record.header.key != full or record.footer.version != row.version:
        raise CorruptData("record is not the one the index names")
    return record


def describe(records: Records, name: tuple[bytes, str], row: ObjectRow) -> StoredObject:
    """What the record under record key `name[0]` says of its object, but for its parts. Raises CorruptData."""
    record = _opened(records, name[0], row)
    return stored(name[1], row, load(record.header.meta), record.footer.late)


def open_object(records: Records, engine: Engine, name: tuple[bytes, str], row: ObjectRow) -> TroveReader:
    """A reader of what `row` says is under record key `name[0]`. Raises CorruptData."""
    full, key = name
    record = _opened(records, full, row)
    meta = load(record.header.meta)
    info = stored(key, row, meta, record.footer.late)
    if record.header.kind == Kind.COMPOSITE:
        reader = _open_composite(records, engine, record, info)
    else:
        reader = TroveReader(records, info, [Segment(0, row.stored_size, row.place, row.body_at)], record)
    reader.envelope = envelope_of(meta)
    reader.pin(engine)
    return reader


def _open_composite(records: Records, engine: Engine, record: Opened, info: StoredObject) -> TroveReader:
    upload, refs = decode_parts(bytes(records.read_now(record, 0, record.header.body_len)))
    segments: list[Segment] = []
    start = 0
    with engine.index.read() as tables:
        for ref in refs:
            data = tables.get(tables.dbs.parts, PART_KEY.pack(upload, ref.number))
            if data is None:
                raise CorruptData(f"part {ref.number} is not there")
            part = decode_part(data)
            if part.size != ref.size or part.etag != ref.etag:
                raise CorruptData(f"part {ref.number} is not the one that was listed")
            segments.append(Segment(start, part.stored_size, part.place, part.body_at, ref.number, part.late))
            start += part.stored_size
    info = replace(info, part_bytes=tuple(ref.size for ref in refs))
    return TroveReader(records, info, segments, None)
