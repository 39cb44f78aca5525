"""The body of a put on its way in: unchunked, counted, hashed and checked as it passes. Loop-neutral."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

from qss.pieces import in_pieces
from qss.s3.backend import BodyDigests, Checksum, Chunk, EtagMode
from qss.s3.checksums import ALGORITHMS, Running, algorithm_of_header, decode_value, encode_value, header_of, running
from qss.s3.chunked import ChunkedDecoder
from qss.s3.errors import Code, S3Error
from qss.s3.scalars import base64_of, number_of
from qss.s3.sigv4 import Payload, Verified, payload_of
from qss.values import quick

PUT_BYTES_MAX: Final = 5 * 1024**3
_CHUNKS_SIGNED: Final = (Payload.CHUNKS_SIGNED, Payload.CHUNKS_SIGNED_TRAILER)


@quick
@dataclass(frozen=True, slots=True)
class BodyClaims:
    """What the head announces about the body; checked when it has passed."""

    length: int  # bytes, decoded
    payload: Payload = Payload.UNSIGNED
    sha256: str | None = None  # hex; with Payload.SIGNED
    content_md5: bytes | None = None
    checksum: Checksum | None = None  # in a header
    trailer: str | None = None  # algorithm of the checksum that follows in a trailer
    want_checksum: str | None = None  # algorithm to compute though the client sent none


def claims_of(headers: Mapping[str, str], verified: Verified | None, length_max: int = PUT_BYTES_MAX) -> BodyClaims:
    """Read the head. Raises S3Error for announcements that are missing, malformed or contradict each other."""
    payload, sha256 = _payload(headers) if verified is None else (verified.payload, verified.sha256)
    length = _length(headers, payload)
    if length > length_max:
        raise S3Error(Code.ENTITY_TOO_LARGE)
    checksum = _header_checksum(headers)
    trailer = _trailer_algorithm(headers)
    if trailer is not None and (checksum is not None or not payload.chunked):
        raise S3Error(Code.INVALID_REQUEST, "Expecting a single x-amz-checksum- header or trailer.")
    announced = headers.get("x-amz-sdk-checksum-algorithm", "").upper()
    sent = trailer or (checksum.algorithm if checksum else None)
    if announced and announced not in ALGORITHMS:
        raise S3Error(Code.INVALID_REQUEST, "Value for x-amz-sdk-checksum-algorithm header is invalid.")
    if announced and sent not in (None, announced):
        raise S3Error(Code.INVALID_REQUEST, "Value for x-amz-sdk-checksum-algorithm header is invalid.")
    return BodyClaims(length, payload, sha256, _content_md5(headers), checksum, trailer)


def _payload(headers: Mapping[str, str]) -> tuple[Payload, str | None]:
    """Of a request that nobody signs. SDKs send such bodies, too, in chunks with a checksum behind them."""
    text = headers.get("x-amz-content-sha256")
    if text is None:
        return Payload.UNSIGNED, None
    payload, sha256 = payload_of(text)
    if payload in _CHUNKS_SIGNED:
        raise S3Error(Code.INVALID_ARGUMENT, "Chunks are signed by who signs the request.")
    return payload, sha256


def _length(headers: Mapping[str, str], payload: Payload) -> int:
    name = "x-amz-decoded-content-length" if payload.chunked else "content-length"
    text = headers.get(name)
    if text is None:
        raise S3Error(Code.MISSING_CONTENT_LENGTH)
    length = number_of(text)
    if length is None:
        raise S3Error(Code.INVALID_ARGUMENT, f"{name} is not a number of bytes.")
    return length


def _content_md5(headers: Mapping[str, str]) -> bytes | None:
    text = headers.get("content-md5")
    if text is None:
        return None
    digest = base64_of(text)
    if digest is None or len(digest) != 16:
        raise S3Error(Code.INVALID_DIGEST)
    return digest


def _header_checksum(headers: Mapping[str, str]) -> Checksum | None:
    found = [(algorithm, value) for name, value in headers.items() if (algorithm := algorithm_of_header(name))]
    if len(found) > 1:
        raise S3Error(Code.INVALID_REQUEST, "Expecting a single x-amz-checksum- header.")
    if not found:
        return None
    algorithm, value = found[0]
    decode_value(algorithm, value)
    return Checksum(algorithm, value)


def _trailer_algorithm(headers: Mapping[str, str]) -> str | None:
    name = headers.get("x-amz-trailer")
    if name is None:
        return None
    algorithm = algorithm_of_header(name.strip().lower())
    if algorithm is None:
        raise S3Error(Code.INVALID_REQUEST, "The value specified in the x-amz-trailer header is not supported.")
    return algorithm


class CheckedBody:
    """An IncomingBody: takes what the network gives, yields what was meant, raises where it does not hold."""

    def __init__(
        self,
        raw: AsyncIterator[Chunk],
        claims: BodyClaims,
        etag_mode: EtagMode = EtagMode.MD5,
        verified: Verified | None = None,
    ) -> None:
        self._raw = raw
        self._claims = claims
        signed = claims.payload in _CHUNKS_SIGNED
        signing = verified.chunks if signed and verified is not None else None
        self._decoder = (
            ChunkedDecoder(signing, claims.payload is not Payload.CHUNKS_SIGNED) if claims.payload.chunked else None
        )
        self._count = 0
        with_md5 = etag_mode is EtagMode.MD5 or claims.content_md5 is not None
        self._md5 = hashlib.md5(usedforsecurity=False) if with_md5 else None
        self._etag_mode = etag_mode
        self._sha256 = hashlib.sha256() if claims.sha256 is not None else None
        algorithm = claims.trailer or (claims.checksum.algorithm if claims.checksum else claims.want_checksum)
        self._algorithm = algorithm
        self._checksum: Running | None = running(algorithm) if algorithm else None
        self._digests: BodyDigests | None = None

    @property
    def length(self) -> int | None:
        return self._claims.length

    async def chunks(self) -> AsyncIterator[Chunk]:
        async for raw in self._raw:
            pieces: list[Chunk] = [raw] if self._decoder is None else [*self._decoder.feed(raw)]
            for piece in pieces:
                if piece:
                    self._pass(piece)
                    yield piece
        if self._decoder is not None:
            self._decoder.finish()
        self._digests = self._check()

    def digests(self) -> BodyDigests:
        assert self._digests is not None, "asked before the body has passed"
        return self._digests

    def _pass(self, piece: Chunk) -> None:
        self._count += len(piece)
        if self._count > self._claims.length:
            raise S3Error(Code.INCOMPLETE_BODY)
        for digest in (self._md5, self._sha256, self._checksum):
            if digest is not None:
                for part in in_pieces(piece):
                    digest.update(part)

    def _check(self) -> BodyDigests:
        claims = self._claims
        if self._count != claims.length:
            raise S3Error(Code.INCOMPLETE_BODY)
        md5 = None if self._md5 is None else self._md5.digest()
        if claims.content_md5 is not None and md5 != claims.content_md5:
            raise S3Error(Code.BAD_DIGEST, "The Content-MD5 you specified did not match what we received.")
        if self._sha256 is not None and self._sha256.hexdigest() != claims.sha256:
            raise S3Error(Code.CONTENT_SHA256_MISMATCH)
        return BodyDigests(self._count, md5 if self._etag_mode is EtagMode.MD5 else None, self._checked_sum())

    def _checked_sum(self) -> Checksum | None:
        claimed = self._claims.checksum
        if self._claims.trailer is not None:
            assert self._decoder is not None
            name = header_of(self._claims.trailer)
            if set(self._decoder.trailers) != {name}:
                raise S3Error(Code.MALFORMED_TRAILER)
            value = self._decoder.trailers[name]
            decode_value(self._claims.trailer, value)
            claimed = Checksum(self._claims.trailer, value)
        elif self._decoder is not None and self._decoder.trailers:
            raise S3Error(Code.MALFORMED_TRAILER)
        if self._checksum is None or self._algorithm is None:
            return None
        value = encode_value(self._checksum.digest())
        if claimed is not None and claimed.value != value:
            raise S3Error(Code.BAD_DIGEST, f"The {claimed.algorithm} you specified did not match what we received.")
        return Checksum(self._algorithm, value)
