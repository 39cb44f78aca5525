"""docs/formats/root.md"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import CorruptData
from qss.formats.root import Root, RootLocation
from qss.ids import LocationId, SegmentId
from qss.segments import RestorePoint

VECTORS = Path(__file__).parents[2] / "vectors" / "root"
ROOT = Root(
    fs_id=bytes(range(16)),
    generation=12,
    epoch=3,
    writer=bytes(range(16, 32)),
    previous=bytes(range(32, 64)),
    k=4,
    m=2,
    point=RestorePoint(
        (SegmentId(1), SegmentId(2)),
        tuple(map(SegmentId, (3, 4, 5, 9, 11, 12))),
        1_763_700_000_000_000_000,
        SegmentId(13),
    ),
    created_ns=1_763_700_001_000_000_000,
    created_by="qss 0.1.0",
    locations=(
        RootLocation(LocationId("trove-1"), "http://127.0.0.1:9001/qss", (("rack", "a"), ("dc", "süd"))),
        RootLocation(LocationId("b"), "https://s3.example/b"),
    ),
)
PACKED = ROOT.pack()

segment_ids = st.lists(st.integers(0, 2**64 - 1).map(SegmentId), max_size=20).map(tuple)
texts = st.text(max_size=20)


def test_frozen_vector_v1() -> None:
    assert PACKED.hex() == (VECTORS / "root-v1.hex").read_text().strip()


def test_there_and_back() -> None:
    assert Root.unpack(PACKED) == ROOT
    assert ROOT.digest() != replace(ROOT, generation=13).digest()


@given(segment_ids, segment_ids, texts, st.lists(st.tuples(texts, texts), max_size=3).map(tuple))
def test_any_root_comes_back(checkpoint, journals, text, labels) -> None:
    root = replace(
        ROOT,
        point=RestorePoint(checkpoint, journals, -5, SegmentId(2**64 - 1)),
        created_by=text,
        locations=(RootLocation(LocationId(text), text, labels),),
    )
    assert Root.unpack(root.pack()) == root


def test_neighbours_cost_nothing() -> None:
    many = tuple(SegmentId(number) for number in range(100_000))
    root = replace(ROOT, point=replace(ROOT.point, journals=many))
    assert len(root.pack()) < 400
    assert Root.unpack(root.pack()) == root


@given(st.binary(max_size=400))
def test_any_bytes_are_a_root_or_corrupt(data: bytes) -> None:
    for untrusted in (data, PACKED[: len(data)], PACKED[:120] + data, PACKED + data[:1]):
        if untrusted != PACKED:
            with contextlib.suppress(CorruptData):
                assert isinstance(Root.unpack(untrusted), Root)


@pytest.mark.parametrize("cut", [0, 1, 50, len(PACKED) - 1])
def test_a_cut_root_is_refused(cut: int) -> None:
    with pytest.raises(CorruptData):
        Root.unpack(PACKED[:cut])
    with pytest.raises(CorruptData):
        Root.unpack(PACKED + b"\0")


@pytest.mark.parametrize("wrong", [{"k": 0}, {"k": 255, "m": 255}, {"generation": 0}])
def test_figures_out_of_bounds_are_refused(wrong: dict) -> None:
    with pytest.raises(CorruptData):
        Root.unpack(replace(ROOT, **wrong).pack())


def test_a_bomb_of_segments_is_refused_before_it_is_unpacked() -> None:
    packed = bytearray(replace(ROOT, point=replace(ROOT.point, checkpoint=(SegmentId(1),))).pack())
    at = packed.index(b"\x01\0\0\0" + b"\x01" + bytes(7) + b"\x01\0\0\0")
    packed[at + 12 : at + 16] = b"\xff\xff\xff\xff"
    with pytest.raises(CorruptData, match="more segments"):
        Root.unpack(bytes(packed))
