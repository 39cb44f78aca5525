"""Every bound the parts share, with its unit in its name. Relations are asserted at import."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

STRIPE_BYTES: Final = 4 * MIB
"""Unit of sealing and of reading back. Part of the format: stripe s of a segment is its bytes
[s * STRIPE_BYTES, (s+1) * STRIPE_BYTES), the last one shorter. No record crosses a stripe boundary."""

BLOCK_BYTES: Final = 64 * KIB
"""Unit of verification inside a record: one checksum each, counted from the start of the payload."""

SEGMENT_BYTES_DEFAULT: Final = 64 * MIB
SEGMENT_BYTES_MAX: Final = 1 * GIB
JOURNAL_BYTES_DEFAULT: Final = 8 * MIB

NAME_BYTES_MAX: Final = 255
SYMLINK_BYTES_MAX: Final = 4095
LINKS_MAX: Final = 65_000
FILE_BYTES_MAX: Final = 2**63 - 1
XATTR_VALUE_BYTES_MAX: Final = 64 * KIB
XATTR_LIST_BYTES_MAX: Final = 64 * KIB

SHARDS_MAX: Final = 256
"""k+m: GF(2^8) has 256 evaluation points."""

assert STRIPE_BYTES % BLOCK_BYTES == 0
assert SEGMENT_BYTES_DEFAULT % STRIPE_BYTES == 0
assert SEGMENT_BYTES_MAX < 2**32  # a position inside a segment fits 32 bits
