"""aws-chunked: whole, in pieces, and damaged in every way: the bytes or one error, never other bytes."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qss.s3.backend import Chunk
from qss.s3.body import BodyClaims, CheckedBody, claims_of
from qss.s3.checksums import encode_value
from qss.s3.chunked import LINE_BYTES_MAX, ChunkedDecoder
from qss.s3.errors import Code, S3Error
from qss.s3.sigv4 import ChunkSigning, Payload, SigningKey, Verified
from tests.harness.s3_chunks import encode_chunk

SIGNING = ChunkSigning(SigningKey(b"k" * 32), "20260101T000000Z", "20260101/us-east-1/s3/aws4_request", "0" * 64)
parts = st.lists(st.binary(min_size=1, max_size=40), max_size=5)


def encode(datas: list[bytes], signing: ChunkSigning | None, trailers: dict[str, str] | None = None) -> bytes:
    wire, previous = b"", "" if signing is None else signing.seed
    for data in [*datas, b""]:
        frame, previous = encode_chunk(data, signing, previous)
        wire += frame
    text = b"".join(f"{name}:{value}\n".encode() for name, value in (trailers or {}).items())
    wire += text.replace(b"\n", b"\r\n")
    if signing is not None and trailers is not None:
        wire += f"x-amz-trailer-signature:{signing.trailer(previous, text)}\r\n".encode()
    return wire + b"\r\n"


def decode(wire: bytes, step: int, signing: ChunkSigning | None, trailers: bool) -> tuple[bytes, dict[str, str]]:
    decoder = ChunkedDecoder(signing, trailers)
    found = b""
    for start in range(0, len(wire), step):
        found += b"".join(bytes(piece) for piece in decoder.feed(wire[start : start + step]))
    decoder.finish()
    return found, decoder.trailers


@given(datas=parts, step=st.integers(1, 300), signed=st.booleans(), trailers=st.booleans())
def test_round_trip(datas: list[bytes], step: int, signed: bool, trailers: bool) -> None:
    signing = SIGNING if signed else None
    given_trailers = {"x-amz-checksum-crc32": "AAAAAA=="} if trailers else None
    wire = encode(datas, signing, given_trailers)
    assert decode(wire, step, signing, trailers) == (b"".join(datas), given_trailers or {})


@given(datas=parts, at=st.integers(0, 10_000), byte=st.integers(0, 255), step=st.integers(1, 300))
def test_one_wrong_byte_in_a_signed_body_never_passes(datas: list[bytes], at: int, byte: int, step: int) -> None:
    wire = bytearray(encode(datas, SIGNING, {"x-amz-checksum-crc32": "AAAAAA=="}))
    at %= len(wire)
    wire[at] = byte
    try:
        found, trailers = decode(bytes(wire), step, SIGNING, True)
    except S3Error:
        return
    assert found == b"".join(datas)  # case of a hex size or of a trailer's name
    assert trailers == {"x-amz-checksum-crc32": "AAAAAA=="}


@given(data=st.binary(max_size=200), step=st.integers(1, 50), signed=st.booleans(), trailers=st.booleans())
def test_nonsense_raises_nothing_else(data: bytes, step: int, signed: bool, trailers: bool) -> None:
    try:
        decode(data, step, SIGNING if signed else None, trailers)
    except S3Error as error:
        assert error.code.status < 500  # noqa: PT017


@given(datas=parts, cut=st.integers(1, 10_000), signed=st.booleans())
def test_cut_short_never_passes(datas: list[bytes], cut: int, signed: bool) -> None:
    wire = encode(datas, SIGNING if signed else None)
    with pytest.raises(S3Error):
        decode(wire[: -min(cut, len(wire))], 50, SIGNING if signed else None, False)


@pytest.mark.parametrize(
    ("wire", "trailers", "code"),
    [
        (b"0\r\n\r\nmore", False, Code.INCOMPLETE_BODY),
        (b"0\r\nname:value\r\n\r\n", False, Code.MALFORMED_TRAILER),
        (b"0\r\nname\r\n\r\n", True, Code.MALFORMED_TRAILER),
        (b"0\r\na:1\r\na:2\r\n\r\n", True, Code.MALFORMED_TRAILER),
        (b"3\r\nabcd\r\n", False, Code.INCOMPLETE_BODY),
        (b"3\nabc\r\n0\r\n\r\n", False, Code.INCOMPLETE_BODY),
        (b"-3\r\nabc\r\n0\r\n\r\n", False, Code.INCOMPLETE_BODY),
        (b" 3\r\nabc\r\n0\r\n\r\n", False, Code.INCOMPLETE_BODY),
        (b"3_0\r\nabc", False, Code.INCOMPLETE_BODY),
        (b"f" * 17 + b"\r\n", False, Code.INCOMPLETE_BODY),
        (b"f" * 12 + b"\r\n", False, Code.ENTITY_TOO_LARGE),
        (b"3;" + b"x" * LINE_BYTES_MAX, False, Code.INCOMPLETE_BODY),
    ],
)
def test_framing(wire: bytes, trailers: bool, code: Code) -> None:
    for step in (1, len(wire)):
        with pytest.raises(S3Error) as caught:
            decode(wire, step, None, trailers)
        assert caught.value.code is code


# -- the body above it
def take(wire: bytes, claims: BodyClaims, signing: ChunkSigning | None = None) -> bytes:
    async def raw() -> AsyncIterator[Chunk]:
        for start in range(0, len(wire), 7):
            yield wire[start : start + 7]

    async def main() -> bytes:
        verified = None if signing is None else Verified("a", claims.payload, None, signing)
        body = CheckedBody(raw(), claims, verified=verified)
        data = b"".join([bytes(chunk) async for chunk in body.chunks()])
        assert body.digests().length == len(data)
        return data

    return asyncio.run(main())


def refused(wire: bytes, claims: BodyClaims) -> Code:
    with pytest.raises(S3Error) as caught:
        take(wire, claims)
    return caught.value.code


def test_trailer_checksum() -> None:
    good = encode_value(zlib.crc32(b"content").to_bytes(4, "big"))
    claims = BodyClaims(7, Payload.CHUNKS_UNSIGNED_TRAILER, trailer="CRC32")
    assert take(encode([b"con", b"tent"], None, {"x-amz-checksum-crc32": good}), claims) == b"content"
    assert refused(encode([b"cont3nt"], None, {"x-amz-checksum-crc32": good}), claims) is Code.BAD_DIGEST
    assert refused(encode([b"content"], None, {"x-amz-checksum-crc32": "x"}), claims) is Code.INVALID_REQUEST
    assert refused(encode([b"content"], None, {"x-amz-checksum-sha1": good}), claims) is Code.MALFORMED_TRAILER
    assert refused(encode([b"content"], None, {}), claims) is Code.MALFORMED_TRAILER


@pytest.mark.parametrize("length", [6, 8])
def test_length_must_hold(length: int) -> None:
    assert (
        refused(encode([b"content"], None), BodyClaims(length, Payload.CHUNKS_UNSIGNED_TRAILER)) is Code.INCOMPLETE_BODY
    )
    assert refused(b"content", BodyClaims(length)) is Code.INCOMPLETE_BODY


def test_sha256_and_md5_must_hold() -> None:
    assert refused(b"content", BodyClaims(7, Payload.SIGNED, "0" * 64)) is Code.CONTENT_SHA256_MISMATCH
    assert refused(b"content", BodyClaims(7, content_md5=bytes(16))) is Code.BAD_DIGEST


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, Code.MISSING_CONTENT_LENGTH),
        ({"content-length": "x"}, Code.INVALID_ARGUMENT),
        ({"content-length": "-1"}, Code.INVALID_ARGUMENT),
        ({"content-length": str(6 * 1024**3)}, Code.ENTITY_TOO_LARGE),
        ({"content-length": "1", "content-md5": "x"}, Code.INVALID_DIGEST),
        ({"content-length": "1", "x-amz-checksum-crc32": "x"}, Code.INVALID_REQUEST),
        ({"content-length": "1", "x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-crc32c": "AAAAAA=="},
         Code.INVALID_REQUEST),
        ({"content-length": "1", "x-amz-trailer": "x-amz-checksum-crc32"}, Code.INVALID_REQUEST),
        ({"content-length": "1", "x-amz-trailer": "other"}, Code.INVALID_REQUEST),
        ({"content-length": "1", "x-amz-sdk-checksum-algorithm": "MD4"}, Code.INVALID_REQUEST),
    ],
)  # fmt: skip
def test_claims_that_do_not_hold(headers: dict[str, str], code: Code) -> None:
    with pytest.raises(S3Error) as caught:
        claims_of(headers, None)
    assert caught.value.code is code
