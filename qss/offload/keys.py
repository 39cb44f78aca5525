"""The master key and what is derived from it. The files it lies in: keyfiles.py; how they are locked: slots.py.

Everything derived is BLAKE3 in derive_key mode with one context text for each purpose (docs/formats/keyfile.md).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from qss.formats.keyfile import FS_ID_BYTES, KEY_BYTES
from qss.formats.phrase import decode_phrase, encode_phrase
from qss.host import Entropy
from qss.ids import LocationId, SegmentId

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


def recovery_phrase(master: MasterKey) -> str:
    """The master key as 24 words, for paper."""
    return encode_phrase(master.raw)


def key_of_phrase(phrase: str) -> MasterKey:
    """Raises CorruptData when words are misspelt or out of order."""
    return MasterKey(decode_phrase(phrase))
