"""Arithmetic of byte positions, pure."""

from __future__ import annotations


def round_up(value: int, multiple: int) -> int:
    """The least multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple
