"""Matrices over GF(2^8) modulo 0x11d. Pure; a row is a `bytes`, so that a row operation is two C calls.

Only for small matrices (k x k, k ≤ 256): bulk data goes through the codecs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

POLYNOMIAL: Final = 0x11D
Matrix = Sequence[bytes]


def _tables() -> tuple[list[int], list[int]]:
    powers = [0] * 255
    logs = [0] * 256
    value = 1
    for exponent in range(255):
        powers[exponent] = value
        logs[value] = exponent
        value <<= 1
        if value & 0x100:
            value ^= POLYNOMIAL
    return powers, logs


_POWERS, _LOGS = _tables()


def power(exponent: int) -> int:
    """a^exponent for the generator a = 2."""
    return _POWERS[exponent % 255]


def multiply(a: int, b: int) -> int:
    return _POWERS[(_LOGS[a] + _LOGS[b]) % 255] if a and b else 0


def inverse(a: int) -> int:
    assert a, "zero has no inverse"
    return _POWERS[-_LOGS[a] % 255]


@cache
def _times(factor: int) -> bytes:
    """Table for bytes.translate: multiplies every byte of a row."""
    return bytes(multiply(factor, value) for value in range(256))


def scaled(row: bytes, factor: int) -> bytes:
    return row if factor == 1 else row.translate(_times(factor))


def add(a: bytes, b: bytes) -> bytes:
    return (int.from_bytes(a, "little") ^ int.from_bytes(b, "little")).to_bytes(len(a), "little")


def identity(size: int) -> list[bytes]:
    return [bytes(1 if column == row else 0 for column in range(size)) for row in range(size)]


def product(left: Matrix, right: Matrix) -> list[bytes]:
    """Rows of left x right."""
    rows = []
    for coefficients in left:
        total = bytes(len(right[0]))
        for factor, row in zip(coefficients, right, strict=True):
            if factor:
                total = add(total, scaled(row, factor))
        rows.append(total)
    return rows


def inverted(matrix: Matrix) -> list[bytes]:
    """The inverse of a square matrix (Gauss-Jordan). The matrix must have one: any k rows of the code's do."""
    size = len(matrix)
    rows = [row + unit for row, unit in zip(matrix, identity(size), strict=True)]
    for column in range(size):
        pivot = next(row for row in range(column, size) if rows[row][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = scaled(rows[column], inverse(rows[column][column]))
        for row in range(size):
            factor = rows[row][column]
            if factor and row != column:
                rows[row] = add(rows[row], scaled(rows[column], factor))
    return [row[size:] for row in rows]
