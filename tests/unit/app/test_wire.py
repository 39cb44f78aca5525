import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.app import wire
from qss.control.messages import Reply, decode, encode
from qss.errors import CorruptData
from qss.ids import LocationId, SegmentId
from qss.segments import Receipt, RestorePoint, SealedSegment, SegmentKind

u63 = st.integers(0, 2**63 - 1)
ids = u63.map(SegmentId)
locations = st.none() | st.from_regex(r"[a-z0-9-]{1,12}", fullmatch=True).map(LocationId)
sealed = st.builds(SealedSegment, ids, st.sampled_from(SegmentKind), u63, u63, ids)
receipts = st.builds(Receipt, ids, st.binary(min_size=16, max_size=16), u63, u63, st.lists(locations).map(tuple), u63)
points = st.none() | st.builds(RestorePoint, st.lists(ids).map(tuple), st.lists(ids).map(tuple), u63, ids)
paths = (
    st.binary(max_size=30)
    .filter(lambda raw: b"\0" not in raw)
    .map(lambda raw: Path("/" + raw.decode("utf-8", "surrogateescape")))
)


def travelled(value):
    return decode(encode(Reply(1, value))).result


@given(sealed)
def test_sealed(value):
    assert wire.sealed_of(travelled(wire.sealed_to_json(value))) == value


@given(receipts)
def test_receipts(value):
    assert wire.receipt_of(travelled(wire.receipt_to_json(value))) == value


@given(points)
def test_points(value):
    assert wire.point_of(travelled(wire.point_to_json(value))) == value


@given(paths)
def test_paths_of_any_bytes(value):
    assert wire.path_of(travelled(wire.path_to_json(value))) == value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda each: st.lists(each, max_size=3),
    max_leaves=5,
)
keys = st.sampled_from(
    [
        "id",
        "kind",
        "length",
        "sealed_ns",
        "needs_upto",
        "segment",
        "seal",
        "k",
        "m",
        "placed",
        "stored_bytes",
        "checkpoint",
        "journals",
        "cut_ns",
        "next_segment",
    ]
)


@given(json_values | st.dictionaries(keys, json_values))
def test_what_does_not_fit_is_corrupt(value):
    for decoder in (wire.sealed_of, wire.receipt_of, wire.point_of, wire.path_of, wire.segment_of, wire.stripe_of):
        with contextlib.suppress(CorruptData):
            decoder(value)


def test_a_relative_path_is_corrupt():
    with pytest.raises(CorruptData):
        wire.path_of("segments/1")
