"""The journal's format: frozen vector, round trips against a model, torn frames."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import CorruptData
from qss.formats import journal
from qss.formats.journal import (
    FRAME_BODY_BYTES_MAX,
    Op,
    decode_frame,
    encode_batch,
    frame_position,
    ops_of,
    scan_frames,
)
from qss.formats.tables import ExtentRow, InodeRow, Table, pair_key, u64_key
from qss.ids import SegmentId
from qss.limits import STRIPE_BYTES

VECTORS = Path(__file__).parents[2] / "vectors"

BEFORE = InodeRow(0o100644, 1, 0, 0, 0, 0, 100, 100, 0, 0, 1, 2, 3).pack()
AFTER = InodeRow(0o100644, 1, 0, 0, 0, 0, 200, 200, 0, 0, 1, 2_500_000_000, 2_500_000_000).pack()
OPS = [
    Op(Table.INODES, u64_key(77), BEFORE, AFTER),
    Op(Table.EXTENTS, pair_key(77, 100), None, ExtentRow(SegmentId(3), 4096, 100, 0, 100).pack()),
    Op(Table.ENTRIES, u64_key(1) + b"name", b"old", None),
    Op(Table.SYMLINKS, u64_key(78), None, b"x" * 300),
]
BATCH_V1 = (VECTORS / "journal" / "batch-v1.hex").read_text().strip()


def test_frozen_vector() -> None:
    (frame,) = encode_batch(OPS, 5, SegmentId(3), 70_000)
    assert frame.hex() == BATCH_V1
    batch, length = decode_frame(bytes.fromhex(BATCH_V1))
    assert length == len(frame)
    assert batch[:4] == (5, 3, 70_000, False)
    assert [(op.table, op.key) for op in ops_of(batch)] == [op[:2] for op in OPS]
    assert [packed.after(op.before) for packed, op in zip(ops_of(batch), OPS, strict=True)] == [o.after for o in OPS]


def test_a_small_append_costs_little_journal() -> None:
    (frame,) = encode_batch(OPS[:2], 1000, SegmentId(3), 7_000_000)
    assert len(frame) < 100


keys = st.binary(min_size=1, max_size=40)
values = st.one_of(st.binary(max_size=300), st.integers(0, 300).map(bytes))
ops = st.builds(Op, st.sampled_from(Table), keys, st.none() | values, st.none() | values)


@given(st.lists(ops, max_size=20))
def test_what_is_written_is_read(written: list[Op]) -> None:
    found = []
    for frame in encode_batch(written, 0, SegmentId(0), 0):
        found += list(ops_of(decode_frame(frame)[0]))
    assert [(p.table, p.key, p.after(op.before)) for p, op in zip(found, written, strict=True)] == [
        (op.table, op.key, op.after) for op in written
    ]


def plain(before: bytes | None, after: bytes) -> tuple[int, bytes]:
    """Code and packed value as docs/formats/journal.md says, run by run; the encoder learns the shapes of rows."""
    if len(after) > 256:
        return 1, after
    patch = before is not None and len(before) == len(after)
    differing = bytes(a ^ b for a, b in zip(before, after, strict=True)) if patch else after  # type: ignore[arg-type]
    packed = b"" if patch else varint(len(after))
    last = 0
    for run in re.finditer(rb"[^\0]+(?:\0{1,2}[^\0]+)*", differing, re.DOTALL):
        packed += varint(run.start() - last) + varint(len(run[0])) + after[run.start() : run.end()]
        last = run.end()
    return (2 if patch else 3, packed) if len(packed) < len(after) else (1, after)


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128, *varint(number >> 7)])


rows = st.lists(st.one_of(st.just(0), st.integers(0, 255)), max_size=260).map(bytes)


@given(st.lists(st.builds(Op, st.sampled_from(Table), keys, st.none() | rows, rows), max_size=5))
def test_values_are_packed_run_by_run(written: list[Op]) -> None:
    (frame,) = encode_batch(written, 0, SegmentId(0), 0)
    found = [(op.code, op.packed) for op in ops_of(decode_frame(frame)[0])]
    assert found == [plain(op.before, op.after) for op in written if op.after is not None]


def test_a_percent_sign_is_a_byte_like_any_other() -> None:
    for length in (37, 40, 256):  # 37 is "%": as length, as gap, as length of a run
        row = bytes(37) + b"%" * (length - 37)
        for before in (None, bytes(length)):
            (frame,) = encode_batch([Op(Table.META, b"%", before, row)], 37, SegmentId(37), 37)
            (op,) = ops_of(decode_frame(frame)[0])
            assert (op.code, op.packed) == plain(before, row)
            assert op.after(before) == row


def test_the_memory_of_shapes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_SHAPES_MAX", 8)
    for number in range(200):
        row = f"{number:08b}".translate({48: 0, 49: 1}).encode() + bytes(40)
        (frame,) = encode_batch([Op(Table.META, b"k", None, row)], 0, SegmentId(0), 0)
        (op,) = ops_of(decode_frame(frame)[0])
        assert op.after(None) == row
    assert len(journal._SPARSES) <= 8


@given(st.data())
def test_a_flipped_bit_is_seen(data: st.DataObject) -> None:
    (frame,) = encode_batch(OPS, 5, SegmentId(3), 70_000)
    bit = data.draw(st.integers(0, len(frame) * 8 - 1))
    broken = bytearray(frame)
    broken[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptData):
        decode_frame(broken)


@given(st.binary(max_size=200))
def test_packed_ops_raise_only_corrupt_data(untrusted: bytes) -> None:
    (frame,) = encode_batch([], 0, SegmentId(0), 0)
    batch = decode_frame(frame)[0]._replace(packed_ops=memoryview(untrusted))
    try:
        for op in ops_of(batch):
            op.after(b"four")
    except CorruptData:
        pass


def test_a_batch_too_large_for_a_frame_becomes_several() -> None:
    large = [Op(Table.XATTRS, u64_key(n) + b"x", None, bytes([n % 255 + 1]) * 60_000) for n in range(100)]
    frames = encode_batch(large, 3, SegmentId(1), 2)
    assert len(frames) == 2
    assert all(len(frame) <= FRAME_BODY_BYTES_MAX + 24 for frame in frames)
    batches = [decode_frame(frame)[0] for frame in frames]
    assert [(batch.number, batch.more_follows) for batch in batches] == [(3, True), (4, False)]
    assert [op.key for batch in batches for op in ops_of(batch)] == [op.key for op in large]


def test_scan_ends_at_padding_and_tells_a_torn_frame() -> None:
    frames = b"".join(encode_batch(OPS, n, SegmentId(3), 0)[0] for n in range(3))
    assert [batch.number for _, _, batch in scan_frames(frames + bytes(50))] == [0, 1, 2]
    found = scan_frames(frames[:-1])
    assert [next(found)[2].number, next(found)[2].number] == [0, 1]
    with pytest.raises(CorruptData):
        next(found)


@given(st.integers(0, 3 * STRIPE_BYTES), st.integers(1, STRIPE_BYTES))
def test_no_frame_crosses_a_stripe_boundary(position: int, length: int) -> None:
    at = frame_position(position, length)
    assert position <= at
    assert at // STRIPE_BYTES == (at + length - 1) // STRIPE_BYTES
