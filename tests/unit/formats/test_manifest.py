"""docs/formats/manifest.md"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import CorruptData
from qss.formats.manifest import FLAG_ZSTD, Manifest, StripeFacts, block_bytes
from qss.ids import LocationId, SegmentId, ShardNo, StripeNo
from qss.limits import MIB, STRIPE_BYTES
from qss.segments import SealedSegment, SegmentKind

VECTORS = Path(__file__).parents[2] / "vectors" / "manifest"
SEGMENT = SealedSegment(SegmentId(7), SegmentKind.JOURNAL, STRIPE_BYTES + 1000, 1_763_700_000_000_000_000, SegmentId(6))
MANIFEST = Manifest(
    fs_id=bytes(range(16)),
    segment=SEGMENT,
    seal=bytes(range(16, 32)),
    dek=bytes(range(32, 64)),
    suite=1,
    k=2,
    m=1,
    created_ns=1_763_700_001_000_000_000,
    stripes=(
        StripeFacts(STRIPE_BYTES, STRIPE_BYTES, 0, block_bytes(STRIPE_BYTES, 2)),
        StripeFacts(1000, 400, FLAG_ZSTD, block_bytes(400, 2)),
    ),
    hashes=bytes(range(192)),
    placed=(LocationId("trove-1"), None, LocationId("zürich")),
)
PACKED = MANIFEST.pack()


def test_frozen_vector_v1() -> None:
    assert PACKED.hex() == (VECTORS / "manifest-v1.hex").read_text().strip()


def test_there_and_back() -> None:
    assert Manifest.unpack(PACKED) == MANIFEST
    assert MANIFEST.hash_of(StripeNo(1), ShardNo(2)) == MANIFEST.hashes[160:192]
    assert MANIFEST.block_offset(StripeNo(1)) == 136 + MANIFEST.stripes[0].block
    receipt = MANIFEST.receipt(5000)
    assert (receipt.missing, receipt.stored_bytes) == (1, 10_000)


def test_blocks_are_aligned_and_hold_the_sealed_stripe() -> None:
    for k in (1, 2, 3, 4, 10, 255):
        for stored in (0, 1, 47, 48, 49, 4 * MIB - 16, 4 * MIB):
            block = block_bytes(stored, k)
            assert block % 64 == 0
            assert stored + 16 <= block * k < stored + 16 + 64 * k


def test_an_empty_segment_has_a_manifest() -> None:
    empty = replace(MANIFEST, segment=replace(SEGMENT, length=0), stripes=(), hashes=b"")
    assert Manifest.unpack(empty.pack()) == empty


@given(st.binary(max_size=400))
def test_any_bytes_are_a_manifest_or_corrupt(data: bytes) -> None:
    for untrusted in (data, PACKED[: len(data)], PACKED[:150] + data, PACKED + data[:1]):
        if untrusted != PACKED:
            with pytest.raises(CorruptData):
                Manifest.unpack(untrusted)


@given(st.integers(0, len(PACKED) - 1), st.integers(1, 255))
def test_a_changed_byte_gives_another_manifest_or_corrupt(position: int, change: int) -> None:
    """What authenticates it is the box around it; the decoder must merely survive and not confuse."""
    bad = bytearray(PACKED)
    bad[position] ^= change
    with contextlib.suppress(CorruptData):
        assert Manifest.unpack(bytes(bad)).pack() == bytes(bad)


def _stripes(**changes) -> tuple[StripeFacts, ...]:
    return MANIFEST.stripes[0], replace(MANIFEST.stripes[1], **changes)


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 0},
        {"segment": replace(SEGMENT, length=2**31)},
        {"segment": replace(SEGMENT, length=STRIPE_BYTES)},
        {"stripes": _stripes(plain=999)},
        {"stripes": _stripes(stored=1000)},
        {"stripes": _stripes(stored=401, flags=0)},
        {"stripes": _stripes(flags=3)},
        {"stripes": _stripes(block=64)},
        {"placed": (LocationId("a"), LocationId("a"), None)},
    ],
)
def test_figures_that_do_not_hold_are_refused(wrong: dict) -> None:
    with pytest.raises(CorruptData):
        Manifest.unpack(replace(MANIFEST, **wrong).pack())
