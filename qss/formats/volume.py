"""The volume: an append-only file of a Trove, a superblock and self-describing records. See docs/formats/volume.md.

A record is `header | key | meta | body | table | footer | late | padding`. The header is written first and says how
long everything is, so that a scanner can step over a body that is still on its way; the footer is written last and
makes the record valid. Both checks are bound to the volume's identity and the record's position: bytes that only
look like a record (an object that contains a volume, a misdirected write) do not decode.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from qss.errors import CorruptData
from qss.limits import BLOCK_BYTES, GIB, KIB
from qss.pieces import SHORT_BYTES, in_pieces
from qss.ranges import round_up
from qss.values import quick

VERSION: Final = 1
ALIGN_BYTES: Final = 64
HASH_BYTES: Final = 32
CHECK_BYTES: Final = 16
KEY_BYTES_MAX: Final = 2 * KIB  # bucket (63) + "/" + key (1,024), with room
META_BYTES_MAX: Final = 64 * KIB
LATE_BYTES_MAX: Final = 4 * KIB
BODY_BYTES_MAX: Final = 7 * GIB

RECORD_MAGIC: Final = b"TRVR"
_FOOTER_MAGIC: Final = b"TRVF"
_SUPER_MAGIC: Final = b"TROVEVOL"

_SUPER: Final = struct.Struct("<8sHHIQ16s16s")
_HEADER: Final = struct.Struct("<4sBBHIHHIIQQQ")
_FOOTER: Final = struct.Struct("<4sBBHQQ32s16sII")
_PLACE: Final = struct.Struct("<Q")
_NUMBERED: Final = 1
_SEALED: Final = 2

SUPERBLOCK_BYTES: Final = 128
HEADER_BYTES: Final = _HEADER.size + CHECK_BYTES
FOOTER_BYTES: Final = _FOOTER.size + CHECK_BYTES

assert HEADER_BYTES == 64
assert FOOTER_BYTES == 96
assert SUPERBLOCK_BYTES % ALIGN_BYTES == 0


class Kind(enum.IntEnum):
    """What a record says. Numbers are part of the format."""

    OBJECT = 1
    TOMBSTONE = 2  # the key is gone
    PART = 3  # one part of an upload; key is upload id (16 bytes) + part number (u32, big endian)
    COMPOSITE = 4  # an object whose body is a list of parts, see `encode_parts`
    BUCKET = 5  # key is the bucket's name; meta its settings, whole
    BUCKET_GONE = 6
    UPLOAD = 7  # key is bucket/key; meta holds the upload id
    UPLOAD_GONE = 8  # key is the upload id: aborted or expired
    MARK = 10  # nothing but its floor: written when a volume is sealed and when a node stops in order
    AMEND = 9  # new metadata for one version of the object under this key; the body stays where it is
    MARKER = 11  # a delete marker: the newest version under this key says that there is no object
    VERSION_GONE = 12  # one version of its own is gone; meta is its version (u64)
    DOCUMENT = 13  # key is bucket/name; the body is a document of the bucket's configuration, empty: there is none


class EtagKind(enum.IntEnum):
    NONE = 0
    MD5 = 1
    BLAKE3 = 2
    COMPOSITE = 3  # md5 of md5s; the number of parts is the length of the body's list


@dataclass(frozen=True, slots=True)
class Superblock:
    """First 128 bytes of a volume. `identity` binds every record to it."""

    number: int  # u32
    created_ns: int
    node: bytes  # 16
    volume: bytes  # 16, random

    @property
    def identity(self) -> bytes:
        """16 bytes that no other volume has."""
        return blake3(self._fields()).digest(CHECK_BYTES)

    def _fields(self) -> bytes:
        return _SUPER.pack(_SUPER_MAGIC, VERSION, 0, self.number, self.created_ns, self.node, self.volume)

    def encode(self) -> bytes:
        return (self._fields() + self.identity).ljust(SUPERBLOCK_BYTES, b"\0")


def decode_superblock(data: bytes) -> Superblock:
    """Raises CorruptData."""
    if len(data) < _SUPER.size + CHECK_BYTES:
        raise CorruptData("superblock is cut short")
    magic, version, _, number, created_ns, node, volume = _SUPER.unpack_from(data)
    if magic != _SUPER_MAGIC:
        raise CorruptData("not a Trove volume")
    if version != VERSION:
        raise CorruptData(f"volume format {version} is not known to this program")
    found = Superblock(number, created_ns, node, volume)
    if data[: _SUPER.size + CHECK_BYTES] != found.encode()[: _SUPER.size + CHECK_BYTES]:
        raise CorruptData("superblock does not verify")
    return found


_KINDS: Final = {kind.value: kind for kind in Kind}
_ETAG_KINDS: Final = {kind.value: kind for kind in EtagKind}
"""Looking one up costs a tenth of calling the enumeration."""


@quick
@dataclass(frozen=True, slots=True)
class Header:
    """What is known when a record begins. All lengths in bytes."""

    kind: Kind
    key: bytes
    version: int  # u64, time-ordered; the footer's decides
    tenant: int = 0  # u32
    meta: bytes = b""
    body_len: int = 0
    late_room: int = 0  # room kept behind the footer for what is known only at the end
    floor: int = 0  # everything in this volume below this position was synced when the record was begun
    numbered: bool = False  # as the footer's, as far as it was known when the record was begun
    sealed: bool = False  # the body is encrypted, see qss.formats.sse

    def with_floor(self, floor: int) -> Header:
        """As `dataclasses.replace(self, floor=floor)`, at a third of its cost: this is on the way of every PUT."""
        return Header(
            self.kind,
            self.key,
            self.version,
            self.tenant,
            self.meta,
            self.body_len,
            self.late_room,
            floor,
            self.numbered,
            self.sealed,
        )

    @property
    def body_at(self) -> int:
        return HEADER_BYTES + len(self.key) + len(self.meta)

    @property
    def table_at(self) -> int:
        return self.body_at + self.body_len

    @property
    def table_len(self) -> int:
        return block_count(self.body_len) * HASH_BYTES

    @property
    def footer_at(self) -> int:
        return self.table_at + self.table_len

    @property
    def record_len(self) -> int:
        return round_up(self.footer_at + FOOTER_BYTES + self.late_room, ALIGN_BYTES)


@quick
@dataclass(frozen=True, slots=True)
class Footer:
    """What is known when a record ends. `void` says: given up, dead space.

    `numbered` says: a version of its own, which replaces nothing and which nothing but its VERSION_GONE ends. Of the
    records of a key that are not, the newest replaces the others (S3's null version).
    """

    version: int  # u64: the order among records of one key
    root: bytes = bytes(HASH_BYTES)  # set by decoding
    etag: bytes = bytes(16)
    etag_kind: EtagKind = EtagKind.NONE
    late: bytes = b""
    void: bool = False
    numbered: bool = False


def block_count(body_len: int) -> int:
    """Entries of the table of a body."""
    return -(-body_len // BLOCK_BYTES)


def hash_blocks(body: bytes | memoryview) -> bytes:
    """BLAKE3 of each 64 KiB of a body, one behind the other."""
    if len(body) <= SHORT_BYTES:
        digest = blake3()
        for piece in in_pieces(body):
            digest.update(piece)
        return digest.digest() if len(body) else b""
    if len(body) <= BLOCK_BYTES:
        return blake3(body).digest()
    view = memoryview(body)
    return b"".join(blake3(view[at : at + BLOCK_BYTES]).digest() for at in range(0, len(view), BLOCK_BYTES))


def root_of(table: bytes) -> bytes:
    """The one hash of a body: its block's own if it has one block, else BLAKE3 of the table."""
    return table if len(table) == HASH_BYTES else blake3(table).digest()


def verify_blocks(body: bytes | memoryview, table: bytes) -> bool:
    """Whether blocks (the first one begins at a multiple of 64 KiB) are those the table names."""
    return hash_blocks(body) == table


def _header_check(fields: bytes, identity: bytes, position: int) -> bytes:
    return blake3(identity + _PLACE.pack(position) + fields).digest(CHECK_BYTES)


def encode_header(header: Header, identity: bytes, position: int) -> bytes:
    """Header, key and meta of a record at `position` of the volume with this identity."""
    assert 0 < len(header.key) <= KEY_BYTES_MAX, "key length"
    assert len(header.meta) <= META_BYTES_MAX, "meta length"
    assert header.body_len <= BODY_BYTES_MAX, "body length"
    assert header.late_room <= LATE_BYTES_MAX, "late room"
    fixed = _HEADER.pack(
        RECORD_MAGIC,
        VERSION,
        header.kind,
        header.numbered * _NUMBERED | header.sealed * _SEALED,
        header.tenant,
        len(header.key),
        header.late_room,
        len(header.meta),
        0,
        header.body_len,
        header.version,
        header.floor,
    )
    tail = header.key + header.meta
    return fixed + _header_check(fixed + tail, identity, position) + tail


def head_len(data: bytes) -> int:
    """Bytes of header, key and meta together, read from the first HEADER_BYTES. Raises CorruptData."""
    if len(data) < HEADER_BYTES:
        raise CorruptData("record header is cut short")
    magic, version, _, _, _, key_len, late_room, meta_len, _, body_len, _, _ = _HEADER.unpack_from(data)
    if magic != RECORD_MAGIC or version != VERSION:
        raise CorruptData("no record here")
    if (
        not 0 < key_len <= KEY_BYTES_MAX
        or meta_len > META_BYTES_MAX
        or body_len > BODY_BYTES_MAX
        or late_room > LATE_BYTES_MAX
    ):
        raise CorruptData("record lengths are out of bounds")
    return int(HEADER_BYTES + key_len + meta_len)


def decode_header(data: bytes, identity: bytes, position: int) -> Header:
    """Header, key and meta from the bytes at `position`; more bytes may follow. Raises CorruptData."""
    end = head_len(data)
    if len(data) < end:
        raise CorruptData("record key or metadata is cut short")
    _, _, number, flags, tenant, key_len, late_room, _, reserved, body_len, version, floor = _HEADER.unpack_from(data)
    fixed, check, tail = data[: _HEADER.size], data[_HEADER.size : HEADER_BYTES], data[HEADER_BYTES:end]
    if _header_check(fixed + tail, identity, position) != check:
        raise CorruptData("record header does not verify")
    kind = _KINDS.get(number)
    if flags > _NUMBERED | _SEALED or reserved or kind is None:
        raise CorruptData("record is of a kind this program does not know")
    return Header(
        kind=kind,
        key=tail[:key_len],
        version=version,
        tenant=tenant,
        meta=tail[key_len:],
        body_len=body_len,
        late_room=late_room,
        floor=floor,
        numbered=bool(flags & _NUMBERED),
        sealed=bool(flags & _SEALED),
    )


def _footer_check(header: Header, fields: bytes, table: bytes, place: tuple[bytes, int]) -> bytes:
    identity, position = place
    head = blake3(header.key + header.meta).digest() + struct.pack("<QQ", header.version, header.body_len)
    return blake3(identity + _PLACE.pack(position) + head + fields + table).digest(CHECK_BYTES)


def encode_footer(header: Header, footer: Footer, table: bytes, place: tuple[bytes, int]) -> bytes:
    """Table, footer, late metadata and padding: what goes to `header.table_at`, to the end of the record.

    The root is computed from the table, `footer.root` is not looked at.
    `place` is the volume's identity and the record's position.
    """
    assert len(table) == header.table_len or footer.void, "table length"
    root = bytes(HASH_BYTES) if footer.void else root_of(table)
    assert len(footer.late) <= header.late_room, "late metadata"
    fields = _FOOTER.pack(
        _FOOTER_MAGIC,
        footer.etag_kind,
        int(footer.void),
        len(footer.late),
        header.body_len,
        footer.version,
        root,
        footer.etag,
        int(footer.numbered),
        0,
    )
    table = table if not footer.void else bytes(header.table_len)
    check = _footer_check(header, fields + footer.late, table, place)
    data = table + fields + check + footer.late
    return data.ljust(header.record_len - header.table_at, b"\0")


def decode_footer(header: Header, data: bytes, place: tuple[bytes, int]) -> tuple[Footer, bytes]:
    """The footer and the table from the bytes at `header.table_at` to the record's end. Raises CorruptData."""
    at = header.table_len
    if len(data) < at + FOOTER_BYTES:
        raise CorruptData("record footer is cut short")
    magic, number, void, late_len, body_len, version, root, etag, flags, _ = _FOOTER.unpack_from(data, at)
    if magic != _FOOTER_MAGIC or body_len != header.body_len or late_len > header.late_room:
        raise CorruptData("record footer is damaged")
    fields, late_at = data[at : at + _FOOTER.size], at + FOOTER_BYTES
    late = data[late_at : late_at + late_len]
    table = data[:at] if not void else bytes(at)
    if _footer_check(header, fields + late, table, place) != data[at + _FOOTER.size : late_at]:
        raise CorruptData("record footer does not verify")
    etag_kind = _ETAG_KINDS.get(number)
    if etag_kind is None or void > 1 or flags > 1:
        raise CorruptData("record footer is of a kind this program does not know")
    if not void and root_of(table) != root:
        raise CorruptData("record root does not match its table")
    return Footer(version, root, etag, etag_kind, late, bool(void), bool(flags)), table


def is_unfinished(header: Header, data: bytes) -> bool:
    """Whether the footer's place, in the bytes at `header.table_at`, was never written: a body that did not arrive."""
    return not any(data[header.table_len : header.table_len + FOOTER_BYTES])


def encode_record(
    header: Header, body: bytes | memoryview, table: bytes, footer: Footer, place: tuple[bytes, int]
) -> list[bytes | memoryview]:
    """A whole record, in pieces for one vectored write. `table` is `hash_blocks(body)`."""
    return [encode_header(header, *place), body, encode_footer(header, footer, table, place)]


_PART: Final = struct.Struct("<IQ16s")
PARTS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class PartRef:
    """One part of a composite object."""

    number: int  # 1 … 10,000
    size: int  # bytes
    etag: bytes  # md5, 16 bytes


def parts_len(count: int) -> int:
    """Bytes of the body of a COMPOSITE record with this many parts."""
    return 16 + count * _PART.size


def encode_parts(upload: bytes, parts: list[PartRef]) -> bytes:
    """The body of a COMPOSITE record: upload id (16 bytes), then number, size and md5 of each part in order."""
    assert len(upload) == 16
    return upload + b"".join(_PART.pack(p.number, p.size, p.etag) for p in parts)


def decode_parts(body: bytes) -> tuple[bytes, list[PartRef]]:
    """Upload id and parts. Raises CorruptData."""
    rest = len(body) - 16
    if rest < 0 or rest % _PART.size or rest // _PART.size > PARTS_MAX:
        raise CorruptData("list of parts has a wrong length")
    return body[:16], [PartRef(*fields) for fields in _PART.iter_unpack(body[16:])]
