"""The key file: bytes ↔ values. docs/formats/keyfile.md has the rules; tests/vectors/keyfile the frozen vectors.

Text, one fact a line, so that a person can see what it is and print it. No cipher here: qss.offload.slots opens slots.
Version 2 is what is written; version 1, without labels and without a MAC, is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from blake3 import blake3

from qss.errors import CorruptData
from qss.limits import KIB, MIB

VERSION: Final = 2
FILE_BYTES_MAX: Final = 128 * KIB
SLOTS_MAX: Final = 16
CHECK_BYTES: Final = 16
FS_ID_BYTES: Final = 16
KEY_BYTES: Final = 32
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 24
BOX_BYTES: Final = KEY_BYTES + 16  # the key and a Poly1305 tag
COMMITMENT_BYTES: Final = 32
MAC_BYTES: Final = 32
PUBLIC_BYTES: Final = 1184 + 32
"""Public key of a recipient: ML-KEM-768, then X25519."""
SEALED_BYTES: Final = 1088 + 32 + BOX_BYTES
"""The key sealed to a recipient by HPKE: two encapsulations, ciphertext, tag."""
CREATED_S_MAX: Final = 2**40
LABEL: Final = re.compile(r"[A-Za-z0-9._@+-]{0,64}")

MEMORY_BYTES_MIN: Final = 64 * MIB
"""Less is refused: a slot that asks for less has been tampered with to make guessing cheap."""
MEMORY_BYTES_MAX: Final = 4096 * MIB
PASSES_MIN: Final = 2
PASSES_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Note:
    """What a person wants to know of a slot; under the MAC, and not in files of version 1."""

    label: str = ""  # at most 64 of LABEL
    created_s: int = 0  # wall clock, seconds since 1970; 0: not known


NO_NOTE: Final = Note()


@dataclass(frozen=True, slots=True, repr=False)
class RawSlot:
    """The master key as it is; the file's mode is what guards it."""

    key: bytes
    note: Note = NO_NOTE

    def __repr__(self) -> str:
        return "RawSlot(…)"


@dataclass(frozen=True, slots=True)
class PassphraseSlot:
    """The master key under a passphrase: Argon2id, then XChaCha20-Poly1305."""

    memory_bytes: int
    passes: int
    salt: bytes
    nonce: bytes
    box: bytes  # the encrypted key and its tag
    commitment: bytes  # hash of the wrapping key: one box opens under one key only
    note: Note = NO_NOTE


@dataclass(frozen=True, slots=True)
class RecipientSlot:
    """The master key for whoever has a recipient's identity: hybrid X25519 and ML-KEM-768."""

    public: bytes  # whom it is for; kept to wrap the key again
    box: bytes
    note: Note = NO_NOTE


Slot = RawSlot | PassphraseSlot | RecipientSlot


def kind_of(slot: Slot) -> str:
    """raw, passphrase or recipient."""
    match slot:
        case RawSlot():
            return "raw"
        case PassphraseSlot():
            return "passphrase"
        case RecipientSlot():
            return "recipient"


@dataclass(frozen=True, slots=True)
class KeyFile:
    fs_id: bytes  # 16 bytes, not secret: which file system the key is for
    slots: tuple[Slot, ...]  # at least one; any one gives the key
    mac: bytes = b""  # `mac_of` under a key derived from the master key; empty: a file of version 1


def encode_key_file(keys: KeyFile) -> bytes:
    """A file of version 2, or of version 1 (which has neither notes nor recipients) if there is no MAC."""
    text = signed_text(keys)
    if keys.mac:
        text += f"mac {keys.mac.hex()}\n".encode("ascii")
    return text + b"check " + _check(text).encode("ascii") + b"\n"


def signed_text(keys: KeyFile) -> bytes:
    """The lines before the MAC."""
    assert 1 <= len(keys.slots) <= SLOTS_MAX
    line = _slot_line if keys.mac else _slot_line_1
    lines = [f"qss-key {VERSION if keys.mac else 1}", f"fs {keys.fs_id.hex()}", *map(line, keys.slots)]
    return "".join(line + "\n" for line in lines).encode("ascii")


def with_mac(keys: KeyFile, key: bytes) -> KeyFile:
    """The same as version 2; `key` is 32 bytes."""
    unsigned = replace(keys, mac=bytes(MAC_BYTES))
    return replace(keys, mac=blake3(signed_text(unsigned), key=key).digest())


def decode_key_file(untrusted: bytes) -> KeyFile:
    """Raises CorruptData, and nothing else."""
    if len(untrusted) > FILE_BYTES_MAX:
        raise CorruptData("too large for a key file")
    first, *lines = _lines(untrusted)
    name, _, version = first.partition(" ")
    if name != "qss-key":
        raise CorruptData("not a key file")
    if version not in ("1", "2"):
        raise CorruptData(f"a key file of version {version[:8]!r}, and this program knows 1 and 2")
    if len(lines) < 3 or not untrusted.endswith(b"\n"):
        raise CorruptData("the key file is cut short")
    text, _, check = untrusted.rpartition(b"check ")
    if check.rstrip(b"\n").decode("ascii") != _check(text):
        raise CorruptData("the key file is damaged: its check does not hold")
    fs_line, *slot_lines, _check_line = lines
    mac, read = b"", _slot_1
    if version == "2":
        mac, read = _unhex(_named("mac", slot_lines.pop(), " "), MAC_BYTES), _slot
    if not 1 <= len(slot_lines) <= SLOTS_MAX:
        raise CorruptData("the key file is damaged: its lines are not in order")
    keys = KeyFile(_unhex(_named("fs", fs_line, " "), FS_ID_BYTES), tuple(map(read, slot_lines)), mac)
    if encode_key_file(keys) != untrusted:
        raise CorruptData("the key file is not in its one right form")
    return keys


def slot_context(fs_id: bytes, slot: PassphraseSlot) -> bytes:
    """What the box of a slot is bound to: nothing of it can be changed, nor can it be moved to another file system."""
    return b"qss key slot v1 argon2id xchacha20poly1305\0" + b"".join(
        [fs_id, slot.memory_bytes.to_bytes(8, "little"), slot.passes.to_bytes(4, "little"), slot.salt]
    )


def recipient_context(fs_id: bytes, public: bytes) -> bytes:
    """What the box of a recipient's slot is bound to: HPKE's `info`."""
    return b"qss key slot v2 hpke mlkem768-x25519 hkdf-sha256 chacha20poly1305\0" + fs_id + public


# -- lines
def _slot_line(slot: Slot) -> str:
    note = f"created={slot.note.created_s} label={slot.note.label}"
    match slot:
        case RawSlot():
            return f"slot raw {note} key={slot.key.hex()}"
        case PassphraseSlot():
            return f"slot passphrase {note} kdf=argon2id {_stretching(slot)}"
        case RecipientSlot():
            return f"slot recipient {note} kem=mlkem768-x25519 public={slot.public.hex()} box={slot.box.hex()}"


def _slot_line_1(slot: Slot) -> str:
    assert not isinstance(slot, RecipientSlot), "version 1 knows none"
    if isinstance(slot, RawSlot):
        return f"slot raw {slot.key.hex()}"
    return f"slot passphrase argon2id {_stretching(slot)}"


def _stretching(slot: PassphraseSlot) -> str:
    return (
        f"memory={slot.memory_bytes} passes={slot.passes} salt={slot.salt.hex()} "
        f"nonce={slot.nonce.hex()} box={slot.box.hex()} commitment={slot.commitment.hex()}"
    )


def _slot(line: str) -> Slot:
    match line.split(" "):
        case ["slot", "raw", created, label, key]:
            return RawSlot(_unhex(_named("key", key), KEY_BYTES), _note(created, label))
        case ["slot", "passphrase", created, label, "kdf=argon2id", *stretching]:
            return _stretched(stretching, _note(created, label))
        case ["slot", "recipient", created, label, "kem=mlkem768-x25519", public, box]:
            return RecipientSlot(
                _unhex(_named("public", public), PUBLIC_BYTES),
                _unhex(_named("box", box), SEALED_BYTES),
                _note(created, label),
            )
        case _:
            raise CorruptData("the key file has a slot of a kind this program does not know")


def _slot_1(line: str) -> Slot:
    match line.split(" "):
        case ["slot", "raw", key]:
            return RawSlot(_unhex(key, KEY_BYTES))
        case ["slot", "passphrase", "argon2id", *stretching]:
            return _stretched(stretching, NO_NOTE)
        case _:
            raise CorruptData("the key file has a slot of a kind this program does not know")


def _stretched(fields: list[str], note: Note) -> PassphraseSlot:
    if len(fields) != 6:
        raise CorruptData("a passphrase slot of the key file has another number of fields")
    memory, passes, salt, nonce, box, commitment = fields
    return PassphraseSlot(
        _bounded(_named("memory", memory), MEMORY_BYTES_MIN, MEMORY_BYTES_MAX),
        _bounded(_named("passes", passes), PASSES_MIN, PASSES_MAX),
        _unhex(_named("salt", salt), SALT_BYTES),
        _unhex(_named("nonce", nonce), NONCE_BYTES),
        _unhex(_named("box", box), BOX_BYTES),
        _unhex(_named("commitment", commitment), COMMITMENT_BYTES),
        note,
    )


def _note(created: str, label: str) -> Note:
    seconds, text = _named("created", created), _named("label", label)
    if not re.fullmatch(r"[0-9]{1,13}", seconds) or int(seconds) > CREATED_S_MAX or not LABEL.fullmatch(text):
        raise CorruptData("the note of a key slot does not hold")
    return Note(text, int(seconds))


def _lines(untrusted: bytes) -> list[str]:
    try:
        return untrusted.decode("ascii").split("\n")[:-1] or [""]
    except UnicodeDecodeError:
        raise CorruptData("not a key file") from None


def _named(name: str, text: str, sign: str = "=") -> str:
    label, found, value = text.partition(sign)
    if label != name or not found:
        raise CorruptData(f"the key file has no {name} where it belongs")
    return value


def _unhex(text: str, count: int) -> bytes:
    if not re.fullmatch(r"[0-9a-f]*", text) or len(text) != 2 * count:
        raise CorruptData("a value in the key file is not hexadecimal of the right length")
    return bytes.fromhex(text)


def _bounded(text: str, least: int, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text) or not least <= int(text) <= most:
        raise CorruptData(f"a key slot asks for a cost outside {least} … {most}: somebody may have weakened it")
    return int(text)


def _check(text: bytes) -> str:
    return blake3(text).digest(length=CHECK_BYTES).hex()
