"""One request and its answer, as numbers and names: what metrics and the access log are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qss.s3.rsgi import Scope


@dataclass(slots=True)
class Exchange:
    """Filled in on the way: counts by the server, names by the application."""

    operation: str = ""  # one of few: never anything a client chose
    user: str = ""  # access key or token id; never a secret
    request_id: str = ""
    status: int = 0  # 0: the client went away before there was an answer
    bytes_in: int = 0  # of the body, as far as it was taken
    bytes_out: int = 0  # of the body, as far as it was handed over
    seconds: float = 0.0


Observer = Callable[["Scope", Exchange], None]
"""Told once for each request, when it is over. Must not raise."""
