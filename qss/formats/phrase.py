"""A 32-byte key as 24 words: BIP-39, English list (github.com/bitcoin/bips, bip-0039; list under MIT licence).

264 bits = the key and the first 8 bits of its SHA-256; each 11 bits are one word. No two words share their first four
letters, so four letters of a word are enough when it is typed back.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import Final

from qss.errors import CorruptData

WORDS: Final = 24
KEY_BYTES: Final = 32
_BITS_PER_WORD: Final = 11
_PREFIX_LETTERS: Final = 4


def encode_phrase(key: bytes) -> str:
    """24 words, separated by single spaces."""
    assert len(key) == KEY_BYTES
    number = int.from_bytes(key + _check(key), "big")
    places = [number >> shift & 0x7FF for shift in range((WORDS - 1) * _BITS_PER_WORD, -1, -_BITS_PER_WORD)]
    return " ".join(_words()[place] for place in places)


def decode_phrase(untrusted: str) -> bytes:
    """The key. Case, spaces and line ends do not matter. Raises CorruptData with the first word that cannot be; the
    words themselves are never part of the message."""
    if len(untrusted) > 4096:
        raise CorruptData("too long for a recovery phrase")
    words = untrusted.lower().split()
    if len(words) != WORDS:
        raise CorruptData(f"a recovery phrase has {WORDS} words, not {len(words)}")
    number = 0
    for place, word in enumerate(words, start=1):
        value = _places().get(word[:_PREFIX_LETTERS])
        if value is None or not _words()[value].startswith(word):
            raise CorruptData(f"word {place} of the recovery phrase is not in the list: check its spelling")
        number = number << _BITS_PER_WORD | value
    data = number.to_bytes(KEY_BYTES + 1, "big")
    key = data[:KEY_BYTES]
    if _check(key) != data[KEY_BYTES:]:
        raise CorruptData("the recovery phrase does not hold: a word is wrong, or two are in the wrong order")
    return key


def _check(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()[:1]


@cache
def _words() -> tuple[str, ...]:
    return tuple(resources.files("qss.formats").joinpath("words_english.txt").read_text(encoding="ascii").split())


@cache
def _places() -> dict[str, int]:
    return {word[:_PREFIX_LETTERS]: place for place, word in enumerate(_words())}
