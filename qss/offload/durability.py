"""How likely is loss? Pure arithmetic for `init` and `status`, with its assumptions in its arguments."""

from __future__ import annotations


def default_code(locations: int) -> tuple[int, int]:
    """(k, m) for a number of locations."""
    raise NotImplementedError
