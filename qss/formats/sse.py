"""Objects under server-side encryption: the node's keys in their file, the envelope of an object, the frames of a body.

See docs/formats/sse.md. Bytes ↔ values, and lengths; ciphers are in qss.trove.sealing.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3

from qss.errors import CorruptData
from qss.limits import BLOCK_BYTES

VERSION: Final = 1
KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
SALT_BYTES: Final = 16
KEY_ID_BYTES: Final = 8
WRAPPED_BYTES: Final = KEY_BYTES + TAG_BYTES
KEYS_MAX: Final = 16
FRAME_BYTES: Final = BLOCK_BYTES
"""Of a sealed body: each frame is one block of the volume, so that a range reads and opens just the blocks it is in."""
PLAIN_BYTES: Final = FRAME_BYTES - TAG_BYTES
"""Of the object in each frame but the last."""

_ENVELOPE: Final = struct.Struct("<4sBBH8s16s48s")
_ENVELOPE_MAGIC: Final = b"TSSE"
_KEY_FILE: Final = struct.Struct("<8sHH")
_KEY_MAGIC: Final = b"TROVEKEY"
_CHECK_BYTES: Final = 16
_NONCE: Final = struct.Struct(">QI")
_ID_CONTEXT: Final = "trove sse v1 2026-11 key id"
NO_KEY_ID: Final = bytes(KEY_ID_BYTES)


class Mode(enum.IntEnum):
    """Whose key wraps the object's. Numbers are part of the format."""

    NODE = 1  # SSE-S3
    CUSTOMER = 2  # SSE-C: sent with each request, kept nowhere


@dataclass(frozen=True, slots=True)
class Envelope:
    """The key of one object, wrapped. What a wrong key does not open."""

    mode: Mode
    key_id: bytes  # 8, of the node's key; zeros for a customer's
    salt: bytes  # 16, random: the wrapping key is derived from it and the node's or customer's key
    wrapped: bytes = field(repr=False)  # 48, AES-256-GCM of the object's key

    def encode(self) -> bytes:
        return self.bound + self.wrapped

    @property
    def bound(self) -> bytes:
        """What the wrapping authenticates, besides the object's name."""
        fields = _ENVELOPE.pack(_ENVELOPE_MAGIC, VERSION, self.mode, 0, self.key_id, self.salt, b"")
        return fields[:-WRAPPED_BYTES]


def decode_envelope(data: bytes) -> Envelope:
    """Raises CorruptData."""
    if len(data) != _ENVELOPE.size:
        raise CorruptData("envelope has a wrong length")
    magic, version, mode, reserved, key_id, salt, wrapped = _ENVELOPE.unpack(data)
    if magic != _ENVELOPE_MAGIC or version != VERSION or reserved or mode not in Mode.__members__.values():
        raise CorruptData("envelope is of a kind this program does not know")
    return Envelope(Mode(mode), key_id, salt, wrapped)


def key_id_of(key: bytes) -> bytes:
    """8 bytes that name a node's key and tell nothing of it."""
    return blake3(key, derive_key_context=_ID_CONTEXT).digest(KEY_ID_BYTES)


def encode_key_file(keys: tuple[bytes, ...]) -> bytes:
    """The first one wraps what is new; the others open what is old."""
    assert 0 < len(keys) <= KEYS_MAX
    assert all(len(key) == KEY_BYTES for key in keys)
    fields = _KEY_FILE.pack(_KEY_MAGIC, VERSION, len(keys)) + b"".join(keys)
    return fields + blake3(fields).digest(_CHECK_BYTES)


def decode_key_file(data: bytes) -> tuple[bytes, ...]:
    """Raises CorruptData."""
    if len(data) < _KEY_FILE.size:
        raise CorruptData("key file is cut short")
    magic, version, count = _KEY_FILE.unpack_from(data)
    if magic != _KEY_MAGIC or version != VERSION or not 0 < count <= KEYS_MAX:
        raise CorruptData("not a key file that this program knows")
    end = _KEY_FILE.size + count * KEY_BYTES
    if len(data) != end + _CHECK_BYTES or blake3(data[:end]).digest(_CHECK_BYTES) != data[end:]:
        raise CorruptData("key file does not verify")
    return tuple(data[at : at + KEY_BYTES] for at in range(_KEY_FILE.size, end, KEY_BYTES))


def nonce(frame: int, *, last: bool) -> bytes:
    """12 bytes. A body's key seals this body alone, so numbers do not repeat; `last` makes a cut show."""
    return _NONCE.pack(frame, last)


def frame_count(plain: int) -> int:
    """Frames of a body of `plain` bytes; an empty one has one, so that it is authenticated, too."""
    return max(1, -(-plain // PLAIN_BYTES))


def sealed_len(plain: int) -> int:
    """Bytes of a sealed body."""
    return plain + frame_count(plain) * TAG_BYTES


def plain_len(sealed: int) -> int:
    """The inverse of `sealed_len`. Raises CorruptData for a length that no sealed body has."""
    plain = sealed - -(-sealed // FRAME_BYTES) * TAG_BYTES
    if plain < 0 or sealed_len(plain) != sealed:
        raise CorruptData("sealed body has a wrong length")
    return plain
