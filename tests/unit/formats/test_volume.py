from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.errors import CorruptData
from qss.formats.volume import (
    ALIGN_BYTES,
    EtagKind,
    Footer,
    Header,
    Kind,
    PartRef,
    Superblock,
    decode_footer,
    decode_header,
    decode_parts,
    decode_superblock,
    encode_header,
    encode_parts,
    encode_record,
    hash_blocks,
    is_unfinished,
    root_of,
)

VECTORS = Path(__file__).parents[2] / "vectors" / "volume"
SUPER = Superblock(7, 1_700_000_000_123_456_789, bytes(range(16)), bytes(range(16, 32)))
PLACE = (SUPER.identity, 4096)

headers = st.builds(
    Header,
    kind=st.sampled_from(Kind),
    key=st.binary(min_size=1, max_size=1100),
    version=st.integers(0, 2**64 - 1),
    tenant=st.integers(0, 2**32 - 1),
    meta=st.binary(max_size=300),
    late_room=st.integers(0, 200),
    floor=st.integers(0, 2**63),
    numbered=st.booleans(),
    sealed=st.booleans(),
)


def _record(header: Header, body: bytes, late: bytes = b"", **more: object) -> bytes:
    header = replace(header, body_len=len(body))
    footer = replace(Footer(header.version, late=late), **more)
    return b"".join(bytes(piece) for piece in encode_record(header, body, hash_blocks(body), footer, PLACE))


@given(headers, st.binary(max_size=200), st.binary(max_size=200), st.booleans())
def test_a_record_reads_back_as_it_was(header: Header, body: bytes, late: bytes, void: bool) -> None:
    header = replace(header, body_len=len(body))
    late = late[: header.late_room]
    data = _record(header, body, late, etag=b"e" * 16, etag_kind=EtagKind.MD5, void=void, numbered=header.numbered)
    assert len(data) == header.record_len
    assert len(data) % ALIGN_BYTES == 0
    assert decode_header(data, *PLACE) == header
    footer, table = decode_footer(header, data[header.table_at :], PLACE)
    assert (footer.late, footer.void, footer.etag, footer.version) == (late, void, b"e" * 16, header.version)
    assert footer.numbered == header.numbered
    if not void:
        assert table == hash_blocks(body)
        assert footer.root == root_of(table)


@given(headers, st.binary(max_size=500), st.data())
def test_one_flipped_bit_outside_the_body_is_noticed(header: Header, body: bytes, data: st.DataObject) -> None:
    header = replace(header, body_len=len(body))
    record = bytearray(_record(header, body))
    covered = [*range(header.body_at), *range(header.table_at, header.footer_at + 96)]
    at = data.draw(st.sampled_from(covered))
    record[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptData):
        decode_footer(decode_header(bytes(record), *PLACE), bytes(record[header.table_at :]), PLACE)


@given(st.binary(max_size=400))
def test_decoders_take_anything(data: bytes) -> None:
    for decode in (
        lambda: decode_superblock(data),
        lambda: decode_header(data, *PLACE),
        lambda: decode_header(b"TRVR\x01" + data, *PLACE),
        lambda: decode_footer(Header(Kind.OBJECT, b"k", 1), b"TRVF" + data, PLACE),
    ):
        with pytest.raises(CorruptData):
            decode()


def test_a_record_is_bound_to_its_volume_and_place() -> None:
    data = _record(Header(Kind.OBJECT, b"b/k", 1), b"body")
    with pytest.raises(CorruptData):
        decode_header(data, PLACE[0], PLACE[1] + 64)
    with pytest.raises(CorruptData):
        decode_header(data, replace(SUPER, volume=bytes(16)).identity, PLACE[1])


def test_a_header_alone_is_an_unfinished_record() -> None:
    header = Header(Kind.OBJECT, b"b/k", 1, body_len=100_000)
    data = encode_header(header, *PLACE).ljust(header.record_len, b"\0")
    assert is_unfinished(header, data[header.table_at :])
    assert not is_unfinished(header, _record(header, bytes(100_000))[header.table_at :])


@given(
    st.binary(min_size=16, max_size=16),
    st.lists(
        st.builds(PartRef, st.integers(1, 10_000), st.integers(0, 2**40), st.binary(min_size=16, max_size=16)),
        max_size=20,
    ),
)
def test_parts_read_back(upload: bytes, parts: list[PartRef]) -> None:
    assert decode_parts(encode_parts(upload, parts)) == (upload, parts)
    with pytest.raises(CorruptData):
        decode_parts(encode_parts(upload, parts) + b"x")


def _vectors() -> dict[str, bytes]:
    """Made once with version 1 of the format. Files are added for new versions and never changed."""
    body = bytes(range(256)) * 300  # two blocks
    small = Header(Kind.OBJECT, b"bucket/key", 5, meta=b'{"h":{}}', floor=128, late_room=8)
    return {
        "superblock-1": SUPER.encode(),
        "object-1": _record(small, b"hello", b"late", etag=bytes(16), etag_kind=EtagKind.MD5),
        "two-blocks-1-tail": _record(replace(small, body_len=len(body)), body)[-256:],
        "tombstone-1": _record(Header(Kind.TOMBSTONE, b"bucket/key", 6), b""),
        "version-1": _record(replace(small, numbered=True), b"hello", etag_kind=EtagKind.MD5, numbered=True),
        "marker-1": _record(Header(Kind.MARKER, b"bucket/key", 7, numbered=True), b"", numbered=True),
        "version-gone-1": _record(Header(Kind.VERSION_GONE, b"bucket/key", 8, meta=(5).to_bytes(8, "little")), b""),
        "sealed-1": _record(replace(small, meta=b'{"x":"VFNTRQ=="}', sealed=True), bytes(range(21))),
        "document-1": _record(Header(Kind.DOCUMENT, b"bucket/lifecycle", 9), b"<x/>"),
    }


@pytest.mark.parametrize("name", sorted(_vectors()))
def test_vectors(name: str) -> None:
    assert _vectors()[name].hex() == (VECTORS / f"{name}.hex").read_text().replace("\n", "")


def test_vectors_decode() -> None:
    assert decode_superblock(bytes.fromhex((VECTORS / "superblock-1.hex").read_text().replace("\n", ""))) == SUPER
    data = bytes.fromhex((VECTORS / "object-1.hex").read_text().replace("\n", ""))
    header = decode_header(data, *PLACE)
    assert (header.kind, header.key, header.version, header.body_len) == (Kind.OBJECT, b"bucket/key", 5, 5)
    assert decode_footer(header, data[header.table_at :], PLACE)[0].late == b"late"
