"""When local copies were last used, as it is noted now and then: bytes ↔ values. docs/formats/access.md.

A convenience, not a truth: without the file, or with a damaged one, copies count as used when they were written.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from blake3 import blake3

from qss.errors import CorruptData
from qss.ids import SegmentId

MAGIC: Final = b"QSA1"
_HEAD: Final = struct.Struct("<4sII")
_USE: Final = struct.Struct("<QiqB")
_GHOST: Final = struct.Struct("<QiI")
_CHECK_BYTES: Final = 16


class Use(NamedTuple):
    """A local copy."""

    segment: SegmentId
    stripe: int  # -1: the whole segment
    used_ns: int  # wall clock, nanoseconds since 1970
    visits: int


class Ghost(NamedTuple):
    """A copy that was read and is gone."""

    segment: SegmentId
    stripe: int
    length: int  # bytes


def encode_access(uses: list[Use], ghosts: list[Ghost]) -> bytes:
    """Ghosts oldest first."""
    parts = [_HEAD.pack(MAGIC, len(uses), len(ghosts))]
    parts += [_USE.pack(*use) for use in uses]
    parts += [_GHOST.pack(*ghost) for ghost in ghosts]
    body = b"".join(parts)
    return body + blake3(body).digest(_CHECK_BYTES)


def decode_access(untrusted: bytes) -> tuple[list[Use], list[Ghost]]:
    """Raises CorruptData, never anything else."""
    body, check = untrusted[:-_CHECK_BYTES], untrusted[-_CHECK_BYTES:]
    if len(body) < _HEAD.size or blake3(body).digest(_CHECK_BYTES) != check:
        raise CorruptData("the access times do not verify")
    magic, uses, ghosts = _HEAD.unpack_from(body)
    middle = _HEAD.size + uses * _USE.size
    if magic != MAGIC or len(body) != middle + ghosts * _GHOST.size:
        raise CorruptData("the access times are of another kind or length")
    return (
        [Use(*row) for row in _USE.iter_unpack(body[_HEAD.size : middle])],
        [Ghost(*row) for row in _GHOST.iter_unpack(body[middle:])],
    )
