"""Slots of a key file: closing and opening them. What is in them is qss.formats.keyfile.

A slot is bound to its file system and to everything that says how it is opened. The whole file is under a MAC that
follows from the master key, so that nobody who cannot open a slot can add one, or put another recipient in the place
of one: `rotate` would wrap the key for them.
"""

from __future__ import annotations

import hmac
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import nacl.bindings
import nacl.exceptions
import nacl.pwhash

from qss.errors import CorruptData, Refused, WrongKey
from qss.formats.keyfile import (
    KEY_BYTES,
    NO_NOTE,
    NONCE_BYTES,
    SALT_BYTES,
    KeyFile,
    Note,
    PassphraseSlot,
    RawSlot,
    RecipientSlot,
    Slot,
    recipient_context,
    slot_context,
    with_mac,
)
from qss.host import Entropy
from qss.limits import MIB
from qss.offload.keys import MasterKey, derive_key, fs_id_of

_MAC_KEY: Final = "qss v2 2026-11 key file"


@dataclass(frozen=True, slots=True)
class PassphraseCost:
    """Argon2id: what one guess costs."""

    memory_bytes: int = 256 * MIB
    passes: int = 3


DEFAULT_COST: Final = PassphraseCost()


@dataclass(frozen=True, slots=True, repr=False)
class Offer:
    """What its user can open a key file with, besides the file."""

    passphrase: Callable[[], str] | None = None  # called at most once, and only if it is needed
    seed: bytes | None = None  # of a recipient's identity, 32 bytes

    def __repr__(self) -> str:
        return "Offer(…)"


def signed(keys: KeyFile, master: MasterKey) -> KeyFile:
    """With the MAC that belongs to it; from here on it is a file of version 2."""
    return with_mac(keys, derive_key(_MAC_KEY, master.raw))


def close_raw(master: MasterKey, note: Note = NO_NOTE) -> RawSlot:
    return RawSlot(master.raw, note)


def close_for(master: MasterKey, public: bytes, note: Note = NO_NOTE) -> RecipientSlot:
    """A slot that a recipient's identity opens. Raises CorruptData, Refused."""
    from qss.offload.recipients import wrap  # not at the top: a mount process without recipients is 6 MiB smaller

    return RecipientSlot(public, wrap(public, master.raw, recipient_context(fs_id_of(master), public)), note)


def close_with_passphrase(
    master: MasterKey, entropy: Entropy, passphrase: str, cost: PassphraseCost = DEFAULT_COST, note: Note = NO_NOTE
) -> PassphraseSlot:
    """Raises Refused for an empty passphrase."""
    if not passphrase:
        raise Refused("the passphrase is empty: choose one, or make a key without a passphrase")
    slot = PassphraseSlot(
        cost.memory_bytes, cost.passes, entropy.token(SALT_BYTES), entropy.token(NONCE_BYTES), b"", b"", note
    )
    wrapping, commitment = _stretched(slot, passphrase)
    box = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
        master.raw, slot_context(fs_id_of(master), slot), slot.nonce, wrapping
    )
    return replace(slot, box=box, commitment=commitment)


def open_slots(keys: KeyFile, offer: Offer, slots: tuple[Slot, ...] | None = None) -> tuple[MasterKey, Slot]:
    """The master key and the slot that gave it: the first that can be opened without asking, else by passphrase.

    `slots`: only these. Raises Refused (nobody to ask), WrongKey (nothing offered opens one), CorruptData (the file
    has been tampered with).
    """
    tried = keys.slots if slots is None else slots
    for slot in tried:
        if isinstance(slot, RawSlot):
            return _of_this_file(MasterKey(slot.key), keys), slot
    if offer.seed is not None:
        from qss.offload.recipients import public_of, unwrap

        mine = public_of(offer.seed)
        for slot in tried:
            if isinstance(slot, RecipientSlot) and slot.public == mine:
                raw = unwrap(offer.seed, slot.box, recipient_context(keys.fs_id, slot.public))
                return _of_this_file(_as_key(raw), keys), slot
    locked = [slot for slot in tried if isinstance(slot, PassphraseSlot)]
    if locked and offer.passphrase is not None:
        spoken = offer.passphrase()
        for slot in locked:
            master = _open_with_passphrase(keys.fs_id, slot, spoken)
            if master is not None:
                return _of_this_file(master, keys), slot
        raise WrongKey("the passphrase does not open the key")
    if offer.seed is not None:
        raise WrongKey("the key is not wrapped for the recipient of this identity")
    if locked:
        raise Refused("the key is locked by a passphrase, and there is nobody to ask for it")
    raise Refused("the key is wrapped for recipients only: name an identity of one of them")


def _open_with_passphrase(fs_id: bytes, slot: PassphraseSlot, passphrase: str) -> MasterKey | None:
    """None: not the passphrase of this slot."""
    wrapping, commitment = _stretched(slot, passphrase)
    if not hmac.compare_digest(commitment, slot.commitment):
        return None
    try:
        raw = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
            slot.box, slot_context(fs_id, slot), slot.nonce, wrapping
        )
    except nacl.exceptions.CryptoError:
        # The passphrase is right, for the commitment holds: somebody has changed the rest.
        raise CorruptData("a slot of the key file has been tampered with") from None
    return MasterKey(raw)


def _stretched(slot: PassphraseSlot, passphrase: str) -> tuple[bytes, bytes]:
    """(wrapping key, commitment to it). RFC 9106 Argon2id with one lane; the passphrase in Unicode NFKC."""
    spoken = unicodedata.normalize("NFKC", passphrase).encode("utf-8", "surrogateescape")
    stretched = nacl.pwhash.argon2id.kdf(KEY_BYTES, spoken, slot.salt, opslimit=slot.passes, memlimit=slot.memory_bytes)
    return (
        derive_key("qss v1 2026-11 key slot wrapping", stretched),
        derive_key("qss v1 2026-11 key slot commitment", stretched),
    )


def _as_key(raw: bytes) -> MasterKey:
    if len(raw) != KEY_BYTES:
        raise CorruptData("a slot of the key file holds no key")
    return MasterKey(raw)


def _of_this_file(master: MasterKey, keys: KeyFile) -> MasterKey:
    if fs_id_of(master) != keys.fs_id:
        raise CorruptData("the key file is damaged: its key is not that of its file system")
    if keys.mac and not hmac.compare_digest(signed(keys, master).mac, keys.mac):
        raise CorruptData("the key file has been tampered with: who changed its slots did not have the key")
    return master
