"""The overlay of a transaction and the index under it, against a dictionary."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from qss.cache.change import Change
from qss.cache.index import Index
from qss.formats.tables import ExtentRow, Table, pair_key
from qss.ids import SegmentId
from qss.limits import MIB

keys = st.binary(min_size=1, max_size=3)
rows = st.dictionaries(keys, st.none() | st.binary(max_size=3), max_size=12)


@given(rows, rows, keys, keys)
def test_a_change_reads_like_the_rows_it_will_leave(
    below: dict[bytes, bytes | None], above: dict[bytes, bytes | None], start: bytes, stop: bytes
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        index = Index(Path(directory), 16 * MIB)
        model: dict[bytes, bytes] = {}
        for layer in (below, above):
            change = Change(index)
            for key, value in layer.items():
                if value is None:
                    change.delete(Table.META, key)
                    model.pop(key, None)
                else:
                    change.put(Table.META, key, value)
                    model[key] = value
            if layer is below:
                index.apply(change.ops())
        for reader in (change, index):
            if reader is index:
                index.apply(change.ops())
            assert [reader.get(Table.META, key) for key in (*below, *above)] == [
                model.get(key) for key in (*below, *above)
            ]
            inside = sorted(item for item in model.items() if start <= item[0] < stop)
            assert list(reader.scan(Table.META, start, stop)) == inside
            assert list(reader.scan(Table.META, start)) == sorted(i for i in model.items() if i[0] >= start)
            floor = max((item for item in model.items() if item[0] <= start), default=None)
            assert reader.floor(Table.META, start) == floor
        assert change.ops() == []
        index.close()


extents = st.builds(
    lambda segment, length: ExtentRow(SegmentId(segment), 0, 1000, 0, length).pack(),
    st.integers(1, 4),
    st.integers(1, 1000),
)


@given(st.lists(st.tuples(st.integers(0, 5), st.none() | extents), max_size=30), st.integers(0, 30))
def test_live_bytes_are_the_sum_of_the_extents_and_survive_a_checkpoint(
    steps: list[tuple[int, bytes | None]], checkpoint_at: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        index = Index(Path(directory), 16 * MIB)
        for number, (place, value) in enumerate(steps):
            change = Change(index)
            if value is None:
                change.delete(Table.EXTENTS, pair_key(1, place))
            else:
                change.put(Table.EXTENTS, pair_key(1, place), value)
            index.apply(change.ops())
            if number == checkpoint_at:
                index.checkpoint(b"mark")
                index.close()
                index = Index(Path(directory), 16 * MIB)
                assert index.applied == b"mark"
        live: dict[int, int] = {}
        for _, value in index.scan(Table.EXTENTS, b""):
            extent = ExtentRow.unpack(value)
            live[extent.segment] = live.get(extent.segment, 0) + extent.length
        assert index.live_all() == live
        index.close()
