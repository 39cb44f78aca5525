"""The key file: bytes ↔ values. docs/formats/keyfile.md has the rules; tests/vectors/keyfile the frozen vectors.

Text, one fact a line, so that a person can see what it is and print it. No cipher here: qss.offload.keys opens slots.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from qss.errors import CorruptData
from qss.limits import KIB, MIB

VERSION: Final = 1
FILE_BYTES_MAX: Final = 64 * KIB
SLOTS_MAX: Final = 16
CHECK_BYTES: Final = 16
FS_ID_BYTES: Final = 16
KEY_BYTES: Final = 32
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 24
BOX_BYTES: Final = KEY_BYTES + 16  # the key and a Poly1305 tag
COMMITMENT_BYTES: Final = 32

MEMORY_BYTES_MIN: Final = 64 * MIB
"""Less is refused: a slot that asks for less has been tampered with to make guessing cheap."""
MEMORY_BYTES_MAX: Final = 4096 * MIB
PASSES_MIN: Final = 2
PASSES_MAX: Final = 64


@dataclass(frozen=True, slots=True, repr=False)
class RawSlot:
    """The master key as it is; the file's mode is what guards it."""

    key: bytes

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


Slot = RawSlot | PassphraseSlot


@dataclass(frozen=True, slots=True)
class KeyFile:
    fs_id: bytes  # 16 bytes, not secret: which file system the key is for
    slots: tuple[Slot, ...]  # at least one; any one gives the key


def encode_key_file(keys: KeyFile) -> bytes:
    assert 1 <= len(keys.slots) <= SLOTS_MAX
    lines = [f"qss-key {VERSION}", f"fs {keys.fs_id.hex()}", *map(_slot_line, keys.slots)]
    text = "".join(line + "\n" for line in lines).encode("ascii")
    return text + b"check " + _check(text).encode("ascii") + b"\n"


def decode_key_file(untrusted: bytes) -> KeyFile:
    """Raises CorruptData, and nothing else."""
    if len(untrusted) > FILE_BYTES_MAX:
        raise CorruptData("too large for a key file")
    first, *lines = _lines(untrusted)
    name, _, version = first.partition(" ")
    if name != "qss-key":
        raise CorruptData("not a key file")
    if version != str(VERSION):
        raise CorruptData(f"a key file of version {version[:8]!r}, and this program knows only {VERSION}")
    if len(lines) < 3 or not untrusted.endswith(b"\n"):
        raise CorruptData("the key file is cut short")
    text, _, check = untrusted.rpartition(b"check ")
    if check.rstrip(b"\n").decode("ascii") != _check(text):
        raise CorruptData("the key file is damaged: its check does not hold")
    fs_line, *slot_lines, _check_line = lines
    label, _, fs_id = fs_line.partition(" ")
    if label != "fs" or not 1 <= len(slot_lines) <= SLOTS_MAX:
        raise CorruptData("the key file is damaged: its lines are not in order")
    keys = KeyFile(_unhex(fs_id, FS_ID_BYTES), tuple(map(_slot, slot_lines)))
    if encode_key_file(keys) != untrusted:
        raise CorruptData("the key file is not in its one right form")
    return keys


def slot_context(fs_id: bytes, slot: PassphraseSlot) -> bytes:
    """What the box of a slot is bound to: nothing of it can be changed, nor can it be moved to another file system."""
    return b"qss key slot v1 argon2id xchacha20poly1305\0" + b"".join(
        [fs_id, slot.memory_bytes.to_bytes(8, "little"), slot.passes.to_bytes(4, "little"), slot.salt]
    )


def _slot_line(slot: Slot) -> str:
    if isinstance(slot, RawSlot):
        return f"slot raw {slot.key.hex()}"
    return (
        f"slot passphrase argon2id memory={slot.memory_bytes} passes={slot.passes} salt={slot.salt.hex()} "
        f"nonce={slot.nonce.hex()} box={slot.box.hex()} commitment={slot.commitment.hex()}"
    )


def _slot(line: str) -> Slot:
    match line.split(" "):
        case ["slot", "raw", key]:
            return RawSlot(_unhex(key, KEY_BYTES))
        case ["slot", "passphrase", "argon2id", memory, passes, salt, nonce, box, commitment]:
            return PassphraseSlot(
                _bounded(_field("memory", memory), MEMORY_BYTES_MIN, MEMORY_BYTES_MAX),
                _bounded(_field("passes", passes), PASSES_MIN, PASSES_MAX),
                _unhex(_field("salt", salt), SALT_BYTES),
                _unhex(_field("nonce", nonce), NONCE_BYTES),
                _unhex(_field("box", box), BOX_BYTES),
                _unhex(_field("commitment", commitment), COMMITMENT_BYTES),
            )
        case _:
            raise CorruptData("the key file has a slot of a kind this program does not know")


def _lines(untrusted: bytes) -> list[str]:
    try:
        return untrusted.decode("ascii").split("\n")[:-1] or [""]
    except UnicodeDecodeError:
        raise CorruptData("not a key file") from None


def _field(name: str, text: str) -> str:
    label, equals, value = text.partition("=")
    if label != name or not equals:
        raise CorruptData(f"a key slot has no {name} where it belongs")
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
