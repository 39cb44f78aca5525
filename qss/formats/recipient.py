"""A recipient's two files: the public one to give away, the identity to keep (docs/formats/recipient.md).

Text, one fact a line, as the key file. No cipher here: qss.offload.recipients makes and uses the keys.
"""

from __future__ import annotations

import re
from typing import Final

from blake3 import blake3

from qss.errors import CorruptData
from qss.formats.keyfile import PUBLIC_BYTES

VERSION: Final = 1
KEM: Final = "mlkem768-x25519"
SEED_BYTES: Final = 32
FILE_BYTES_MAX: Final = 4096
CHECK_BYTES: Final = 16
FINGERPRINT_BYTES: Final = 16

_IDENTITY: Final = "qss-identity"
_PUBLIC: Final = "qss-recipient"


def encode_identity(seed: bytes) -> bytes:
    """32 bytes of seed; whoever has them opens what was wrapped for the recipient."""
    assert len(seed) == SEED_BYTES
    return _encode(_IDENTITY, "seed", seed)


def decode_identity(untrusted: bytes) -> bytes:
    """The seed. Raises CorruptData."""
    return _decode(untrusted, _IDENTITY, "seed", SEED_BYTES)


def encode_recipient(public: bytes) -> bytes:
    """A public key, 1,216 bytes."""
    assert len(public) == PUBLIC_BYTES
    return _encode(_PUBLIC, "public", public)


def decode_recipient(untrusted: bytes) -> bytes:
    """The public key. Raises CorruptData."""
    return _decode(untrusted, _PUBLIC, "public", PUBLIC_BYTES)


def fingerprint(public: bytes) -> str:
    """What two people compare: 8 groups of 4 hexadecimal digits."""
    digest = blake3(public, derive_key_context="qss v1 2026-11 recipient fingerprint").digest(length=FINGERPRINT_BYTES)
    text = digest.hex()
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def _encode(kind: str, name: str, value: bytes) -> bytes:
    text = f"{kind} {VERSION}\nkem {KEM}\n{name} {value.hex()}\n".encode("ascii")
    return text + f"check {_check(text)}\n".encode("ascii")


def _decode(untrusted: bytes, kind: str, name: str, count: int) -> bytes:
    what = "an identity" if kind == _IDENTITY else "a recipient's public key"
    try:
        lines = untrusted[:FILE_BYTES_MAX].decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise CorruptData(f"this file is not {what}") from None
    if lines[0] != f"{kind} {VERSION}":
        raise CorruptData(f"this file is not {what} of a version known to this program")
    found = re.fullmatch(rf"{name} ([0-9a-f]{{{2 * count}}})", lines[2] if len(lines) > 2 else "")
    if found is None or _encode(kind, name, bytes.fromhex(found[1])) != untrusted:
        raise CorruptData(f"{what} is damaged: its check does not hold")
    return bytes.fromhex(found[1])


def _check(text: bytes) -> str:
    return blake3(text).digest(length=CHECK_BYTES).hex()
