"""Short bytes, cut for hashing so that nobody waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

PIECE_BYTES: Final = 2047
"""hashlib and blake3 let go of the GIL for 2,048 bytes and more. Where another thread waits for it, that wakes it for
nothing: it costs more than hashing 4 KiB does (docs/adr/0151)."""
SHORT_BYTES: Final = 8 * 1024
"""Beyond this, what hashing side by side gains is more than what waking costs."""


def in_pieces(data: bytes | memoryview) -> Sequence[bytes | memoryview]:
    """The bytes in order: those of up to SHORT_BYTES in pieces below the hashes' bound, others as they are."""
    if not PIECE_BYTES < len(data) <= SHORT_BYTES:
        return (data,)
    view = memoryview(data)
    return [view[at : at + PIECE_BYTES] for at in range(0, len(view), PIECE_BYTES)]
