"""Reed-Solomon codes: k data shards, m parity shards, any k give all. The only importer of zfec.

The code is zfec's: GF(2^8) modulo 0x11d, systematic, Vandermonde with evaluation points 0, 1, a, a^2, … (a=2).
ISA-L driven with the same generator matrix gives the same bytes many times faster (docs/adr/0021).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from qss.ids import ShardNo

Block = bytes | bytearray | memoryview
"""Any contiguous buffer of bytes."""


class Code(Protocol):
    """All blocks of one call have the same length, at least 1 byte. Calls block and drop the interpreter lock: run them
    in a thread. Raises ValueError (our own bug) for wrong counts, numbers or lengths, before the codec sees them;
    TooFewShards for fewer than k blocks."""

    @property
    def k(self) -> int: ...

    @property
    def m(self) -> int: ...

    def encode_into(self, data: Sequence[Block], parity: Sequence[memoryview]) -> None:
        """Fill the m parity blocks from the k data blocks."""
        ...

    def decode_into(self, have: Mapping[ShardNo, Block], out: Sequence[memoryview | None]) -> None:
        """Fill the k data blocks from any k verified blocks. `out[i]` None: not wanted. A block of `have` that already
        lies in its place in `out` is not copied."""
        ...

    def rebuild_into(self, have: Mapping[ShardNo, Block], wanted: Mapping[ShardNo, memoryview]) -> None:
        """Fill the wanted blocks, data or parity, from any k verified ones."""
        ...


def code(k: int, m: int) -> Code:
    """The code for k+m shards on the fastest backend that passed its self-test; cached. k ≥ 1, m ≥ 0, k+m ≤ 256."""
    raise NotImplementedError


def backend_name() -> str:
    """ "isa-l" or "zfec"."""
    raise NotImplementedError
