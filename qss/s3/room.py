"""How much a place can take yet: an extension of HEAD of a bucket. Whoever puts shards at many places chooses by it.

Answer header `x-trove-free: 123456789`: bytes of new objects the node takes before it refuses them, 0 if none; only in
answers to requests with a signature that holds. Servers that do not know it answer without the header.
"""

from __future__ import annotations

from typing import Final

from qss.errors import CorruptData
from qss.s3.scalars import number_of

HEADER: Final = "x-trove-free"


def answered(untrusted: str | None) -> int | None:
    """Bytes; None: the place does not say. Raises CorruptData."""
    if untrusted is None:
        return None
    free = number_of(untrusted, 18)
    if free is None:
        raise CorruptData(f"{HEADER}: the answer does not hold")
    return free
