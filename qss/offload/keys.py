"""The master key, what is derived from it, and the key file. With seal.py the only importer of nacl and cryptography.

Everything derived is BLAKE3 in derive_key mode with one context text for each purpose (docs/formats/keyfile.md).
"""

from __future__ import annotations

import hmac
import os
import stat
import struct
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import nacl.bindings
import nacl.exceptions
import nacl.pwhash
from blake3 import blake3

from qss.errors import CorruptData, Refused, WrongKey
from qss.formats.keyfile import (
    FILE_BYTES_MAX,
    FS_ID_BYTES,
    KEY_BYTES,
    NONCE_BYTES,
    SALT_BYTES,
    KeyFile,
    PassphraseSlot,
    RawSlot,
    decode_key_file,
    encode_key_file,
    slot_context,
)
from qss.formats.phrase import decode_phrase, encode_phrase
from qss.host import Entropy
from qss.ids import LocationId, SegmentId
from qss.limits import MIB

NAME_BYTES: Final = 16  # 32 hex digits


def derive_key(context: str, material: bytes) -> bytes:
    """32 bytes; BLAKE3's key derivation. `context` is a constant of the program, one for each purpose."""
    return blake3(material, derive_key_context=context).digest()


@dataclass(frozen=True, slots=True, repr=False)
class MasterKey:
    """32 random bytes from which everything else is derived. One master key is one file system."""

    raw: bytes

    def __post_init__(self) -> None:
        assert len(self.raw) == KEY_BYTES

    def __repr__(self) -> str:
        return "MasterKey(…)"

    @classmethod
    def generate(cls, entropy: Entropy) -> MasterKey:
        return cls(entropy.token(KEY_BYTES))


def fs_id_of(master: MasterKey) -> bytes:
    """16 bytes that name the file system; not secret. Recovery starts from the key alone, so it follows from it."""
    return derive_key("qss v1 2026-11 file system id", master.raw)[:FS_ID_BYTES]


@dataclass(frozen=True, slots=True, repr=False)
class FsKeys:
    """The keys of one file system, 32 bytes each."""

    fs_id: bytes  # 16 bytes
    names: bytes  # keyed hash: names of objects
    manifest: bytes  # AEAD: manifests, and what they say of segment keys
    root: bytes  # AEAD and MAC: roots
    header: bytes  # MAC: headers of shard objects

    def __repr__(self) -> str:
        return f"FsKeys(fs_id={self.fs_id.hex()}, …)"

    @classmethod
    def derive(cls, master: MasterKey, fs_id: bytes | None = None) -> FsKeys:
        """`fs_id` None: the master key's own."""
        fs_id = fs_id_of(master) if fs_id is None else fs_id
        assert len(fs_id) == FS_ID_BYTES
        material = master.raw + fs_id
        return cls(
            fs_id=fs_id,
            names=derive_key("qss v1 2026-11 object names", material),
            manifest=derive_key("qss v1 2026-11 manifests", material),
            root=derive_key("qss v1 2026-11 roots", material),
            header=derive_key("qss v1 2026-11 shard headers", material),
        )

    def shard_name(self, segment: SegmentId, generation: int, location: LocationId) -> str:
        """Name of the object that holds a segment's shard at a location; 32 hex digits. `generation` is 0 unless the
        segment was rewritten."""
        return self._name(b"shard", struct.pack("<QI", segment, generation) + location.encode())

    def root_name(self, generation: int | None) -> str:
        """Name of the root object of one generation; None: of the object that is replaced with each root."""
        return self._name(b"root", b"" if generation is None else struct.pack("<Q", generation))

    def hold_name(self) -> str:
        """Name of the object that says which machine writes the file system."""
        return self._name(b"hold", b"")

    def probe_name(self) -> str:
        """Name of an object that never exists: asking for it shows that a location answers."""
        return self._name(b"probe", b"")

    def _name(self, kind: bytes, what: bytes) -> str:
        tagged = bytes([len(kind)]) + kind + what
        return blake3(tagged, key=self.names).digest(length=NAME_BYTES).hex()


@dataclass(frozen=True, slots=True)
class PassphraseCost:
    """Argon2id: what one guess costs."""

    memory_bytes: int = 256 * MIB
    passes: int = 3


def read_key_file(path: Path, passphrase: Callable[[], str] | None = None) -> MasterKey:
    """The master key. `passphrase` is called only if the file needs one.

    Raises Refused (no such file, others may read it, a passphrase is needed), WrongKey (wrong passphrase),
    CorruptData (damaged).
    """
    keys = decode_key_file(_read_private(path))
    for slot in keys.slots:
        if isinstance(slot, RawSlot):
            return _of_this_file_system(MasterKey(slot.key), keys.fs_id)
    if passphrase is None:
        raise Refused(f"the key in {path} is locked by a passphrase, and there is nobody to ask for it")
    spoken = passphrase()
    for slot in keys.slots:
        assert isinstance(slot, PassphraseSlot)
        master = _open_slot(keys.fs_id, slot, spoken)
        if master is not None:
            return _of_this_file_system(master, keys.fs_id)
    raise WrongKey(f"the passphrase does not open the key in {path}")


def write_key_file(
    path: Path,
    master: MasterKey,
    entropy: Entropy,
    passphrase: str | None = None,
    cost: PassphraseCost = PassphraseCost(),
) -> None:
    """A new key file, mode 0600, synced; never over an existing one. Raises Refused.

    A power cut in the middle leaves a file whose check does not hold, and no data that needs it yet.
    """
    fs_id = fs_id_of(master)
    slot = RawSlot(master.raw) if passphrase is None else _close_slot(fs_id, master, entropy, passphrase, cost)
    data = encode_key_file(KeyFile(fs_id, (slot,)))
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Refused(f"{path} exists already, and a key is never overwritten: move it away or name another") from None
    except OSError as error:
        raise Refused(f"the key file {path} cannot be made: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise Refused(f"the key file {path} cannot be written: {error.strerror}") from error
    _sync_directory(path.parent)


def recovery_phrase(master: MasterKey) -> str:
    """The master key as 24 words, for paper."""
    return encode_phrase(master.raw)


def key_of_phrase(phrase: str) -> MasterKey:
    """Raises CorruptData when words are misspelt or out of order."""
    return MasterKey(decode_phrase(phrase))


# -- slots
def _close_slot(
    fs_id: bytes, master: MasterKey, entropy: Entropy, passphrase: str, cost: PassphraseCost
) -> PassphraseSlot:
    if not passphrase:
        raise Refused("the passphrase is empty: choose one, or make a key without a passphrase")
    slot = PassphraseSlot(
        cost.memory_bytes, cost.passes, entropy.token(SALT_BYTES), entropy.token(NONCE_BYTES), b"", b""
    )
    wrapping, commitment = _stretched(slot, passphrase)
    box = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
        master.raw, slot_context(fs_id, slot), slot.nonce, wrapping
    )
    return replace(slot, box=box, commitment=commitment)


def _open_slot(fs_id: bytes, slot: PassphraseSlot, passphrase: str) -> MasterKey | None:
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
    spoken = unicodedata.normalize("NFKC", passphrase).encode()
    stretched = nacl.pwhash.argon2id.kdf(KEY_BYTES, spoken, slot.salt, opslimit=slot.passes, memlimit=slot.memory_bytes)
    return (
        derive_key("qss v1 2026-11 key slot wrapping", stretched),
        derive_key("qss v1 2026-11 key slot commitment", stretched),
    )


def _of_this_file_system(master: MasterKey, fs_id: bytes) -> MasterKey:
    if fs_id_of(master) != fs_id:
        raise CorruptData("the key file is damaged: its key is not that of its file system")
    return master


# -- files
def _read_private(path: Path) -> bytes:
    """A file that only its owner may read. The mode is that of the opened file, so nobody can swap it in between."""
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise Refused(f"others may read the key file {path}: run `chmod 600 {path}`")
            return file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise Refused(f"there is no key file {path}: make one with `qssctl key new`, or restore it") from None
    except OSError as error:
        raise Refused(f"the key file {path} cannot be read: {error.strerror}") from error


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
