"""Server-side encryption: an object's own key, wrapped by the node's (SSE-S3) or by the customer's (SSE-C), and bodies
in frames of AES-256-GCM. The only place in Trove that knows ciphers. Formats: docs/formats/sse.md.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from qss.errors import CorruptData, Refused
from qss.formats.sse import (
    KEY_BYTES,
    KEYS_MAX,
    NO_KEY_ID,
    PLAIN_BYTES,
    SALT_BYTES,
    TAG_BYTES,
    Envelope,
    Mode,
    decode_key_file,
    encode_key_file,
    key_id_of,
    nonce,
    sealed_len,
)
from qss.host import Entropy
from qss.s3.backend import BodyDigests, Chunk, IncomingBody
from qss.s3.errors import Code, S3Error
from qss.s3.sse import CustomerKey, Encryption, KeyNeeded, KeyNotApplicable, Sse
from qss.trove.durable import check_private, replace_durably
from qss.trove.ledger import Ledger

log = logging.getLogger(__name__)

KEY_FILE: Final = "sse.key"
KIND: Final = "sse-key"
_WAYS: Final = "its copy is put back, or `trove new-key` has made another one"
_WRAP_CONTEXT: Final = "trove sse v1 2026-11 wrapping key"
_BODY_CONTEXT: Final = "trove sse v1 2026-11 body key"
_ONCE: Final = bytes(12)
"""Nonce of a wrapping: its key is derived from a salt of its own and used for nothing else."""
_NUMBER: Final = struct.Struct(">I")


class NodeKeys:
    """The keys of a node, in `DIR/sse.key`; made when the first object needs one. The ledger remembers their ids, so
    that a file that got lost is not replaced by another one as if there had never been any."""

    def __init__(self, directory: Path, entropy: Entropy, ledger: Ledger) -> None:
        """Raises Refused for a file that is damaged or not private."""
        self._path = directory / KEY_FILE
        self._entropy = entropy
        self._ledger = ledger
        self._keys = _load(self._path)
        self._by_id = {key_id_of(key): key for key in self._keys}
        self._remembered = set(ledger.load(KIND))
        lost = self._remembered - {key_id.hex() for key_id in self._by_id}
        if lost:
            log.warning("%s lacks keys %s: what is encrypted under them cannot be read", self._path, sorted(lost))

    async def newest(self) -> bytes:
        """The key that wraps what is new, durable before anything is wrapped by it. Raises S3Error."""
        if not self._keys:
            if self._remembered:
                what = f"{KEY_FILE} of this node is gone. Nothing more is encrypted before {_WAYS}."
                raise S3Error(Code.INTERNAL_ERROR, what)
            self._keys = add_key(self._path.parent, self._entropy)
            self._by_id = {key_id_of(key): key for key in self._keys}
        newest = self._keys[0]
        name = key_id_of(newest).hex()
        if name not in self._remembered:
            await self._ledger.put(KIND, name, {})
            self._remembered.add(name)
        return newest

    def find(self, key_id: bytes) -> bytes | None:
        return self._by_id.get(key_id)


def add_key(directory: Path, entropy: Entropy) -> tuple[bytes, ...]:
    """Put a new key in front, durably. What is stored from then on is under it; the others open what is old. Returns
    all of them. Raises Refused."""
    keys = _load(directory / KEY_FILE)
    if len(keys) == KEYS_MAX:
        raise Refused(f"{directory / KEY_FILE} holds {KEYS_MAX} keys, and no more fit")
    keys = (entropy.token(KEY_BYTES), *keys)
    replace_durably(directory / KEY_FILE, encode_key_file(keys))
    return keys


def _load(path: Path) -> tuple[bytes, ...]:
    if not path.exists():
        return ()
    check_private(path)
    try:
        return decode_key_file(path.read_bytes())
    except CorruptData:
        raise Refused(f"{path} is damaged; what is encrypted under it cannot be read: put back its copy") from None


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """An object's own key, open, and its envelope."""

    envelope: Envelope
    key: bytes = field(repr=False)  # 32

    def body(self, salt: bytes = b"", number: int = 0) -> BodyCipher:
        """For one body: the object's (no salt, number 0), or that of a part with a salt of its own."""
        material = self.key + salt + _NUMBER.pack(number)
        return BodyCipher(AESGCM(blake3(material, derive_key_context=_BODY_CONTEXT).digest()))


class BodyCipher:
    """Seals and opens the frames of one body."""

    def __init__(self, cipher: AESGCM) -> None:
        self._cipher = cipher

    def seal(self, plain: Chunk | bytearray, frame: int, *, last: bool) -> bytes:
        return self._cipher.encrypt(nonce(frame, last=last), plain, None)

    def open(self, sealed: Chunk, frame: int, *, last: bool) -> bytes:
        """Raises CorruptData."""
        plain = bytearray(max(len(sealed) - TAG_BYTES, 0))
        self.open_into(memoryview(plain), sealed, frame, last=last)
        return bytes(plain)

    def open_into(self, plain: memoryview, sealed: Chunk, frame: int, *, last: bool) -> None:
        """As `open`; `plain` is as long as what is sealed. Nothing in it counts when this raises."""
        if len(sealed) != len(plain) + TAG_BYTES:
            raise CorruptData("a sealed frame is cut short")
        try:
            self._cipher.decrypt_into(nonce(frame, last=last), sealed, None, plain)
        except InvalidTag:
            raise CorruptData("a sealed frame does not verify") from None


class Sealer:
    """Makes and opens the envelopes of objects. `name` is `bucket/key`: an envelope opens under its own name only."""

    def __init__(self, keys: NodeKeys, token: Callable[[int], bytes]) -> None:
        self._keys = keys
        self._token = token

    async def new(self, name: bytes, encryption: Encryption) -> ObjectKey:
        """A new key for an object. Raises S3Error."""
        customer, salt = encryption.customer, self._token(SALT_BYTES)
        outer = await self._keys.newest() if customer is None else customer.key
        mode, key_id = (Mode.NODE, key_id_of(outer)) if customer is None else (Mode.CUSTOMER, NO_KEY_ID)
        key, empty = self._token(KEY_BYTES), Envelope(mode, key_id, salt, b"")
        wrapped = _wrapping(outer, salt).encrypt(_ONCE, key, empty.bound + name)
        return ObjectKey(Envelope(mode, key_id, salt, wrapped), key)

    def open(self, envelope: Envelope, name: bytes, customer: CustomerKey | None) -> ObjectKey:
        """Raises S3Error: KeyNeeded, KeyNotApplicable, ACCESS_DENIED for a wrong key, OBJECT_DAMAGED."""
        if envelope.mode is Mode.CUSTOMER:
            if customer is None:
                raise KeyNeeded
            key = _unwrap(envelope, customer.key, name)
            if key is None:
                raise S3Error(Code.ACCESS_DENIED)
            return ObjectKey(envelope, key)
        if customer is not None:
            raise KeyNotApplicable
        outer = self._keys.find(envelope.key_id)
        if outer is None:
            what = f"This object is encrypted under key {envelope.key_id.hex()} of this node, which {KEY_FILE} lacks."
            raise S3Error(Code.OBJECT_DAMAGED, what)
        key = _unwrap(envelope, outer, name)
        if key is None:
            raise CorruptData("the envelope of the object does not verify")
        return ObjectKey(envelope, key)

    def part_salt(self) -> bytes:
        """For one upload of a part: a part that is sent again must not be sealed by the same key."""
        return self._token(SALT_BYTES)


def sse_of(envelope: Envelope | None) -> Sse | None:
    """How an object with this envelope is kept."""
    if envelope is None:
        return None
    return Sse.MANAGED if envelope.mode is Mode.NODE else Sse.CUSTOMER


def _wrapping(outer: bytes, salt: bytes) -> AESGCM:
    return AESGCM(blake3(outer + salt, derive_key_context=_WRAP_CONTEXT).digest())


def _unwrap(envelope: Envelope, outer: bytes, name: bytes) -> bytes | None:
    try:
        return _wrapping(outer, envelope.salt).decrypt(_ONCE, envelope.wrapped, envelope.bound + name)
    except InvalidTag:
        return None


class SealedBody:
    """An IncomingBody that takes plain chunks and gives sealed frames; its digests are those of the plain bytes."""

    def __init__(self, body: IncomingBody, cipher: BodyCipher) -> None:
        self._body = body
        self._cipher = cipher

    @property
    def length(self) -> int | None:
        return None if self._body.length is None else sealed_len(self._body.length)

    async def chunks(self) -> AsyncIterator[Chunk]:
        pending = bytearray()
        frame = 0
        async for chunk in self._body.chunks():
            rest = memoryview(chunk)
            while rest:
                if len(pending) == PLAIN_BYTES:  # only now is it known not to be the last
                    yield self._cipher.seal(pending, frame, last=False)
                    pending.clear()
                    frame += 1
                taken = rest[: PLAIN_BYTES - len(pending)]
                pending += taken
                rest = rest[len(taken) :]
        yield self._cipher.seal(pending, frame, last=True)

    def digests(self) -> BodyDigests:
        return self._body.digests()
