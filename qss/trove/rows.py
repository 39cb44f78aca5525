"""Values of the node's index: where things are in the volumes. Derived, disposable, never sent anywhere.

A row that does not decode raises CorruptData; the answer to that is to rebuild the index from the volumes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from qss.errors import CorruptData
from qss.formats.sse import sealed_len
from qss.formats.volume import EtagKind
from qss.values import quick

TENANT: Final = 0
"""The one there is, until tenants come."""
_PLACE: Final = struct.Struct("<IQQ")
_OBJECT: Final = struct.Struct("<BBHIQQ16s")
_PART: Final = struct.Struct("<QQIB16s")
_VOLUME: Final = struct.Struct("<QQQ")
_U64: Final = struct.Struct("<Q")
_KEY_LEN: Final = struct.Struct(">H")
_AMEND: Final = struct.Struct("<QQ")
_ETAG_KINDS: Final = {kind.value: kind for kind in EtagKind}
_DAMAGED: Final = 1
_NUMBERED: Final = 2
_MARKER: Final = 4
_SEALED: Final = 8
_FLAGS: Final = _DAMAGED | _NUMBERED | _MARKER | _SEALED
_FLAGS_AT: Final = _PLACE.size + 1
_LISTED: Final = struct.Struct("<22xH4xQQ16s")
"""Of an object's row, what a listing says."""

assert _LISTED.size == _PLACE.size + _OBJECT.size


@quick
@dataclass(frozen=True, slots=True)
class Place:
    """A record: volume number, position in it, its whole length in bytes."""

    volume: int
    position: int
    length: int


@quick
@dataclass(frozen=True, slots=True)
class ObjectRow:
    """One version under a key."""

    place: Place
    body_at: int  # body's offset in the record
    size: int  # bytes of the object, in plain
    version: int
    etag: bytes  # 16
    etag_kind: EtagKind
    parts: int = 0  # > 0: composite
    damaged: bool = False  # its footer does not verify; known, and not to be served
    numbered: bool = False  # a version of its own; not: the key's null version
    marker: bool = False  # a delete marker
    sealed: bool = False  # its body is encrypted; of a composite, the parts know

    def encode(self) -> bytes:
        place = _PLACE.pack(self.place.volume, self.place.position, self.place.length)
        flags = self.damaged * _DAMAGED | self.numbered * _NUMBERED | self.marker * _MARKER | self.sealed * _SEALED
        return place + _OBJECT.pack(self.etag_kind, flags, self.parts, self.body_at, self.size, self.version, self.etag)

    @property
    def stored_size(self) -> int:
        """Bytes of the body as it is stored; not of a composite."""
        return sealed_len(self.size) if self.sealed else self.size

    @property
    def etag_text(self) -> str:
        return self.etag.hex() + (f"-{self.parts}" if self.parts else "")


def _place(data: bytes) -> Place:
    return Place(*_PLACE.unpack_from(data))


def decode_object(data: bytes) -> ObjectRow:
    if len(data) != _PLACE.size + _OBJECT.size:
        raise CorruptData("object row has a wrong length")
    number, flags, parts, body_at, size, version, etag = _OBJECT.unpack_from(data, _PLACE.size)
    kind = _ETAG_KINDS.get(number)
    if kind is None:
        raise CorruptData("object row is of a kind this program does not know")
    row = ObjectRow(_place(data), body_at, size, version, etag, kind, parts)
    if not flags:
        return row
    if flags > _FLAGS:
        raise CorruptData("object row is of a kind this program does not know")
    return replace(
        row,
        damaged=bool(flags & _DAMAGED),
        numbered=bool(flags & _NUMBERED),
        marker=bool(flags & _MARKER),
        sealed=bool(flags & _SEALED),
    )


def listed(found: Sequence[tuple[bytes, bytes]]) -> list[tuple[str, int, str, int]]:
    """(key, size, etag, version) of objects, from keys and encoded rows. As `decode_object`, all in a few calls."""
    values = [value for _, value in found]
    if any(len(value) != _LISTED.size or value[_FLAGS_AT] > _FLAGS for value in values):
        for value in values:
            decode_object(value)  # which says what is wrong
    return [
        (key.decode(), size, f"{etag.hex()}-{parts}" if parts else etag.hex(), version)
        for (key, _), (parts, size, version, etag) in zip(found, _LISTED.iter_unpack(b"".join(values)), strict=True)
    ]


@quick
@dataclass(frozen=True, slots=True)
class PartRow:
    """One part of an upload or of a composite object."""

    place: Place
    size: int  # bytes, in plain
    version: int
    body_at: int
    etag: bytes  # md5 or opaque, 16
    late: bytes = b""  # its checksum, as in the record
    sealed: bool = False  # its body is encrypted

    @property
    def stored_size(self) -> int:
        """Bytes of the body as it is stored."""
        return sealed_len(self.size) if self.sealed else self.size

    def encode(self) -> bytes:
        place = _PLACE.pack(self.place.volume, self.place.position, self.place.length)
        return place + _PART.pack(self.size, self.version, self.body_at, self.sealed, self.etag) + self.late


def decode_part(data: bytes) -> PartRow:
    if len(data) < _PLACE.size + _PART.size:
        raise CorruptData("part row is cut short")
    size, version, body_at, sealed, etag = _PART.unpack_from(data, _PLACE.size)
    return PartRow(_place(data), size, version, body_at, etag, data[_PLACE.size + _PART.size :], bool(sealed))


@quick
@dataclass(frozen=True, slots=True)
class NamedRow:
    """A bucket or an upload: an id or version, its record, and the record's metadata."""

    place: Place
    number: int  # bucket: its id (root of its key tree). upload: its version
    version: int
    meta: bytes

    def encode(self) -> bytes:
        place = _PLACE.pack(self.place.volume, self.place.position, self.place.length)
        return place + _AMEND.pack(self.number, self.version) + self.meta


def encode_upload(key: bytes, meta: bytes) -> bytes:
    """What the row of an upload has as `meta`: the key of its record, `bucket/key`, and the record's metadata."""
    return _KEY_LEN.pack(len(key)) + key + meta


def decode_upload(data: bytes) -> tuple[bytes, bytes]:
    """The key of an upload's record, and the record's metadata."""
    (length,) = _KEY_LEN.unpack_from(data)
    return data[_KEY_LEN.size :][:length], data[_KEY_LEN.size + length :]


def number_of(data: bytes) -> int:
    """The number of a NamedRow, without the rest."""
    if len(data) < _PLACE.size + _AMEND.size:
        raise CorruptData("row is cut short")
    return int(_AMEND.unpack_from(data, _PLACE.size)[0])


def decode_named(data: bytes) -> NamedRow:
    if len(data) < _PLACE.size + _AMEND.size:
        raise CorruptData("row is cut short")
    number, version = _AMEND.unpack_from(data, _PLACE.size)
    return NamedRow(_place(data), number, version, data[_PLACE.size + _AMEND.size :])


@quick
@dataclass(frozen=True, slots=True)
class VolumeRow:
    """What is known of a volume: every record below `low` is in the index."""

    low: int
    live: int = 0  # bytes of records that count
    oldest: int = 2**64 - 1  # least version in it

    def encode(self) -> bytes:
        return _VOLUME.pack(self.low, self.live, self.oldest)


def decode_volume(data: bytes) -> VolumeRow:
    if len(data) != _VOLUME.size:
        raise CorruptData("volume row has a wrong length")
    return VolumeRow(*_VOLUME.unpack(data))


def encode_u64(value: int) -> bytes:
    return _U64.pack(value)


def decode_u64(data: bytes) -> int:
    if len(data) != 8:
        raise CorruptData("number has a wrong length")
    return int(_U64.unpack(data)[0])
