"""Half-open byte intervals `[start, stop)`, pure."""

from __future__ import annotations

from collections.abc import Iterator


def intersect(a_start: int, a_stop: int, b_start: int, b_stop: int) -> tuple[int, int] | None:
    """The common part of two intervals, or None where they do not meet."""
    start, stop = max(a_start, b_start), min(a_stop, b_stop)
    return (start, stop) if start < stop else None


def pieces(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Cut `[start, stop)` at the multiples of `size`."""
    while start < stop:
        edge = min((start // size + 1) * size, stop)
        yield start, edge
        start = edge


def round_up(value: int, multiple: int) -> int:
    """The least multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple
