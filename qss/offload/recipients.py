"""Wrapping for somebody else's public key: HPKE (RFC 9180) with the hybrid KEM of X25519 and ML-KEM-768.

HKDF-SHA256 and ChaCha20-Poly1305 do the rest. Both halves must fall before the wrapped key does. The only module that
knows public-key primitives.

Key pair from one 32-byte seed, as X-Wing and age have it: SHAKE256(seed, 96 bytes) = 64 bytes for ML-KEM-768, 32 for
X25519 (draft-connolly-cfrg-xwing-kem, c2sp.org/age).
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from qss.errors import CorruptData, Refused, WrongKey

_MLKEM_SEED_BYTES: Final = 64
_MLKEM_PUBLIC_BYTES: Final = 1184
_MISSING: Final = (
    "this build of the cryptography package cannot do X25519 with ML-KEM-768: install a newer one from PyPI"
)


def public_of(seed: bytes) -> bytes:
    """The public key of a seed, 1,216 bytes: ML-KEM-768, then X25519. Raises Refused where the library lacks it."""
    mlkem, x25519 = _halves(seed)
    return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()


def wrap(public: bytes, secret: bytes, context: bytes) -> bytes:
    """`secret` for the owner of `public`; 1,136 bytes longer. Raises CorruptData (no public key), Refused."""
    suite = _suite()
    try:
        return suite.encrypt(
            secret,
            hpke.MLKEM768X25519PublicKey(
                MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC_BYTES]),
                X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC_BYTES:]),
            ),
            info=context,
        )
    except ValueError as error:
        raise CorruptData("a recipient's public key does not hold") from error


def unwrap(seed: bytes, box: bytes, context: bytes) -> bytes:
    """What was wrapped for the owner of `seed` with the same context. Raises WrongKey, Refused."""
    suite = _suite()
    try:
        return suite.decrypt(box, hpke.MLKEM768X25519PrivateKey(*_halves(seed)), info=context)
    except (InvalidTag, ValueError) as error:
        raise WrongKey("this identity does not open what was wrapped for its recipient") from error


def _halves(seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    expanded = hashlib.shake_256(seed).digest(_MLKEM_SEED_BYTES + 32)
    try:
        return (
            MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED_BYTES]),
            X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED_BYTES:]),
        )
    except UnsupportedAlgorithm as error:
        raise Refused(_MISSING) from error


def _suite() -> hpke.Suite:
    """Never anything weaker: where the hybrid is missing, recipients are refused."""
    try:
        return hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)
    except (AttributeError, UnsupportedAlgorithm) as error:
        raise Refused(_MISSING) from error
