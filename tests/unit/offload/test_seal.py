"""Stripes and boxes: there and back, and every change refused."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import CorruptData
from qss.formats.manifest import FLAG_ZSTD, block_bytes
from qss.ids import SegmentId, StripeNo
from qss.limits import BLOCK_BYTES, STRIPE_BYTES
from qss.offload.seal import (
    AES_256_GCM,
    SAMPLE_BYTES,
    SAMPLES,
    XCHACHA20_POLY1305,
    SealContext,
    may_shrink,
    open_box,
    open_stripe,
    seal_box,
    seal_stripe,
    suite_for,
)

CONTEXT = SealContext(bytes(16), SegmentId(7), bytes([1]) * 16, bytes([2]) * 32, AES_256_GCM, 4, 2, 3)
S0, S1 = StripeNo(0), StripeNo(1)
SUITES = pytest.mark.parametrize("suite", [AES_256_GCM, XCHACHA20_POLY1305])


def sealed(context: SealContext, stripe: StripeNo, plain: bytes, level: int = 1):
    out = memoryview(bytearray(b"\xaa" * (block_bytes(len(plain), context.k) * context.k)))
    facts = seal_stripe(context, stripe, memoryview(plain), level, out)
    return facts, out[: facts.block * context.k]


def opened(context, stripe, facts, data) -> bytes:
    return bytes(open_stripe(context, stripe, facts, memoryview(data), memoryview(bytearray(1 << 20))))


@SUITES
@given(st.binary(min_size=1, max_size=2000), st.integers(0, 3), st.integers(1, 9))
def test_there_and_back(suite: int, plain: bytes, level: int, k: int) -> None:
    context = replace(CONTEXT, suite=suite, k=k)
    facts, data = sealed(context, S0, plain, level)
    assert len(data) == facts.block * k
    assert not any(data[facts.sealed :]), "padding is zeros, whatever was in the buffer before"
    assert opened(context, S0, facts, data) == plain


def test_compression_is_kept_only_if_it_helps() -> None:
    facts, _ = sealed(CONTEXT, S0, b"a" * 10_000)
    assert facts.flags == FLAG_ZSTD
    assert facts.stored < 100
    noise = random.Random(1).randbytes(10_000)
    facts, _ = sealed(CONTEXT, S0, noise)
    assert (facts.flags, facts.stored) == (0, 10_000)
    facts, _ = sealed(CONTEXT, S0, b"a" * 10_000, level=0)
    assert facts.flags == 0


NOISE = random.Random(2).randbytes(1 << 20)


def test_noise_is_not_compressed_to_find_out() -> None:
    assert not may_shrink(memoryview(NOISE))
    facts, _ = sealed(CONTEXT, S0, NOISE)
    assert (facts.flags, facts.stored) == (0, len(NOISE))


def test_the_padding_of_a_stripe_is_no_reason_to_compress_it() -> None:
    noise = random.Random(3).randbytes(STRIPE_BYTES - BLOCK_BYTES)
    assert not may_shrink(memoryview(noise + bytes(BLOCK_BYTES)))


@pytest.mark.parametrize(
    "text",
    [
        b"some text, some more " * 50_000,
        bytes(1 << 20),
        NOISE[: 7 << 17] + bytes(1 << 17),  # an eighth of it
        bytes(1 << 17) + NOISE[: 7 << 17],
        bytes(byte & 0x0F for byte in NOISE),  # half of the bits
    ],
)
def test_what_shrinks_in_part_is_compressed(text: bytes) -> None:
    assert may_shrink(memoryview(text))
    facts, data = sealed(CONTEXT, S0, text)
    assert facts.flags == FLAG_ZSTD
    assert facts.stored < len(text) * 9 // 10
    assert opened(CONTEXT, S0, facts, data) == text


@given(st.binary(max_size=SAMPLES * SAMPLE_BYTES))
def test_short_stripes_are_always_tried(plain: bytes) -> None:
    assert may_shrink(memoryview(plain))


@SUITES
def test_every_flipped_bit_is_refused(suite: int) -> None:
    context = replace(CONTEXT, suite=suite)
    facts, data = sealed(context, S0, b"some text " * 5)
    for bit in range(facts.sealed * 8):
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptData):
            opened(context, S0, facts, bad)


@pytest.mark.parametrize(
    "other",
    [
        {"fs_id": bytes([9]) * 16},
        {"segment": SegmentId(8)},
        {"seal": bytes([9]) * 16},
        {"dek": bytes([9]) * 32},
        {"suite": XCHACHA20_POLY1305},
        {"suite": 3},
        {"k": 2},
        {"m": 3},
        {"stripes": 4},
    ],
)
def test_a_stripe_opens_only_where_it_was_sealed(other: dict) -> None:
    facts, data = sealed(CONTEXT, S0, b"text" * 50)
    with pytest.raises(CorruptData):
        opened(replace(CONTEXT, **other), S0, facts, data)


def test_stripes_cannot_be_reordered_and_facts_are_bound() -> None:
    facts, data = sealed(CONTEXT, S0, b"text" * 50, level=0)
    with pytest.raises(CorruptData):
        opened(CONTEXT, S1, facts, data)
    for wrong in ({"plain": 199}, {"stored": 199}, {"flags": FLAG_ZSTD}):
        with pytest.raises(CorruptData):
            opened(CONTEXT, S0, replace(facts, **wrong), data)


def test_every_stripe_of_every_seal_has_its_own_key() -> None:
    contexts = [CONTEXT, replace(CONTEXT, seal=bytes(16)), replace(CONTEXT, segment=SegmentId(8)),
                replace(CONTEXT, dek=bytes(32)), replace(CONTEXT, fs_id=bytes([1]) * 16)]  # fmt: skip
    keys = {context.key(StripeNo(stripe)) for context in contexts for stripe in range(50)}
    assert len(keys) == 250


def test_a_decompression_bomb_stops_at_the_stripe() -> None:
    facts, data = sealed(CONTEXT, S0, b"\0" * 500_000)
    lying = replace(facts, plain=1000)
    with pytest.raises(CorruptData):
        opened(CONTEXT, S0, lying, data)


@given(st.binary(max_size=200), st.binary(max_size=30))
def test_boxes(record: bytes, domain: bytes) -> None:
    key, nonce = bytes(range(32)), bytes(range(24))
    box = seal_box(key, domain, record, nonce)
    assert open_box(key, domain, box) == record
    for wrong in (
        lambda: open_box(bytes(32), domain, box),
        lambda: open_box(key, domain + b"x", box),
        lambda: open_box(key, domain, box[:-1]),
        lambda: open_box(key, domain, box[:20]),
        lambda: open_box(key, domain, bytes([box[0] ^ 1]) + box[1:]),
    ):
        with pytest.raises(CorruptData):
            wrong()


def test_the_suite_follows_the_processor() -> None:
    assert suite_for("model name\t: x\nflags\t\t: fpu aes avx\n") == AES_256_GCM
    assert suite_for("Features\t: fp asimd aes pmull\n") == AES_256_GCM
    assert suite_for("flags\t\t: fpu avx\nmodel name: aes\n") == XCHACHA20_POLY1305
    assert suite_for("") == XCHACHA20_POLY1305
