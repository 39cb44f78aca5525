"""Sealing: compression and authenticated encryption. With keys.py the only importer of nacl and cryptography.

A *stripe* is encrypted under a key that is used for it alone (derived from the segment's random key, the seal and the
stripe's number), so the nonce is zero and can never repeat. The associated data says everything a reader acts on.
A *box* is a small record under one of the file system's keys, with a random 24-byte nonce.

Suites are data: a writer uses the configured one, a reader accepts the numbers it knows, and the number is in the
associated data. docs/adr/0030 says why these two.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from backports import zstd
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from qss.errors import CorruptData
from qss.formats.manifest import FLAG_ZSTD, TAG_BYTES, Manifest, StripeFacts, block_bytes
from qss.ids import SegmentId, StripeNo
from qss.limits import KIB
from qss.offload.keys import derive_key

AES_256_GCM: Final = 1
XCHACHA20_POLY1305: Final = 2

NONCE_BYTES: Final = 24
"""Of a box."""

SAMPLES: Final = 16
SAMPLE_BYTES: Final = 8 * KIB
SHRINKS_BY: Final = 64
"""A stripe is compressed when its samples together lose at least one part in so many: a quarter of one sample."""
_SAMPLE_LEVEL: Final = 1

_STRIPE_KEY: Final = "qss v1 2026-11 stripe key"
_STRIPE_AAD = struct.Struct("<16sB16sQ16sIIIIBBB")
_STRIPE_DOMAIN: Final = b"qss stripe v1\0\0\0"
_KEY_MATERIAL = struct.Struct("<32s16s16sQI")
_ZERO_12: Final = bytes(12)
_ZERO_24: Final = bytes(24)


@dataclass(frozen=True, slots=True, repr=False)
class SealContext:
    """What all stripes of one seal share. A new one for each attempt: `dek` and `seal` are fresh random bytes."""

    fs_id: bytes  # 16 bytes
    segment: SegmentId
    seal: bytes  # 16 bytes
    dek: bytes  # 32 bytes
    suite: int
    k: int
    m: int
    stripes: int

    @classmethod
    def of(cls, manifest: Manifest) -> SealContext:
        return cls(
            manifest.fs_id, manifest.segment.id, manifest.seal, manifest.dek, manifest.suite,
            manifest.k, manifest.m, len(manifest.stripes),
        )  # fmt: skip

    def key(self, stripe: StripeNo) -> bytes:
        """32 bytes, used for one message."""
        return derive_key(_STRIPE_KEY, _KEY_MATERIAL.pack(self.dek, self.fs_id, self.seal, self.segment, stripe))

    def associated(self, stripe: StripeNo, facts: StripeFacts) -> bytes:
        return _STRIPE_AAD.pack(
            _STRIPE_DOMAIN, self.suite, self.fs_id, self.segment, self.seal, stripe, self.stripes,
            facts.plain, facts.stored, facts.flags, self.k, self.m,
        )  # fmt: skip


def seal_stripe(context: SealContext, stripe: StripeNo, plain: memoryview, level: int, out: memoryview) -> StripeFacts:
    """Compress (zstd `level`; 0: not at all; kept only if it is shorter), encrypt and zero-pad into the front of `out`.

    `out` must hold k * block_bytes(len(plain), k) bytes; the first k * facts.block of it are filled: the k data blocks.
    """
    stored: bytes | memoryview = plain
    flags = 0
    if level and may_shrink(plain):
        packed = zstd.compress(plain, level)
        if len(packed) < len(plain):
            stored, flags = packed, FLAG_ZSTD
    facts = StripeFacts(len(plain), len(stored), flags, block_bytes(len(stored), context.k))
    encrypt = _suite(context.suite).encrypt_into
    encrypt(context.key(stripe), stored, context.associated(stripe, facts), out[: facts.sealed])
    end = context.k * facts.block
    out[facts.sealed : end] = bytes(end - facts.sealed)  # the buffer is used again and again
    return facts


def may_shrink(plain: memoryview) -> bool:
    """Is it worth while to compress all of it? Judged by samples: compressing 4 MiB of noise costs four times what all
    the rest of sealing does (docs/adr/0034). What is short is always tried."""
    if len(plain) <= SAMPLES * SAMPLE_BYTES:
        return True
    part = len(plain) // SAMPLES
    first = (part - SAMPLE_BYTES) // 2  # in the middle of each part: the last 64 KiB of a stripe may be padding
    samples = b"".join(plain[at : at + SAMPLE_BYTES] for at in range(first, SAMPLES * part, part))
    saved = len(samples) - len(zstd.compress(samples, _SAMPLE_LEVEL))
    return saved * SHRINKS_BY >= len(samples)


def open_stripe(
    context: SealContext, stripe: StripeNo, facts: StripeFacts, sealed: memoryview, scratch: memoryview
) -> bytes | memoryview:
    """The plaintext of one stripe from its k data blocks end to end. Raises CorruptData.

    `scratch` has room for facts.stored bytes; the answer may be a view of it.
    """
    stored = scratch[: facts.stored]
    decrypt = _suite(context.suite).decrypt_into
    decrypt(context.key(stripe), sealed[: facts.sealed], context.associated(stripe, facts), stored)
    if not facts.flags & FLAG_ZSTD:
        return stored
    try:
        unpacker = zstd.ZstdDecompressor()
        plain: bytes = unpacker.decompress(stored, facts.plain + 1)
    except zstd.ZstdError as error:
        raise CorruptData("a stripe does not decompress") from error
    if len(plain) != facts.plain or not unpacker.eof or unpacker.unused_data:
        raise CorruptData("a stripe decompresses to another length")
    return plain


def seal_box(key: bytes, domain: bytes, record: bytes, nonce: bytes) -> bytes:
    """nonce | ciphertext | tag. `domain` says what the record is and of what; `nonce` is 24 random bytes."""
    assert len(nonce) == NONCE_BYTES
    return nonce + bytes(crypto_aead_xchacha20poly1305_ietf_encrypt(record, domain, nonce, key))


def open_box(key: bytes, domain: bytes, box: bytes) -> bytes:
    """The record. Raises CorruptData if this key and domain did not make the box."""
    if len(box) < NONCE_BYTES + TAG_BYTES:
        raise CorruptData("an encrypted record is cut short")
    try:
        nonce, sealed = bytes(box[:NONCE_BYTES]), bytes(box[NONCE_BYTES:])
        return bytes(crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, domain, nonce, key))
    except CryptoError as error:
        raise CorruptData("an encrypted record does not verify") from error


def suite_for(cpuinfo: str) -> int:
    """The suite to write with on a machine whose /proc/cpuinfo this is: AES where the processor has instructions."""
    features = {
        word
        for line in cpuinfo.splitlines()
        if line.startswith(("flags", "Features"))
        for word in line.partition(":")[2].split()
    }
    return AES_256_GCM if "aes" in features else XCHACHA20_POLY1305


def hash_of(block: bytes | memoryview) -> bytes:
    """BLAKE3, 32 bytes: how blocks are verified before anything is done with them."""
    return blake3(block).digest()


@dataclass(frozen=True, slots=True)
class _Suite:
    """`encrypt_into(key, plain, associated, out)`, out 16 bytes longer than plain; `decrypt_into` the other way."""

    encrypt_into: Callable[[bytes, bytes | memoryview, bytes, memoryview], None]
    decrypt_into: Callable[[bytes, memoryview, bytes, memoryview], None]


def _aes_encrypt(key: bytes, plain: bytes | memoryview, associated: bytes, out: memoryview) -> None:
    AESGCM(key).encrypt_into(_ZERO_12, plain, associated, out)


def _aes_decrypt(key: bytes, sealed: memoryview, associated: bytes, out: memoryview) -> None:
    try:
        AESGCM(key).decrypt_into(_ZERO_12, sealed, associated, out)
    except InvalidTag as error:
        raise CorruptData("a stripe does not verify") from error


def _xchacha_encrypt(key: bytes, plain: bytes | memoryview, associated: bytes, out: memoryview) -> None:
    out[:] = crypto_aead_xchacha20poly1305_ietf_encrypt(bytes(plain), associated, _ZERO_24, key)


def _xchacha_decrypt(key: bytes, sealed: memoryview, associated: bytes, out: memoryview) -> None:
    try:
        out[:] = crypto_aead_xchacha20poly1305_ietf_decrypt(bytes(sealed), associated, _ZERO_24, key)
    except CryptoError as error:
        raise CorruptData("a stripe does not verify") from error


_SUITES: Final = {
    AES_256_GCM: _Suite(_aes_encrypt, _aes_decrypt),
    XCHACHA20_POLY1305: _Suite(_xchacha_encrypt, _xchacha_decrypt),
}


def _suite(number: int) -> _Suite:
    try:
        return _SUITES[number]
    except KeyError:
        raise CorruptData(f"cipher suite {number} is not known to this program") from None
