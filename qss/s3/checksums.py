"""S3's additional checksums: running digests, and how those of parts make that of the whole.

CRC32 comes from zlib, CRC32C and CRC64NVME from awscrt (imported at first use; without it they are NotImplemented).
Source: "Checking object integrity for data uploads in Amazon S3".
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, Protocol

from qss.s3.backend import Checksum, Chunk
from qss.s3.errors import Code, S3Error
from qss.s3.scalars import base64_of

ALGORITHMS: Final = {"CRC32": 4, "CRC32C": 4, "CRC64NVME": 8, "SHA1": 20, "SHA256": 32}
"""Names as in x-amz-checksum-algorithm, and digest lengths in bytes."""


def header_of(algorithm: str) -> str:
    """The header or trailer that carries a checksum."""
    return f"x-amz-checksum-{algorithm.lower()}"


_BY_HEADER: Final = {header_of(algorithm): algorithm for algorithm in ALGORITHMS}


def algorithm_of_header(name: str) -> str | None:
    """The algorithm a lower-case header name stands for, or None."""
    return _BY_HEADER.get(name)


class Running(Protocol):
    """A digest in the making, as hashlib's."""

    def update(self, data: Chunk, /) -> None: ...

    def digest(self) -> bytes: ...


class _RunningCrc:
    def __init__(self, function: Callable[[Any, int], int], width_bytes: int) -> None:
        self._function = function
        self._width_bytes = width_bytes
        self._value = 0

    def update(self, data: Chunk, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._width_bytes, "big")


@cache
def _crt() -> Any:
    try:
        from awscrt import checksums
    except ImportError:
        raise S3Error(Code.NOT_IMPLEMENTED, "CRC32C and CRC64NVME need the Python package awscrt.") from None
    return checksums


def running(algorithm: str) -> Running:
    """A fresh digest. Raises S3Error for an unknown name."""
    if algorithm == "CRC32":
        return _RunningCrc(zlib.crc32, 4)
    if algorithm == "CRC32C":
        return _RunningCrc(_crt().crc32c, 4)
    if algorithm == "CRC64NVME":
        return _RunningCrc(_crt().crc64nvme, 8)
    if algorithm in ALGORITHMS:
        return hashlib.new(algorithm.lower(), usedforsecurity=False)
    raise S3Error(Code.INVALID_REQUEST, "Checksum algorithm provided is unsupported.")


def decode_value(algorithm: str, text: str) -> bytes:
    """The digest in a header. Raises S3Error when it is not base64 of the right length."""
    digest = base64_of(text)
    if digest is None or len(digest) != ALGORITHMS[algorithm]:
        raise S3Error(Code.INVALID_REQUEST, f"Value for {header_of(algorithm)} header is invalid.")
    return digest


def encode_value(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")


def composite(parts: Sequence[Checksum]) -> Checksum:
    """The checksum of checksums of a multipart object. All of one algorithm, at least one."""
    total = running(parts[0].algorithm)
    for part in parts:
        total.update(decode_value(part.algorithm, part.value))
    return Checksum(parts[0].algorithm, f"{encode_value(total.digest())}-{len(parts)}", composite=True)


def full_object(parts: Sequence[tuple[Checksum, int]]) -> Checksum:
    """The CRC of the whole from CRCs and sizes (bytes) of the parts; only CRCs can do this."""
    algorithm = parts[0][0].algorithm
    if algorithm not in ("CRC32", "CRC32C", "CRC64NVME"):
        raise S3Error(Code.INVALID_REQUEST, f"The FULL_OBJECT checksum type cannot be used with {algorithm}.")
    combine = getattr(_crt(), f"combine_{algorithm.lower()}")
    value = 0
    for part, size in parts:
        value = combine(value, int.from_bytes(decode_value(algorithm, part.value), "big"), size)
    return Checksum(algorithm, encode_value(value.to_bytes(ALGORITHMS[algorithm], "big")))
