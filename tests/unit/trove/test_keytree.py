from __future__ import annotations

from pathlib import Path

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qss.trove.keytree import PIECE_BYTES, KeyTree

# Lengths around the cuts, few letters, long common beginnings: what makes orders go wrong.
stems = st.sampled_from([b"", b"a" * (PIECE_BYTES - 1), b"a" * PIECE_BYTES, b"a" * 1000, b"a" * 495 + b"\xc3"])
keys = st.builds(lambda stem, end: (stem + end)[:1024], stems, st.binary(min_size=1, max_size=30))


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> lmdb.Environment:
    return lmdb.open(str(tmp_path_factory.mktemp("tree")), max_dbs=1, map_size=1 << 24, sync=False)


@given(st.lists(st.tuples(st.booleans(), keys), max_size=40), keys)
@settings(deadline=None)
def test_behaves_like_a_sorted_dict(env: lmdb.Environment, steps: list[tuple[bool, bytes]], start: bytes) -> None:
    db = env.open_db(b"keys")
    with env.begin(write=True, db=db) as txn:
        txn.drop(db, delete=False)
        nodes = iter(range(2, 10_000))
        tree, model = KeyTree(txn, db, 1, lambda: next(nodes)), dict[bytes, bytes]()
        other = KeyTree(txn, db, 2**40, lambda: next(nodes))
        other.put(b"a" * 1000, b"not mine")
        for number, (put, key) in enumerate(steps):
            if put:
                tree.put(key, b"%d" % number)
                model[key] = b"%d" % number
            else:
                tree.delete(key)
                model.pop(key, None)
            assert tree.get(key) == model.get(key)
        assert list(tree.scan()) == sorted(model.items())
        assert list(tree.scan(start)) == sorted(item for item in model.items() if item[0] >= start)
        for key in model:
            tree.delete(key)
        assert list(tree.scan()) == []
        assert txn.stat(db)["entries"] == 4 - 1  # the other tree: two links and a row; nothing of ours


def test_three_keys_equal_in_the_first_thousand_bytes(env: lmdb.Environment, tmp_path: Path) -> None:
    db = env.open_db(b"keys")
    with env.begin(write=True, db=db) as txn:
        txn.drop(db, delete=False)
        nodes = iter(range(2, 100))
        tree = KeyTree(txn, db, 1, lambda: next(nodes))
        stem = "ä".encode() * 500
        wanted = [stem, stem + b"1", stem + b"2", stem + b"3" * 24, stem + "é".encode()]
        for key in reversed(wanted):
            tree.put(key, key[-1:])
        assert [key for key, _ in tree.scan()] == wanted
        assert [key for key, _ in tree.scan(stem + b"2")] == wanted[2:]
