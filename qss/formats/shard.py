"""The shard object: one shard of one segment at one location (docs/formats/shard.md).

    header (136 bytes) | this shard's block of stripe 0, 1, ... | table | encrypted manifest

The header is authenticated by a keyed BLAKE3 that also covers the segment and the location, which stand nowhere in
the object: bytes moved to another name are refused. The table's hash is in the header, so that the blocks of an
object can be verified from the object alone. Pure.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from qss.errors import CorruptData
from qss.ids import LocationId, SegmentId, ShardNo
from qss.limits import SEGMENT_BYTES_MAX, SHARDS_MAX, STRIPE_BYTES

MAGIC: Final = b"QSSSHARD"
VERSION: Final = 1
SEAL_BYTES: Final = 16
HASH_BYTES: Final = 32

_HEADER = struct.Struct("<8sBBBBBB2xII8xQQQ16s32s")  # then 32 bytes of MAC
_ROW = struct.Struct("<QI32s")
_MAC_CONTEXT = struct.Struct("<Q")
_MAC_DOMAIN: Final = b"qss shard header v1\0"

HEADER_BYTES: Final = _HEADER.size + HASH_BYTES
TABLE_ROW_BYTES: Final = _ROW.size
STRIPES_MAX: Final = SEGMENT_BYTES_MAX // STRIPE_BYTES
MANIFEST_BYTES_MAX: Final = 4 * 1024 * 1024

assert HEADER_BYTES == 136
assert STRIPES_MAX * SHARDS_MAX * HASH_BYTES < MANIFEST_BYTES_MAX


@dataclass(frozen=True, slots=True)
class ShardHeader:
    """What the first bytes of a shard object say. All lengths and offsets in bytes."""

    suite: int
    k: int
    m: int
    shard: ShardNo
    stripes: int
    seal: bytes
    table_offset: int
    manifest_offset: int
    total: int
    table_hash: bytes  # BLAKE3 of the table

    def pack(self, key: bytes, segment: SegmentId, location: LocationId) -> bytes:
        """The header with its MAC; `key` is 32 bytes."""
        body = _HEADER.pack(
            MAGIC, VERSION, self.suite, self.k, self.m, self.shard, 0, self.stripes,
            self.total - self.manifest_offset, self.table_offset, self.manifest_offset, self.total,
            self.seal, self.table_hash,
        )  # fmt: skip
        return body + _mac(key, body, segment, location)

    @classmethod
    def unpack(cls, untrusted: bytes, key: bytes, segment: SegmentId, location: LocationId) -> ShardHeader:
        """Raises CorruptData when anything in it, or the place it was found at, does not hold."""
        if len(untrusted) < HEADER_BYTES:
            raise CorruptData("a shard header is cut short")
        body, mac = bytes(untrusted[: _HEADER.size]), bytes(untrusted[_HEADER.size : HEADER_BYTES])
        if body[:8] != MAGIC:
            raise CorruptData("this is not a shard object")
        if not hmac.compare_digest(mac, _mac(key, body, segment, location)):
            raise CorruptData("a shard header does not verify for this key, segment and location")
        (_, version, suite, k, m, shard, reserved, stripes, manifest_length, table_offset, manifest_offset, total,
         seal, table_hash) = _HEADER.unpack(body)  # fmt: skip
        if version != VERSION or reserved:
            raise CorruptData(f"shard object version {version} is not known to this program")
        header = cls(suite, k, m, ShardNo(shard), stripes, seal, table_offset, manifest_offset, total, table_hash)
        if not header._holds() or manifest_length != total - manifest_offset:
            raise CorruptData("the figures of a shard header contradict each other")
        return header

    def _holds(self) -> bool:
        return (
            self.k >= 1
            and self.k + self.m <= SHARDS_MAX
            and self.shard < self.k + self.m
            and self.stripes <= STRIPES_MAX
            and self.table_offset >= HEADER_BYTES
            and self.table_offset + self.stripes * TABLE_ROW_BYTES == self.manifest_offset
            and self.manifest_offset < self.total <= self.manifest_offset + MANIFEST_BYTES_MAX
        )


@dataclass(frozen=True, slots=True)
class TableRow:
    """Where this shard's block of one stripe is in the object."""

    offset: int
    length: int
    hash: bytes  # BLAKE3 of the block


def pack_table(rows: list[TableRow]) -> bytes:
    return b"".join(_ROW.pack(row.offset, row.length, row.hash) for row in rows)


def unpack_table(untrusted: bytes, header: ShardHeader) -> list[TableRow]:
    """Rows in stripe order. Raises CorruptData."""
    if len(untrusted) != header.stripes * TABLE_ROW_BYTES or blake3(untrusted).digest() != header.table_hash:
        raise CorruptData("the table of a shard object does not verify")
    rows = [TableRow(*fields) for fields in _ROW.iter_unpack(untrusted)]
    position = HEADER_BYTES
    for row in rows:
        if row.offset != position:
            raise CorruptData("the blocks of a shard object do not follow each other")
        position += row.length
    if position != header.table_offset:
        raise CorruptData("the blocks of a shard object do not fill it")
    return rows


def block_offsets(lengths: list[int]) -> list[int]:
    """Offset of each stripe's block in the object, and as the last item the table's."""
    offsets = [HEADER_BYTES]
    for length in lengths:
        offsets.append(offsets[-1] + length)
    return offsets


def _mac(key: bytes, body: bytes, segment: SegmentId, location: LocationId) -> bytes:
    return blake3(_MAC_DOMAIN + _MAC_CONTEXT.pack(segment) + body + location.encode(), key=key).digest()
