"""The manifest: everything needed to read one stored segment back (docs/formats/manifest.md).

This is the plaintext record; `qss.offload.manifests` encrypts it. It holds the segment's key, so it never leaves
this machine, nor touches its disk, in this form. Pure.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Final

from qss.errors import CorruptData
from qss.formats.shard import HASH_BYTES, HEADER_BYTES, SEAL_BYTES, STRIPES_MAX
from qss.ids import LocationId, SegmentId, ShardNo, StripeNo
from qss.limits import SEGMENT_BYTES_MAX, SHARDS_MAX, STRIPE_BYTES
from qss.ranges import round_up
from qss.segments import Receipt, SealedSegment, SegmentKind

MAGIC: Final = b"QSSMANIF"
VERSION: Final = 1
DEK_BYTES: Final = 32
TAG_BYTES: Final = 16
"""Every suite's AEAD tag, behind the ciphertext."""
BLOCK_ALIGN: Final = 64
"""A block's length is a multiple of this."""
LOCATION_BYTES_MAX: Final = 255

_HEAD = struct.Struct("<8sBBBB16s16s32sqQBQqQI")
_STRIPE = struct.Struct("<IIBI")

FLAG_ZSTD: Final = 1
_FLAGS_KNOWN: Final = FLAG_ZSTD


@dataclass(frozen=True, slots=True)
class StripeFacts:
    """One stripe as sealed. Lengths in bytes."""

    plain: int
    stored: int  # after compression, before encryption
    flags: int
    block: int  # each of its k+m blocks

    @property
    def sealed(self) -> int:
        return self.stored + TAG_BYTES


def block_bytes(stored: int, k: int) -> int:
    """Length of each block of a stripe that has `stored` bytes to encrypt."""
    return round_up(stored + TAG_BYTES, BLOCK_ALIGN * k) // k


@dataclass(frozen=True, slots=True)
class Manifest:
    fs_id: bytes
    segment: SealedSegment
    seal: bytes
    dek: bytes
    suite: int
    k: int
    m: int
    created_ns: int
    stripes: tuple[StripeFacts, ...]
    hashes: bytes  # BLAKE3 of every block: stripe-major, then shard
    placed: tuple[LocationId | None, ...]  # a hint: where each shard was put last

    def __repr__(self) -> str:
        return f"Manifest(segment={self.segment.id}, seal={self.seal.hex()}, {self.k}+{self.m}, key=hidden)"

    def hash_of(self, stripe: StripeNo, shard: ShardNo) -> bytes:
        at = (stripe * (self.k + self.m) + shard) * HASH_BYTES
        return self.hashes[at : at + HASH_BYTES]

    def block_offset(self, stripe: StripeNo) -> int:
        """Where a stripe's block starts in every shard object of this segment."""
        return HEADER_BYTES + sum(facts.block for facts in self.stripes[:stripe])

    def with_placed(self, placed: tuple[LocationId | None, ...]) -> Manifest:
        assert len(placed) == self.k + self.m
        return replace(self, placed=placed)

    def receipt(self, object_bytes: int) -> Receipt:
        """The receipt of `placed`; `object_bytes` is the length of each shard object."""
        count = sum(1 for place in self.placed if place is not None)
        return Receipt(self.segment.id, self.seal, self.k, self.m, self.placed, count * object_bytes)

    def pack(self) -> bytes:
        segment = self.segment
        parts = [
            _HEAD.pack(
                MAGIC, VERSION, self.suite, self.k, self.m, self.fs_id, self.seal, self.dek, self.created_ns,
                segment.id, segment.kind, segment.length, segment.sealed_ns, segment.needs_upto, len(self.stripes),
            )
        ]  # fmt: skip
        parts += [_STRIPE.pack(facts.plain, facts.stored, facts.flags, facts.block) for facts in self.stripes]
        parts.append(self.hashes)
        for place in self.placed:
            name = (place or "").encode()
            assert len(name) <= LOCATION_BYTES_MAX
            parts.append(bytes([len(name)]) + name)
        return b"".join(parts)

    @classmethod
    def unpack(cls, untrusted: bytes) -> Manifest:
        """Raises CorruptData."""
        try:
            (magic, version, suite, k, m, fs_id, seal, dek, created_ns, number, kind, length, sealed_ns, needs,
             count) = _HEAD.unpack_from(untrusted)  # fmt: skip
            segment = SealedSegment(SegmentId(number), SegmentKind(kind), length, sealed_ns, SegmentId(needs))
        except (struct.error, ValueError) as error:
            raise CorruptData("a manifest's head does not hold") from error
        if magic != MAGIC or version != VERSION:
            raise CorruptData("this is not a manifest of a version known to this program")
        if not (k >= 1 and k + m <= SHARDS_MAX and length <= SEGMENT_BYTES_MAX and count <= STRIPES_MAX):
            raise CorruptData("the figures of a manifest are out of bounds")
        if count != segment.stripe_count:
            raise CorruptData("a manifest counts its stripes wrong")
        hashes_at = _HEAD.size + count * _STRIPE.size
        places_at = hashes_at + count * (k + m) * HASH_BYTES
        if places_at > len(untrusted):
            raise CorruptData("a manifest is cut short")
        stripes = tuple(StripeFacts(*row) for row in _STRIPE.iter_unpack(untrusted[_HEAD.size : hashes_at]))
        for stripe, facts in enumerate(stripes):
            _check_stripe(facts, segment.stripe_bytes(StripeNo(stripe)), k)
        placed = _unpack_places(untrusted[places_at:], k + m)
        return cls(fs_id, segment, seal, dek, suite, k, m, created_ns, stripes,
                   bytes(untrusted[hashes_at:places_at]), placed)  # fmt: skip


def _check_stripe(facts: StripeFacts, plain: int, k: int) -> None:
    compressed = bool(facts.flags & FLAG_ZSTD)
    if (
        facts.plain != plain
        or facts.flags & ~_FLAGS_KNOWN
        or (facts.stored >= facts.plain if compressed else facts.stored != facts.plain)
        or facts.block != block_bytes(facts.stored, k)
    ):
        raise CorruptData("the lengths of a stripe in a manifest do not hold")


def _unpack_places(untrusted: bytes, count: int) -> tuple[LocationId | None, ...]:
    placed: list[LocationId | None] = []
    position = 0
    for _ in range(count):
        if position >= len(untrusted):
            raise CorruptData("a manifest is cut short")
        length = untrusted[position]
        name = bytes(untrusted[position + 1 : position + 1 + length])
        position += 1 + length
        if len(name) != length:
            raise CorruptData("a manifest is cut short")
        try:
            placed.append(LocationId(name.decode()) if name else None)
        except UnicodeDecodeError as error:
            raise CorruptData("a location's name in a manifest is not text") from error
    if position != len(untrusted):
        raise CorruptData("a manifest is longer than it says")
    named = [place for place in placed if place is not None]
    if len(set(named)) != len(named):
        raise CorruptData("a manifest names one location twice")
    return tuple(placed)


assert STRIPE_BYTES % BLOCK_ALIGN == 0
assert SEAL_BYTES == 16
