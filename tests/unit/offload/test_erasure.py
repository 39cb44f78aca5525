"""The codes against the formula of the format, against each other, and against hostile input."""

from __future__ import annotations

import itertools
import json
import logging
import threading
from pathlib import Path

import pytest
import zfec
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from qss.errors import CorruptData, TooFewShards
from qss.ids import ShardNo
from qss.offload import erasure, gf256, isal
from qss.offload.erasure import IsalBackend, ReedSolomon, ZfecBackend, agree, code, generator_matrix

VECTORS = Path(__file__).parents[2] / "vectors" / "erasure"


def noise(count: int, seed: int = 0) -> bytes:
    return blake3(seed.to_bytes(8, "little")).digest(length=count) if count else b""


def zeroed(length: int) -> memoryview:
    return memoryview(bytearray(length))


def stripe(coder: ReedSolomon | erasure.Code, length: int, seed: int = 0) -> dict[ShardNo, bytes]:
    """All k+m blocks of a stripe of noise."""
    data = [noise(length, seed * 1000 + number) for number in range(coder.k)]
    parity = [zeroed(length) for _ in range(coder.m)]
    coder.encode_into(data, parity)
    return {ShardNo(number): bytes(block) for number, block in enumerate([*data, *parity])}


def on_zfec(k: int, m: int) -> ReedSolomon:
    return ReedSolomon(k, m, ZfecBackend(k, m))


def on_isal(k: int, m: int) -> ReedSolomon:
    library = isal.find_library()
    if library is None:
        pytest.skip("ISA-L is not installed")
    return ReedSolomon(k, m, IsalBackend(library, generator_matrix(k, m)))


BOTH = pytest.mark.parametrize("make", [on_zfec, on_isal])


# -- the formula
def vandermonde(k: int, m: int) -> list[bytes]:
    """Rows of V x inverse(V's first k rows), V with points 0, 1, a, a^2, …: the code as docs/adr/0021 defines it."""
    points = [0] + [gf256.power(exponent) for exponent in range(k + m - 1)]
    rows = []
    for point in points:
        row, value = [], 1
        for _ in range(k):
            row.append(value)
            value = gf256.multiply(value, point)
        rows.append(bytes(row))
    return gf256.product(rows, gf256.inverted(rows[:k]))


@pytest.mark.parametrize(("k", "m"), [(1, 1), (1, 5), (2, 1), (4, 2), (6, 3), (10, 4), (16, 4), (29, 51), (128, 128)])
def test_the_generator_is_the_formula(k: int, m: int) -> None:
    assert generator_matrix(k, m) == vandermonde(k, m)


@given(st.integers(1, 255), st.integers(1, 255), st.integers(0, 255))
def test_field(a: int, b: int, c: int) -> None:
    assert gf256.multiply(a, gf256.inverse(a)) == 1
    assert gf256.multiply(a, b) == gf256.multiply(b, a)
    assert gf256.multiply(a, b ^ c) == gf256.multiply(a, b) ^ gf256.multiply(a, c)


# -- frozen vectors
@BOTH
@pytest.mark.parametrize("path", sorted(VECTORS.glob("*.json")), ids=lambda path: path.stem)
def test_frozen_vectors(make: type, path: Path) -> None:
    vector = json.loads(path.read_text(encoding="utf-8"))
    coder = make(vector["k"], vector["m"])
    data = [bytes.fromhex(text) for text in vector["data"]]
    parity = [zeroed(len(data[0])) for _ in range(coder.m)]
    coder.encode_into(data, parity)
    assert [block.hex() for block in parity] == vector["parity"]


def test_there_are_vectors() -> None:
    assert len(list(VECTORS.glob("*.json"))) >= 5


# -- round trips
@BOTH
@pytest.mark.parametrize(("k", "m"), [(1, 1), (1, 3), (2, 1), (2, 2), (3, 2), (4, 2), (4, 3), (6, 3)])
def test_every_pattern_of_loss(make: type, k: int, m: int) -> None:
    coder = make(k, m)
    shards = stripe(coder, 37)
    for lost in itertools.combinations(range(k + m), m):
        have = {number: block for number, block in shards.items() if number not in lost}
        out = [zeroed(37) for _ in range(k)]
        coder.decode_into(have, out)
        assert [bytes(block) for block in out] == [shards[ShardNo(number)] for number in range(k)]
        rebuilt = {ShardNo(number): zeroed(37) for number in lost}
        coder.rebuild_into(have, rebuilt)
        assert {number: bytes(block) for number, block in rebuilt.items()} == {
            number: shards[number] for number in rebuilt
        }


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_backends_read_each_other(data: st.DataObject) -> None:
    k = data.draw(st.integers(1, 20), "k")
    m = data.draw(st.integers(1, 12), "m")
    length = data.draw(st.sampled_from([1, 2, 15, 16, 31, 32, 33, 63, 64, 65, 100, 127, 1000, 4097]), "length")
    writer, reader = data.draw(st.permutations([on_zfec(k, m), on_isal(k, m)]), "backends")
    shards = stripe(writer, length)
    assert stripe(reader, length) == shards
    kept = data.draw(st.lists(st.sampled_from(range(k + m)), min_size=k, unique=True), "kept")
    have = {ShardNo(number): shards[ShardNo(number)] for number in kept}
    wanted = {number: zeroed(length) for number in shards}
    reader.rebuild_into(have, wanted)
    assert {number: bytes(block) for number, block in wanted.items()} == shards


@pytest.mark.parametrize(("k", "m"), [(128, 128), (255, 1), (1, 255), (200, 56)])
def test_the_largest_codes(k: int, m: int) -> None:
    coder = code(k, m)
    shards = stripe(coder, 65)
    have = {number: block for number, block in shards.items() if number >= m}
    out: list[memoryview | None] = [zeroed(65) for _ in range(k)]
    coder.decode_into(have, out)
    assert [bytes(block or b"") for block in out] == [shards[ShardNo(number)] for number in range(k)]


def test_without_parity() -> None:
    coder = code(3, 0)
    coder.encode_into([b"ab", b"cd", b"ef"], [])
    out = [zeroed(2) for _ in range(3)]
    have = {ShardNo(0): b"ab", ShardNo(1): b"cd", ShardNo(2): b"ef"}
    coder.decode_into(have, out)
    assert b"".join(out) == b"abcdef"
    with pytest.raises(TooFewShards):
        coder.decode_into({ShardNo(0): b"ab"}, out)


def test_k_of_1_is_replication() -> None:
    assert set(stripe(code(1, 3), 100).values()) == {noise(100)}


# -- memory
@BOTH
def test_blocks_already_in_place_stay_and_the_rest_lands_beside_them(make: type) -> None:
    coder = make(4, 2)
    shards = stripe(coder, 1000)
    buffer = memoryview(bytearray(4000))
    places = [buffer[number * 1000 :][:1000] for number in range(4)]
    have: dict[ShardNo, bytes | bytearray | memoryview] = {}
    for number in (0, 3):
        places[number][:] = shards[ShardNo(number)]
        have[ShardNo(number)] = places[number]
    have |= {number: shards[number] for number in (ShardNo(4), ShardNo(5))}
    coder.decode_into(have, places)
    assert bytes(buffer) == b"".join(shards[ShardNo(number)] for number in range(4))


@BOTH
def test_unwanted_blocks_are_left_out(make: type) -> None:
    coder = make(4, 2)
    shards = stripe(coder, 10)
    out = [None, zeroed(10), None, None]
    coder.decode_into({number: shards[number] for number in shards if number >= 2}, out)
    assert out[1] == shards[ShardNo(1)]


@BOTH
def test_more_than_k_blocks_are_fine(make: type) -> None:
    coder = make(4, 3)
    shards = stripe(coder, 10)
    out = [zeroed(10) for _ in range(4)]
    coder.decode_into(dict(reversed([(n, b) for n, b in shards.items() if n])), out)
    assert [bytes(block) for block in out] == list(shards.values())[:4]


def test_overlaps_are_refused() -> None:
    coder = code(2, 1)
    shards = stripe(coder, 8)
    buffer = memoryview(bytearray(16))
    buffer[:8] = shards[ShardNo(2)]
    with pytest.raises(AssertionError, match="overlaps"):
        coder.decode_into({ShardNo(2): buffer[:8], ShardNo(1): shards[ShardNo(1)]}, [buffer[:8], buffer[8:]])
    with pytest.raises(AssertionError, match="overlaps"):
        coder.rebuild_into(shards, {ShardNo(0): buffer[:8], ShardNo(1): buffer[4:12]})


# -- hostile input
@pytest.mark.parametrize("number", [-1, 6, 255, 256, 2**31])
def test_numbers_out_of_range(number: int) -> None:
    coder = code(4, 2)
    have = stripe(coder, 8) | {ShardNo(number): bytes(8)}
    with pytest.raises(CorruptData):
        coder.decode_into(have, [zeroed(8) for _ in range(4)])
    with pytest.raises(AssertionError):
        coder.rebuild_into(stripe(coder, 8), {ShardNo(number): zeroed(8)})


@pytest.mark.parametrize("length", [0, 7, 9, 800])
def test_unequal_lengths(length: int) -> None:
    coder = code(4, 2)
    have = stripe(coder, 8) | {ShardNo(3): bytes(length)}
    with pytest.raises(CorruptData):
        coder.decode_into(have, [zeroed(8) for _ in range(4)])
    with pytest.raises(AssertionError):
        coder.decode_into(stripe(coder, 8), [zeroed(length) for _ in range(4)])


def test_empty_blocks() -> None:
    with pytest.raises(CorruptData):
        code(2, 1).decode_into({ShardNo(0): b"", ShardNo(1): b""}, [zeroed(0), zeroed(0)])


def test_too_few() -> None:
    coder = code(4, 2)
    shards = stripe(coder, 8)
    have = {number: shards[number] for number in list(shards)[:3]}
    with pytest.raises(TooFewShards):
        coder.decode_into(have, [zeroed(8) for _ in range(4)])


def test_our_own_mistakes() -> None:
    coder = code(2, 1)
    with pytest.raises(AssertionError):
        coder.encode_into([b"a"], [zeroed(1)])
    with pytest.raises(AssertionError):
        coder.encode_into([b"a", b"b"], [memoryview(b"c")])  # read-only
    with pytest.raises(AssertionError):
        coder.decode_into(stripe(coder, 1), [zeroed(1)])
    for k, m in [(0, 1), (1, -1), (200, 57)]:
        with pytest.raises(AssertionError):
            code(k, m)


# -- choosing a backend
class _WrongByte:
    """A codec with a defect in one byte of parity."""

    name = "wrong"

    def __init__(self, k: int, m: int) -> None:
        self._right = ZfecBackend(k, m)

    def compute(self, known: dict[ShardNo, bytes], wanted: dict[ShardNo, memoryview]) -> None:
        self._right.compute(known, wanted)
        last = wanted[max(wanted)]
        last[len(last) - 1] ^= 1


def test_a_codec_that_differs_is_not_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    assert agree(4, 2, ZfecBackend(4, 2), ZfecBackend(4, 2))
    assert not agree(4, 2, ZfecBackend(4, 2), _WrongByte(4, 2))
    monkeypatch.setattr(erasure, "IsalBackend", lambda library, generator: _WrongByte(4, 2))
    monkeypatch.setattr(erasure, "_library", object)
    with caplog.at_level(logging.WARNING):
        chosen = code.__wrapped__(4, 2)
    assert chosen._backend.name == "zfec"
    assert "zfec" in caplog.text


def test_without_isal(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(isal, "find_library", lambda: None)
    with caplog.at_level(logging.WARNING):
        assert erasure._library.__wrapped__() is None
    assert "qss[fast]" in caplog.text
    monkeypatch.setattr(erasure, "_library", lambda: None)
    assert code.__wrapped__(4, 2)._backend.name == "zfec"


def test_backend_name() -> None:
    assert erasure.backend_name() == ("zfec" if isal.find_library() is None else "isa-l")


def test_threads_share_a_code() -> None:
    coder = code(4, 2)
    expected = stripe(coder, 100_000)
    wrong: list[int] = []

    def work(number: int) -> None:
        if stripe(coder, 100_000) != expected:
            wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_zfec_still_has_the_shape_we_learn_from() -> None:
    """Unit vectors in, columns of the matrix out."""
    assert zfec.Encoder(2, 3).encode([b"\x01\x00", b"\x00\x01"], [2])[0] == generator_matrix(2, 1)[2]
