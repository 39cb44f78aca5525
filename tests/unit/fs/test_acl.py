from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import CorruptData
from qss.fs import acl
from qss.fs.acl import Entry

NONE = 0xFFFFFFFF
PLAIN = [Entry(acl.USER_OBJ, 6, NONE), Entry(acl.GROUP_OBJ, 4, NONE), Entry(acl.OTHER, 0, NONE)]
NAMED = [
    Entry(acl.USER_OBJ, 7, NONE), Entry(acl.USER, 6, 1000), Entry(acl.GROUP_OBJ, 5, NONE),
    Entry(acl.MASK, 6, NONE), Entry(acl.OTHER, 4, NONE),
]  # fmt: skip


def test_round_trip_of_the_kernels_layout():
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in NAMED)
    assert acl.decode(packed) == NAMED
    assert acl.encode(NAMED) == packed


@given(st.binary(max_size=60))
def test_anything_decodes_or_is_corrupt(data):
    try:
        entries = acl.decode(data)
    except CorruptData:
        return
    assert acl.encode(entries) == data


@pytest.mark.parametrize(
    "entries",
    [
        PLAIN[:2],  # no other
        [*PLAIN[:1], Entry(acl.USER, 1, 5), *PLAIN[1:]],  # a named user without a mask
        [NAMED[0], NAMED[1], NAMED[1], *NAMED[2:]],  # twice the same user
        list(reversed(PLAIN)),
        [PLAIN[0]._replace(perm=8), *PLAIN[1:]],
    ],
)
def test_lists_that_do_not_hold(entries):
    with pytest.raises(CorruptData):
        acl.decode(acl.encode(entries))


def test_the_mode_shows_the_mask_in_place_of_the_group():
    assert acl.mode_of(NAMED, 0o100000) == 0o100764
    assert acl.mode_of(PLAIN, 0o104777) == 0o104640


def test_chmod_moves_the_mask_not_the_group():
    entries = {entry.tag: entry.perm for entry in acl.with_mode(NAMED, 0o711)}
    assert entries == {acl.USER_OBJ: 7, acl.USER: 6, acl.GROUP_OBJ: 5, acl.MASK: 1, acl.OTHER: 1}


def test_inheritance_takes_away_what_was_not_asked_for():
    entries, mode = acl.inherited(NAMED, 0o100640)
    assert mode == 0o100640
    assert {entry.tag: entry.perm for entry in entries}[acl.MASK] == 4
