"""Random bytes."""

from __future__ import annotations

import os
from typing import Protocol


class Entropy(Protocol):
    def token(self, count: int) -> bytes:
        """`count` bytes nobody can guess."""
        ...


class SystemEntropy:
    def token(self, count: int) -> bytes:
        return os.urandom(count)  # noqa: TID251 - the one place
