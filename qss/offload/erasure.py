"""Reed-Solomon codes: k data shards, m parity shards, any k give all. The only importer of zfec.

The code is zfec's: GF(2^8) modulo 0x11d, systematic, Vandermonde with evaluation points 0, 1, a, a^2, … (a=2). ISA-L
driven with zfec's own generator matrix gives the same bytes many times faster (docs/adr/0021); it is compared with zfec
before it is used, for every k and m.

Everything is checked before a codec sees it: zfec loops for ever, holding the interpreter lock, on a repeated number,
and reads outside its matrix for a number out of range. No codec notices wrong bytes: verify every block first.
"""

from __future__ import annotations

import ctypes
import itertools
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache, lru_cache
from typing import Final, Protocol

import zfec
from blake3 import blake3

from qss.errors import CorruptData, TooFewShards
from qss.ids import ShardNo
from qss.limits import SHARDS_MAX
from qss.offload import gf256, isal

_log = logging.getLogger(__name__)

Block = bytes | bytearray | memoryview
"""Any contiguous buffer of bytes."""

_MATRICES_CACHED: Final = 256
_SELF_TEST_LENGTHS: Final = (1, 63, 97, 4096)


class Code(Protocol):
    """All blocks of one call have the same length, at least 1 byte. Calls block and drop the interpreter lock: run them
    in a thread. Any number of threads may share a code.

    Blocks to read from may come from afar: CorruptData for a number out of range or unequal lengths, TooFewShards for
    fewer than k, before the codec sees them. Blocks to fill are our own: AssertionError for wrong counts, numbers,
    lengths, and for memory that overlaps what is read.
    """

    @property
    def k(self) -> int: ...

    @property
    def m(self) -> int: ...

    def encode_into(self, data: Sequence[Block], parity: Sequence[memoryview]) -> None:
        """Fill the m parity blocks from the k data blocks."""
        ...

    def decode_into(self, have: Mapping[ShardNo, Block], out: Sequence[memoryview | None]) -> None:
        """Fill the k data blocks from any k verified blocks. `out[i]` None: not wanted. A block of `have` that already
        lies in its own place in `out` is not copied."""
        ...

    def rebuild_into(self, have: Mapping[ShardNo, Block], wanted: Mapping[ShardNo, memoryview]) -> None:
        """Fill the wanted blocks, data or parity, from any k verified ones."""
        ...


class Backend(Protocol):
    """From exactly k blocks compute others. Numbers are in range, different, in ascending order; lengths are equal."""

    name: str

    def compute(self, known: Mapping[ShardNo, Block], wanted: Mapping[ShardNo, memoryview]) -> None: ...


class ZfecBackend:
    """The reference."""

    name = "zfec"

    def __init__(self, k: int, m: int) -> None:
        self._k = k
        self._encoder = zfec.Encoder(k, k + m)
        self._decoder = zfec.Decoder(k, k + m)

    def compute(self, known: Mapping[ShardNo, Block], wanted: Mapping[ShardNo, memoryview]) -> None:
        blocks = list(known.values())
        if list(known) != list(range(self._k)):
            blocks = self._decoder.decode(blocks, list(known))  # zfec reorders the lists it is given: these are ours
        for block, target in zip(self._encoder.encode(blocks, list(wanted)), wanted.values(), strict=True):
            target[:] = block


class IsalBackend:
    """zfec's matrix, ISA-L's arithmetic."""

    name = "isa-l"

    def __init__(self, library: ctypes.CDLL, generator: gf256.Matrix) -> None:
        self._library = library
        self._generator = generator
        self._tables = lru_cache(_MATRICES_CACHED)(self._make_tables)

    def compute(self, known: Mapping[ShardNo, Block], wanted: Mapping[ShardNo, memoryview]) -> None:
        tables = self._tables(tuple(known), tuple(wanted))
        isal.multiply(self._library, tables, list(known.values()), list(wanted.values()))

    def _make_tables(self, known: tuple[int, ...], wanted: tuple[int, ...]) -> ctypes.Array[ctypes.c_char]:
        rows = [self._generator[number] for number in wanted]
        if known != tuple(range(len(known))):
            rows = gf256.product(rows, gf256.inverted([self._generator[number] for number in known]))
        return isal.tables(self._library, rows)


class ReedSolomon:
    """A Code over a backend: checks, picks the k blocks to work from, copies what need not be computed."""

    def __init__(self, k: int, m: int, backend: Backend) -> None:
        self._k = k
        self._m = m
        self._backend = backend

    @property
    def k(self) -> int:
        return self._k

    @property
    def m(self) -> int:
        return self._m

    def encode_into(self, data: Sequence[Block], parity: Sequence[memoryview]) -> None:
        _ours(len(data) == self.k and len(parity) == self.m, "wrong number of blocks")
        known = {ShardNo(number): block for number, block in enumerate(data)}
        self._fill(known, {ShardNo(self.k + number): block for number, block in enumerate(parity)})

    def decode_into(self, have: Mapping[ShardNo, Block], out: Sequence[memoryview | None]) -> None:
        _ours(len(out) == self.k, "decode_into fills k blocks")
        self._fill(have, {ShardNo(number): block for number, block in enumerate(out) if block is not None})

    def rebuild_into(self, have: Mapping[ShardNo, Block], wanted: Mapping[ShardNo, memoryview]) -> None:
        self._fill(have, wanted)

    def _fill(self, have: Mapping[ShardNo, Block], wanted: Mapping[ShardNo, memoryview]) -> None:
        length = self._check_have(have)
        for number, block in wanted.items():
            _ours(0 <= number < self.k + self.m, "a shard number is out of range")
            _ours(block.nbytes == length and not block.readonly, "a block to fill has the wrong length or is read-only")
        if not wanted:
            return
        _check_overlaps(have, wanted, length)
        absent = {number: wanted[number] for number in sorted(wanted) if number not in have}
        if absent:
            known = {number: have[number] for number in sorted(have)[: self.k]}
            self._backend.compute(known, absent)
        for number in wanted.keys() & have.keys():
            wanted[number][:] = have[number]  # memmove; onto itself it is nothing

    def _check_have(self, have: Mapping[ShardNo, Block]) -> int:
        """Returns the length of all blocks."""
        if any(not 0 <= number < self.k + self.m for number in have):
            raise CorruptData(f"a shard number is not below {self.k + self.m}")
        if len(have) < self.k:
            raise TooFewShards(f"{len(have)} verified shards of the {self.k} needed")
        lengths = {memoryview(block).nbytes for block in have.values()}
        if len(lengths) != 1 or 0 in lengths:
            raise CorruptData("shards of one stripe are not of the same length")
        return lengths.pop()


def _ours(holds: bool, sentence: str) -> None:
    """An assert that stays with python -O: memory would be overwritten."""
    if not holds:
        raise AssertionError(sentence)


def _check_overlaps(have: Mapping[ShardNo, Block], wanted: Mapping[ShardNo, memoryview], length: int) -> None:
    """A block to fill overlaps nothing, but may be the very place of the same block in `have`."""
    with ExitStack() as held:
        read_at = {number: held.enter_context(isal.pinned(block)) for number, block in have.items()}
        fill_at = {number: held.enter_context(isal.pinned(block)) for number, block in wanted.items()}
    in_place = {number for number, at in fill_at.items() if read_at.get(number) == at}
    places = sorted(
        [(at, False) for number, at in read_at.items() if number not in in_place]
        + [(at, True) for at in fill_at.values()]
    )
    for (left, left_filled), (right, right_filled) in itertools.pairwise(places):
        _ours(right - left >= length or not (left_filled or right_filled), "a block to fill overlaps another block")


class _Copies:
    """k+m with nothing to compute: m = 0."""

    name = "copy"

    def compute(self, known: Mapping[ShardNo, Block], wanted: Mapping[ShardNo, memoryview]) -> None:
        raise AssertionError("without parity every block is known")


@cache
def code(k: int, m: int) -> Code:
    """The code for k+m shards on the fastest backend that passed its self-test; cached. k ≥ 1, m ≥ 0, k+m ≤ 256."""
    _ours(k >= 1 and m >= 0 and k + m <= SHARDS_MAX, f"no code {k}+{m}")
    if m == 0:
        return ReedSolomon(k, m, _Copies())
    reference = ZfecBackend(k, m)
    library = _library()
    if library is None:
        return ReedSolomon(k, m, reference)
    fast = IsalBackend(library, generator_matrix(k, m))
    if not agree(k, m, reference, fast):
        _log.warning("ISA-L does not give zfec's bytes for %d+%d on this machine: using zfec, which is slower", k, m)
        return ReedSolomon(k, m, reference)
    return ReedSolomon(k, m, fast)


def backend_name() -> str:
    """Which codec this process uses: "isa-l" or "zfec"."""
    chosen = code(4, 2)
    assert isinstance(chosen, ReedSolomon)
    return chosen._backend.name


@cache
def _library() -> ctypes.CDLL | None:
    library = isal.find_library()
    if library is None:
        _log.warning("ISA-L is not installed (pip install 'qss[fast]'): erasure codes use zfec, which is slower")
    return library


def generator_matrix(k: int, m: int) -> list[bytes]:
    """The k+m rows of zfec's generator matrix, learned from zfec itself by encoding the unit vectors."""
    parity = zfec.Encoder(k, k + m).encode(gf256.identity(k), list(range(k, k + m)))
    # Block j is e_j: byte j of parity block i is the coefficient of data block j.
    return [*gf256.identity(k), *map(bytes, parity)]


def agree(k: int, m: int, reference: Backend, other: Backend) -> bool:
    """Do two backends give the same parity, and the data back from the last k shards?"""
    for length in _SELF_TEST_LENGTHS:
        noise = blake3(b"qss self-test").digest(length=k * length)
        data: dict[ShardNo, Block] = {ShardNo(number): noise[number * length :][:length] for number in range(k)}
        expected = {ShardNo(number): memoryview(bytearray(length)) for number in range(k, k + m)}
        got = {number: memoryview(bytearray(length)) for number in expected}
        reference.compute(data, expected)
        other.compute(data, got)
        if got != expected:
            return False
        known = {number: block for number, block in [*data.items(), *expected.items()] if number >= m}
        lost = {number: memoryview(bytearray(length)) for number in data if number < m}
        other.compute(known, lost)
        if any(lost[number] != data[number] for number in lost):
            return False
    return True
