"""What a completed multipart upload is: a pure check of the wanted list against the stored parts."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from qss.s3.backend import PART_BYTES_MIN, PART_NUMBER_MAX, Checksum, Part, Upload, WantedPart
from qss.s3.checksums import composite, full_object
from qss.s3.errors import Code, S3Error


@dataclass(frozen=True, slots=True)
class Assembly:
    """The object that the parts make, in order."""

    parts: tuple[Part, ...]
    size: int  # bytes
    etag: str  # md5(md5s)-count
    checksum: Checksum | None


def assemble(upload: Upload, stored: Sequence[Part], wanted: Sequence[WantedPart]) -> Assembly:
    """Check order, presence, etags, checksums and sizes. Raises S3Error with S3's code for what does not hold."""
    if not wanted:
        raise S3Error(Code.MALFORMED_XML)
    numbers = [part.number for part in wanted]
    if any(not 1 <= number <= PART_NUMBER_MAX for number in numbers):
        raise S3Error(Code.INVALID_ARGUMENT, f"PartNumber must be an integer between 1 and {PART_NUMBER_MAX}.")
    if any(first >= second for first, second in itertools.pairwise(numbers)):
        raise S3Error(Code.INVALID_PART_ORDER)
    have = {part.number: part for part in stored}
    chosen = tuple(_matching(have.get(part.number), part) for part in wanted)
    for part in chosen[:-1]:
        if part.size < PART_BYTES_MIN:
            raise S3Error(Code.ENTITY_TOO_SMALL)
    return Assembly(chosen, sum(part.size for part in chosen), _etag(chosen), _checksum(upload, chosen))


def _matching(part: Part | None, wanted: WantedPart) -> Part:
    if part is None or part.etag != wanted.etag:
        raise S3Error(Code.INVALID_PART)
    if wanted.checksum is not None and part.checksum is not None and wanted.checksum.value != part.checksum.value:
        raise S3Error(Code.INVALID_PART)
    return part


def _etag(parts: Sequence[Part]) -> str:
    digests = b"".join(bytes.fromhex(part.etag) for part in parts)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"


def _checksum(upload: Upload, parts: Sequence[Part]) -> Checksum | None:
    """What was announced at the start; where a part came without it, none (S3 would have refused the part)."""
    if upload.checksum_algorithm is None:
        return None
    sums = [part.checksum for part in parts]
    known = [each for each in sums if each is not None and each.algorithm == upload.checksum_algorithm]
    if len(known) != len(parts):
        return None
    if upload.checksum_composite:
        return composite(known)
    return full_object([(each, part.size) for each, part in zip(known, parts, strict=True)])
