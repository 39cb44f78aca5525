"""Hashing in place: an extension of HEAD, so that whoever keeps the hashes can verify an object without moving it.

Request header `x-trove-hashes: 0-99,100-199` (first and last byte, as in Range; at most SPANS_MAX), answer header of
the same name with the BLAKE3 of each span in hex, in order, read from the disk now; `-` for a span that cannot be read
or lies behind the end. Servers that do not know it answer without the header.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol, runtime_checkable

from blake3 import blake3

from qss.errors import CorruptData, Damaged
from qss.s3.errors import Code, S3Error

HEADER: Final = "x-trove-hashes"
SPANS_MAX: Final = 64
READ_TWICE_BYTES: Final = 1024 * 1024
"""What spans may overlap beside the object's size: a header of a few bytes must not cost 64 reads of 5 GiB."""
_UNREADABLE: Final = "-"
_SPAN = re.compile(r"(\d{1,19})-(\d{1,19})", re.ASCII)

Spans = Sequence[tuple[int, int]]


class Reads(Protocol):
    """The part of an ObjectReader that is needed."""

    def chunks(self, start: int, stop: int) -> AsyncIterator[bytes | memoryview]: ...


@runtime_checkable
class Digests(Protocol):
    """A reader that hashes by itself, which is cheaper than handing over pieces."""

    async def digest(self, start: int, stop: int) -> bytes:
        """BLAKE3 of bytes [start, stop), read now. Raises Damaged."""
        ...


def ask(spans: Spans) -> str:
    """The request header for spans [start, stop), none of them empty."""
    assert 0 < len(spans) <= SPANS_MAX
    return ",".join(f"{start}-{stop - 1}" for start, stop in spans)


def asked(untrusted: str) -> list[tuple[int, int]]:
    """The spans of a request header. Raises CorruptData."""
    found = [_SPAN.fullmatch(part.strip()) for part in untrusted.split(",", SPANS_MAX)]
    spans = [(int(each[1]), int(each[2]) + 1) for each in found if each is not None]
    if len(spans) != len(found) or len(spans) > SPANS_MAX or any(start >= stop for start, stop in spans):
        raise CorruptData(f"{HEADER}: write up to {SPANS_MAX} spans as first-last,first-last")
    return spans


def check_cost(size: int, spans: Spans) -> None:
    """Raise S3Error for spans that would read an object of `size` bytes many times over."""
    if sum(stop - start for start, stop in spans if stop <= size) > 2 * size + READ_TWICE_BYTES:
        raise S3Error(Code.INVALID_ARGUMENT, f"{HEADER}: the spans overlap too much")


async def answer(reader: Reads, size: int, spans: Spans) -> str:
    """The answer header for an object of `size` bytes."""
    parts: list[str] = []
    for start, stop in spans:
        try:
            if stop > size:
                raise CorruptData("behind the end")
            parts.append((await _digest(reader, start, stop)).hex())
        except Damaged:
            parts.append(_UNREADABLE)
    return ",".join(parts)


async def _digest(reader: Reads, start: int, stop: int) -> bytes:
    if isinstance(reader, Digests):
        return await reader.digest(start, stop)
    digest = blake3()
    async for chunk in reader.chunks(start, stop):
        digest.update(chunk)
    return digest.digest()


def answered(untrusted: str, count: int) -> list[bytes]:
    """The hashes of an answer header. Raises CorruptData, also when the place says that it cannot read a span."""
    parts = untrusted.split(",")
    if _UNREADABLE in parts:
        raise CorruptData("its place says that it does not verify")
    try:
        hashes = [bytes.fromhex(part) for part in parts]
    except ValueError as error:
        raise CorruptData(f"{HEADER}: the answer does not hold") from error
    if len(hashes) != count or any(len(each) != 32 for each in hashes):
        raise CorruptData(f"{HEADER}: the answer does not hold")
    return hashes
