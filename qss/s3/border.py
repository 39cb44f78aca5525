"""What is refused before any application sees it: heads that two programs could read differently. Pure.

Granian's HTTP parser has refused before what is no HTTP (spaces before colons, folded lines, lengths that are no
numbers or contradict each other, NUL and bare CR, more than 100 headers). Here is what it lets pass, though a proxy
in front may understand it otherwise. Sources: RFC 9112 sections 3.2, 6.1 and 6.3; "HTTP desync attacks" (Kettle, 2019).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

HEAD_BYTES_MAX: Final = 64 * 1024
"""Path, query and headers. AWS takes 8 KB of headers; presigned addresses and metadata are far below."""
_SINGLE: Final = frozenset(
    {
        "authorization", "content-length", "content-md5", "content-type", "host", "transfer-encoding",
        "x-amz-content-sha256", "x-amz-copy-source", "x-amz-date", "x-amz-decoded-content-length",
    }
)  # fmt: skip
"""Headers that mean one thing: sent twice, a program may take the first, the last or both."""
_HOST: Final = re.compile(r"[A-Za-z0-9._~%!$&'()*+;=-]+(:\d{0,5})?|\[[0-9A-Fa-f:.]+\](:\d{0,5})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer; the connection is closed after it."""

    status: int
    why: str


def refusal(http_version: str, target_chars: int, headers: Sequence[tuple[str, str]]) -> Refusal | None:
    """None: let it pass. `target_chars`: length of path and query. `headers`: lower-case names, as sent."""
    total, single = target_chars, {}
    for name, value in headers:
        total += len(name) + len(value)
        if name in _SINGLE:
            if name in single:
                return Refusal(400, f"The header {name} stands twice.")
            single[name] = value
    if total > HEAD_BYTES_MAX:
        return Refusal(431, f"The head of the request is longer than {HEAD_BYTES_MAX} bytes.")
    coding = single.get("transfer-encoding")
    if coding is not None:
        if coding.lower() != "chunked":
            return Refusal(400, "The only transfer coding is chunked.")
        if "content-length" in single:
            return Refusal(400, "Content-Length and Transfer-Encoding contradict each other.")
    host = single.get("host")
    if host is None:
        return None if http_version == "1.0" else Refusal(400, "The header host is missing.")
    if not _HOST.fullmatch(host):
        return Refusal(400, "The header host is no host.")
    return None
